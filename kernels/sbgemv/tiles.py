"""Tiles of the CUDA SBGEMV: what a block of threads computes, and into how many parts sums are split."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ..formats import COMPLEX64, COMPLEX128, FIXED16, FIXED32, Format
from ..jit import ceil_div
from .problem import Problem


@dataclass(frozen=True)
class Tile:
    """What a block of threads computes: the part of a launch's shape that kernels are specialised for.

    Parameters
    ----------
    rows : int
        Rows of the result of each thread; an even number for one right-hand side.
    threads : int
        Threads along the frequencies.
    width : int
        Frequencies of each thread; 1 for several right-hand sides.
    layers : int
        Layers of threads: each sums a part, or for several right-hand sides has rows or vectors of its own.
    pairs, groups : int
        Pairs of right-hand sides of each thread, and how many layers share its rows for other pairs; 0 and 1 for one.
    stages : int
        Terms of the sum that shared memory holds at a time, for several right-hand sides.
    """

    rows: int
    threads: int
    width: int = 1
    layers: int = 1
    pairs: int = 0
    groups: int = 1
    stages: int = 1

    @property
    def block_rows(self) -> int:
        """Rows of the result of a block."""
        return self.rows * (self.layers // self.groups if self.pairs else 1)

    def blocks(self, problem: Problem) -> int:
        """Return the number of blocks of a problem whose sums are not split, for as many pairs as a block has."""
        return ceil_div(problem.results, self.block_rows) * ceil_div(problem.frequencies, self.width * self.threads)

    def groups_of_pairs(self, problem: Problem) -> int:
        """Return the number of times that a problem's pairs of right-hand sides need a block's."""
        return ceil_div(problem.num_vecs, 2 * self.pairs * self.groups) if self.pairs else 1


# As measured on an H100; see docs/performance.md.
SMALL_BYTES = 64 << 20  # a spectrum that caches hold: latency counts, not bandwidth
SMALL_THREADS = 120_000
FEW_ROWS = 10
TILES = {
    COMPLEX128: Tile(rows=2, threads=64),
    COMPLEX64: Tile(rows=4, threads=64, width=2),
    FIXED32: Tile(rows=4, threads=64, width=2),
    FIXED16: Tile(rows=4, threads=64, width=2),
}
MAX_PAIRS = 4  # of a thread: with five rows, as many sums as registers allow
MAX_GROUPS = 2
LAST_WAVE = {COMPLEX128: 0.4, COMPLEX64: 0.4, FIXED32: 1.0, FIXED16: 1.0}  # decoding needs all threads there are
TOGETHER = 8  # tiles of frequencies that neighbouring blocks for several right-hand sides have
MEMORY_BOUND_PAIRS = 2  # of a thread: with more of them arithmetic takes all threads there are, too
RAMP = 0.1
SHORTEST_CHUNK = 4  # pairs of terms of one layer
MAX_CHUNKS = 256


def few_rows_tile(format: Format, results: int) -> Tile:
    """Return the tile that gives all rows to a thread: the vector is read once."""
    return Tile(2 * ceil_div(results, 2), threads=32, width=2 if format.is_fixed else 1, layers=8)


def choose_tile(problem: Problem) -> Tile:
    """Return the tile for a problem, by its sizes and formats alone."""
    format, results = problem.format, problem.results
    if problem.num_vecs > 1:
        total = ceil_div(problem.num_vecs, 2)
        groups = min(ceil_div(total, MAX_PAIRS), MAX_GROUPS)
        pairs = min(ceil_div(total, groups), MAX_PAIRS)
        stages = 3 if groups == 1 else 5
        return Tile(5, threads=32, layers=4 * groups, pairs=pairs, groups=groups, stages=stages)
    if problem.spectrum_bytes <= SMALL_BYTES:
        threads = ceil_div(results, 2) * problem.frequencies
        layers = min(SMALL_THREADS // threads, ceil_div(problem.reduced, 2) // 2, 32)
        layers = 1 << (max(layers, 1).bit_length() - 1)
        return Tile(2, threads=16 if layers >= 16 else 32, layers=layers)
    if results <= FEW_ROWS:
        return few_rows_tile(format, results)
    tile = TILES[format]
    return replace(tile, layers=2) if format == COMPLEX64 and not problem.adjoint else tile


def choose_chunks(problem: Problem, tile: Tile, resident: int) -> int:
    """Return how many parts the sums are split into, for a device that holds `resident` blocks at a time.

    A model of what was measured: a last wave takes as long as a part `LAST_WAVE` of the blocks at least, the first one
    a part `RAMP` of a wave more, and each chunk writes and reads its sums. On one device the same problem is always
    summed in the same order.
    """
    blocks = tile.blocks(problem) * tile.groups_of_pairs(problem)
    summing = 1 if tile.pairs else tile.layers
    most = max(1, min(ceil_div(problem.reduced, 2) // (SHORTEST_CHUNK * summing), MAX_CHUNKS))
    if not tile.pairs and problem.spectrum_bytes <= SMALL_BYTES:
        return 1
    sums = 4 * problem.rows(problem.results, paired=True) * problem.length * np.dtype(problem.accumulator).itemsize

    last_wave = 1.0 if tile.pairs > MEMORY_BOUND_PAIRS else LAST_WAVE[problem.format]

    def cost(chunks: int) -> float:
        waves = blocks * chunks / resident
        whole = math.floor(waves)
        last = max(waves - whole, last_wave) if waves > whole else 0.0
        return (whole + last + RAMP) / waves + (chunks * sums / problem.spectrum_bytes if chunks > 1 else 0.0)

    return min(range(1, most + 1), key=cost)
