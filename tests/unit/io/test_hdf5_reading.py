"""Reading vectors from HDF5 files: accepted files, refused files, and bad arguments."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from numba_fftmatvec.errors import (
    ArgumentError,
    ArgumentTypeError,
    ChecksumError,
    FileError,
    FileFormatError,
    ShapeError,
    SpaceError,
)
from numba_fftmatvec.io import check_vector, read_vector
from numba_fftmatvec.layout import VectorLayout
from support.hdf5 import ATTRIBUTES, BLOCKS, ROW_ATTRIBUTES, STEPS, VALUES, get, layout_of, put, refused

# Accepted files


@pytest.mark.parametrize("blocks", [range(0, 6), range(0, 1), range(2, 5), range(5, 6), range(3, 3)])
def test_reads_only_the_blocks_asked_for(tmp_path: Path, blocks: range) -> None:
    path = put(tmp_path / "x.h5")
    buffer = np.full((len(blocks) + 2, STEPS), -1.0)
    read_vector(path, layout_of(blocks=blocks), buffer[1:-1])
    np.testing.assert_array_equal(buffer[1:-1], VALUES.reshape(BLOCKS, STEPS)[blocks.start : blocks.stop])
    np.testing.assert_array_equal(buffer[[0, -1]], -1.0)


@pytest.mark.parametrize(
    "convert",
    [
        *[np.dtype(code).type for code in ("i1", "u1", "i2", "i4", "u8", "f4", "f8", "g")],
        lambda value: np.array([value], dtype=np.int32),
        lambda value: np.array([[value]], dtype=np.float64),
        lambda value: np.array(value, dtype=">i4"),
    ],
)
def test_attributes_of_any_numeric_type(tmp_path: Path, convert: Callable[[int], Any]) -> None:
    extra = {"dt": 0.01, "note": "text", "table": np.zeros(7)}
    numbers = {name: convert(value) for name, value in (ATTRIBUTES | {"checksum": 99}).items()}
    np.testing.assert_array_equal(get(put(tmp_path / "x.h5", numbers | extra), checksum=99).reshape(-1), VALUES)


@pytest.mark.parametrize(
    "storage",
    [
        {"chunks": (7,)},
        {"maxshape": (None,)},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"compression": "lzf"},
    ],
    ids=["chunks", "resizable", "gzip", "lzf"],
)
def test_storage_that_is_accepted(tmp_path: Path, storage: dict[str, Any]) -> None:
    path = put(tmp_path / "x.h5", **storage)
    out = np.empty((3, STEPS))
    read_vector(path, layout_of(blocks=range(2, 5)), out)
    np.testing.assert_array_equal(out, VALUES.reshape(BLOCKS, STEPS)[2:5])


def test_a_file_may_be_a_link(tmp_path: Path) -> None:
    put(tmp_path / "real.h5")
    (tmp_path / "x.h5").symlink_to("real.h5")
    np.testing.assert_array_equal(get(tmp_path / "x.h5").reshape(-1), VALUES)


def test_reading_takes_no_lock_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 itself takes no lock, so it cannot fail for one."""
    seen, original = [], h5py.File

    def spy(*arguments: Any, **options: Any) -> Any:
        seen.append((arguments[1], options))
        return original(*arguments, **options)

    path = put(tmp_path / "x.h5")
    monkeypatch.setattr(h5py, "File", spy)
    get(path)
    assert seen == [("r", {"locking": False})]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_values(tmp_path: Path, value: float) -> None:
    values = VALUES.copy()
    values[[13, 21]] = value
    path = put(tmp_path / "x.h5", data=values)
    with pytest.raises(FileFormatError, match=rf"vec\[13\] \(block 2, step 3\): expected finite values, found {value}"):
        get(path)
    with pytest.raises(FileFormatError, match=r"vec\[21\] \(block 4, step 1\)") as caught:
        read_vector(path, layout_of(blocks=range(3, 6)), np.empty((3, STEPS)))
    assert str(path) in str(caught.value)
    np.testing.assert_array_equal(get(path, allow_nonfinite=True).reshape(-1), values)
    read_vector(path, layout_of(blocks=range(0, 2)), np.empty((2, STEPS)))


