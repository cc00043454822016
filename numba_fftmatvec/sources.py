"""Where a matrix's values come from: functions that write a rank's part of one block row at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .backends import Backend, Buffer
from .errors import ArgumentTypeError
from .io import MatrixMeta, read_block_row
from .kernels.elementwise import fill
from .layout import Layout
from .partition import check_shape

# Writes this rank's part of the block row with the given global index into a (nm, Nt) float64 Buffer.
BlockRowSource = Callable[[int, Buffer], None]


def filled(backend: Backend, layout: Layout, formula: str, value: float = 0.0) -> BlockRowSource:
    """Return the source that fills by a formula (see `elementwise.fill`) of the index in the (Nd, Nm, Nt) array."""
    launch = fill(backend.target, formula)

    def source(row: int, out: Buffer) -> None:
        start = (row * layout.num_cols + layout.cols.start) * layout.block_size
        launch(backend.wrap(out.array.reshape(-1)).view, start, value)

    return source


def from_rows(backend: Backend, layout: Layout, rows: Callable[[int], npt.ArrayLike]) -> BlockRowSource:
    """Return the source that takes its part of the global (Nm, Nt) block rows that a function returns."""

    def source(row: int, out: Buffer) -> None:
        values = np.asarray(rows(row))
        check_shape(values.shape, (layout.num_cols, layout.block_size), f"block row {row}")
        if values.dtype.kind not in "buif":
            raise ArgumentTypeError(f"block row {row}: expected real numbers, found dtype {values.dtype}")
        mine = values[layout.cols.start : layout.cols.stop]
        backend.upload(out.array, np.ascontiguousarray(mine, np.float64))

    return source


def from_directory(backend: Backend, layout: Layout, directory: Path, meta: MatrixMeta) -> BlockRowSource:
    """Return the source that reads its part of the files of a matrix directory."""

    def source(row: int, out: Buffer) -> None:
        host = backend.host_view(out.array)
        read_block_row(directory, meta, row, layout.cols, host)
        backend.copy_from_host(out.array, host)

    return source
