"""Files that are replaced while they are read: readers begin again with the newer version."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numba_fftmatvec as fm
from numba_fftmatvec.matrix import values
from numba_fftmatvec.vector import files

ND, NM, NT = 3, 4, 5
ONES = np.ones((ND, NM, NT))


@pytest.fixture
def comm() -> Iterator[fm.Comm]:
    with fm.Comm(backend="cpu") as comm:
        yield comm


@pytest.fixture
def then(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Return a function that makes the library do something after each of the first reads of metadata."""

    def install(*actions: Callable[[], None]) -> list[int]:
        left, reads = list(actions), [0]

        def read_meta(directory: Any) -> Any:
            meta = fm.io.read_meta(directory)
            reads[0] += 1
            if left:
                left.pop(0)()
            return meta

        monkeypatch.setattr(values, "read_meta", read_meta)
        return reads

    return install


def value_of(matrix: fm.Matrix, **options: bool) -> float:
    """Return the one value of a matrix's first block column."""
    x = matrix.get_vec("input")
    x.init_vec_ones()
    y = matrix.get_vec("output")
    matrix.matvec(x, y, **options)
    found = y.gather() / (NM * np.arange(1.0, NT + 1))
    assert np.ptp(found) < 1e-12
    return float(found.flat[0])


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_matrix_that_is_replaced_while_it_is_read(
    comm: fm.Comm, tmp_path: Path, then: Callable[..., list[int]], times: int
) -> None:
    versions = [fm.Matrix.from_array(comm, ONES * version) for version in range(1, times + 2)]
    versions[0].save(tmp_path)
    reads = then(*(lambda new=new: new.save(tmp_path) for new in versions[1:]))
    assert value_of(fm.Matrix(comm, tmp_path)) == pytest.approx(times + 1)
    assert reads[0] == times + 1


def test_the_auxiliary_matrix_stays(comm: fm.Comm, tmp_path: Path, then: Callable[..., list[int]]) -> None:
    fm.Matrix.from_array(comm, ONES).save(tmp_path)
    matrix = fm.Matrix.from_array(comm, 4 * ONES)
    matrix.init_mat_from_array(9 * ONES, aux_mat=True)
    newer = fm.Matrix.from_array(comm, 2 * ONES)

    def replace_last_row() -> None:
        """Replace the directory such that the first block row of the old matrix is still there."""
        first = next((tmp_path / "binary").glob("vec_*_000000.h5"))
        shutil.copy(first, tmp_path / "first")
        newer.save(tmp_path)
        shutil.move(tmp_path / "first", first)

    then(replace_last_row)
    matrix.init_mat_from_file(tmp_path)
    assert value_of(matrix) == pytest.approx(2)
    assert value_of(matrix, use_aux_mat=True) == pytest.approx(9)


def test_a_matrix_of_other_sizes_takes_its_place(comm: fm.Comm, tmp_path: Path, then: Callable[..., list[int]]) -> None:
    fm.Matrix.from_array(comm, ONES).save(tmp_path)
    other = fm.Matrix.from_array(comm, np.ones((ND + 1, NM, NT)))
    then(lambda: other.save(tmp_path))
    with pytest.raises(fm.ShapeError, match=r"\(Nd, Nm, Nt\): expected shape \(3, 4, 5\), found \(4, 4, 5\)"):
        fm.Matrix(comm, tmp_path)


def test_a_row_that_is_missing_is_an_error(comm: fm.Comm, tmp_path: Path, then: Callable[..., list[int]]) -> None:
    fm.Matrix.from_array(comm, ONES).save(tmp_path)
    next((tmp_path / "binary").glob("vec_*_000001.h5")).unlink()
    reads = then()
    with pytest.raises(fm.FileError, match="_000001.h5: cannot read the file: No such file"):
        fm.Matrix(comm, tmp_path)
    assert reads[0] == 2


def test_a_writer_that_is_always_faster_is_an_error(
    comm: fm.Comm, tmp_path: Path, then: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = fm.Matrix.from_array(comm, ONES)
    matrix.save(tmp_path)
    monkeypatch.setattr(values, "_ATTEMPTS", 3)
    reads = then(*[lambda: matrix.save(tmp_path)] * 9)
    with pytest.raises(fm.FileError, match="No such file"):
        fm.Matrix(comm, tmp_path)
    assert reads[0] == 4


@pytest.mark.parametrize("differing", [1, 3])
def test_ranks_that_find_several_versions_of_a_vector(
    comm: fm.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, differing: int
) -> None:
    """Another rank has another version, at first."""
    x = fm.Vector(comm, NM, NT, "col", global_sizes=True)
    x.init_vec_doubles()
    x.save(tmp_path / "x.h5")
    read, reads = files.read_vector, 0

    def read_vector(*arguments: Any, **options: Any) -> bytes:
        nonlocal reads
        reads += 1
        return bytes(read(*arguments, **options))

    gathered = comm.allgather
    monkeypatch.setattr(files, "read_vector", read_vector)
    monkeypatch.setattr(
        comm, "allgather", lambda found, *_: [*gathered(found), b"other" if reads <= differing else None]
    )
    monkeypatch.setattr(files, "_ATTEMPTS", 3)
    z = fm.Vector(comm, NM, NT, "col", global_sizes=True)
    if differing < 3:
        z.init_vec_from_file(tmp_path / "x.h5")
        np.testing.assert_array_equal(z.to_numpy(), x.to_numpy())
        assert reads == differing + 1
    else:
        with pytest.raises(fm.FileError, match="x.h5: expected one version of the file on all ranks, found 2 of them"):
            z.init_vec_from_file(tmp_path / "x.h5")
        assert not z.is_initialized()


@pytest.mark.parametrize("digests", [True, False])
def test_versions_of_a_file(comm: fm.Comm, tmp_path: Path, digests: bool) -> None:
    """A file and its copy by another path are one version if they have digests."""
    import h5py

    x = fm.Vector(comm, NM, NT, "col", global_sizes=True)
    found = []
    for value in (1.0, 2.0):
        x.scatter(np.full((NM, NT), value))
        x.save(tmp_path / "x.h5")
        if not digests:
            with h5py.File(tmp_path / "x.h5", "a") as file:
                for name in ("sha256", "sha256_spans", "sha256_span"):
                    del file["vec"].attrs[name]
        found += [fm.io.read_vector(tmp_path / "x.h5", x.layout, np.empty((NM, NT))) for _ in range(2)]
    assert found[0] == found[1] != found[2] == found[3]


@pytest.mark.parametrize("kind", [str, bytes, Path])
def test_paths(comm: fm.Comm, tmp_path: Path, kind: Callable[[Any], Any]) -> None:
    """Paths are str, bytes or path-like; anything else is a named error."""

    def path(name: str) -> Any:
        full = str(tmp_path / name)
        return full.encode() if kind is bytes else kind(full)

    matrix = fm.Matrix.from_array(comm, ONES)
    matrix.save(path("m"))
    assert value_of(fm.Matrix(comm, path("m"), path("m"))) == pytest.approx(1)
    matrix.init_mat_from_file(path("m"), aux_mat=True)
    x = matrix.get_vec("input")
    x.init_vec_ones()
    x.save(path("x.h5"))
    x.init_vec_from_file(path("x.h5"))
    for call in (matrix.save, matrix.init_mat_from_file, x.save, x.init_vec_from_file):
        with pytest.raises(fm.ArgumentTypeError, match="path: expected a str, bytes or path-like object, found 3"):
            call(3)  # type: ignore[arg-type]