# Refused files: attributes


@pytest.mark.parametrize("name", ["reindex", "n_param", "param_steps"])
@pytest.mark.parametrize(
    ("value", "found"),
    [
        (0, "found 0"),
        (-1, "found -1"),
        (7, "found 7"),
        (1.5, "expected an integer, found 1.5"),
        (np.nan, "expected an integer, found nan"),
        (np.inf, "expected an integer, found inf"),
        ("1", "expected one integer, found 1 value(s) of dtype object"),
        (1j, "expected one integer, found 1 value(s) of dtype complex128"),
        ([1, 1], "expected one integer, found 2 value(s) of dtype int64"),
        (h5py.Empty("i4"), "expected one integer, found 0 value(s) of dtype int32"),
    ],
)
def test_an_attribute_of_another_value_or_kind(tmp_path: Path, name: str, value: Any, found: str) -> None:
    path = put(tmp_path / "x.h5", {**ATTRIBUTES, name: value})
    refused(path, FileFormatError, f"attribute {name}: expected ", found)


@pytest.mark.parametrize("name", ["reindex", "n_param", "param_steps"])
def test_a_missing_attribute(tmp_path: Path, name: str) -> None:
    others = {key: value for key, value in ATTRIBUTES.items() if key != name}
    listed = ", ".join(map(repr, sorted(others)))
    path = put(tmp_path / "x.h5", others)
    refused(path, FileFormatError, f"attribute {name}: expected {ATTRIBUTES[name]}, found only {listed}")


def test_no_attributes_at_all(tmp_path: Path) -> None:
    refused(put(tmp_path / "x.h5", {}), FileFormatError, "attribute reindex: expected 1, found none")


def test_a_vector_of_the_other_space(tmp_path: Path) -> None:
    refused(put(tmp_path / "y.h5", ROW_ATTRIBUTES), FileFormatError, "n_param: expected 6, found only 'n_obs'")
    refused(put(tmp_path / "x.h5"), FileFormatError, "n_obs: expected 6, found only 'n_param'", layout=layout_of("row"))


def test_qoi_vectors_and_observations_are_not_mixed_up(tmp_path: Path) -> None:
    plain = put(tmp_path / "y.h5", ROW_ATTRIBUTES)
    zero = put(tmp_path / "z.h5", ROW_ATTRIBUTES | {"qoi": 0})
    qoi = put(tmp_path / "q.h5", ROW_ATTRIBUTES | {"qoi": 1.0})
    for path, arguments in ((plain, {}), (zero, {}), (qoi, {"qoi": True})):
        np.testing.assert_array_equal(get(path, layout_of("row"), **arguments).reshape(-1), VALUES)
    refused(plain, FileFormatError, "attribute qoi: expected 1, found only", layout=layout_of("row"), qoi=True)
    refused(zero, FileFormatError, "attribute qoi: expected 1, found 0", layout=layout_of("row"), qoi=True)
    says = "attribute qoi: expected an observation vector", "found 1", "QoI=True"
    refused(qoi, FileFormatError, *says, layout=layout_of("row"))


@pytest.mark.parametrize(
    ("attribute", "num_vecs", "found"),
    [
        ({"num_vecs": 3}, 1, "expected 1, found 3"),
        ({"num_vecs": 3}, 2, "expected 2, found 3"),
        ({"num_vecs": 1}, 3, "expected 3, found 1"),
        ({}, 3, "expected 3, found only 'n_param', 'param_steps', 'reindex': one vector"),
        ({"num_vecs": 0}, 1, "expected 1, found 0"),
        ({"num_vecs": 2.5}, 1, "expected an integer, found 2.5"),
        ({"num_vecs": "3"}, 3, "expected one integer"),
    ],
)
def test_another_number_of_vectors(tmp_path: Path, attribute: dict[str, Any], num_vecs: int, found: str) -> None:
    path = put(tmp_path / "x.h5", ATTRIBUTES | attribute, data=np.tile(VALUES, 3))
    refused(path, FileFormatError, "attribute num_vecs: ", found, layout=layout_of(num_vecs=num_vecs))


