"""The storage of values in HDF5 files: missing values, damaged chunks, and chunks that inflate to too much."""

from __future__ import annotations

import itertools
import resource
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from numba_fftmatvec.errors import FileFormatError
from numba_fftmatvec.io import read_vector
from support.hdf5 import ATTRIBUTES, VALUES, get, layout_of, put, refused

CHUNK = 8  # values; four chunks hold the 30 values
RAW = VALUES[:CHUNK].tobytes()
Plist = Any


# Files that are read


COMBINATIONS = [
    {"compression": compression, "shuffle": shuffle, "fletcher32": fletcher32}
    for compression, shuffle, fletcher32 in itertools.product((None, "gzip", "lzf"), (False, True), (False, True))
]


@pytest.mark.parametrize("options", COMBINATIONS, ids=str)
@pytest.mark.parametrize("chunks", [(8,), (30,), (1,), (4096,)])
@pytest.mark.parametrize("kind", ["zeros", "counts", "noise"])
def test_filters_and_chunks(tmp_path: Path, options: dict[str, Any], chunks: tuple[int], kind: str) -> None:
    """Noise is stored uncompressed by lzf, which the filter mask of the chunk says."""
    noise = np.random.default_rng(1).standard_normal(30)
    values = {"zeros": np.zeros(30), "counts": VALUES, "noise": noise}[kind]
    path = put(tmp_path / "x.h5", data=values, chunks=chunks, maxshape=(None,), **options)
    np.testing.assert_array_equal(get(path).reshape(-1), values)
    out = np.empty((2, 5))
    read_vector(path, layout_of(blocks=range(2, 4)), out)
    np.testing.assert_array_equal(out.reshape(-1), values[10:20])


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("maxshape", [None, (30,), (None,)])
@pytest.mark.parametrize("chunks", [None, (8,), (30,)])
def test_every_index_of_chunks(
    tmp_path: Path, libver: str, maxshape: tuple[int] | None, chunks: tuple[int] | None
) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver=libver) as file:
        dataset = file.create_dataset("vec", data=VALUES, chunks=chunks, maxshape=maxshape if chunks else None)
        dataset.attrs.update(ATTRIBUTES)
    np.testing.assert_array_equal(get(path).reshape(-1), VALUES)


