"""Block rows and vectors in HDF5 files."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
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
from numba_fftmatvec.io import (
    MatrixMeta,
    check_block_row,
    check_vector,
    read_block_row,
    read_meta,
    read_vector,
    vector_writer,
    write_block_row,
    write_meta,
)
from numba_fftmatvec.layout import Space, VectorLayout

BLOCKS, STEPS = 6, 5
ATTRIBUTES: dict[str, Any] = {"reindex": 1, "n_param": BLOCKS, "param_steps": STEPS}
ROW_ATTRIBUTES: dict[str, Any] = {"reindex": 1, "n_obs": BLOCKS, "obs_steps": STEPS}
VALUES = np.arange(BLOCKS * STEPS, dtype=np.float64)


def put(path: Path, attributes: dict[str, Any] = ATTRIBUTES, **dataset: Any) -> Path:
    """Write a vector with h5py alone; `dataset` goes to create_dataset."""
    with h5py.File(path, "w") as file:
        if "shape" not in dataset:
            dataset.setdefault("data", VALUES)
        file.create_dataset("vec", **dataset).attrs.update(attributes)
    return path


def layout_of(
    space: str = "col",
    num_blocks: int = BLOCKS,
    block_size: int = STEPS,
    num_vecs: int = 1,
    blocks: range | None = None,
) -> VectorLayout:
    """Return a layout of which all blocks are read, by default that of the vector `VALUES`."""
    return VectorLayout(Space(space), num_blocks, block_size, num_vecs, range(num_blocks) if blocks is None else blocks)


def get(path: Path, layout: VectorLayout | None = None, **options: Any) -> np.ndarray:
    """Read all of a vector, or of several."""
    layout = layout or layout_of()
    out = np.full(layout.local_shape, np.nan)
    read_vector(path, layout, out, **options)
    return out


def refused(
    path: Path, error: type[Exception], *parts: str, layout: VectorLayout | None = None, **options: Any
) -> None:
    """Assert that both the check and the reader refuse a file, naming it and `parts`."""
    layout = layout or layout_of()
    for call in (lambda: check_vector(path, layout, **options), lambda: get(path, layout, **options)):
        with pytest.raises(error) as caught:
            call()
        assert type(caught.value) is error
        assert str(path) in str(caught.value)
        for part in parts:
            assert part in str(caught.value)


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
    """Tests have no such file system, so this checks the request for HDF5's fallback."""
    seen, original = [], h5py.File

    def spy(*arguments: Any, **options: Any) -> Any:
        seen.append((arguments[1], options))
        return original(*arguments, **options)

    path = put(tmp_path / "x.h5")
    monkeypatch.setattr(h5py, "File", spy)
    get(path)
    assert seen == [("r", {"locking": "best-effort"})]


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
    path = put(tmp_path / "x.h5", ATTRIBUTES, shape=(30,), maxshape=(None,), dtype="f8", chunks=(chunk,))
    if accepted:
        check_vector(path, layout_of())
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


# Writing


@pytest.mark.parametrize(
    ("space", "qoi", "checksum", "attributes"),
    [
        ("col", False, 0, ATTRIBUTES),
        ("col", False, 5, ATTRIBUTES | {"checksum": 5}),
        ("row", False, 0, ROW_ATTRIBUTES),
        ("row", True, 2**63 - 1, ROW_ATTRIBUTES | {"qoi": 1, "checksum": 2**63 - 1}),
    ],
)
def test_vector_round_trip(tmp_path: Path, space: str, qoi: bool, checksum: int, attributes: dict[str, int]) -> None:
    path, values = tmp_path / "v.h5", np.random.default_rng(1).standard_normal((BLOCKS, STEPS))
    layout, marks = layout_of(space), {"checksum": checksum, "qoi": qoi}
    with vector_writer(path, layout, **marks) as writer:
        writer.write(range(4, 6), values[4:])
        writer.write(range(0, 4), np.asfortranarray(values[:4]))
    np.testing.assert_array_equal(get(path, layout, **marks), values)
    with h5py.File(path) as file:
        assert list(file) == ["vec"]
        assert dict(file["vec"].attrs) == attributes
        assert file["vec"].dtype == np.dtype("f8")
        np.testing.assert_array_equal(file["vec"][:], values.reshape(-1))
    assert list(tmp_path.iterdir()) == [path]


