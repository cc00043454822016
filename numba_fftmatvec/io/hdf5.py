"""Block rows and vectors in HDF5 files: one dataset ``vec`` each, in SOTI order, and the attributes that describe it.

`docs/io_format.md` describes the format. Every reader checks the whole description of a file before it reads a value,
and reads the requested blocks directly into the caller's array.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError, FileFormatError, ShapeError
from ..layout import VectorLayout
from .atomic import FilePath, file_path, make_directory
from .dataset import Description, opened
from .manifest import row_digest
from .meta import MatrixMeta
from .values import ValuesWriter, written_file


def read_block_row(
    directory: FilePath,
    meta: MatrixMeta,
    row: int,
    cols: range,
    out: NDArray[np.float64],
    *,
    allow_nonfinite: bool = False,
    threads: int | None = None,
) -> None:
    """Read some block columns of one block row of a matrix: ``out[i, t] = F[row, cols[i], t]``.

    Parameters
    ----------
    directory : path
        The matrix directory.
    meta : MatrixMeta
        The metadata of the matrix.
    row : int
        Global index of the block row.
    cols : range
        Global indices of the block columns, consecutive.
    out : ndarray of float64, shape (len(cols), Nt), C-contiguous
        The caller's array, to be filled. Its content is undefined after an error.
    allow_nonfinite : bool
        Whether NaN and infinities are accepted.
    threads : int, optional
        The largest number of threads; by default one for each core that this process may use.

    Raises
    ------
    FileError
        The file is missing or cannot be read.
    FileFormatError
        The file breaks the format, or its sizes are not those of the matrix.
    ChecksumError
        The metadata has a checksum, and the file has none or a different one.
    """
    _read(stored_block_row(directory, meta, row, cols), out, allow_nonfinite, threads)


def check_block_row(directory: FilePath, meta: MatrixMeta, row: int) -> bool:
    """Check a block row's file except its values, before memory is allocated for sizes that no file has.

    Returns
    -------
    bool
        Whether the file has digests.

    Raises
    ------
    FileError, FileFormatError, ChecksumError
        As in `read_block_row`.
    """
    return _check(stored_block_row(directory, meta, row, range(meta.Nm)))


def write_block_row(directory: FilePath, meta: MatrixMeta, row: int, values: NDArray[np.float64]) -> None:
    """Write one block row of a matrix, creating the folders; an existing file is replaced in one step.

    Parameters
    ----------
    directory : path
        The matrix directory.
    meta : MatrixMeta
        The metadata of the matrix. `write_meta` writes it, best after the block rows.
    row : int
        Global index of the block row.
    values : ndarray of float64, shape (Nm, Nt)
        ``F[row]``.

    Raises
    ------
    FileError
        The file cannot be written; an existing file is then unchanged.
    """
    with block_row_writer(directory, meta, row) as writer:
        writer.write(range(meta.Nm), values)


@contextmanager
def block_row_writer(
    directory: FilePath, meta: MatrixMeta, row: int, like: Path | None = None, *, threads: int | None = None
) -> Iterator[VectorWriter]:
    """Write one block row in parts, as `vector_writer` does, with the permissions of a file `like`.

    The other parameters are those of `write_block_row` and of `vector_writer`.
    """
    description = block_row(directory, meta, row, range(meta.Nm))
    make_directory(description.path.parent)
    with _writer(description, like, threads) as writer:
        yield writer


def check_vector(path: FilePath, layout: VectorLayout, *, checksum: int = 0, qoi: bool = False) -> None:
    """Check a vector's file except its values; parameters and errors are those of `read_vector`."""
    _check(Description(file_path(path), layout, checksum, qoi))


def read_vector(
    path: FilePath,
    layout: VectorLayout,
    out: NDArray[np.float64],
    *,
    checksum: int = 0,
    qoi: bool = False,
    allow_nonfinite: bool = False,
    threads: int | None = None,
) -> bytes:
    """Read a rank's blocks of a vector: ``out[i, t] = vec[blocks[i], t]``, or ``out[v, i, t]`` for several vectors.

    Parameters
    ----------
    path : path
        The file.
    layout : VectorLayout
        The space and the global sizes that the file must have, and the consecutive blocks to read.
    out : ndarray of float64, shape (len(blocks), block_size), C-contiguous
        The caller's array, to be filled. Its content is undefined after an error. With several vectors its shape is
        (num_vecs, len(blocks), block_size).
    checksum : int
        The checksum that the file must have; 0 skips the check.
    qoi : bool
        Whether the file must be marked as a vector of quantities of interest. If not, a file in data space must
        not be marked: quantities of interest have the shape of observations, but are not observations.
    allow_nonfinite : bool
        Whether NaN and infinities are accepted.
    threads : int, optional
        The largest number of threads; by default one for each core that this process may use.

    Returns
    -------
    bytes
        The version of the file, the same for all readers of it until it is replaced.

    Raises
    ------
    FileError
        The file is missing or cannot be read.
    FileFormatError
        The file breaks the format, or its sizes are not those of the layout.
    ChecksumError
        `checksum` is not 0, and the file has no checksum or a different one.
    """
    return _read(Description(file_path(path), layout, checksum, qoi), out, allow_nonfinite, threads)


