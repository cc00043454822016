"""Precision codes and configs, and the products' names."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from numba_fftmatvec.errors import PrecisionError
from numba_fftmatvec.precision import MatvecPrecisionConfig, Precision
from numba_fftmatvec.products import MatvecConfig
from support.reference import PRODUCTS, roundoff

STAGES = ("broadcast_and_pad", "fft", "sbgemv", "ifft", "unpad_and_reduce")
CODES = ["".join(letters) for letters in itertools.product("ds", repeat=5)]
FIXED = {"i": Precision.FIXED32, "h": Precision.FIXED16}


def test_default_is_double() -> None:
    assert tuple(field.name for field in fields(MatvecPrecisionConfig)) == STAGES
    assert MatvecPrecisionConfig().code == "ddddd"


@pytest.mark.parametrize("code", CODES)
def test_code_round_trip(code: str) -> None:
    config = MatvecPrecisionConfig.from_code(code)
    assert [getattr(config, stage).value for stage in STAGES] == list(code)
    assert config.code == code
    assert MatvecPrecisionConfig.from_code(code.upper()) == config
    assert config.unit_roundoff == roundoff(code)


@pytest.mark.parametrize("letter", FIXED)
@pytest.mark.parametrize("others", ["dddd", "ssss", "dssd"])
def test_code_of_a_fixed_point_spectrum(letter: str, others: str) -> None:
    code = f"{others[:2]}{letter}{others[2:]}"
    config = MatvecPrecisionConfig.from_code(code)
    assert config.sbgemv is FIXED[letter]
    assert config.code == code
    assert MatvecPrecisionConfig.from_code(code.upper()) == config
    assert replace(config, sbgemv=Precision.DOUBLE).code == f"{others[:2]}d{others[2:]}"


def test_fixed_point_is_assigned_to_sbgemv() -> None:
    config = MatvecPrecisionConfig()
    for letter, precision in FIXED.items():
        config.sbgemv = precision
        assert config.code == f"dd{letter}dd"


@pytest.mark.parametrize("letter", FIXED)
@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "sbgemv"])
def test_other_stages_have_no_fixed_point(letter: str, stage: str) -> None:
    message = f"^precision of {stage}: expected DOUBLE or SINGLE, found {FIXED[letter].name}, a format of sbgemv$"
    config = MatvecPrecisionConfig()
    with pytest.raises(PrecisionError, match=message):
        setattr(config, stage, FIXED[letter])
    assert config.code == "ddddd"
    with pytest.raises(PrecisionError, match=message):
        MatvecPrecisionConfig(**{stage: FIXED[letter]})
    place = STAGES.index(stage)
    with pytest.raises(PrecisionError, match=message):
        MatvecPrecisionConfig.from_code("ddddd"[:place] + letter + "ddddd"[place + 1 :])


@pytest.mark.parametrize(("precision", "bits"), [(Precision.FIXED32, 32), (Precision.FIXED16, 16)])
def test_unit_roundoff_bounds_the_rounding_of_both_parts(precision: Precision, bits: int) -> None:
    """Parts of a run are rounded to multiples of its largest part divided by 2^(bits - 1) - 1."""
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 1, (1000, 2)) @ [1, 1j]
    step = max(np.abs(values.real).max(), np.abs(values.imag).max()) / (2 ** (bits - 1) - 1)
    rounded = step * (np.round(values.real / step) + 1j * np.round(values.imag / step))
    error = np.abs(rounded - values).max() / np.abs(values).max()
    assert precision.unit_roundoff / 8 < error <= precision.unit_roundoff


@pytest.mark.parametrize(
    ("code", "exponent"), [("ddddd", 53), ("ddidd", 31), ("ddsdd", 24), ("ssiss", 24), ("ddhdd", 15), ("sshss", 15)]
)
def test_unit_roundoff_is_that_of_the_least_precise_stage(code: str, exponent: int) -> None:
    assert MatvecPrecisionConfig.from_code(code).unit_roundoff == 2.0**-exponent


@pytest.mark.parametrize("stage", STAGES)
def test_fields_are_assignable(stage: str) -> None:
    config = MatvecPrecisionConfig()
    setattr(config, stage, Precision.SINGLE)
    assert config == MatvecPrecisionConfig(**{stage: Precision.SINGLE})
    assert config.code.count("s") == 1


@pytest.mark.parametrize("value", ["s", None, 1, np.float32])
def test_fields_are_checked(value: Any) -> None:
    config = MatvecPrecisionConfig()
    with pytest.raises(PrecisionError, match=r"^precision of fft: expected a Precision, found "):
        config.fft = value
    assert config.code == "ddddd"


def test_unknown_stage() -> None:
    with pytest.raises(PrecisionError, match=r"unpad_and_reduce, found 'gemv'$"):
        MatvecPrecisionConfig().gemv = Precision.SINGLE  # type: ignore[attr-defined]


@pytest.mark.parametrize("code", ["", "dddd", "dddddd", None, 5])
def test_code_of_other_length(code: Any) -> None:
    with pytest.raises(PrecisionError, match="expected 5 letters, found "):
        MatvecPrecisionConfig.from_code(code)


@pytest.mark.parametrize("letter", ["x", "q", " ", "1"])
def test_unknown_letter(letter: str) -> None:
    with pytest.raises(PrecisionError, match=f"expected letters of d, s, i, h, found '{letter}'"):
        MatvecPrecisionConfig.from_code(f"dd{letter}dd")


def test_the_first_unknown_letter_is_named() -> None:
    with pytest.raises(PrecisionError, match=r"precision code 'dxqdy': expected letters of d, s, i, h, found 'x'$"):
        MatvecPrecisionConfig.from_code("dxqdy")


@pytest.mark.parametrize(("precision", "bits"), [(Precision.DOUBLE, 64), (Precision.SINGLE, 32)])
def test_dtypes(precision: Precision, bits: int) -> None:
    assert precision.real == np.dtype(f"float{bits}")
    assert precision.complex == np.dtype(f"complex{2 * bits}")


def test_fixed_point_formats() -> None:
    assert [precision.name for precision in Precision if precision.is_fixed] == ["FIXED32", "FIXED16"]


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str) -> None:
    flags = PRODUCTS[name]
    config = MatvecConfig(flags.method == "transpose_matvec", flags.full, flags.use_aux_mat)
    assert (config.name, config.input_space, config.output_space) == (name, flags.source, flags.target)


@pytest.mark.parametrize("precision", [Precision.FIXED32, Precision.FIXED16])
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_fixed_point_has_no_dtype(precision: Precision, kind: str) -> None:
    with pytest.raises(PrecisionError, match=f"expected DOUBLE or SINGLE, found {precision.name}"):
        getattr(precision, kind)
