"""Block rows and vectors in HDF5 files: one dataset ``vec`` each, in SOTI order, and the attributes that describe it.

`docs/io_format.md` describes the format. Every reader checks the whole description of a file before it reads a value,
and reads the blocks asked for straight into the caller's array.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError, FileError, FileFormatError, ShapeError
from ..layout import VectorLayout
from .atomic import make_directory, replacing
from .dataset import Description, hdf5_errors, opened
from .meta import MatrixMeta


def read_block_row(
    directory: str | os.PathLike[str],
    meta: MatrixMeta,
    row: int,
    cols: range,
    out: NDArray[np.float64],
    *,
    allow_nonfinite: bool = False,
) -> None:
    """Read some block columns of one block row of a matrix: ``out[i, t] = F[row, cols[i], t]``.

    Parameters
    ----------
    directory : path
        The matrix directory.
    meta : MatrixMeta
        Its metadata.
    row : int
        Global index of the block row.
    cols : range
        Global indices of the block columns, consecutive.
    out : ndarray of float64, shape (len(cols), Nt), C-contiguous
        The caller's; its content is undefined after an error.
    allow_nonfinite : bool
        Whether NaN and infinities are taken as they are.

    Raises
    ------
    FileError
        The file is missing or cannot be read.
    FileFormatError
        The file breaks the format, or is not of this matrix' sizes.
    ChecksumError
        The metadata has a checksum, and the file none or another.
    """
    _read(_block_row(directory, meta, row, cols), out, allow_nonfinite)


def check_block_row(directory: str | os.PathLike[str], meta: MatrixMeta, row: int) -> None:
    """Check all of one block row's file but its values, so that nothing is allocated for sizes that no file has.

    Raises as `read_block_row` does.
    """
    _check(_block_row(directory, meta, row, range(meta.Nm)))


def write_block_row(directory: str | os.PathLike[str], meta: MatrixMeta, row: int, values: NDArray[np.float64]) -> None:
    """Write one block row of a matrix, creating the folders; an existing file is replaced in one step.

    Parameters
    ----------
    directory : path
        The matrix directory.
    meta : MatrixMeta
        The matrix' metadata; written apart, by `write_meta`, and best after the block rows.
    row : int
        Global index of the block row.
    values : ndarray of float64, shape (Nm, Nt)
        ``F[row]``.

    Raises
    ------
    FileError
        The file cannot be written; an existing one is then as it was.
    """
    with block_row_writer(directory, meta, row) as writer:
        writer.write(range(meta.Nm), values)


@contextmanager
def block_row_writer(directory: str | os.PathLike[str], meta: MatrixMeta, row: int) -> Iterator[VectorWriter]:
    """Write one block row of a matrix in parts, as `vector_writer` writes a vector; parameters of `write_block_row`."""
    description = _block_row(directory, meta, row, range(meta.Nm))
    make_directory(description.path.parent)
    with _writer(description) as writer:
        yield writer


def check_vector(path: str | os.PathLike[str], layout: VectorLayout, *, checksum: int = 0, qoi: bool = False) -> None:
    """Check all of a vector's file but its values; parameters and errors are those of `read_vector`."""
    _check(Description(Path(path), layout, checksum, qoi))


def read_vector(
    path: str | os.PathLike[str],
    layout: VectorLayout,
    out: NDArray[np.float64],
    *,
    checksum: int = 0,
    qoi: bool = False,
    allow_nonfinite: bool = False,
) -> None:
    """Read a rank's blocks of a vector: ``out[i, t] = vec[blocks[i], t]``; of several ``out[v, i, t]``.

    Parameters
    ----------
    path : path
        The file.
    layout : VectorLayout
        The space and the global sizes that the file must have, and the blocks to read, consecutive.
    out : ndarray of float64, shape (len(blocks), block_size), C-contiguous
        The caller's; its content is undefined after an error. With several vectors its shape is (num_vecs,
        len(blocks), block_size).
    checksum : int
        The checksum that the file must have; 0 verifies nothing.
    qoi : bool
        Whether the file must be marked as a vector of quantities of interest. If not, one in data space must not be:
        it has an observation's shape, but is none.
    allow_nonfinite : bool
        Whether NaN and infinities are taken as they are.

    Raises
    ------
    FileError
        The file is missing or cannot be read.
    FileFormatError
        The file breaks the format, or is not of these sizes.
    ChecksumError
        A checksum is asked for, and the file has none or another.
    """
    _read(Description(Path(path), layout, checksum, qoi), out, allow_nonfinite)


