"""Tiles of the CUDA SBGEMV: the share of a block of threads, and the number of parts of each sum."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..formats import COMPLEX64, COMPLEX128, FIXED16, FIXED32, Format
from ..jit import RESERVED_SHARED, ceil_div
from ..memory import WIDEST
from ..tensor import COLUMNS, WARP
from .problem import Problem


@dataclass(frozen=True)
class Tile:
    """The share of a block of threads. Kernels are specialised for a tile.

    Parameters
    ----------
    rows : int
        Rows of the result of each thread; an even number for one right-hand side.
    threads : int
        Threads along the frequencies.
    width : int
        Frequencies of each thread; 1 for several right-hand sides.
    layers : int
        Layers of threads. For one right-hand side each layer adds up a part of the terms; for several each layer has
        its own rows or pairs.
    pairs : int
        Pairs of right-hand sides of each thread; 0 for a single right-hand side.
    groups : int
        Number of layers that share the same rows but take different pairs; 1 for a single right-hand side.
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
        """Return the number of blocks for one group of pairs, if the sums are not split."""
        return ceil_div(problem.results, self.block_rows) * ceil_div(problem.frequencies, self.width * self.threads)

    def groups_of_pairs(self, problem: Problem) -> int:
        """Return the number of blocks that share a problem's pairs of right-hand sides."""
        return ceil_div(problem.num_vecs, 2 * self.pairs * self.groups) if self.pairs else 1


