"""The metadata of a matrix directory: the file ``binary/meta_adj``, with one value on each line.

`docs/io_format.md` describes the format.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..arguments import LARGEST_INTEGER, checksum_number, positive_int
from ..errors import ArgumentError, ArgumentTypeError, FileFormatError, ShapeError
from ..layout import Space, VectorLayout
from .atomic import FilePath, check_regular_file, file_path, make_directory, os_errors, replacing

_LONGEST_FILE = 16384  # bytes, enough for the numbers and a prefix as long as a path may be
_PREFIX_RULE = "a relative path of printable characters that stays in binary/"


@dataclass(frozen=True)
class MatrixMeta:
    """The content of a matrix directory: the sizes of the matrix, and the names of its block rows' files.

    Parameters
    ----------
    Nd : int
        The global number of block rows, each in its own file.
    Nm : int
        The global number of block columns.
    Nt : int
        The block size: the number of time steps.
    prefix : str
        The beginning of the block rows' file names, relative to ``binary/``; it may contain sub-folders.
    is_p2q : bool
        Whether the matrix maps parameters to quantities of interest (QoI) rather than to observations.
    checksum : int
        The checksum that every file of this matrix stores; 0 for none.

    Raises
    ------
    ShapeError
        A size is not a positive integer, or a block row has 2^63 bytes or more.
    ArgumentError, ArgumentTypeError
        The prefix leaves ``binary/``, or the checksum or `is_p2q` is outside its domain.
    """

    Nd: int
    Nm: int
    Nt: int
    prefix: str = "vec_"
    is_p2q: bool = False
    checksum: int = 0

    def __post_init__(self) -> None:
        """Check every field, and convert NumPy's integers to int."""
        for name in ("Nd", "Nm", "Nt"):
            object.__setattr__(self, name, positive_int(getattr(self, name), name))
        object.__setattr__(self, "checksum", checksum_number(self.checksum, "checksum"))
        if 8 * self.Nm * self.Nt > LARGEST_INTEGER:
            found = f"{self.Nm} x {self.Nt} doubles"
            raise ShapeError(f"Nm x Nt: expected block rows of fewer than 2^63 bytes, found {found}")
        if _prefix(self.prefix) is None:
            raise ArgumentError(f"prefix: expected {_PREFIX_RULE}, found {self.prefix!r}")
        if not isinstance(self.is_p2q, bool):
            raise ArgumentTypeError(f"is_p2q: expected True or False, found {self.is_p2q!r}")

    def block_row_layout(self, cols: range) -> VectorLayout:
        """Return the layout of a block row, a vector of parameter space; its blocks `cols` are read or written."""
        return VectorLayout(Space.COL, self.Nm, self.Nt, 1, cols)

    def block_row_path(self, directory: FilePath, row: int) -> Path:
        """Return the file of block row `row` of the matrix in `directory`.

        Raises
        ------
        ArgumentError
            `row` is outside 0 .. Nd - 1.
        FileFormatError
            The prefix names a folder that is a link out of ``binary/``. (The block row's file itself may be a link.)
        """
        if not 0 <= row < self.Nd:
            raise ArgumentError(f"block row of {file_path(directory)}: expected 0 <= row < {self.Nd}, found {row}")
        binary = file_path(directory) / "binary"
        path = binary / f"{self.prefix}{row:06d}.h5"
        folder = Path(os.path.realpath(path.parent))
        if not folder.is_relative_to(os.path.realpath(binary)):
            raise FileFormatError(
                f"{meta_path(directory)}: prefix: expected {_PREFIX_RULE}, found {self.prefix!r}, "
                f"which leads to {folder}"
            )
        return path