def create(path: Path, layout: Callable[[Plist], object], size: int = 30) -> Path:
    """Write a vector of `size` values, of which none is written yet, with a dataset creation list."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout(plist)
    with h5py.File(path, "w") as file:
        h5py.h5d.create(file.id, b"vec", h5py.h5t.NATIVE_DOUBLE, h5py.h5s.create_simple((size,)), plist)
        file["vec"].attrs.update(ATTRIBUTES)
    return path


def test_values_in_the_header(tmp_path: Path) -> None:
    path = create(tmp_path / "x.h5", lambda plist: plist.set_layout(h5py.h5d.COMPACT))
    with h5py.File(path, "a") as file:
        file["vec"][:] = VALUES
    np.testing.assert_array_equal(get(path).reshape(-1), VALUES)


# Values that were never written


@pytest.mark.parametrize("fillvalue", [None, 0.0, 3.25])
@pytest.mark.parametrize("options", [{}, {"chunks": (8,)}, {"chunks": (8,), "compression": "gzip"}], ids=str)
def test_values_that_were_never_written(tmp_path: Path, options: dict[str, Any], fillvalue: float | None) -> None:
    path = put(tmp_path / "x.h5", shape=(30,), dtype="f8", fillvalue=fillvalue, **options)
    says = "4 chunks of 8 values, found 0 that were written" if options else "240 bytes of values, found values that"
    refused(path, FileFormatError, "vec: expected ", says)


@pytest.mark.parametrize("written", [slice(0, 8), slice(8, 30), slice(0, 24), slice(3, 4)])
def test_chunks_that_were_never_written(tmp_path: Path, written: slice) -> None:
    path = put(tmp_path / "x.h5", shape=(30,), dtype="f8", chunks=(8,))
    with h5py.File(path, "a") as file:
        file["vec"][written] = 1.0
    refused(path, FileFormatError, "vec: expected all 4 chunks of 8 values, found ")


# Damaged chunks. `read_vector` alone can refuse those that must be inflated.


def with_chunk(path: Path, data: bytes, mask: int = 0, **options: Any) -> Path:
    """Write a vector with these stored bytes and this filter mask of its first chunk."""
    put(path, shape=(30,), dtype="f8", chunks=(CHUNK,), **options)
    with h5py.File(path, "a") as file:
        file["vec"].id.write_direct_chunk((0,), data, mask)
        file["vec"][CHUNK:] = VALUES[CHUNK:]
    return path


@pytest.mark.parametrize("options", [{}, {"shuffle": True}], ids=str)
@pytest.mark.parametrize("size", [8, 56, 63, 65, 128])
def test_a_chunk_of_another_size(tmp_path: Path, options: dict[str, Any], size: int) -> None:
    path = with_chunk(tmp_path / "x.h5", bytes(size), **options)
    refused(path, FileFormatError, f"values from 0 on: expected 64 bytes, found {size}")


GZIP = {"compression": "gzip"}
BOTH = GZIP | {"shuffle": True}


@pytest.mark.parametrize(
    ("options", "mask", "found"),
    [
        ({"shuffle": True}, 1, "expected all filters, found the filter mask 0x1"),
        ({"fletcher32": True}, 1, "expected all filters, found the filter mask 0x1"),
        (BOTH, 1, "expected all filters, found the filter mask 0x1"),
        (BOTH, 3, "expected all filters, found the filter mask 0x3"),
        (GZIP, 2, "expected all filters, found the filter mask 0x2"),
        (GZIP, 1, "expected 64 bytes, found "),  # compressed, and marked as not compressed
        (GZIP | {"fletcher32": True}, 1, "expected 68 bytes, found "),
    ],
)
def test_a_filter_mask(tmp_path: Path, options: dict[str, Any], mask: int, found: str) -> None:
    path = with_chunk(tmp_path / "x.h5", zlib.compress(RAW), mask, **options)
    refused(path, FileFormatError, f"values from 0 on: {found}")


def test_a_chunk_that_gzip_left_as_it_was(tmp_path: Path) -> None:
    path = with_chunk(tmp_path / "x.h5", RAW, 1, compression="gzip")
    np.testing.assert_array_equal(get(path).reshape(-1), VALUES)


LZF = {"compression": "lzf"}
TWO_COPIES = bytes([0, 0, 0xE0, 255, 0, 0xE0, 255, 0])  # of 264 zeros each, after one


@pytest.mark.parametrize(
    ("options", "data", "found"),
    [
        (GZIP, zlib.compress(RAW[:-1]), "gzip chunks of 64 bytes, found 63"),
        (GZIP, zlib.compress(RAW + b"\0"), "gzip chunks of 64 bytes, found more than 64"),
        (GZIP, zlib.compress(b""), "gzip chunks of 64 bytes, found 0"),
        (GZIP, zlib.compress(RAW)[:-1], "gzip chunks of 64 bytes, found damaged data"),
        (GZIP, zlib.compress(RAW) + b"\0", "gzip chunks of 64 bytes, found damaged data"),
        (GZIP, RAW, "gzip chunks of 64 bytes, found damaged data"),
        (LZF, TWO_COPIES, "lzf chunks of 64 bytes, found more than 64"),
        (LZF, bytes([31, *range(32)]), "lzf chunks of 64 bytes, found 32"),
        (LZF, bytes([31, *range(32), 31, *range(31)]), "lzf chunks of 64 bytes, found damaged data"),
        (LZF, bytes([31, *range(32), 0xE0]), "lzf chunks of 64 bytes, found damaged data"),
    ],
)
def test_a_chunk_that_inflates_to_another_size(
    tmp_path: Path, options: dict[str, Any], data: bytes, found: str
) -> None:
    path = with_chunk(tmp_path / "x.h5", data, **options)
    with pytest.raises(FileFormatError, match=f"expected {found} \\(values from 0 on\\)") as caught:
        get(path)
    assert str(path) in str(caught.value)
    out = np.empty((4, 5))
    read_vector(path, layout_of(blocks=range(2, 6)), out)  # the other chunks are whole
    np.testing.assert_array_equal(out.reshape(-1), VALUES[10:])


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ((("deflate", 4), ("deflate", 4)), "expected each filter once and one of gzip and lzf, found gzip, gzip"),
        ((("shuffle",), ("shuffle",)), "found shuffle, shuffle"),
        ((("fletcher32",), ("deflate", 1), ("fletcher32",)), "found fletcher32, gzip, fletcher32"),
        ((("deflate", 4), ("shuffle",)), "expected shuffle before compression, found gzip, shuffle"),
    ],
)
def test_filters_that_no_program_combines(tmp_path: Path, filters: tuple[tuple[Any, ...], ...], found: str) -> None:
    def layout(plist: Plist) -> None:
        plist.set_chunk((CHUNK,))
        for name, *arguments in filters:
            getattr(plist, f"set_{name}")(*arguments)

    path = create(tmp_path / "x.h5", layout)
    with h5py.File(path, "a") as file:
        file["vec"][:] = VALUES
    refused(path, FileFormatError, found)


# Places outside the file, which take edits of its bytes


def moved(path: Path, old: int, new: int, size: bytes = b"") -> None:
    """Replace an address in a file, which occurs once with `size` after it."""
    content = path.read_bytes()
    before, after = (address.to_bytes(8, "little") + size for address in (old, new))
    assert content.count(before) == 1
    path.write_bytes(content.replace(before, after))


@pytest.mark.parametrize("shift", [8, 239, 240, 2**40])
def test_values_that_end_after_the_file(tmp_path: Path, shift: int) -> None:
    path = put(tmp_path / "x.h5")
    with h5py.File(path) as file:
        offset = file["vec"].id.get_offset()
    moved(path, offset, path.stat().st_size - 240 + shift, (240).to_bytes(8, "little"))
    refused(path, FileFormatError, "")


def test_chunks_that_overlap(tmp_path: Path) -> None:
    path = put(tmp_path / "x.h5", chunks=(CHUNK,))
    with h5py.File(path) as file:
        first, second = (file["vec"].id.get_chunk_info(index).byte_offset for index in (0, 1))
    moved(path, second, first + 8)
    refused(path, FileFormatError, "expected chunks side by side in a file of ")


# Chunks that inflate to far more than their size

BOMBED = """
import resource, sys, time
import numpy as np
from numba_fftmatvec.errors import FileFormatError
from numba_fftmatvec.io import read_vector
from numba_fftmatvec.layout import Space, VectorLayout
values = int(sys.argv[2])
out = np.zeros((1, values))
layout = VectorLayout(Space.COL, 1, values, 1, range(1))
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
try:
    read_vector(sys.argv[1], layout, out)