def test_fewer_values_than_the_number_of_vectors_says(tmp_path: Path) -> None:
    path = put(tmp_path / "x.h5", ATTRIBUTES | {"num_vecs": 3}, data=np.tile(VALUES, 2))
    says = "vec: expected shape (90,) (3 vectors of 6 blocks of 5), found (60,)"
    refused(path, FileFormatError, says, layout=layout_of(num_vecs=3))


@pytest.mark.parametrize("convert", [int, np.float64, np.uint8, lambda value: np.array([value])])
def test_one_vector_may_say_so(tmp_path: Path, convert: Callable[[int], Any]) -> None:
    np.testing.assert_array_equal(get(put(tmp_path / "x.h5", ATTRIBUTES | {"num_vecs": convert(1)})).ravel(), VALUES)


def test_checksums(tmp_path: Path) -> None:
    marked, plain = put(tmp_path / "x.h5", ATTRIBUTES | {"checksum": 2**62 + 1}), put(tmp_path / "p.h5")
    for path, checksum in ((marked, 2**62 + 1), (marked, 0), (plain, 0)):
        np.testing.assert_array_equal(get(path, checksum=checksum).reshape(-1), VALUES)
    refused(marked, ChecksumError, "attribute checksum: expected 8, found 4611686018427387905", checksum=8)
    refused(plain, ChecksumError, "attribute checksum: expected 8, found only 'n_param'", checksum=8)
    broken = put(tmp_path / "b.h5", ATTRIBUTES | {"checksum": 8.5})
    refused(broken, FileFormatError, "attribute checksum: expected an integer, found 8.5", checksum=8)


# Refused files: the dataset and its storage


@pytest.mark.parametrize("dtype", ["f4", "i4", "i8", ">f8", "c16", "S8", "f2"])
def test_a_foreign_dtype(tmp_path: Path, dtype: str) -> None:
    path = put(tmp_path / "x.h5", data=VALUES.astype(dtype))
    refused(path, FileFormatError, f"vec: expected dtype float64, found {np.dtype(dtype)}")


@pytest.mark.parametrize("shape", [(29,), (31,), (0,), (BLOCKS, STEPS), (30, 1), ()])
def test_another_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = put(tmp_path / "x.h5", data=np.zeros(shape))
    refused(path, FileFormatError, f"vec: expected shape (30,) (6 blocks of 5), found {shape}")