class VectorWriter:
    """The open file of a `vector_writer`."""

    def __init__(self, description: Description, descriptor: int, threads: int | None = None) -> None:
        self._description = description
        self._written = np.zeros(description.layout.num_blocks, dtype=bool)
        #: SHA-256 of the file's attributes and values, when it is finished.
        self.digest = b""
        size, stored = description.layout.size, description.stored
        self._values = ValuesWriter(description.path, descriptor, size, stored, threads=threads)

    def write(self, blocks: range, values: NDArray[np.float64]) -> None:
        """Write consecutive blocks of all vectors. Calls may come in any order.

        Parameters
        ----------
        blocks : range
            Global indices of the blocks.
        values : ndarray of float64, shape (len(blocks), block_size)
            Their values; for several vectors the shape is (num_vecs, len(blocks), block_size).
        """
        spans = self._description.spans(blocks)
        self._description.check_array(values, blocks)
        for span, vector in zip(spans, np.ascontiguousarray(values).reshape(len(spans), -1), strict=True):
            self._values.put(span.start, vector)
        self._written[blocks.start : blocks.stop] = True

    def finish(self) -> None:
        """Write the metadata of the file; raise a ShapeError unless every block was written."""
        self._check_complete()
        self.digest = self._values.finish()

    def _check_complete(self) -> None:
        """Raise a ShapeError unless every block was written."""
        if not self._written.all():
            raise ShapeError(
                f"{self._description.path}: expected values of all {self._written.size} blocks, found "
                f"{np.count_nonzero(self._written)}: block {np.argmin(self._written)} was not written"
            )


@contextmanager
def vector_writer(
    path: FilePath, layout: VectorLayout, *, checksum: int = 0, qoi: bool = False, threads: int | None = None
) -> Iterator[VectorWriter]:
    """Write a vector in parts; an existing file is replaced in one step when the body ends.

    If the body raises or omits a block, no file is written and an existing file is unchanged.

    Parameters
    ----------
    path : path
        The file, in a directory that exists.
    layout : VectorLayout
        The space and the global sizes; the number of vectors is stored if it is more than 1.
    checksum : int
        The checksum to store; 0 stores none.
    qoi : bool
        Whether the file is marked as a vector of quantities of interest.
    threads : int, optional
        The largest number of threads; by default one for each core that this process may use.

    Yields
    ------
    VectorWriter
        The open file; its method `write` takes the values.

    Raises
    ------
    FileError
        The file cannot be written.
    ShapeError
        The body did not write every block.

    Examples
    --------
    >>> import numpy as np
    >>> from numba_fftmatvec.layout import Space, VectorLayout
    >>> layout = VectorLayout(Space.COL, num_blocks=3, block_size=2, num_vecs=1, blocks=range(3))
    >>> with vector_writer("x.h5", layout) as writer:  # doctest: +SKIP
    ...     writer.write(range(0, 2), np.ones((2, 2)))
    ...     writer.write(range(2, 3), np.zeros((1, 2)))
    """
    with _writer(Description(file_path(path), layout, checksum, qoi), threads=threads) as writer:
        yield writer


def block_row(directory: FilePath, meta: MatrixMeta, row: int, cols: range) -> Description:
    """Return the description of a block row's file, a vector of parameter space, without the manifest's digest."""
    path, layout = meta.block_row_path(directory, row), meta.block_row_layout(cols)
    return Description(path, layout, meta.checksum, block_row=(row, meta.Nd))


def stored_block_row(directory: FilePath, meta: MatrixMeta, row: int, cols: range) -> Description:
    """Return the description of a block row's file that must have the digest of the manifest, if there is one."""
    return replace(block_row(directory, meta, row, cols), digest=row_digest(directory, meta, row))


@contextmanager
def _writer(description: Description, like: Path | None = None, threads: int | None = None) -> Iterator[VectorWriter]:
    with written_file(description.path, like) as descriptor:
        writer = VectorWriter(description, descriptor, threads)
        yield writer
        writer.finish()


def _check(description: Description) -> bool:
    """Check a file except its values; return whether it has digests."""
    with opened(description) as content:
        return content.digests is not None


def _read(description: Description, out: NDArray[np.float64], allow_nonfinite: bool, threads: int | None) -> bytes:
    layout, blocks = description.layout, description.layout.blocks
    spans = description.spans(blocks)
    description.check_array(out, blocks)
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ArgumentError(f"{description.path}: out: expected a writeable C-contiguous array, found {out.flags}")
    with opened(description, threads) as content:
        content.read(spans, list(out.reshape(len(spans), -1)))
        version = content.version
    if allow_nonfinite or (finite := np.isfinite(out)).all():
        return version
    first = int(np.argmin(finite))
    index, place = divmod(first, len(blocks) * layout.block_size)
    block, step = divmod(place, layout.block_size)
    of_vector = f"vector {index}, " if layout.num_vecs > 1 else ""
    raise FileFormatError(
        f"{description.path}, vec[{spans[index].start + place}] ({of_vector}block {blocks[block]}, step {step}): "
        f"expected finite values, found {out.flat[first]}"
    )
