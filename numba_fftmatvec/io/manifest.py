"""The manifest of a matrix directory: the sizes of the matrix, and the digest of each block row's file.

`docs/io_format.md` describes the file. A directory without it is read too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ..errors import FileFormatError
from .atomic import FilePath, check_regular_file, os_errors, replacing
from .digests import BYTES
from .meta import MatrixMeta

_LINE = 2 * BYTES + 1  # hexadecimal digits and a line feed


def manifest_path(directory: FilePath, meta: MatrixMeta) -> Path:
    """Return the path of the manifest of a matrix, which lies among the block rows."""
    row = meta.block_row_path(directory, 0)
    return row.with_name(f"{row.name.removesuffix('000000.h5')}manifest")


def write_manifest(directory: FilePath, meta: MatrixMeta, digests: Iterable[bytes], like: Path | None = None) -> None:
    """Write the manifest of a matrix with the digests of all block rows; an existing one is replaced in one step.

    Raises
    ------
    FileError
        The file cannot be written.
    """
    path = manifest_path(directory, meta)
    content = _header(meta) + b"".join(f"{digest.hex()}\n".encode() for digest in digests)
    with replacing(path, like) as temporary, os_errors(path, "write the file"):
        temporary.write_bytes(content)


def has_manifest(directory: FilePath, meta: MatrixMeta) -> bool:
    """Return whether a matrix has a manifest, of whatever content."""
    return os.path.lexists(manifest_path(directory, meta))


def row_digest(directory: FilePath, meta: MatrixMeta, row: int) -> bytes | None:
    """Return the digest of a block row's file; None if the matrix has no manifest.

    Raises
    ------
    FileError
        The manifest cannot be read.
    FileFormatError
        It is malformed, or that of a matrix of other sizes.
    """
    path, header = manifest_path(directory, meta), _header(meta)
    if not has_manifest(directory, meta):
        return None
    check_regular_file(path)
    with os_errors(path, "read the file"), path.open("rb") as file:
        found = file.read(len(header))
        size = os.fstat(file.fileno()).st_size
        file.seek(len(header) + row * _LINE)
        line = file.read(_LINE)
    if found != header:
        raise FileFormatError(f"{path}, line 1: expected {header.decode().strip()!r}, found {_shown(found)}")
    if size != len(header) + meta.Nd * _LINE:
        expected = len(header) + meta.Nd * _LINE
        raise FileFormatError(f"{path}: expected {expected} bytes for {meta.Nd} block rows, found {size}")
    if not re.fullmatch(rb"[0-9a-f]{64}\n", line):
        raise FileFormatError(f"{path}, line {row + 2}: expected 64 hexadecimal digits, found {_shown(line)}")
    return bytes.fromhex(line.decode())


def _header(meta: MatrixMeta) -> bytes:
    return f"fftmatvec-manifest 1 {meta.Nd} {meta.Nm} {meta.Nt} {int(meta.is_p2q)} {meta.checksum}\n".encode()


def _shown(content: bytes) -> str:
    return ascii(content.decode("latin-1").strip())