@dataclass(frozen=True)
class TensorTile:
    """The share of a block of warps on tensor cores, for several right-hand sides.

    Parameters
    ----------
    height : int
        Rows of an instruction, 8 or 16.
    rows, columns : int
        Instructions along the rows and along the columns of a warp at one frequency. An instruction has 8 columns: 4
        pairs of right-hand sides at k and at L - k.
    width : int
        Neighbouring frequencies of a warp; a power of two.
    warps, layers : int
        Warps along the frequencies and along the rows; powers of two.
    terms : int
        Terms of the sum of a stage; a multiple of 4.
    stages : int
        Stages that shared memory holds at a time.
    resident : int
        Blocks of a multiprocessor; with more of them a thread has fewer registers.
    """

    height: int
    rows: int
    columns: int
    width: int = 1
    warps: int = 8
    layers: int = 1
    terms: int = 4
    stages: int = 4
    resident: int = 1

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return WARP * self.warps * self.layers

    @property
    def line(self) -> int:
        """Frequencies of a block."""
        return self.width * self.warps

    @property
    def block_rows(self) -> int:
        """Rows of the result of a block."""
        return self.height * self.rows * self.layers

    @property
    def block_columns(self) -> int:
        """Columns of a block."""
        return COLUMNS * self.columns

    @property
    def pairs(self) -> int:
        """Pairs of right-hand sides of a block."""
        return self.block_columns // 2

    def piece(self, part: np.dtype[Any]) -> int:
        """Return the frequencies of the spectrum that one copy moves."""
        return min(self.line, WIDEST // (2 * part.itemsize))

    def slots(self, part: np.dtype[Any], value: np.dtype[Any]) -> tuple[int, int, int]:
        """Return the bytes of a stage's parts, values and scales, for the real dtypes of spectrum and vectors."""
        lines = self.terms * self.line * 2
        scales = 8 * self.terms * self.block_rows if part.kind == "i" else 0
        return lines * self.block_rows * part.itemsize, lines * self.block_columns * value.itemsize, scales

    def shared(self, part: np.dtype[Any], value: np.dtype[Any]) -> int:
        """Return the bytes of a block's shared memory."""
        sums = 2 * 8 * self.block_rows * self.block_columns * self.line  # they pass through it when they are stored
        return max(self.stages * sum(self.slots(part, value)), sums)

    def blocks(self, problem: Problem) -> int:
        """Return the number of blocks for one group of pairs, if the sums are not split."""
        return ceil_div(problem.results, self.block_rows) * ceil_div(problem.frequencies, self.line)

    def groups_of_pairs(self, problem: Problem) -> int:
        """Return the number of blocks that share a problem's pairs of right-hand sides."""
        return ceil_div(ceil_div(problem.num_vecs, 2), self.pairs)


# These values were the best of those measured on an H100; see docs/performance.md.
SMALL_BYTES = 64 << 20  # the cache holds a smaller spectrum, so latency counts instead of bandwidth
SMALL_THREADS = 120_000
FEW_ROWS = 10
TILES = {
    COMPLEX128: Tile(rows=2, threads=64),
    COMPLEX64: Tile(rows=4, threads=64, width=2),
    FIXED32: Tile(rows=4, threads=64, width=2),
    FIXED16: Tile(rows=4, threads=64, width=2),
}
MAX_PAIRS = 4  # pairs of a thread: with five rows their sums fill the registers
MAX_GROUPS = 2
LAST_WAVE = {COMPLEX128: 0.4, COMPLEX64: 0.4, FIXED32: 1.0, FIXED16: 1.0}  # decoding keeps all threads busy
TOGETHER = 8  # tiles of frequencies that neighbouring blocks share, for several right-hand sides
TOGETHER_FREQUENCIES = 256  # frequencies that neighbouring blocks share on tensor cores
MEMORY_BOUND_PAIRS = 2  # pairs of a thread: with more of them arithmetic keeps all threads busy
# On tensor cores: sums of fewer terms do without them, and long ones have at least LONG terms. The fewest right-hand
# sides by format and whether sums are long; the tiles by format and the instructions along the columns.
SHARED = {16: 228 << 10, 8: 164 << 10}  # bytes of shared memory of a multiprocessor with these instructions
LEAST_TERMS, LONG = 32, 256
LEAST_VECS = {
    **dict.fromkeys([(COMPLEX128, True), (COMPLEX128, False)], 13),
    **{(format, long): 3 if long else 5 for format in (COMPLEX64, FIXED32, FIXED16) for long in (True, False)},
}
_EIGHT_COLUMNS = TensorTile(16, rows=4, columns=1, width=2, stages=4)
_TWO_WIDE = TensorTile(16, rows=2, columns=2, width=2, stages=6)
TENSOR_TILES = {
    (COMPLEX128, 2): TensorTile(16, rows=4, columns=2, stages=5),
    (COMPLEX64, 1): _EIGHT_COLUMNS,
    (COMPLEX64, 2): TensorTile(16, rows=2, columns=2, warps=16, stages=5),
    (FIXED32, 1): _EIGHT_COLUMNS,
    (FIXED32, 2): _TWO_WIDE,
    (FIXED16, 1): replace(_EIGHT_COLUMNS, stages=6),
    (FIXED16, 2): _TWO_WIDE,
}
RAMP = 0.1
SHORTEST_CHUNK = 4  # pairs of terms of one layer
MAX_CHUNKS = 256


def few_rows_tile(format: Format, results: int) -> Tile:
    """Return the tile that gives all rows to each thread, so that the vector is read once."""
    return Tile(2 * ceil_div(results, 2), threads=32, width=2 if format.is_fixed else 1, layers=8)


def tensor_tile(problem: Problem, height: int) -> TensorTile | None:
    """Return the tile on tensor cores whose instructions have `height` rows, or None where it would be slower."""
    double, long = np.dtype(problem.accumulator) == np.complex128, problem.reduced >= LONG
    if not (height and double and problem.num_vecs >= LEAST_VECS[problem.format, long]):
        return None
    if problem.spectrum_bytes <= SMALL_BYTES or problem.reduced < LEAST_TERMS:
        return None
    tile = TENSOR_TILES[problem.format, min(ceil_div(problem.num_vecs, COLUMNS), 2)]
    rows = min(tile.rows * (tile.height // height), ceil_div(problem.results, height))
    tile = replace(tile, height=height, rows=rows)
    part, value = problem.format.part, np.dtype(problem.vector).type(0).real.dtype
    while tile.resident * (tile.shared(part, value) + RESERVED_SHARED) > SHARED[height]:
        tile = replace(tile, stages=tile.stages - 1)
    return tile


def choose_tile(problem: Problem, height: int = 0) -> Tile | TensorTile:
    """Return the tile for a problem.

    It depends on sizes and dtypes, and on the rows that the device's instructions on tensor cores have: 0 without them.
    """
    format, results = problem.format, problem.results
    if tensor := tensor_tile(problem, height):
        return tensor
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


def choose_chunks(problem: Problem, tile: Tile | TensorTile, resident: int) -> int:
    """Return the number of parts of each sum, for a device that holds `resident` blocks at a time.

    The choice minimises a model of measured times. A partial last wave costs at least `LAST_WAVE` of a full one.
    Filling the device costs `RAMP` of a wave once. Each chunk writes and reads its sums. On one device the same
    problem is always summed in the same order.
    """
    blocks = tile.blocks(problem) * tile.groups_of_pairs(problem)
    summing = tile.layers if isinstance(tile, Tile) and not tile.pairs else 1
    most = max(1, min(ceil_div(problem.reduced, 2) // (SHORTEST_CHUNK * summing), MAX_CHUNKS))
    if not tile.pairs and problem.spectrum_bytes <= SMALL_BYTES:
        return 1
    sums = 4 * problem.rows(problem.results) * problem.length * np.dtype(problem.accumulator).itemsize

    last_wave = 1.0 if tile.pairs > MEMORY_BOUND_PAIRS else LAST_WAVE[problem.format]

    def cost(chunks: int) -> float:
        waves = blocks * chunks / resident
        whole = math.floor(waves)
        last = max(waves - whole, last_wave) if waves > whole else 0.0
        return (whole + last + RAMP) / waves + (chunks * sums / problem.spectrum_bytes if chunks > 1 else 0.0)

    return min(range(1, most + 1), key=cost)