except FileFormatError as error:
    print(error)
print(time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
DECLARED = 2**17  # values, 1 MiB


def gzip_bomb() -> bytes:
    compressor = zlib.compressobj(9)
    return b"".join(compressor.compress(bytes(2**20)) for _ in range(256)) + compressor.flush()


@pytest.mark.parametrize(
    ("compression", "bomb"), [("gzip", gzip_bomb), ("lzf", lambda: b"\0\0" + b"\xe0\xff\0" * 2**20)]
)
@pytest.mark.parametrize("shuffle", [False, True])
def test_bombs(tmp_path: Path, compression: str, bomb: Callable[[], bytes], shuffle: bool) -> None:
    """256 MiB of zeros in a chunk of 1 MiB: refused within 2 s and little more memory than the chunk."""
    path, attributes = tmp_path / "x.h5", {"reindex": 1, "n_param": 1, "param_steps": DECLARED}
    options = {"chunks": (DECLARED,), "compression": compression, "shuffle": shuffle}
    put(path, attributes, shape=(DECLARED,), dtype="f8", **options)
    with h5py.File(path, "a") as file:
        file["vec"].id.write_direct_chunk((0,), bomb())
    command = [sys.executable, "-c", BOMBED, str(path), str(DECLARED)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    message, figures = finished.stdout.splitlines()
    assert f"expected {compression} chunks of {8 * DECLARED} bytes, found more than {8 * DECLARED}" in message
    seconds, kibibytes = map(float, figures.split())
    assert seconds <= 2
    stored = path.stat().st_size
    assert kibibytes * 1024 <= 1.1 * 8 * DECLARED + 2 * stored + 8 * resource.getpagesize() + 2**22
