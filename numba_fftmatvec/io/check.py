"""Checks of whole files: their format, all their values, and their digests if they have any."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import FFTMatvecError, FileFormatError
from .atomic import FilePath, file_path
from .dataset import Description, described, opened
from .hdf5 import stored_block_row
from .manifest import manifest_path
from .meta import meta_path, read_meta

_PIECE = 2**21  # values that are read at a time


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
    """

    path: Path
    text: str = ""
    error: FFTMatvecError | None = None


def check_path(path: FilePath) -> Iterator[Finding]:
    """Yield the findings of a vector's file, or of the files of a matrix directory; errors do not end the check."""
    path = file_path(path)
    if not path.is_dir():
        yield _checked(path, partial(described, path))
        return
    try:
        meta = read_meta(path)
        manifest = manifest_path(path, meta)
        manifested = manifest.exists()
    except FFTMatvecError as error:
        yield Finding(meta_path(path), error=error)
        return
    yield Finding(meta_path(path), f"{meta.Nd} block rows of {meta.Nm} blocks of {meta.Nt}")
    yield Finding(manifest, "manifest" if manifested else "no manifest: block rows of other matrices are not noticed")
    for row in range(meta.Nd):
        yield _checked(meta.block_row_path(path, row), partial(stored_block_row, path, meta, row, range(meta.Nm)))


def _checked(path: Path, describe: Callable[[], Description]) -> Finding:
    """Return the finding of one HDF5 file."""
    try:
        verified = _read_all(describe())
    except FFTMatvecError as error:
        return Finding(path, error=error)
    return Finding(path, "verified by digests" if verified else "format and values checked: no digests")


def _read_all(description: Description) -> bool:
    """Read all values of a file; return whether digests verified them."""
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
        return content.digests is not None
