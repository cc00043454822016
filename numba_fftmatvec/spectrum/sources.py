"""Sources of a matrix's values: functions that return a rank's part of a block row, some columns at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arguments import check_shape
from ..backends import Backend, Buffer
from ..backends.base import Staging
from ..backends.exchange import on_device, real_values
from ..backends.workers import Workers
from ..io import MatrixMeta, read_block_row
from ..kernels import ceil_div
from ..kernels.elementwise import fill_launcher
from ..layout import MatrixLayout, block_ranges

# ``source(row, cols, staging)`` returns F[row, cols] as a (len(cols), Nt) float64 Buffer of the staging memory. The
# indices are global and lie in this rank's share. Calls follow the order of rows and columns.
BlockRowSource = Callable[[int, range, Staging], Buffer]

# This number of threads saturates the memory bandwidth of any host. A thread with fewer bytes to copy costs more time
# than it saves.
MOST_THREADS = 16
LEAST_BYTES = 1 << 20


def filled(backend: Backend, layout: MatrixLayout, formula: str, value: float = 0.0) -> BlockRowSource:
    """Return the source that evaluates a formula (see `fill_launcher`) of the index in the (Nd, Nm, Nt) array."""
    launch = fill_launcher(backend.target, formula)

    def source(row: int, cols: range, staging: Staging) -> Buffer:
        values = staging.on_device(len(cols))
        start = (row * layout.Nm + cols.start) * layout.Nt
        launch(backend.wrap(values.array.reshape(-1)).view, start, value)
        return values

    return source


def from_rows(backend: Backend, layout: MatrixLayout, rows: Callable[[int], Any]) -> BlockRowSource:
    """Return the source that copies this rank's columns of the global (Nm, Nt) block rows from a function.

    The function takes the global index of a block row, and is called once for each row. It returns values on the host
    or on the backend's GPU.
    """
    copy = ParallelCopy(backend.threads)

    @lru_cache(maxsize=1)
    def block_row(row: int) -> Any:
        values = real_values(backend, rows(row), f"block row {row}")
        check_shape(values.shape, (layout.Nm, layout.Nt), f"block row {row}")
        return values

    def source(row: int, cols: range, staging: Staging) -> Buffer:
        mine = block_row(row)[cols.start : cols.stop]
        if on_device(mine):
            staged = staging.on_device(len(cols))
            with backend.active():
                staged.array[...] = mine
            return staged
        return staging.from_host(len(cols), partial(copy, source=mine))

    return source


def from_directory(
    backend: Backend, directory: Path, meta: MatrixMeta, *, allow_nonfinite: bool = False
) -> BlockRowSource:
    """Return the source that reads this rank's columns from the files of a matrix directory."""

    def source(row: int, cols: range, staging: Staging) -> Buffer:
        def read(host: npt.NDArray[np.float64]) -> None:
            read_block_row(directory, meta, row, cols, host, allow_nonfinite=allow_nonfinite, threads=backend.threads)

        return staging.from_host(len(cols), read)

    return source


class ParallelCopy:
    """Copies rows of real numbers of any dtype with several threads, which end with this object.

    One thread uses a small part of the host's memory bandwidth; NumPy releases the interpreter's lock while it copies.

    Parameters
    ----------
    threads : int
        Largest number of threads.
    """

    def __init__(self, threads: int) -> None:
        self._threads = min(threads, MOST_THREADS)
        self._workers = Workers(self._threads - 1)

    def __call__(self, destination: npt.NDArray[Any], source: npt.NDArray[Any]) -> None:
        """Copy `source` to `destination`, of the same shape, and convert the values to its dtype."""

        def copy(rows: range) -> None:
            np.copyto(destination[rows.start : rows.stop], source[rows.start : rows.stop], casting="same_kind")

        total = len(destination)
        parts = max(1, min(self._threads, total, ceil_div(destination.nbytes, LEAST_BYTES)))
        self._workers.run([partial(copy, rows) for rows in block_ranges(total, parts)])
