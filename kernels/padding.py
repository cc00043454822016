"""Copies of rows between arrays of different row length, which change the precision as well.

Padding fills the head of each row of a longer array and leaves the tail alone; the owner of the array zeroes it once.
Unpadding copies the head of each row. Conversion copies rows of equal length. One kernel does all three.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from numba import prange

from .jit import (
    MAX_GRID_Y,
    THREADS,
    CpuNest,
    CudaNest,
    Free,
    Kernel,
    Target,
    array_type,
    cached_kernel,
    ceil_div,
    check,
    cuda,
    pointer,
    pointer_type,
    scalar_type,
)
from .memory import load

ROWS = 4  # rows that a CUDA thread copies at a time

RowCopy = Callable[[Any, Any], None]

formula, load_one = Free("formula"), Free("load_one")


def _convert(value, scale):
    return value


def _round_to_single(value, scale):
    return np.float32(value)


def _scale(value, scale):
    return value * scale


FORMULAS = {"convert": _convert, "round": _round_to_single, "scale": _scale}


def _rows_cpu(destination, source, columns, scale):
    for row in prange(source.shape[0]):
        for i in range(columns):
            destination[row, i] = formula(source[row, i], scale)


def _rows_cuda(destination, source, rows, columns, written, read, scale):
    i = np.int64(cuda.blockIdx.x) * cuda.blockDim.x + cuda.threadIdx.x
    row = np.int64(cuda.blockIdx.y) * ROWS
    if i < columns:
        while row < rows:
            # Four rows are loaded at a time. Indices past the last row are clamped to it, so the last row may be
            # written more than once, each time with the same values.
            a, b = row, min(row + 1, rows - 1)
            c, d = min(row + 2, rows - 1), min(row + 3, rows - 1)
            u, v = load_one(source, a * read + i)[0], load_one(source, b * read + i)[0]
            w, x = load_one(source, c * read + i)[0], load_one(source, d * read + i)[0]
            destination[a * written + i] = formula(u, scale)
            destination[b * written + i] = formula(v, scale)
            destination[c * written + i] = formula(w, scale)
            destination[d * written + i] = formula(x, scale)
            row += ROWS * cuda.gridDim.y


def _launch_rows(shaped, destination, source, columns, scale):
    rows = source.shape[0]
    grid = ceil_div(columns, THREADS), min(ceil_div(rows, ROWS), MAX_GRID_Y)
    sizes = map(np.int64, (rows, columns, destination.shape[1], source.shape[1]))
    shaped(grid, THREADS)((pointer(destination), pointer(source), *sizes, scale))


@cached_kernel
def row_kernel(formula: str, source: Any, destination: Any) -> Kernel:
    """Return the kernel that applies a formula of `FORMULAS` to rows."""
    source, destination = np.dtype(source), np.dtype(destination)
    count, scale = scalar_type(np.int64), scalar_type(source)
    on_cpu = array_type(destination, 2), array_type(source, 2), count, scale
    on_cuda = pointer_type(destination), pointer_type(source), *[count] * 4, scale
    nests = {
        "cpu": CpuNest(_rows_cpu, on_cpu),
        "cuda": CudaNest(_rows_cuda, on_cuda, {"load_one": load(1)}, _launch_rows),
    }
    return Kernel(f"{formula}_{source.char}{destination.char}", nests, {"formula": FORMULAS[formula]})


def row_launcher(target: Target, formula: str, source: Any, destination: Any, scale: float = 1.0) -> RowCopy:
    """Compile a row kernel and return its launcher.

    Parameters
    ----------
    target : Target
        Where it runs.
    formula : str
        A key of `FORMULAS`.
    source, destination : dtype
        float32 or float64 each.
    scale : float
        Factor, for the formula ``"scale"``.

    Returns
    -------
    callable
        ``launch(destination, source)`` for two C-contiguous arrays with the same number of rows. It copies as many
        columns as the shorter rows have. It raises TypeError for another dtype and ValueError for other shapes.
    """
    source, destination = np.dtype(source), np.dtype(destination)
    factor = source.type(scale)
    run = row_kernel(formula, source, destination).launcher(target)

    def launch(out: Any, values: Any) -> None:
        check(values, source, (None, None), "source rows")
        check(out, destination, (values.shape[0], None), "destination rows")
        run(out, values, min(values.shape[1], out.shape[1]), factor)

    return launch


def copy_launcher(target: Target, source: Any, rounding: Any, destination: Any) -> RowCopy:
    """Return the launcher that pads, unpads or converts: it reads one dtype, rounds to a second, writes a third."""
    narrow = np.dtype(np.float32)
    rounds = np.dtype(rounding) == narrow and narrow not in (np.dtype(source), np.dtype(destination))
    return row_launcher(target, "round" if rounds else "convert", source, destination)


def specialisations() -> dict[str, Kernel]:
    """Return every kernel that this module can launch, by name."""
    kinds = {"f": np.float32, "d": np.float64}
    combinations = [("convert", a, b) for a, b in product(kinds, kinds)]
    combinations += [("round", "d", "d"), ("scale", "d", "f"), ("scale", "d", "d")]
    return {f"{name}_{a}{b}": row_kernel(name, kinds[a], kinds[b]) for name, a, b in combinations}
