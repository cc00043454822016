"""The metadata of matrix directories."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numba_fftmatvec.errors import (
    ArgumentError,
    ArgumentTypeError,
    FileError,
    FileFormatError,
    ShapeError,
)
from numba_fftmatvec.io import MatrixMeta, read_meta, write_meta

LINES = ["15", "289", "10", "adj/vec_", ".h5", "1", "0", "1", "77"]
FIELDS = [
    "Nd",
    "Nm",
    "Nt",
    "prefix",
    "extension",
    "reindexed",
    "is_p2q",
    "reverse_dof",
    "checksum",
]
POSITIVE = "a positive integer"
STAYS = "stays in binary/"


def put(directory: Path, content: str | bytes) -> Path:
    """Write `content` as a matrix' metadata."""
    path = directory / "binary" / "meta_adj"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def with_line(index: int, text: str) -> str:
    return "\n".join([*LINES[:index], text, *LINES[index + 1 :], ""])


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("tail", ["", "\n", "\n\n \n"])
def test_reads_nine_lines_with_any_line_ends(tmp_path: Path, end: str, tail: str) -> None:
    put(tmp_path, end.join(LINES) + tail)
    assert read_meta(tmp_path) == MatrixMeta(15, 289, 10, "adj/vec_", False, 77)


def test_without_a_ninth_line_there_is_no_checksum(tmp_path: Path) -> None:
    put(tmp_path, "\n".join([*LINES[:6], "1", "1"]))
    assert read_meta(tmp_path) == MatrixMeta(15, 289, 10, "adj/vec_", is_p2q=True, checksum=0)


def test_reads_the_reference_matrix(reference_data: Path) -> None:
    meta = read_meta(reference_data / "test_mat")
    assert meta == MatrixMeta(15, 289, 10, "adj/vec_")
    assert all(meta.block_row_path(reference_data / "test_mat", row).is_file() for row in range(15))


@pytest.mark.parametrize(
    ("index", "text", "expected"),
    [
        *[(i, text, POSITIVE) for i in range(3) for text in ("0", "-3", "ten", "1.5", "1_0", "", "\u0663")],
        (0, "9" * 30, POSITIVE),
        (0, str(2**63), POSITIVE),
        (3, "", STAYS),
        (3, "/etc/vec_", STAYS),
        (3, "../vec_", STAYS),
        (3, "adj/../../vec_", STAYS),
        (3, "..", STAYS),
        (3, "a\0b", STAYS),
        (4, ".hdf5", "'.h5'"),
        *[(i, text, "expected 1, ") for i in (5, 7) for text in ("0", "2", "-1", "yes", "")],
        *[(6, text, "0 or 1") for text in ("2", "-1", "no", "")],
        *[(8, text, "0 .. 2^63 - 1") for text in ("-1", "abc", "1.0", str(2**63))],
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, index: int, text: str, expected: str) -> None:
    path = put(tmp_path, with_line(index, text))
    with pytest.raises(FileFormatError) as caught:
        read_meta(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line {index + 1} ({FIELDS[index]}): expected ")
    assert expected in message
    assert "found " in message
    assert repr(text) in message


@pytest.mark.parametrize("count", range(8))
def test_a_missing_line_is_named(tmp_path: Path, count: int) -> None:
    path = put(tmp_path, "".join(f"{line}\n" for line in LINES[:count]))
    with pytest.raises(FileFormatError) as caught:
        read_meta(tmp_path)
    # An empty file has one line, which is empty.
    found = "found ''" if count == 0 else "found the end of the file"
    assert f"{path}, line {count + 1} ({FIELDS[count]}): expected" in str(caught.value)
    assert str(caught.value).endswith(found)


def test_a_tenth_line_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "\n".join([*LINES, "5"]))
    with pytest.raises(FileFormatError, match="line 10: expected at most 9 lines, found '5'") as caught:
        read_meta(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1\n" * 10000, "expected at most 16384 bytes, found more"),
        (b"\xff\xfe\x31\x00", "expected UTF-8 text, found the bytes b'\\xff"),
        (with_line(1, str(2**60)).encode(), "fewer than 2^63 bytes"),
    ],
    ids=["overlong", "not text", "sizes overflow"],
)
def test_unreasonable_content_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = put(tmp_path, content)
    with pytest.raises(FileFormatError) as caught:
        read_meta(tmp_path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_huge_file_is_not_read_whole(tmp_path: Path) -> None:
    os.truncate(put(tmp_path, "\n".join(LINES)), 2**40)  # a sparse file: it takes no disk space, nor memory
    with pytest.raises(FileFormatError, match="expected at most 16384 bytes, found more"):
        read_meta(tmp_path)


def test_messages_stay_short(tmp_path: Path) -> None:
    put(tmp_path, with_line(0, "x" * 10000))
    with pytest.raises(FileFormatError) as caught:
        read_meta(tmp_path)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_a_prefix_may_not_leave_binary_through_a_link(tmp_path: Path) -> None:
    path = put(tmp_path / "matrix", "\n".join(LINES))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "matrix" / "binary" / "adj").symlink_to(tmp_path / "elsewhere")
    for call in (read_meta, lambda directory: write_meta(directory, MatrixMeta(1, 1, 1, "adj/vec_"))):
        with pytest.raises(FileFormatError, match=r"stays in binary/, found 'adj/vec_', which leads to") as caught:
            call(tmp_path / "matrix")
        assert str(path) in str(caught.value)


def test_links_that_stay_or_lead_to_the_matrix_are_followed(tmp_path: Path) -> None:
    put(tmp_path / "disk", "\n".join(LINES))
    (tmp_path / "disk" / "binary" / "real").mkdir()
    (tmp_path / "disk" / "binary" / "adj").symlink_to("real")
    (tmp_path / "matrix").symlink_to(tmp_path / "disk")
    assert read_meta(tmp_path / "matrix").prefix == "adj/vec_"


