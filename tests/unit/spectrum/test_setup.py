"""Set-up of a matrix: pieces, sources, values that are not finite, shared spectra, and conversions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numba_fftmatvec as fm
from numba_fftmatvec.layout import MatrixLayout
from numba_fftmatvec.spectrum import capacity
from numba_fftmatvec.spectrum.sources import ParallelCopy
from support import reference
from support.files import write_matrix
from support.spectra import CODES, ERRORS, ND, NM, NT, PRECISIONS, SHAPE, STORED, F, G, check_product, matrix_of

COARSER = [precision for precision in fm.Precision if precision is not fm.Precision.DOUBLE]


@pytest.fixture(params=[1, 4, 5, 11])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the columns set up at a time: one, numbers that divide all columns or do not, and all."""
    layout = MatrixLayout.of(SHAPE, (1, 1), (0, 0))
    monkeypatch.setattr(capacity, "SETUP_BYTES", request.param * capacity.column_bytes(layout))
    return int(request.param)


def values_of(matrix: Any) -> np.ndarray:
    """Return the values that a matrix represents."""
    return stored_values(matrix.spectra["F"])


def stored_values(spectrum: Any) -> np.ndarray:
    return np.stack([spectrum.block_row(row) for row in range(ND)])


def check_values(found: np.ndarray, expected: np.ndarray, code: str) -> None:
    assert abs(found - expected).max() <= ERRORS[code] * abs(expected).max()


# Pieces


@pytest.mark.parametrize("code", CODES)
def test_pieces_make_no_difference(comm: Any, columns: int, code: str) -> None:
    found = values_of(matrix_of(comm, F, code))
    check_values(found, F, code)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capacity, "SETUP_BYTES", 1 << 30)
        np.testing.assert_array_equal(values_of(matrix_of(comm, F, code)), found)


def test_pieces_of_fills_know_their_indices(comm: Any, columns: int) -> None:
    matrix = fm.Matrix(comm, NM, ND, NT, global_sizes=True)
    matrix.init_mat_doubles()
    check_values(values_of(matrix), reference.padded_doubles(SHAPE), "ddddd")
    matrix.init_mat_ones()
    check_values(values_of(matrix), np.ones(SHAPE), "ddddd")


def test_pieces_of_files(comm: Any, columns: int, tmp_path: Path) -> None:
    write_matrix(tmp_path, F)
    check_values(values_of(fm.Matrix(comm, str(tmp_path))), F, "ddddd")


def test_a_function_is_called_once_for_each_row(comm: Any, columns: int) -> None:
    calls: list[int] = []

    def rows(d: int) -> Any:
        calls.append(d)
        return F[d]

    matrix = fm.Matrix(comm, NM, ND, NT, global_sizes=True)
    matrix.init_mat_from_array(rows)
    assert calls == list(range(ND))
    check_product(matrix, F)
    matrix.init_mat_from_array(lambda d: 2 * rows(d))
    check_product(matrix, 2 * F)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint64, np.bool_, np.longdouble])
def test_pieces_of_any_dtype_and_strides(comm: Any, columns: int, dtype: Any) -> None:
    values = np.abs(np.round(4 * F)).astype(dtype)
    strided = np.asfortranarray(np.repeat(values, 2, axis=2))[:, ::-1, ::2]
    check_values(values_of(matrix_of(comm, strided)), values[:, ::-1].astype(float), "ddddd")


@pytest.mark.parametrize("shape", [(10, 20000, 1000), (100, 5000, 1000), (1, 1, 1), (3, 7, 10**8)], ids=str)
@pytest.mark.parametrize("grid", [(1, 1), (1, 3)])
def test_pieces_cover_a_row_in_bounded_memory(shape: tuple[int, int, int], grid: tuple[int, int]) -> None:
    if shape[1] < grid[1]:
        grid = (1, 1)
    layout = MatrixLayout.of(shape, grid, (0, grid[1] - 1))
    pieces = capacity.column_pieces(layout)
    assert [col for piece in pieces for col in piece] == list(layout.block_cols)
    largest = max(map(len, pieces))
    assert len(pieces[0]) == largest
    assert largest == 1 or largest * capacity.column_bytes(layout) <= capacity.SETUP_BYTES


def test_copies_of_several_threads() -> None:
    values = np.random.default_rng(0).integers(-99, 99, (1001, 2000)).astype(np.int32)
    copy = ParallelCopy(4)
    for source in (values, values.astype(float)[::-1], values.T.copy().T, values[:1], values[:, :3]):
        target = np.full(source.shape, np.nan)
        copy(target, source)
        np.testing.assert_array_equal(target, source)
    with pytest.raises(TypeError, match="same_kind"):  # of a thread
        copy(np.empty(values.shape, np.int32), values.astype(float))


# Refused values


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("allowed", [False, True])
def test_values_that_are_not_finite(comm: Any, columns: int, code: str, bad: float, allowed: bool) -> None:
    """They are refused unless the caller allows them; fixed point has no such numbers."""
    values = F.copy()
    values[2, 7, 5] = bad
    matrix = matrix_of(comm, F, code)
    if allowed and not STORED[code].is_fixed:
        matrix.init_mat_from_array(values, allow_nonfinite=True)
        found = np.isfinite(values_of(matrix)).all(axis=2)
        assert np.argwhere(~found).tolist() == [[2, 7]]
        return
    says = rf"block \(row 2, column 7\).*{PRECISIONS[code].name}.*NaN or infinity"
    with pytest.raises(fm.NonFiniteError, match=says) as caught:
        matrix.init_mat_from_array(values, allow_nonfinite=allowed)
    assert ("allow_nonfinite" in str(caught.value)) == (not STORED[code].is_fixed)
    assert not matrix.is_initialized()
    matrix.init_mat_from_array(F)  # the failure leaves no state behind
    check_values(values_of(matrix), F, code)