def read_meta(directory: FilePath) -> MatrixMeta:
    """Read the metadata of the matrix in `directory`.

    Returns
    -------
    MatrixMeta
        The metadata. Its prefix stays in ``binary/``, even through links.

    Raises
    ------
    FileError
        The file is missing or cannot be read.
    FileFormatError
        A line is missing, malformed or superfluous; the message names the file, the line and the field.
    """
    path = meta_path(directory)
    lines = _read_lines(path)
    if len(lines) > len(_FIELDS):
        extra = len(_FIELDS) + 1
        raise FileFormatError(
            f"{path}, line {extra}: expected at most {len(_FIELDS)} lines, found {_shown(lines[extra - 1])}"
        )
    values: dict[str, Any] = {}
    for index, field in enumerate(_FIELDS):
        if index == len(lines) and field.name == "checksum":  # the only line that may be absent
            break
        found = "the end of the file" if index >= len(lines) else _shown(lines[index])
        value = field.parse(lines[index]) if index < len(lines) else None
        if value is None:
            raise FileFormatError(f"{path}, line {index + 1} ({field.name}): expected {field.expected}, found {found}")
        if field.kept:
            values[field.name] = value
    try:
        meta = MatrixMeta(**{**values, "is_p2q": values["is_p2q"] == 1})
    except ArgumentError as error:
        raise FileFormatError(f"{path}, lines 2 and 3: {error}") from error
    meta.block_row_path(directory, 0)
    return meta


def write_meta(directory: FilePath, meta: MatrixMeta) -> None:
    """Write the metadata of a matrix, creating the directory, ``binary/`` and the prefix's folders.

    A directory without metadata is not a matrix, so it is best to write the metadata after the block rows.

    Raises
    ------
    FileError
        A directory or the file cannot be written; an existing file is then unchanged.
    FileFormatError
        The prefix leads out of ``binary/`` through a link.
    """
    make_directory(meta.block_row_path(directory, 0).parent)
    path = meta_path(directory)
    lines = [meta.Nd, meta.Nm, meta.Nt, meta.prefix, ".h5", 1, int(meta.is_p2q), 1, meta.checksum]
    with replacing(path) as temporary, os_errors(path, "write the file"):
        temporary.write_bytes("".join(f"{line}\n" for line in lines).encode())


def meta_path(directory: FilePath) -> Path:
    """Return the path of the metadata of the matrix in `directory`."""
    return file_path(directory) / "binary" / "meta_adj"


@dataclass(frozen=True)
class _Field:
    """One line of the file; `parse` returns None for a text that `expected` does not describe."""

    name: str
    expected: str
    parse: Callable[[str], Any]
    kept: bool = True


def _integer(text: str) -> int | None:
    """Return the non-negative integer of 63 bits that `text` spells, or None."""
    # int() alone would accept "1_000" and digits of other scripts, and fails on texts of thousands of digits.
    number = int(text) if re.fullmatch("[0-9]{1,19}", text) else LARGEST_INTEGER + 1
    return number if number <= LARGEST_INTEGER else None


def _positive(text: str) -> int | None:
    return _integer(text) or None


def _one(text: str) -> int | None:
    return 1 if _integer(text) == 1 else None


def _flag(text: str) -> int | None:
    return number if (number := _integer(text)) in (0, 1) else None


def _prefix(text: str) -> str | None:
    """Return `text` if it is a prefix that fits on a line and stays below ``binary/`` (links are not followed)."""
    plain = isinstance(text, str) and text != "" and text.isprintable() and text == text.strip()
    return text if plain and not text.startswith("/") and ".." not in text.split("/") else None


_FIELDS = (
    _Field("Nd", "a positive integer", _positive),
    _Field("Nm", "a positive integer", _positive),
    _Field("Nt", "a positive integer", _positive),
    _Field("prefix", _PREFIX_RULE, _prefix),
    _Field("extension", "'.h5'", {".h5": ".h5"}.get, kept=False),
    _Field("reindexed", "1", _one, kept=False),
    _Field("is_p2q", "0 or 1", _flag),
    _Field("reverse_dof", "1", _one, kept=False),
    _Field("checksum", "an integer of 0 .. 2^63 - 1", _integer),
)


def _read_lines(path: Path) -> list[str]:
    """Return the lines of a short text file, stripped, without the blank lines at its end."""
    check_regular_file(path)
    with os_errors(path, "read the file"), path.open("rb") as file:
        content = file.read(_LONGEST_FILE + 1)
    if len(content) > _LONGEST_FILE:
        raise FileFormatError(f"{path}: expected at most {_LONGEST_FILE} bytes, found more")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path}: expected UTF-8 text, found the bytes {_shown(content)}") from error
    return [line.strip() for line in text.rstrip().split("\n")]


def _shown(value: object) -> str:
    """Return a repr that is short enough for a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
