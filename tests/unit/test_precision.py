"""Precision codes and configs, and the products' names."""

from __future__ import annotations

import itertools
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from numba_fftmatvec.errors import PrecisionError
from numba_fftmatvec.precision import MatvecConfig, MatvecPrecisionConfig, Precision
from reference import PRODUCTS, roundoff

STAGES = ("broadcast_and_pad", "fft", "sbgemv", "ifft", "unpad_and_reduce")
CODES = ["".join(letters) for letters in itertools.product("ds", repeat=5)]


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
    with pytest.raises(PrecisionError, match=f"expected letters of d, s, found '{letter}'"):
        MatvecPrecisionConfig.from_code(f"dd{letter}dd")


@pytest.mark.parametrize(("precision", "bits"), [(Precision.DOUBLE, 64), (Precision.SINGLE, 32)])
def test_dtypes(precision: Precision, bits: int) -> None:
    assert precision.real == np.dtype(f"float{bits}")
    assert precision.complex == np.dtype(f"complex{2 * bits}")


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str) -> None:
    flags = PRODUCTS[name]
    config = MatvecConfig(flags.method == "transpose_matvec", flags.full, flags.use_aux_mat)
    assert (config.name, config.input_space, config.output_space) == (name, flags.source, flags.target)