def test_several_vectors_round_trip(tmp_path: Path) -> None:
    """The vectors are stored one after another; a reader takes its blocks of each."""
    path, values = tmp_path / "v.h5", np.random.default_rng(2).standard_normal((3, BLOCKS, STEPS))
    with vector_writer(path, layout_of(num_vecs=3)) as writer:
        writer.write(range(4, 6), values[:, 4:])
        writer.write(range(0, 4), np.ascontiguousarray(values[:, :4]))
    with h5py.File(path) as file:
        assert dict(file["vec"].attrs) == ATTRIBUTES | {"num_vecs": 3}
        np.testing.assert_array_equal(file["vec"][:], values.reshape(-1))
    for blocks in (range(0, 6), range(0, 1), range(2, 5), range(3, 3)):
        out = np.full((3, len(blocks), STEPS), np.nan)
        read_vector(path, layout_of(num_vecs=3, blocks=blocks), out)
        np.testing.assert_array_equal(out, values[:, blocks.start : blocks.stop])


def test_non_finite_values_of_several_vectors(tmp_path: Path) -> None:
    values = np.tile(VALUES, 3)
    values[2 * 30 + 13] = np.inf
    path = put(tmp_path / "x.h5", ATTRIBUTES | {"num_vecs": 3}, data=values)
    out = np.empty((3, 3, STEPS))
    with pytest.raises(FileFormatError, match=r"vec\[73\] \(vector 2, block 2, step 3\): .* found inf"):
        read_vector(path, layout_of(num_vecs=3, blocks=range(1, 4)), out)
    read_vector(path, layout_of(num_vecs=3, blocks=range(1, 4)), out, allow_nonfinite=True)
    np.testing.assert_array_equal(out, values.reshape(3, BLOCKS, STEPS)[:, 1:4])


def test_blocks_of_one_vector_are_not_those_of_several(tmp_path: Path) -> None:
    says = r"expected shape \(3, 6, 5\), found \(6, 5\)"
    with pytest.raises(ShapeError, match=says), vector_writer(tmp_path / "v.h5", layout_of(num_vecs=3)) as writer:
        writer.write(range(6), VALUES.reshape(BLOCKS, STEPS))
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_has_the_users_usual_permissions(tmp_path: Path) -> None:
    write(tmp_path / "v.h5")
    (tmp_path / "plain").touch()
    assert (tmp_path / "v.h5").stat().st_mode == (tmp_path / "plain").stat().st_mode


def write(path: Path, value: float = 1.0, blocks: int = BLOCKS) -> None:
    """Write a vector of equal values, or only its first `blocks` blocks."""
    with vector_writer(path, layout_of()) as writer:
        writer.write(range(blocks), np.full((blocks, STEPS), value))


def unchanged(path: Path, value: float = 1.0) -> bool:
    """Return whether the folder contains the old file and nothing else."""
    return list(path.parent.iterdir()) == [path] and bool((get(path) == value).all())


def test_blocks_that_were_not_written(tmp_path: Path) -> None:
    path = tmp_path / "v.h5"
    write(path)
    with pytest.raises(ShapeError, match="expected values of all 6 blocks, found 4: block 4 was not written") as caught:
        write(path, 2.0, blocks=4)
    assert str(path) in str(caught.value)
    assert unchanged(path)