def test_no_dataset_of_that_name(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w"):
        pass
    refused(path, FileFormatError, "expected a dataset 'vec', found none")
    with h5py.File(path, "w") as file:
        file["vector"] = VALUES
    refused(path, FileFormatError, "expected a dataset 'vec', found only 'vector'")
    with h5py.File(path, "w") as file:
        file.create_group("vec")
    refused(path, FileFormatError, "vec: expected a dataset, found a Group")
    with h5py.File(path, "w") as file:
        file["vec"] = np.dtype("f8")
    refused(path, FileFormatError, "vec: expected a dataset, found a Datatype")


def test_an_empty_dataset(tmp_path: Path) -> None:
    path = put(tmp_path / "x.h5", data=h5py.Empty("f8"))
    refused(path, FileFormatError, "expected shape (30,) (6 blocks of 5), found None")


@pytest.mark.parametrize("dangling", [False, True])
def test_links_inside_the_file(tmp_path: Path, dangling: bool) -> None:
    path = put(tmp_path / "x.h5")
    with h5py.File(path, "a") as file:
        if dangling:
            del file["vec"]
        else:
            file.move("vec", "elsewhere")
        file["vec"] = h5py.SoftLink("/elsewhere")
    refused(path, FileFormatError, "expected a dataset in this file, found SoftLink to /elsewhere")


@pytest.mark.parametrize("dangling", [False, True])
def test_links_to_other_files(tmp_path: Path, dangling: bool) -> None:
    path = tmp_path / "x.h5"
    if not dangling:
        put(tmp_path / "other.h5")
    with h5py.File(path, "w") as file:
        file["vec"] = h5py.ExternalLink("other.h5", "/vec")
    refused(path, FileFormatError, "expected a dataset in this file, found ExternalLink to /vec of other.h5")


def test_external_storage(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(VALUES.tobytes())
    path = put(tmp_path / "x.h5", shape=VALUES.shape, dtype="f8", external=[(tmp_path / "raw", 0, VALUES.nbytes)])
    refused(path, FileFormatError, "vec: expected values in this file, found external storage")


def test_virtual_datasets(tmp_path: Path) -> None:
    source, path = put(tmp_path / "source.h5"), tmp_path / "x.h5"
    layout = h5py.VirtualLayout(shape=VALUES.shape, dtype="f8")
    layout[:] = h5py.VirtualSource(source, "vec", shape=VALUES.shape)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("vec", layout).attrs.update(ATTRIBUTES)
    refused(path, FileFormatError, "vec: expected values in this file, found a virtual dataset")


def test_filters_outside_the_whitelist(tmp_path: Path) -> None:
    path = put(tmp_path / "x.h5", scaleoffset=3)
    refused(path, FileFormatError, "expected no filters but gzip, shuffle, fletcher32, lzf, found 6 ('scaleoffset')")


def test_a_filter_that_nobody_has(tmp_path: Path) -> None:
    """HDF5 stores the number of an optional foreign filter, and would search for a plugin on reading."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((30,))
    plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        h5py.h5d.create(file.id, b"vec", h5py.h5t.NATIVE_DOUBLE, h5py.h5s.create_simple((30,)), plist)
        file["vec"].attrs.update(ATTRIBUTES)
    refused(path, FileFormatError, "found 32015")


@pytest.mark.parametrize(("chunk", "accepted"), [(2**23, True), (2**23 + 1, False)])
def test_chunks_over_64_mib(tmp_path: Path, chunk: int, accepted: bool) -> None:
    path = put(tmp_path / "x.h5", data=VALUES, maxshape=(None,), chunks=(chunk,), compression="gzip")
    if accepted:
        np.testing.assert_array_equal(get(path).reshape(-1), VALUES)
    else:
        refused(path, FileFormatError, "expected chunks of at most 67108864 bytes, found 67108872")


def test_sizes_are_checked_without_allocating(tmp_path: Path) -> None:
    path = put(tmp_path / "x.h5", {"reindex": 1, "n_param": 2**50, "param_steps": 2**9})
    with pytest.raises(FileFormatError, match=re.escape(f"expected shape ({2**59},)")):
        check_vector(path, layout_of("col", 2**50, 2**9))
    path = put(tmp_path / "v.h5", ATTRIBUTES | {"num_vecs": 2**50})
    with pytest.raises(FileFormatError, match=re.escape(f"expected shape ({30 * 2**50},)")):
        check_vector(path, layout_of(num_vecs=2**50))


# Refused files: the file


def test_missing_and_irregular_files(tmp_path: Path) -> None:
    refused(tmp_path / "missing.h5", FileError, "No such file")
    refused(tmp_path, FileError, "expected a regular file, found a directory")
    (tmp_path / "loop.h5").symlink_to("loop.h5")
    refused(tmp_path / "loop.h5", FileError, "symbolic links")
    os.mkfifo(tmp_path / "pipe.h5")  # a reader without the check would block
    refused(tmp_path / "pipe.h5", FileError, "found a special file")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + b"\xff" * 600])
def test_content_that_is_not_hdf5(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    refused(path, FileFormatError, "cannot read it as an HDF5 file")


def test_a_truncated_file(tmp_path: Path) -> None:
    path = put(tmp_path / "x.h5")
    path.write_bytes(path.read_bytes()[:-40])
    refused(path, FileFormatError, "cannot read it as an HDF5 file", "truncated file")


def test_a_file_that_is_removed_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is missing, not damaged: a reader beside a writer looks for a newer matrix then."""
    path = put(tmp_path / "x.h5")

    def remove(*_: Any, **__: Any) -> None:
        path.unlink()
        raise OSError("Unable to synchronously open file (can't retrieve stat info for file)")

    monkeypatch.setattr(h5py, "File", remove)
    with pytest.raises(FileError, match="x.h5: cannot read the file: No such file") as caught:
        get(path)
    assert caught.value.errno == errno.ENOENT


def test_damaged_values(tmp_path: Path) -> None:
    path = put(tmp_path / "x.h5", fletcher32=True, chunks=(30,))
    with h5py.File(path) as file:
        offset = file["vec"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset + 3] ^= 1
    path.write_bytes(content)
    check_vector(path, layout_of())
    with pytest.raises(FileFormatError, match="cannot read it as an HDF5 file") as caught:
        get(path)
    assert str(path) in str(caught.value)


def test_a_file_that_another_program_has_locked(tmp_path: Path) -> None:
    path = put(tmp_path / "x.h5")
    with path.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        refused(path, FileError, "unable to lock file")


# Arguments


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_vecs": 3}, ShapeError, "values of range(0, 6): expected shape (3, 6, 5), found (6, 5)"),
        ({"checksum": -1}, ArgumentError, "checksum: expected an integer of 0 .. 2^63 - 1, found -1"),
        ({"blocks": range(0, 6, 2)}, ArgumentError, "blocks: expected consecutive ones of 0 .. 5"),
        ({"blocks": range(3, 7)}, ArgumentError, "found range(3, 7)"),
        ({"blocks": range(-1, 3)}, ArgumentError, "found range(-1, 3)"),
        ({"out": np.zeros((5, STEPS))}, ShapeError, "expected shape (6, 5), found (5, 5)"),
        ({"out": np.zeros(30)}, ShapeError, "expected shape (6, 5), found (30,)"),
        (
            {"out": np.zeros((BLOCKS, STEPS), "f4")},
            ArgumentTypeError,
            "expected a NumPy array of float64, found float32",
        ),
        ({"out": [[0.0]]}, ArgumentTypeError, "expected a NumPy array of float64, found list"),
        ({"out": np.zeros((STEPS, BLOCKS)).T}, ArgumentError, "out: expected a writeable C-contiguous array"),
        ({"out": np.broadcast_to(0.0, (BLOCKS, STEPS))}, ArgumentError, "out: expected a writeable C-contiguous array"),
    ],
)
def test_bad_arguments(tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str) -> None:
    path = put(tmp_path / "x.h5")
    sizes = {name: change[name] for name in ("num_vecs", "blocks") if name in change}
    out = change.get("out", np.zeros((len(change.get("blocks", range(BLOCKS))), STEPS)))
    with pytest.raises(error) as caught:
        read_vector(path, layout_of(**sizes), out, checksum=change.get("checksum", 0))
    assert type(caught.value) is error
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"space": "column"}, SpaceError, "expected 'row' or 'col', found 'column'"),
        ({"num_blocks": 0}, ShapeError, "number of blocks: expected a positive integer, found 0"),
        ({"block_size": -1}, ShapeError, "block size: expected a positive integer, found -1"),
        ({"num_vecs": 0}, ShapeError, "number of vectors: expected a positive integer, found 0"),
    ],
)
def test_bad_layouts(change: dict[str, Any], error: type[Exception], message: str) -> None:
    sizes = {"space": "col", "num_blocks": BLOCKS, "block_size": STEPS, "num_vecs": 1, "blocks": range(BLOCKS)}
    with pytest.raises(error, match=message):
        VectorLayout(**(sizes | change))
