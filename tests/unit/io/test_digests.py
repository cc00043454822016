"""Digests of vectors and block rows, and the manifest of a matrix: no damaged, swapped or foreign values are read."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numba_fftmatvec.errors import ChecksumError, FFTMatvecError, FileFormatError
from numba_fftmatvec.io import (
    MatrixMeta,
    block_row_writer,
    check_block_row,
    check_vector,
    manifest_path,
    read_block_row,
    read_vector,
    vector_writer,
    write_block_row,
    write_manifest,
    write_meta,
)
from numba_fftmatvec.io import digests as module
from numba_fftmatvec.io.digests import Digests
from support.hdf5 import BLOCKS, STEPS, VALUES, get, layout_of, put, refused

SMALL = 4  # values of a span


@pytest.fixture
def small_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make spans of a few values, several in a piece and several pieces in a vector, hashed by several threads."""
    monkeypatch.setattr(module, "LEAST_SPAN", SMALL)
    monkeypatch.setattr(module, "_PIECE", 2 * SMALL)
    monkeypatch.setattr(module, "_THREADED", 5)


def write(path: Path, values: np.ndarray = VALUES, num_vecs: int = 1, **marks: Any) -> Path:
    layout = layout_of(num_vecs=num_vecs)
    with vector_writer(path, layout, **marks) as writer:
        writer.write(range(BLOCKS), values.reshape(layout.shape))
    return path


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def test_the_digests_are_those_of_the_document(tmp_path: Path, small_spans: None) -> None:
    """Computed anew from docs/io_format.md."""
    path = write(tmp_path / "x.h5", checksum=7)
    spans = b"".join(sha256(VALUES[first : first + SMALL].tobytes()) for first in range(0, 30, SMALL))
    bound = b"reindex 1\nn_param 6\nparam_steps 5\nchecksum 7\nsha256_span 4\n"
    with h5py.File(path) as file:
        attributes = file["vec"].attrs
        assert attributes["sha256_span"] == SMALL
        assert attributes["sha256_spans"].dtype == np.uint8 and attributes["sha256_spans"].shape == (8, 32)
        assert attributes["sha256_spans"].tobytes() == spans
        assert attributes["sha256"].tobytes() == sha256(bound + spans)


def test_the_digests_of_a_block_row_name_its_place(tmp_path: Path) -> None:
    write_block_row(tmp_path, MatrixMeta(3, 2, 2), 1, np.arange(4.0).reshape(2, 2))
    span = sha256(np.arange(4.0).tobytes())
    bound = b"reindex 1\nn_param 2\nparam_steps 2\nblock_row 1\nblock_rows 3\nsha256_span 8192\n"
    with h5py.File(tmp_path / "binary" / "vec_000001.h5") as file:
        assert file["vec"].attrs["block_row"] == 1 and file["vec"].attrs["block_rows"] == 3
        assert file["vec"].attrs["sha256"].tobytes() == sha256(bound + span)


@pytest.mark.parametrize(
    ("size", "span", "count"),
    [(1, 2**13, 1), (2**13, 2**13, 1), (2**13 + 1, 2**13, 2), (2**23, 2**13, 1024), (2**23 + 1, 2**14, 513)],
)
def test_the_spans_of_a_size(size: int, span: int, count: int) -> None:
    digests = Digests.unknown(size)
    assert (digests.span, len(digests.spans)) == (span, 32 * count)


