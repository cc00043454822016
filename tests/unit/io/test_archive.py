"""Named arrays in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import numba_fftmatvec as fm
from numba_fftmatvec.io import archive_writer, open_archive

ARRAYS = {"first": np.arange(6.0).reshape(2, 3), "none": np.empty((0, 4)), "second": np.linspace(0, 1, 20_000)}
SHAPES = {name: array.shape for name, array in ARRAYS.items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "arrays.h5"
    with archive_writer(target, "thing", SHAPES, {"step": 3}) as writer:
        for name in reversed(ARRAYS):
            writer.write(name, ARRAYS[name])
    return target


def test_arrays_and_description_come_back(path: Path) -> None:
    with open_archive(path, "thing") as archive:
        assert archive.description["step"] == 3
        assert archive.shapes == SHAPES
        for name, expected in ARRAYS.items():
            np.testing.assert_array_equal(archive.read(name), expected)
        with pytest.raises(fm.FileFormatError, match="expected an array 'third', found only first"):
            archive.read("third")


def test_every_array_must_be_written(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(fm.ShapeError, match="found none of second"):
        write_some(path)
    assert path.read_bytes() == before


def write_some(path: Path) -> None:
    with archive_writer(path, "thing", SHAPES, {}) as writer:
        writer.write("first", ARRAYS["first"])
        writer.write("none", ARRAYS["none"])


@pytest.mark.parametrize(("name", "shape"), [("first", (3, 2)), ("third", (2, 3))])
def test_an_array_of_another_shape_or_name(path: Path, name: str, shape: Any) -> None:
    with pytest.raises(fm.ShapeError, match="expected"), archive_writer(path, "thing", SHAPES, {}) as writer:
        writer.write(name, np.zeros(shape))


def test_another_kind(path: Path) -> None:
    with pytest.raises(fm.FileFormatError, match="expected a factor of version 1, found 'thing'"):
        open_archive(path, "factor").__enter__()


def test_a_vector_is_no_archive(tmp_path: Path) -> None:
    comm = fm.Comm(backend="cpu")
    vector = fm.Vector(comm, 2, 3, "col", global_sizes=True)
    vector.init_vec_ones()
    vector.save(tmp_path / "x.h5")
    with pytest.raises(fm.FileFormatError, match="'content' that describes a thing, found none"):
        open_archive(tmp_path / "x.h5", "thing").__enter__()


def read_all(path: Path) -> dict[str, Any]:
    with open_archive(path, "thing") as archive:
        return {"step": archive.description["step"], **{name: archive.read(name) for name in archive.shapes}}


def test_no_flipped_bit_gives_other_values(path: Path) -> None:
    content, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(content), 300):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            found = read_all(path)
        except fm.FFTMatvecError:
            refused += 1
            continue
        assert found["step"] == 3
        for name, expected in ARRAYS.items():
            np.testing.assert_array_equal(found[name], expected)
    assert refused > 200  # most bytes are values


@pytest.mark.parametrize("length", [0, 100, 3000, -8])
def test_a_shorter_file_is_refused(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(fm.FFTMatvecError):
        read_all(path)


def test_without_digests_it_is_refused(path: Path) -> None:
    with h5py.File(path, "a") as file:
        for name in ("sha256", "sha256_spans", "sha256_span"):
            del file["vec"].attrs[name]
    with pytest.raises(fm.ChecksumError, match="expected SHA-256 digests, found none"):
        read_all(path)


def test_a_description_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(fm.ArgumentError, match="description of at most"):
        archive_writer(tmp_path / "x.h5", "thing", {}, {"text": "a" * 40_000}).__enter__()