@pytest.mark.parametrize("code", ["ddddd", "ddsdd"])
def test_values_whose_transform_overflows(comm: Any, code: str) -> None:
    """The values alternate, so the transform overflows at a high frequency alone."""
    largest = {"ddddd": 1e308, "ddsdd": 8e38}[code]
    values = largest * np.where(np.arange(F.shape[2]) % 2, -1.0, 1.0) * np.ones_like(F)
    config = fm.MatvecPrecisionConfig.from_code(code)
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(fm.NonFiniteError, match="finite transform"):
        fm.Matrix.from_array(comm, values, config)


def test_files_with_values_that_are_not_finite(comm: Any, tmp_path: Any) -> None:
    values = F.copy()
    values[2, 7, 5] = np.nan
    fm.Matrix.from_array(comm, values, allow_nonfinite=True).save(tmp_path / "F")
    with pytest.raises(fm.FileFormatError, match="finite values, found nan"):
        fm.Matrix(comm, tmp_path / "F")
    matrix = fm.Matrix(comm, tmp_path / "F", tmp_path / "F", allow_nonfinite=True)
    matrix.init_mat_from_file(tmp_path / "F", allow_nonfinite=True)
    assert np.argwhere(np.isnan(values_of(matrix)).all(axis=2)).tolist() == [[2, 7]]


def test_converted_values_that_are_not_finite(comm: Any) -> None:
    """What the caller allowed stays allowed in another precision, except in fixed point."""
    values = F.copy()
    values[2, 7, 5] = np.inf
    matrix = fm.Matrix.from_array(comm, values, allow_nonfinite=True)
    single = matrix.with_precision(fm.MatvecPrecisionConfig.from_code("ddsdd"))
    assert not np.isfinite(values_of(single)).all()
    with pytest.raises(fm.NonFiniteError, match="FIXED32"):
        matrix.with_precision(fm.MatvecPrecisionConfig.from_code("ddidd"))


# Shared spectra


def sharing(comm: Any) -> tuple[Any, Any]:
    """Return two matrices of one spectrum."""
    one = matrix_of(comm)
    return one, one.with_precision(fm.MatvecPrecisionConfig())


def test_a_shared_spectrum_is_not_overwritten(comm: Any) -> None:
    one, other = sharing(comm)
    one.init_mat_from_array(G)
    check_product(one, G)
    check_product(other, F)
    assert one.spectra["F"] is not other.spectra["F"]


@pytest.mark.parametrize("leave", ["close", "delete", "load"])
def test_what_is_shared_no_longer_is_used_again(comm: Any, leave: str) -> None:
    one, other = sharing(comm)
    kept = one.spectra["F"]
    if leave == "close":
        other.close()
    elif leave == "delete":
        del other
    else:
        other.init_mat_ones()
    one.init_mat_from_array(G)
    assert one.spectra["F"] is kept
    check_product(one, G)


def test_a_failed_load_leaves_a_shared_spectrum_alone(comm: Any) -> None:
    one, other = sharing(comm)
    with pytest.raises(ZeroDivisionError):
        one.init_mat_from_array(lambda d: G[d] if d < 2 else 1 // 0)
    assert not one.is_initialized()
    check_product(other, F)


# Conversions


@pytest.mark.parametrize("target", list(fm.Precision), ids=lambda target: target.name)
@pytest.mark.parametrize("code", CODES)
def test_conversions(comm: Any, columns: int, code: str, target: Any) -> None:
    """A conversion rounds the stored values once more, but not for a format that represents them exactly."""
    source = matrix_of(comm, F, code).spectra["F"]
    before = stored_values(source)
    found = source.converted(target)
    assert (found.precision, found.format) == (target, target.format)
    coarser = max(ERRORS[code], *(ERRORS[c] for c in CODES if PRECISIONS[c] == target))
    assert abs(stored_values(found) - before).max() <= coarser * abs(F).max()
    np.testing.assert_array_equal(stored_values(source), before)
    if target in (fm.Precision.DOUBLE, PRECISIONS[code]) and not target.is_fixed:
        np.testing.assert_array_equal(stored_values(found), before)


@pytest.mark.parametrize("target", COARSER, ids=lambda target: target.name)
def test_a_conversion_is_what_loading_makes(comm: Any, target: Any) -> None:
    """A conversion from double is as exact as loading, which applies the transform's factor in the same rounding."""
    (code,) = (code for code in CODES if PRECISIONS[code] == target)
    found = stored_values(matrix_of(comm).spectra["F"].converted(target))
    np.testing.assert_allclose(found, values_of(matrix_of(comm, F, code)), rtol=0, atol=ERRORS[code] * abs(F).max())


def test_conversions_are_refused_as_loads_are(comm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    values = F.copy()
    values[3, 1] = np.nan
    source = fm.Matrix.from_array(comm, values, allow_nonfinite=True).spectra["F"]
    with pytest.raises(fm.NonFiniteError, match=r"block \(row 3, column 1\)"):
        source.converted(fm.Precision.FIXED32)
    monkeypatch.setattr(comm.backend, "free_bytes", lambda: 7)
    with pytest.raises(fm.CapacityError, match="converting a spectrum"):
        source.converted(fm.Precision.SINGLE)