# Parts


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_every_part_is_read_and_verified(data: Any) -> None:
    """Each value of the parts is verified, whatever the span, the piece and the unit."""
    size, span = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 20))
    cuts = sorted(data.draw(st.lists(st.integers(0, size), min_size=2, max_size=8)))
    wanted = [slice(a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    values = np.arange(float(size))
    spans = b"".join(sha256(values[first : first + span].tobytes()) for first in range(0, size, span))
    piece, module._PIECE = module._PIECE, data.draw(st.integers(1, 30))
    seen: list[int] = []

    def read(first: int, out: np.ndarray) -> None:
        seen.extend(range(first, first + len(out)))
        out[:] = stored[first : first + len(out)]

    try:
        stored = values
        out = [np.full(part.stop - part.start, np.nan) for part in wanted]
        Digests(size, span, spans).read(Path("x"), read, wanted, out, data.draw(st.integers(1, 30)))
        for part, found in zip(wanted, out, strict=True):
            np.testing.assert_array_equal(found, values[part])
        assert len(seen) == len(set(seen))
        if seen:
            stored = values.copy()
            stored[data.draw(st.sampled_from(seen))] += 1
            with pytest.raises(ChecksumError, match="expected values of the SHA-256"):
                Digests(size, span, spans).read(Path("x"), read, wanted, out, 1)
    finally:
        module._PIECE = piece


@pytest.mark.parametrize("num_vecs", [1, 3, 40])
@pytest.mark.parametrize("options", [None, {"chunks": (7,), "compression": "gzip", "shuffle": True}])
def test_parts_of_vectors(tmp_path: Path, small_spans: None, num_vecs: int, options: dict[str, Any] | None) -> None:
    """Digests are of values, so they stay right when another program stores the values in another way."""
    values = np.random.default_rng(3).standard_normal((num_vecs, BLOCKS, STEPS))
    path = write(tmp_path / "x.h5", values, num_vecs)
    if options:
        with h5py.File(path, "a") as file:
            attributes = dict(file["vec"].attrs)
            del file["vec"]
            file.create_dataset("vec", data=values.reshape(-1), **options).attrs.update(attributes)
    for blocks in (range(6), range(1), range(2, 5), range(5, 6), range(3, 3)):
        layout = layout_of(num_vecs=num_vecs, blocks=blocks)
        out = np.full(layout.local_shape, np.nan)
        read_vector(path, layout, out)
        np.testing.assert_array_equal(out.reshape(num_vecs, -1, STEPS), values[:, blocks.start : blocks.stop])


def test_a_reader_verifies_its_part(tmp_path: Path, small_spans: None) -> None:
    """Values 12 .. 15 are one span: a reader of blocks with these values fails, another one does not."""
    path = write(tmp_path / "x.h5")
    flip(path, value_offset(path) + 8 * 14 + 1)
    out = np.empty((3, STEPS))
    with pytest.raises(ChecksumError, match=r"x.h5, vec\[12:16\]: expected values of the SHA-256 [0-9a-f]{64}, found"):
        read_vector(path, layout_of(blocks=range(3)), out)
    read_vector(path, layout_of(blocks=range(4, 6)), out[:2])
    read_vector(path, layout_of(blocks=range(2)), out[:2])


# Damage


def flip(path: Path, place: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def value_offset(path: Path) -> int:
    with h5py.File(path) as file:
        return int(file["vec"].id.get_offset())


def test_flips_in_values(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5")
    offset, content = value_offset(path), path.read_bytes()
    for place in range(240):
        flip(path, offset + place, place % 8)
        check_vector(path, layout_of())
        with pytest.raises(FileFormatError, match="x.h5"):
            get(path)
        path.write_bytes(content)


def test_flips_anywhere(tmp_path: Path) -> None:
    """A flip is refused by name, or it is in a byte without meaning and the values are right."""
    path = write(tmp_path / "x.h5", checksum=9)
    content, refusals = path.read_bytes(), 0
    for place in range(0, len(content), 3):
        flip(path, place, place % 7)
        found = read_or_refusal(path)
        if isinstance(found, str):
            assert str(path) in found
            refusals += 1
        else:
            np.testing.assert_array_equal(found, VALUES)
        path.write_bytes(content)
    assert refusals >= 200


def read_or_refusal(path: Path) -> np.ndarray | str:
    """Return the values of a file, or the message of the named error that refuses it."""
    try:
        return get(path, checksum=9).reshape(-1)
    except FFTMatvecError as error:
        return str(error)


def attribute(name: str, value: Any) -> Callable[[Any], None]:
    def edit(attributes: Any) -> None:
        if value is None:
            del attributes[name]
        else:
            attributes[name] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (attribute("sha256", None), "expected all of sha256, sha256_spans and sha256_span, found only sha256_spans, "),
        (attribute("sha256_spans", None), "found only sha256, sha256_span"),
        (attribute("sha256_span", None), "found only sha256, sha256_spans"),
        (attribute("sha256_span", 0), "attribute sha256_span: expected a positive integer, found 0"),
        (attribute("sha256_span", -8192), "attribute sha256_span: expected a positive integer, found -8192"),
        (attribute("sha256_span", 15), "attribute sha256_spans: expected uint8 of shape (2, 32), found uint8 of"),
        (attribute("sha256_span", "8192"), "attribute sha256_span: expected one integer"),
        (attribute("sha256", np.zeros(31, np.uint8)), "attribute sha256: expected uint8 of shape (32,), found uint8"),
        (attribute("sha256", np.zeros(32, np.int8)), "attribute sha256: expected uint8 of shape (32,), found int8"),
        (attribute("sha256", "0" * 32), "attribute sha256: expected uint8 of shape (32,), found object of shape ()"),
        (attribute("sha256", np.zeros(32, np.uint8)), "expected attributes and digests of the SHA-256 0000"),
        (attribute("sha256_spans", np.zeros((1, 32), np.uint8)), "expected attributes and digests of the SHA-256"),
        (attribute("sha256_span", 8193), "expected attributes and digests of the SHA-256"),
        (attribute("checksum", 5), "expected attributes and digests of the SHA-256"),
        (attribute("checksum", None), "expected attributes and digests of the SHA-256"),
        (attribute("block_row", 0), "expected attributes and digests of the SHA-256"),
    ],
)
def test_digests_that_do_not_fit(tmp_path: Path, edit: Callable[[Any], None], message: str) -> None:
    path = write(tmp_path / "x.h5", checksum=4)
    with h5py.File(path, "a") as file:
        edit(file["vec"].attrs)
    for call in (lambda: check_vector(path, layout_of()), lambda: get(path)):
        with pytest.raises(FileFormatError) as caught:
            call()
        assert str(path) in str(caught.value) and message in str(caught.value)


def test_a_file_without_digests(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5")
    with h5py.File(path, "a") as file:
        for name in ("sha256", "sha256_spans", "sha256_span"):
            del file["vec"].attrs[name]
        file["vec"][3] = 77.0
    assert get(path).reshape(-1)[3] == 77.0


# Matrices

META = MatrixMeta(3, 4, 5)
F = np.random.default_rng(5).standard_normal((3, 4, 5))


def write_matrix(directory: Path, meta: MatrixMeta = META, blocks: np.ndarray = F, manifest: bool = True) -> None:
    digests = []
    for row in range(meta.Nd):
        with block_row_writer(directory, meta, row) as writer:
            writer.write(range(meta.Nm), blocks[row])
        digests.append(writer.digest)
    if manifest:
        write_manifest(directory, meta, digests)
    write_meta(directory, meta)


def read_matrix(directory: Path, meta: MatrixMeta = META) -> np.ndarray:
    blocks = np.empty((meta.Nd, meta.Nm, meta.Nt))
    for row in range(meta.Nd):
        check_block_row(directory, meta, row)
        read_block_row(directory, meta, row, range(meta.Nm), blocks[row])
    return blocks


def row_path(directory: Path, row: int) -> Path:
    return META.block_row_path(directory, row)


def test_the_manifest(tmp_path: Path) -> None:
    meta = MatrixMeta(3, 4, 5, "adj/vec_", is_p2q=True, checksum=6)
    write_matrix(tmp_path, meta)
    np.testing.assert_array_equal(read_matrix(tmp_path, meta), F)
    path = tmp_path / "binary" / "adj" / "vec_manifest"
    assert manifest_path(tmp_path, meta) == path
    lines = path.read_text().splitlines()
    assert lines[0] == "fftmatvec-manifest 1 3 4 5 1 6"
    for row, line in enumerate(lines[1:]):
        with h5py.File(meta.block_row_path(tmp_path, row)) as file:
            assert file["vec"].attrs["sha256"].tobytes().hex() == line


def swapped(directory: Path) -> None:
    first, second, other = row_path(directory, 0), row_path(directory, 1), directory / "x"
    first.rename(other)
    second.rename(first)
    other.rename(second)


def of_another_matrix(directory: Path) -> None:
    other = directory.parent / "other"
    write_matrix(other, blocks=F[::-1].copy())
    shutil.copy(row_path(other, 2), row_path(directory, 2))


def of_another_program(directory: Path) -> None:
    put(row_path(directory, 2), {"reindex": 1, "n_param": 4, "param_steps": 5}, data=F[2].reshape(-1))


def of_a_vector(directory: Path) -> None:
    layout = layout_of("col", 4, 5)
    with vector_writer(row_path(directory, 2), layout) as writer:
        writer.write(range(4), F[2])


@pytest.mark.parametrize(
    ("edit", "message", "found_without_manifest"),
    [
        (swapped, "vec_000000.h5: expected the SHA-256", "block_row: expected 0, found 1"),
        (of_another_matrix, "vec_000002.h5: expected the SHA-256", None),
        (of_another_program, "vec_000002.h5: expected the SHA-256", None),
        (of_a_vector, "vec_000002.h5: expected the SHA-256", None),
    ],
)
def test_rows_in_wrong_places(
    tmp_path: Path, edit: Callable[[Path], None], message: str, found_without_manifest: str | None
) -> None:
    directory = tmp_path / "m"
    write_matrix(directory)
    edit(directory)
    with pytest.raises(ChecksumError, match=message):
        read_matrix(directory)
    manifest_path(directory, META).unlink()
    if found_without_manifest is None:
        read_matrix(directory)
    else:
        with pytest.raises(FileFormatError, match=found_without_manifest):
            read_matrix(directory)


@pytest.mark.parametrize("Nd", [1, 2, 4])
def test_another_number_of_rows(tmp_path: Path, Nd: int) -> None:
    """A lowered Nd in `meta_adj`, and rows that a larger matrix left over."""
    write_matrix(tmp_path)
    meta = MatrixMeta(Nd, 4, 5)
    says = f"vec_manifest, line 1: expected 'fftmatvec-manifest 1 {Nd} 4 5 0 0', found 'fftmatvec-manifest 1 3 4 5 0 0'"
    with pytest.raises(FileFormatError, match=says):
        read_matrix(tmp_path, meta)
    manifest_path(tmp_path, META).unlink()
    with pytest.raises(FileFormatError, match=f"block_rows: expected {Nd}, found 3"):
        read_matrix(tmp_path, meta)


@pytest.mark.parametrize(
    ("meta", "found"),
    [(MatrixMeta(3, 4, 5, is_p2q=True), "1 3 4 5 1 0"), (MatrixMeta(3, 5, 4), "1 3 5 4 0 0")],
)
def test_metadata_that_were_changed(tmp_path: Path, meta: MatrixMeta, found: str) -> None:
    write_matrix(tmp_path)
    with pytest.raises(FileFormatError, match=f"vec_manifest, line 1: expected 'fftmatvec-manifest {found}', found"):
        check_block_row(tmp_path, meta, 0)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: b"", "line 1: expected 'fftmatvec-manifest 1 3 4 5 0 0', found ''"),
        (lambda text: text[:-1], "expected 226 bytes for 3 block rows, found 225"),
        (lambda text: text + b"\n", "expected 226 bytes for 3 block rows, found 227"),
        (lambda text: text[:31] + b"G" + text[32:], "line 2: expected 64 hexadecimal digits, found 'G"),
        (lambda text: text.replace(b"\n", b"\r"), "line 1: expected "),
        (lambda text: text[:31] + bytes([text[31] ^ 1]) + text[32:], "vec_000000.h5: expected the SHA-256"),
        (lambda text: b"\xff" + text[1:], r"found '\xffftmatvec"),
    ],
)
def test_damaged_manifests(tmp_path: Path, edit: Callable[[bytes], bytes], message: str) -> None:
    write_matrix(tmp_path)
    path = manifest_path(tmp_path, META)
    path.write_bytes(edit(path.read_bytes()))
    with pytest.raises(FileFormatError) as caught:
        read_matrix(tmp_path)
    assert message in str(caught.value)


def test_a_matrix_without_manifest(tmp_path: Path) -> None:
    write_matrix(tmp_path, manifest=False)
    np.testing.assert_array_equal(read_matrix(tmp_path), F)


def test_the_check_of_a_file_covers_its_digests(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5", checksum=5)
    with h5py.File(path, "a") as file:
        file["vec"].attrs["checksum"] = 6
    refused(path, ChecksumError, "expected attributes and digests of the SHA-256", checksum=6)