class VectorWriter:
    """The open file of a `vector_writer`."""

    def __init__(self, description: Description, dataset: Any) -> None:
        self._description = description
        self._dataset = dataset
        self._written = np.zeros(description.layout.num_blocks, dtype=bool)

    def write(self, blocks: range, values: NDArray[np.float64]) -> None:
        """Write consecutive blocks, of all vectors, in any order of calls.

        Parameters
        ----------
        blocks : range
            Global indices of the blocks.
        values : ndarray of float64, shape (len(blocks), block_size)
            Their values; of several vectors (num_vecs, len(blocks), block_size).
        """
        spans = self._description.spans(blocks)
        self._description.check_array(values, blocks)
        with hdf5_errors(self._description.path, "write", FileError):
            for span, vector in zip(spans, values.reshape(len(spans), -1), strict=True):
                self._dataset[span] = vector
        self._written[blocks.start : blocks.stop] = True

    def check_complete(self) -> None:
        """Raise a ShapeError unless every block was written."""
        if not self._written.all():
            raise ShapeError(
                f"{self._description.path}: expected values of all {self._written.size} blocks, found "
                f"{np.count_nonzero(self._written)}: block {np.argmin(self._written)} was not written"
            )


@contextmanager
def vector_writer(
    path: str | os.PathLike[str], layout: VectorLayout, *, checksum: int = 0, qoi: bool = False
) -> Iterator[VectorWriter]:
    """Write a vector in parts; an existing file is replaced in one step when the body ends.

    If the body raises, or leaves a block out, there is no new file and an existing one is as it was.

    Parameters
    ----------
    path : path
        The file; its directory exists.
    layout : VectorLayout
        The space and the global sizes; the number of vectors is stored where it is more than 1.
    checksum : int
        The checksum to store; 0 stores none.
    qoi : bool
        Whether the file is marked as a vector of quantities of interest.

    Yields
    ------
    VectorWriter
        Its ``write(blocks, values)`` takes the values.

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
    with _writer(Description(Path(path), layout, checksum, qoi)) as writer:
        yield writer


def _block_row(directory: str | os.PathLike[str], meta: MatrixMeta, row: int, cols: range) -> Description:
    """Describe the file of a block row: it is a vector of parameter space."""
    return Description(meta.block_row_path(directory, row), meta.block_row_layout(cols), meta.checksum)


@contextmanager
def _writer(description: Description) -> Iterator[VectorWriter]:
    path = description.path
    attributes = description.attributes | description.optional
    with replacing(path) as temporary:
        with hdf5_errors(path, "write", FileError):
            file = h5py.File(temporary, "x")
        try:
            with hdf5_errors(path, "write", FileError):
                dataset = file.create_dataset("vec", shape=description.shape, dtype=np.float64)
                dataset.attrs.update({name: np.int64(value) for name, value in attributes.items()})
            writer = VectorWriter(description, dataset)
            yield writer
            writer.check_complete()
        finally:
            with hdf5_errors(path, "write", FileError):
                file.close()


def _check(description: Description) -> None:
    with opened(description):
        pass


def _read(description: Description, out: NDArray[np.float64], allow_nonfinite: bool) -> None:
    layout, blocks = description.layout, description.layout.blocks
    spans = description.spans(blocks)
    description.check_array(out, blocks)
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ArgumentError(f"{description.path}: out: expected a writeable C-contiguous array, found {out.flags}")
    with opened(description) as dataset:
        for span, vector in zip(spans, out.reshape(len(spans), -1), strict=True):
            if vector.size:
                dataset.read_direct(vector, source_sel=span)
    if allow_nonfinite or (finite := np.isfinite(out)).all():
        return
    first = int(np.argmin(finite))
    index, place = divmod(first, len(blocks) * layout.block_size)
    block, step = divmod(place, layout.block_size)
    of_vector = f"vector {index}, " if layout.num_vecs > 1 else ""
    raise FileFormatError(
        f"{description.path}, vec[{spans[index].start + place}] ({of_vector}block {blocks[block]}, step {step}): "
        f"expected finite values, found {out.flat[first]}"
    )
