"""Writes blocks F[d, m, t]: as a matrix directory, and as NumPy or NetCDF-4 files for other programs.

Values are written some block rows at a time. A target appears in one step when it is complete.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FileFormatError
from .atomic import os_errors, replacing
from .generations import Replacement
from .hdf5 import block_row_writer
from .image import Image
from .manifest import write_manifest
from .meta import MatrixMeta, write_meta
from .sources import AXES, NETCDF, NUMPY, Blocks, check_order

DIMENSIONS = {"d": "block_row", "m": "block_column", "t": "time"}
VARIABLE = "F"
SUFFIXES = (*NUMPY, *NETCDF)

Show = Callable[[int], object]  # takes the number of finished block rows


def write_directory(path: Path, blocks: Blocks, *, qoi: bool = False, show: Show = lambda rows: None) -> None:
    """Write blocks as a matrix directory. A failure leaves the directory as it was.

    Parameters
    ----------
    path : Path
        The directory; its parent must exist.
    blocks : Blocks
        The blocks.
    qoi : bool
        Whether the matrix maps to quantities of interest.
    show : callable
        Takes the number of finished block rows.

    Raises
    ------
    FileError, FileFormatError
        The source cannot be read, or the directory cannot be written.
    """
    made = [folder for folder in (path / "binary", path) if not folder.exists()]
    with os_errors(path, "create the directory"):
        path.mkdir(exist_ok=True)
    try:
        new = Replacement.begin(path, MatrixMeta(*blocks.shape, is_p2q=qoi))
        try:
            _fill(new, blocks, show)
        except BaseException:
            new.abandon()
            raise
    except BaseException:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


def _fill(new: Replacement, blocks: Blocks, show: Show) -> None:
    digests = []
    for rows, values in blocks.pieces():
        for row, row_values in zip(rows, values, strict=True):
            with block_row_writer(new.directory, new.meta, row, new.like(row)) as writer:
                writer.write(range(new.meta.Nm), row_values)
            digests.append(writer.digest)
            show(row + 1)
    write_manifest(new.directory, new.meta, digests, new.like(0))
    write_meta(new.directory, new.meta)
    new.end()


def write_file(
    path: Path, blocks: Blocks, order: str = AXES, variable: str | None = None, show: Show = lambda rows: None
) -> None:
    """Write blocks as a ``.npy``, ``.npz`` or NetCDF-4 file; an existing file is replaced in one step.

    Parameters
    ----------
    path : Path
        The file, in a folder that exists. Its suffix chooses the format.
    blocks : Blocks
        The blocks.
    order : str
        The order of the file's axes: a permutation of ``dmt``.
    variable : str, optional
        The name of the variable in a ``.npz`` or NetCDF-4 file; ``F`` by default.
    show : callable
        Takes the number of finished block rows.

    Raises
    ------
    FileError, FileFormatError
        The source cannot be read, or the file cannot be written.
    """
    check_order(order)
    suffix, name = path.suffix.lower(), variable or VARIABLE
    if suffix not in SUFFIXES:
        raise FileFormatError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}, found {path.suffix!r}")
    sizes = dict(zip(AXES, blocks.shape, strict=True))
    shape = tuple(sizes[axis] for axis in order)
    if suffix in NETCDF:
        image = Image.netcdf(name, {DIMENSIONS[axis]: sizes[axis] for axis in order})
        array = _Array(image.offset, shape, order, image)
    else:
        header = _npy_header(shape)
        array = _Array(len(header), shape, order, Image(len(header), len(header), ((0, header),)))
    with replacing(path) as temporary, os_errors(path, "write the file"):
        if suffix == ".npz":
            _write_archive(temporary, name, array, blocks, show)
            return
        with temporary.open("r+b") as file:
            array.write(file, blocks, show)


@dataclass(frozen=True)
class _Array:
    """An array of float64 in a file: its place, its shape and the order of its axes, and the bytes around it."""

    offset: int
    shape: tuple[int, ...]
    order: str
    image: Image

    def write(self, file: Any, blocks: Blocks, show: Show) -> None:
        """Fill an empty file. Its space comes first: a full disk would end a process that writes to a mapping."""
        end = self.offset + 8 * int(np.prod(self.shape, dtype=object))
        os.posix_fallocate(file.fileno(), 0, max(end, self.image.size))
        values: NDArray[np.float64] = np.memmap(file, np.float64, "r+", self.offset, self.shape)
        by_rows = values.transpose([self.order.index(axis) for axis in AXES])
        for rows, piece in blocks.pieces():
            by_rows[rows.start : rows.stop] = piece
            show(rows.stop)
        values.flush()  # type: ignore[attr-defined]
        self.image.write(file.fileno())


def _write_archive(path: Path, name: str, array: _Array, blocks: Blocks, show: Show) -> None:
    """Write an array as the member of an archive, through an unnamed file in the same folder."""
    with tempfile.TemporaryFile(dir=path.parent) as copy:
        array.write(copy, blocks, show)
        copy.seek(0)
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive,
            archive.open(f"{name}.npy", "w", force_zip64=True) as member,
        ):
            shutil.copyfileobj(copy, member, 2**20)


def _npy_header(shape: tuple[int, ...]) -> bytes:
    """Return the bytes of a ``.npy`` file before its values."""
    stream = io.BytesIO()
    description = {"descr": np.dtype(np.float64).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, description)
    return stream.getvalue()