@pytest.mark.parametrize("error", [ValueError("mine"), OSError(5, "mine"), KeyboardInterrupt()])
def test_an_exception_leaves_the_old_file_and_stays_itself(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "v.h5"
    write(path)

    def interrupted() -> None:
        with vector_writer(path, layout_of()) as writer:
            writer.write(range(3), np.full((3, STEPS), 2.0))
            raise error

    with pytest.raises(type(error)) as caught:
        interrupted()
    assert caught.value is error
    assert unchanged(path)


def test_an_exception_without_an_old_file_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), vector_writer(tmp_path / "v.h5", layout_of()):
        raise RuntimeError("mine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    path = tmp_path / "v.h5"
    write(path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(FileError, match="cannot replace the file: No space left on device") as caught:
        write(path, 2.0)
    assert str(path) in str(caught.value)
    assert unchanged(path)


CRASH = """
import os, sys
import numpy as np
from numba_fftmatvec.io import vector_writer
from numba_fftmatvec.layout import Space, VectorLayout
where, path = sys.argv[1:]
if where != "write":
    setattr(os, where, lambda *_: os._exit(7))
with vector_writer(path, VectorLayout(Space.COL, 6, 5, 1, range(6))) as writer:
    writer.write(range(6), np.full((6, 5), 2.0))
    if where == "write":
        os._exit(7)
"""


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_killed_writer_leaves_the_old_file(tmp_path: Path, where: str) -> None:
    path = tmp_path / "v.h5"
    write(path)
    old = path.read_bytes()
    status = subprocess.run([sys.executable, "-c", CRASH, where, str(path)], timeout=120, check=False)
    assert status.returncode == 7
    assert path.read_bytes() == old
    left = [entry.name for entry in tmp_path.iterdir() if entry != path]
    assert len(left) == 1
    assert re.fullmatch(r"\.v\.h5\.\d+\.[0-9a-f]{8}\.tmp", left[0])
    write(path, 3.0)  # a left-over file does not matter
    assert (get(path) == 3.0).all()


def test_the_new_file_is_on_disk_before_it_takes_the_old_ones_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, steps, fsync, replace = tmp_path / "v.h5", [], os.fsync, os.replace

    def spy_fsync(descriptor: int) -> None:
        steps.append(("fsync", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def spy_replace(source: Path, target: Path) -> None:
        steps.append(("replace", os.stat(source).st_ino))
        assert (get(Path(source)) == 1.0).all()
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    write(path)
    file, directory = path.stat().st_ino, tmp_path.stat().st_ino
    assert steps == [("fsync", file), ("replace", file), ("fsync", directory)]


def test_where_a_vector_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "nowhere" / "v.h5", tmp_path / "loop" / "v.h5", tmp_path / ("v" * 250)):
        with pytest.raises(FileError) as caught:
            write(path)
        assert str(path) in str(caught.value)
    with pytest.raises(FileError, match="expected a regular file, found a directory"):
        write(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="expected a regular file, found a special file"):
        write(tmp_path / "pipe")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["loop", "pipe"]


def test_a_link_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    write(tmp_path / "real.h5")
    (tmp_path / "v.h5").symlink_to("real.h5")
    write(tmp_path / "v.h5", 2.0)
    assert not (tmp_path / "v.h5").is_symlink()
    assert (get(tmp_path / "real.h5") == 1.0).all()
    assert (get(tmp_path / "v.h5") == 2.0).all()


@pytest.mark.parametrize(
    ("blocks", "values", "error"),
    [
        (range(0, 2), np.zeros((3, STEPS)), ShapeError),
        (range(5, 7), np.zeros((2, STEPS)), ArgumentError),
        (range(0, 2), np.zeros((2, STEPS), "f4"), ArgumentTypeError),
    ],
)
def test_bad_values_to_write(tmp_path: Path, blocks: range, values: np.ndarray, error: type[Exception]) -> None:
    path = tmp_path / "v.h5"
    with pytest.raises(error, match="expected") as caught, vector_writer(path, layout_of()) as writer:
        writer.write(blocks, values)
    assert type(caught.value) is error
    assert str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# Matrices


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
    with h5py.File(tmp_path / "m" / found[0]) as file:
        attributes = {"reindex": 1, "n_param": 4, "param_steps": 5}
        assert dict(file["vec"].attrs) == (attributes | {"checksum": checksum} if checksum else attributes)


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
