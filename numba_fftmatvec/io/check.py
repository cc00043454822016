"""Checks of whole files: their format, all their values, and their digests if they have any."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ChecksumError, FFTMatvecError, FileFormatError
from .atomic import FilePath, file_path
from .dataset import Description, described, opened
from .hdf5 import block_row, stored_block_row
from .manifest import has_manifest, manifest_path, row_digest, write_manifest
from .meta import MatrixMeta, meta_path, read_meta

_PIECE = 2**21  # values that are read at a time

# What to do after an error.
_META = "restore the file, or write its nine lines as the page io_format describes"
_MANIFEST = "'fftmatvec check --repair-manifest' writes it anew from the block rows"
_VALUES = "restore the file from a copy, or write it anew"
_STRANGER = (
    "the file is intact, but it was not part of the matrix that the manifest describes: restore the right file, or "
    "accept this one with 'fftmatvec check --repair-manifest'"
)
_UNREPAIRED = "restore the files above first, or save the matrix anew with Matrix.save, which writes digests"


@dataclass(frozen=True)
class Finding:
    """The result of the check of a file.

    Parameters
    ----------
    path : Path
        The file.
    text : str
        The checked parts, in words.
    error : FFTMatvecError, optional
        The error that a reader of the file raises.
    advice : str
        The remedy of the error.
    digest : bytes, optional
        The digest of a file that it verifies.
    """

    path: Path
    text: str = ""
    error: FFTMatvecError | None = None
    advice: str = ""
    digest: bytes | None = None


def check_path(path: FilePath, *, repair: bool = False) -> Iterator[Finding]:
    """Yield the findings of a vector's file, or of the files of a matrix directory; errors do not end the check.

    Parameters
    ----------
    path : path
        The file or the directory.
    repair : bool
        Whether to write the manifest of a directory anew. All block rows are read first. The manifest is written only
        if each of them is intact by digests in its own file.
    """
    path = file_path(path)
    if not path.is_dir():
        yield _checked(path, lambda: described(path))
        return
    try:
        meta = read_meta(path)
        manifested = has_manifest(path, meta)
    except FFTMatvecError as error:
        yield Finding(meta_path(path), error=error, advice=_META)
        return
    yield Finding(meta_path(path), f"{meta.Nd} block rows of {meta.Nm} blocks of {meta.Nt}")
    if repair:
        yield from _repaired(path, meta)
        return
    manifest = _manifest(path, meta, manifested)
    yield manifest
    for row in range(meta.Nd):
        yield _row(path, meta, row, manifested and manifest.error is None)


def _manifest(path: Path, meta: MatrixMeta, manifested: bool) -> Finding:
    """Return the finding of a manifest, whose lines must have the form of digests."""
    manifest = manifest_path(path, meta)
    if not manifested:
        return Finding(manifest, "no manifest: block rows of other matrices are not noticed")
    try:
        for row in range(meta.Nd):
            row_digest(path, meta, row)
    except FFTMatvecError as error:
        return Finding(manifest, error=error, advice=_MANIFEST)
    return Finding(manifest, "manifest")


def _row(path: Path, meta: MatrixMeta, row: int, manifested: bool) -> Finding:
    """Return the finding of a block row, which must be that of the manifest if there is one."""
    file, cols = meta.block_row_path(path, row), range(meta.Nm)
    alone = _checked(file, lambda: block_row(path, meta, row, cols))
    if alone.error is not None or not manifested:
        return alone
    try:
        with opened(stored_block_row(path, meta, row, cols)):
            return alone
    except FFTMatvecError as error:
        return Finding(file, error=error, advice=_STRANGER if alone.digest is not None else _VALUES)


def _repaired(path: Path, meta: MatrixMeta) -> Iterator[Finding]:
    """Yield the findings of all block rows without the manifest, then that of the manifest, written anew."""
    manifest, found = manifest_path(path, meta), []
    for row in range(meta.Nd):
        found.append(_row(path, meta, row, manifested=False))
        yield found[-1]
    digests = [finding.digest for finding in found if finding.digest is not None]
    if len(digests) < meta.Nd:
        unusable = f"{meta.Nd - len(digests)} of {meta.Nd} damaged or without digests; the manifest is unchanged"
        yield Finding(
            manifest,
            error=ChecksumError(f"{manifest}: expected block rows that are verified by digests, found {unusable}"),
            advice=_UNREPAIRED,
        )
        return
    changed = [row for row, digest in enumerate(digests) if _present(path, meta, row) != digest]
    try:
        if changed:
            write_manifest(path, meta, digests)
    except FFTMatvecError as error:
        yield Finding(manifest, error=error, advice="make the folder writable")
        return
    lines = ", ".join(map(str, changed[:10])) + (", ..." if len(changed) > 10 else "")
    yield Finding(
        manifest, f"manifest written anew, with other digests of block rows {lines}" if changed else "manifest"
    )


def _present(path: Path, meta: MatrixMeta, row: int) -> bytes | None:
    """Return the digest of a block row in the present manifest; None if it cannot be read."""
    try:
        return row_digest(path, meta, row)
    except FFTMatvecError:
        return None


def _checked(path: Path, describe: Callable[[], Description]) -> Finding:
    """Return the finding of one HDF5 file."""
    try:
        digest = _read_all(describe())
    except FFTMatvecError as error:
        return Finding(path, error=error, advice=_VALUES)
    text = "format and values checked: no digests" if digest is None else "verified by digests"
    return Finding(path, text, digest=digest)


def _read_all(description: Description) -> bytes | None:
    """Read all values of a file; return the digest that verified them, None if the file has none."""
    size = description.layout.size
    with opened(description) as content:
        for first in range(0, size, _PIECE):
            values = np.empty(min(size, first + _PIECE) - first)
            content.read([slice(first, first + len(values))], [values])
            if not (finite := np.isfinite(values)).all():
                place = int(np.argmin(finite))
                raise FileFormatError(
                    f"{description.path}, vec[{first + place}]: expected finite values, found {values[place]}"
                )
        return content.root
