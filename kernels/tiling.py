"""Copies between runs of frequencies and the tiles in which the CPU stores them (see `formats`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import prange

from .formats import PARTS, Format
from .jit import CpuNest, Free, Kernel, Target, array_type, cached_kernel, check, scalar_type

copy = Free("copy")

TileCopy = Callable[[Any, int, Any], None]


def _to_tiles(tiled, tile, m, runs, row):
    for i in range(PARTS):
        tiled[tile, m, i] = runs[row, tile * PARTS + i]


def _from_tiles(tiled, tile, m, runs, row):
    for i in range(PARTS):
        runs[row, tile * PARTS + i] = tiled[tile, m, i]


FORMULAS = {"to": _to_tiles, "from": _from_tiles}


def _tiles_cpu(tiled, first, runs, tiles):
    for row in prange(runs.shape[0]):
        for tile in range(tiles):
            copy(tiled, tile, first + row, runs, row)


@cached_kernel
def tile_kernel(direction: str, tiled: Any, runs: Any) -> Kernel:
    """Return the kernel that copies to or from tiles, between dtypes."""
    index = scalar_type(int)
    signature = array_type(tiled, 3), index, array_type(runs, 2), index
    name = f"{direction}_{tiled.char}{runs.char}"
    return Kernel(name, {"cpu": CpuNest(_tiles_cpu, signature)}, {"copy": FORMULAS[direction]})


def tile_launcher(target: Target, direction: str, format: Format, runs: Any) -> TileCopy:
    """Compile a copy and return its launcher.

    Parameters
    ----------
    target : Target
        The CPU.
    direction : {"to", "from"}
        Whether the copy writes the tiles, or reads them.
    format : Format
        Format of the tiles' parts.
    runs : dtype
        dtype of the parts of the runs.

    Returns
    -------
    callable
        ``launch(tiled, first, runs)`` for a block row of a stored spectrum, (tiles, nm, 2 TILE), and (n, 2 width)
        parts of its columns from `first` on. It copies as many tiles as the shorter of both has.
    """
    dtype = np.dtype(runs)
    run = tile_kernel(direction, format.part, dtype).launcher(target)

    def launch(tiled: Any, first: int, parts: Any) -> None:
        check(tiled, format.part, (None, None, PARTS), "tiles")
        check(parts, dtype, (None, None), "runs")
        count = parts.shape[0]
        if not 0 <= first <= tiled.shape[1] - count:
            raise ValueError(f"tiles: expected {count} columns from {first} on, found {tiled.shape[1]} columns")
        run(tiled, first, parts, min(tiled.shape[0], parts.shape[1] // PARTS))

    return launch