def test_missing_and_irregular_files(tmp_path: Path) -> None:
    path = tmp_path / "binary" / "meta_adj"
    with pytest.raises(FileError, match="No such file") as caught:
        read_meta(tmp_path)
    assert str(path) in str(caught.value)
    path.mkdir(parents=True)
    with pytest.raises(FileError, match="expected a regular file, found a directory"):
        read_meta(tmp_path)
    with pytest.raises(FileError, match="expected a regular file, found a directory"):
        write_meta(tmp_path, MatrixMeta(1, 1, 1))
    path.rmdir()
    os.mkfifo(path)  # a reader without the check would block
    with pytest.raises(FileError, match="expected a regular file, found a special file"):
        read_meta(tmp_path)
    with pytest.raises(FileError, match="null byte"):
        read_meta(f"{tmp_path}\0")


def test_write_creates_the_folders_and_nine_lines(tmp_path: Path) -> None:
    write_meta(tmp_path / "new" / "matrix", MatrixMeta(15, 289, 10, "adj/deep/vec_", True))
    binary = tmp_path / "new" / "matrix" / "binary"
    assert (binary / "adj" / "deep").is_dir()
    assert (binary / "meta_adj").read_bytes() == b"15\n289\n10\nadj/deep/vec_\n.h5\n1\n1\n1\n0\n"
    assert [entry.name for entry in sorted(binary.iterdir())] == ["adj", "meta_adj"]


def test_write_into_a_file_is_a_file_error(tmp_path: Path) -> None:
    (tmp_path / "binary").write_text("no directory")
    with pytest.raises(FileError, match="cannot create the directory") as caught:
        write_meta(tmp_path, MatrixMeta(1, 1, 1))
    assert str(tmp_path / "binary") in str(caught.value)


def test_a_failed_write_leaves_the_old_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, "\n".join(LINES))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FileError, match="cannot replace the file: No space left on device"):
        write_meta(tmp_path, MatrixMeta(1, 1, 1))
    assert path.read_text() == "\n".join(LINES)
    assert list(path.parent.glob(".*.tmp")) == []


integers = st.integers(1, 2**20)
folders = st.text("abcXYZ012._- é", min_size=1, max_size=8).filter(
    lambda part: part not in (".", "..") and not part.startswith("meta_adj")
)
prefixes = st.lists(folders, min_size=1, max_size=3).map("/".join).filter(lambda prefix: prefix == prefix.strip())


@settings(max_examples=60, deadline=None)
@given(
    st.builds(MatrixMeta, integers, integers, integers, prefixes, st.booleans(), st.integers(0, 2**63 - 1)),
    st.integers(0, 2**20),
)
def test_round_trip(meta: MatrixMeta, row: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        write_meta(directory, meta)
        assert read_meta(directory) == meta
        path = meta.block_row_path(directory, row % meta.Nd)
        assert path.parent.is_dir()
        assert str(path) == str(Path(directory, "binary", f"{meta.prefix}{row % meta.Nd:06d}.h5"))


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=64)
    | st.lists(st.sampled_from([*LINES, "", "-1", "..", "a", "\x85", "/"]), max_size=11).map(
        lambda lines: "\n".join(lines).encode()
    )
)
def test_any_content_is_read_or_refused_by_name(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = put(Path(directory), content)
        try:
            meta = read_meta(directory)
        except FileFormatError as error:
            message = str(error)
        else:
            write_meta(directory, meta)
            assert read_meta(directory) == meta
            return
    assert str(path) in message


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"Nd": 0}, ShapeError, "Nd: expected a positive integer, found 0"),
        ({"Nm": -2}, ShapeError, "Nm"),
        ({"Nt": 1.5}, ShapeError, "Nt"),
        ({"Nm": 2**61}, ShapeError, "fewer than 2^63 bytes"),
        ({"prefix": "../x"}, ArgumentError, "prefix: expected a relative path"),
        ({"prefix": "/x"}, ArgumentError, "found '/x'"),
        ({"prefix": "a\nb"}, ArgumentError, "printable"),
        ({"prefix": " x"}, ArgumentError, "found ' x'"),
        ({"prefix": None}, ArgumentError, "found None"),
        ({"is_p2q": 1}, ArgumentTypeError, "is_p2q: expected True or False, found 1"),
        ({"checksum": -1}, ArgumentError, "checksum: expected an integer of 0 .. 2^63 - 1, found -1"),
        ({"checksum": "x"}, ArgumentError, "found 'x'"),
    ],
)
def test_bad_metadata_cannot_be_made(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        MatrixMeta(**{"Nd": 3, "Nm": 4, "Nt": 5, **change})
    assert message in str(caught.value)


def test_sizes_become_plain_integers() -> None:
    meta = MatrixMeta(np.int64(3), np.int32(4), np.int16(5), checksum=np.int64(6))  # type: ignore[arg-type]
    assert [type(value) for value in (meta.Nd, meta.Nm, meta.Nt, meta.checksum)] == [int] * 4


@pytest.mark.parametrize("row", [-1, 3])
def test_block_row_outside_the_matrix(row: int) -> None:
    with pytest.raises(ArgumentError, match=f"block row of somewhere: expected 0 <= row < 3, found {row}"):
        MatrixMeta(3, 4, 5).block_row_path("somewhere", row)


def test_more_rows_than_six_digits_keep_their_own_names() -> None:
    assert MatrixMeta(10**7, 1, 1).block_row_path("m", 1234567) == Path("m/binary/vec_1234567.h5")
