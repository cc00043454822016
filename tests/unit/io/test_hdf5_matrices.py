"""Block rows of matrices in HDF5 files, and files that this package did not write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from numba_fftmatvec.errors import ChecksumError, FileError, FileFormatError, ShapeError
from numba_fftmatvec.io import (
    MatrixMeta,
    check_block_row,
    read_block_row,
    read_meta,
    read_vector,
    write_block_row,
    write_meta,
)
from support.hdf5 import attributes_of, layout_of


def some_matrix(directory: Path, checksum: int = 0) -> tuple[MatrixMeta, np.ndarray]:
    """Write a random matrix directory."""
    meta = MatrixMeta(3, 4, 5, "adj/vec_", checksum=checksum)
    blocks = np.random.default_rng(2).standard_normal((3, 4, 5))
    for row in range(3):
        write_block_row(directory, meta, row, blocks[row])
    write_meta(directory, meta)
    return meta, blocks


@pytest.mark.parametrize("checksum", [0, 12345])
def test_matrix_round_trip(tmp_path: Path, checksum: int) -> None:
    meta, blocks = some_matrix(tmp_path / "m", checksum)
    assert read_meta(tmp_path / "m") == meta
    for row in range(3):
        check_block_row(tmp_path / "m", meta, row)
        for cols in (range(0, 4), range(1, 3), range(3, 4)):
            out = np.empty((len(cols), 5))
            read_block_row(tmp_path / "m", meta, row, cols, out)
            np.testing.assert_array_equal(out, blocks[row, cols.start : cols.stop])
    found = sorted(str(path.relative_to(tmp_path / "m")) for path in (tmp_path / "m").rglob("*") if path.is_file())
    assert found == [*(f"binary/adj/vec_00000{row}.h5" for row in range(3)), "binary/meta_adj"]
    attributes = {"reindex": 1, "n_param": 4, "param_steps": 5}
    assert attributes_of(tmp_path / "m" / found[0]) == attributes | ({"checksum": checksum} if checksum else {})


@pytest.mark.parametrize(
    ("meta", "row", "error", "message"),
    [
        (MatrixMeta(3, 4, 5, "adj/vec_", checksum=8), 1, ChecksumError, "checksum: expected 8, found 7"),
        (MatrixMeta(3, 5, 4, "adj/vec_"), 1, FileFormatError, "n_param: expected 5, found 4"),
        (MatrixMeta(3, 4, 6, "adj/vec_"), 1, FileFormatError, "param_steps: expected 6, found 5"),
        (MatrixMeta(4, 4, 5, "adj/vec_"), 3, FileError, "vec_000003.h5: cannot read the file: No such file"),
        (MatrixMeta(3, 4, 5, "vec_"), 0, FileError, "binary/vec_000000.h5"),
    ],
)
def test_a_block_row_that_does_not_fit(
    tmp_path: Path, meta: MatrixMeta, row: int, error: type[Exception], message: str
) -> None:
    some_matrix(tmp_path, checksum=7)
    out = np.empty((meta.Nm, meta.Nt))
    for call in (
        lambda: check_block_row(tmp_path, meta, row),
        lambda: read_block_row(tmp_path, meta, row, range(meta.Nm), out),
    ):
        with pytest.raises(error) as caught:
            call()
        assert type(caught.value) is error
        assert str(meta.block_row_path(tmp_path, row)) in str(caught.value)
        assert message in str(caught.value)


def test_non_finite_values_of_a_block_row(tmp_path: Path) -> None:
    meta, blocks = some_matrix(tmp_path)
    blocks[1, 3, 2] = np.nan
    write_block_row(tmp_path, meta, 1, blocks[1])
    out = np.empty((2, 5))
    with pytest.raises(FileFormatError, match=r"vec_000001.h5, vec\[17\] \(block 3, step 2\): .* found nan"):
        read_block_row(tmp_path, meta, 1, range(2, 4), out)
    read_block_row(tmp_path, meta, 1, range(2, 4), out, allow_nonfinite=True)
    np.testing.assert_array_equal(out, blocks[1, 2:])


def test_a_block_row_is_no_set_of_vectors(tmp_path: Path) -> None:
    meta, _ = some_matrix(tmp_path)
    with h5py.File(meta.block_row_path(tmp_path, 1), "a") as file:
        file["vec"].attrs["num_vecs"] = 2
    with pytest.raises(FileFormatError, match="vec_000001.h5, attribute num_vecs: expected 1, found 2"):
        check_block_row(tmp_path, meta, 1)


def test_a_block_row_of_another_shape_leaves_the_old_one(tmp_path: Path) -> None:
    meta, blocks = some_matrix(tmp_path)
    with pytest.raises(ShapeError, match=r"vec_000001.h5: values of range\(0, 4\): expected shape \(4, 5\), found"):
        write_block_row(tmp_path, meta, 1, np.zeros((5, 4)))
    out = np.empty((4, 5))
    read_block_row(tmp_path, meta, 1, range(4), out)
    np.testing.assert_array_equal(out, blocks[1])


# Files that this package did not write


def toeplitz_product(blocks: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return y[d, t] = sum_m sum_{s <= t} F[d, m, t - s] x[m, s], term by term."""
    return np.stack([np.einsum("dms,ms->d", blocks[:, :, t::-1], x[:, : t + 1]) for t in range(x.shape[1])], axis=1)


def test_the_reference_data(reference_data: Path, tmp_path: Path) -> None:
    """The parameters' image is the PDE solver's observations, to the accuracy of its time stepping."""
    directory = reference_data / "test_mat"
    meta = read_meta(directory)
    blocks = np.empty((15, 289, 10))
    for row in range(15):
        for cols in (range(0, 100), range(100, 289)):
            read_block_row(directory, meta, row, cols, blocks[row, cols.start : cols.stop])
    x, y = np.empty((289, 10)), np.empty((15, 10))
    read_vector(reference_data / "test_param_vec_SOTI.h5", layout_of("col", 289, 10), x)
    read_vector(reference_data / "test_obs_vec_SOTI.h5", layout_of("row", 15, 10), y)
    assert np.linalg.norm(toeplitz_product(blocks, x) - y) <= 1e-6 * np.linalg.norm(y)
    for row in range(15):
        write_block_row(tmp_path, meta, row, blocks[row])
    write_meta(tmp_path, meta)
    copy = np.empty_like(blocks)
    for row in range(15):
        read_block_row(tmp_path, read_meta(tmp_path), row, range(289), copy[row])
    np.testing.assert_array_equal(copy, blocks)


def test_the_documents_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[3] / "docs" / "io_format.md"
    (code,) = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code, str(page), "exec"), names)
    meta = read_meta("my_matrix")
    assert meta == MatrixMeta(names["Nd"], names["Nm"], names["Nt"])
    out = np.empty((meta.Nm, meta.Nt))
    for row in range(meta.Nd):
        read_block_row("my_matrix", meta, row, range(meta.Nm), out)
        np.testing.assert_array_equal(out, names["F"][row])
    read_vector("x.h5", layout_of("col", 5, 8), out)
    np.testing.assert_array_equal(out, names["x"])
