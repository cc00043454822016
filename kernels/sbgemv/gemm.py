"""SBGEMV on CUDA for several right-hand sides.

A block stages one term's spectrum and vectors in shared memory by asynchronous copies, some terms ahead. Each thread
keeps the sums of a few rows and a few pairs of right-hand sides at one frequency in registers. A complex row holds the
same block of two right-hand sides (see `pairs`), so there is nothing to separate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import types as nbtypes

from ..formats import RUN
from ..jit import CudaNest, Free, ceil_div, cuda, scalar_type
from ..memory import commit, copy_async, load_shared, wait_for
from .tiles import TOGETHER, Tile

ROWS, LANES, LAYERS, PAIRS, GROUPS = Free("ROWS"), Free("LANES"), Free("LAYERS"), Free("PAIRS"), Free("GROUPS")
STAGES, NEIGHBOURS = Free("STAGES"), Free("NEIGHBOURS")
BLOCK_ROWS, BLOCK_PAIRS = Free("BLOCK_ROWS"), Free("BLOCK_PAIRS")
REAL, OUT, PART, VECTOR = Free("REAL"), Free("OUT"), Free("PART"), Free("VECTOR")
ZERO, SIGN, SCALED, follow = Free("ZERO"), Free("SIGN"), Free("SCALED"), Free("follow")
SUMS, FACTORS = Free("SUMS"), Free("FACTORS")
LANE_SLOT, LAYER_SLOT = Free("LANE_SLOT"), Free("LAYER_SLOT")
PART_SLOT, VALUE_SLOT = Free("PART_SLOT"), Free("VALUE_SLOT")
SPECTRA, VECTORS = Free("SPECTRA"), Free("VECTORS")
PART_COPIES, VALUE_COPIES = Free("PART_COPIES"), Free("VALUE_COPIES")
load_part, load_value, store = Free("load_part"), Free("load_value"), Free("store")
copy_part, copy_value = Free("copy_part"), Free("copy_value")
commit_copies, wait_for_copies = Free("commit_copies"), Free("wait_for_copies")
place_block, start_copies, load_factors = Free("place_block"), Free("start_copies"), Free("load_factors")
accumulate_pair, store_sums = Free("accumulate_pair"), Free("store_sums")


def _place_block(results, frequencies, length, lane):
    """Return the block's first row and the thread's frequency k, whether it is inside, and L - k.

    Blocks that run at the same time have few tiles of frequencies, so that the parts of the vectors that they read stay
    in the cache.
    """
    blocks = (results + BLOCK_ROWS - 1) // BLOCK_ROWS * NEIGHBOURS
    first_tile = np.int64(cuda.blockIdx.x) // blocks * NEIGHBOURS
    block = np.int64(cuda.blockIdx.x) % blocks
    together = min(NEIGHBOURS, (frequencies + LANES - 1) // LANES - first_tile)
    k = (first_tile + block % together) * LANES + lane
    inside = k < frequencies
    k = min(k, frequencies - 1)
    mirror = length - k if k > 0 else k
    return block // together * BLOCK_ROWS, k, inside, mirror


def _start_copies(
    spectra, vectors, spectrum, vector, part_at, value_at, layer, own, slot, wanted, part_step, value_step
):
    """Start to copy one term's part of the spectrum and of the vectors to a slot; advance the addresses."""
    for i in range(PART_COPIES):
        if layer + i * LAYERS < BLOCK_ROWS:
            copy_part(spectra, slot * PART_SLOT + i * LAYER_SLOT + own, spectrum, part_at[i], wanted)
        part_at[i] += part_step
    for i in range(VALUE_COPIES):
        if layer + i * LAYERS < 2 * BLOCK_PAIRS:
            copy_value(vectors, slot * VALUE_SLOT + i * LAYER_SLOT + own, vector, value_at[i], wanted)
        value_at[i] += value_step


def _load_factors(a, spectra, at, scales, scale_at, scale_step):
    """Load one term's factors of the thread's rows from shared memory, and decode them."""
    for r in range(ROWS):
        value = load_part(spectra, at + r * LANE_SLOT)
        a[r, 0], a[r, 1] = REAL(value[0]), SIGN * REAL(value[1])
        if SCALED:
            scale = REAL(scales[scale_at[r]])
            scale_at[r] += scale_step
            a[r, 0], a[r, 1] = a[r, 0] * scale, a[r, 1] * scale


def _accumulate_pair(sums, p, a, vectors, at):
    """Add one term's products with a pair of right-hand sides, at k and at L - k, to the sums of all rows."""
    z, w = load_value(vectors, at), load_value(vectors, at + LANE_SLOT)
    z_real, z_imag, w_real, w_imag = REAL(z[0]), REAL(z[1]), REAL(w[0]), REAL(w[1])
    for r in range(ROWS):
        # The matrix is real: its transform at L - k is the conjugate of that at k.
        sums[r, p, 0] = cuda.fma(a[r, 0], z_real, sums[r, p, 0])
        sums[r, p, 0] = cuda.fma(-a[r, 1], z_imag, sums[r, p, 0])
        sums[r, p, 1] = cuda.fma(a[r, 0], z_imag, sums[r, p, 1])
        sums[r, p, 1] = cuda.fma(a[r, 1], z_real, sums[r, p, 1])
        sums[r, p, 2] = cuda.fma(a[r, 0], w_real, sums[r, p, 2])
        sums[r, p, 2] = cuda.fma(a[r, 1], w_imag, sums[r, p, 2])
        sums[r, p, 3] = cuda.fma(a[r, 0], w_imag, sums[r, p, 3])
        sums[r, p, 3] = cuda.fma(-a[r, 1], w_real, sums[r, p, 3])


def _store_sums(result, sums, inside, first_row, results, first_pair, pairs, part, k, mirror, result_pitch):
    """Store the sums of the thread's rows and pairs, at k and at L - k."""
    for r in range(ROWS):
        for p in range(PAIRS):
            row, pair = first_row + r, first_pair + p
            if inside and row < results and pair < pairs:
                at = 2 * ((part * pairs + pair) * results + row) * result_pitch
                store(result, at + 2 * k, OUT(sums[r, p, 0]), OUT(sums[r, p, 1]))
                if mirror != k:
                    store(result, at + 2 * mirror, OUT(sums[r, p, 2]), OUT(sums[r, p, 3]))


def _gemm_cuda(
    result, spectrum, scales, vector, results, terms, frequencies, length,
    row_step, term_step, row_scales, term_scales, vector_pitch, result_pitch, chunk, pairs,
):  # fmt: skip
    follow()
    lane, layer = np.int64(cuda.threadIdx.x), np.int64(cuda.threadIdx.y)
    block_row, k, inside, mirror = place_block(results, frequencies, length, lane)
    block_pair = np.int64(cuda.blockIdx.z) * BLOCK_PAIRS
    row_in_block, pair_in_block = layer // GROUPS * ROWS, layer % GROUPS * PAIRS
    part = np.int64(cuda.blockIdx.y)
    start = part * chunk
    stop = min(start + chunk, terms)
    # The spectrum and the vectors of a term are copied to shared memory STAGES - 1 terms ahead. Addresses advance by
    # steps, since computing them anew would take most of the loop's instructions.
    spectra = cuda.shared.array(SPECTRA, PART)
    vectors = cuda.shared.array(VECTORS, VECTOR)  # on its own line: the simulator tells arrays apart by line
    own = 2 * (layer * LANES + lane)
    part_at = cuda.local.array(PART_COPIES, nbtypes.int64)
    value_at = cuda.local.array(VALUE_COPIES, nbtypes.int64)
    for i in range(PART_COPIES):
        row = min(block_row + layer + i * LAYERS, results - 1)
        part_at[i] = row * row_step + start * term_step + 2 * k
    for i in range(VALUE_COPIES):
        item = layer + i * LAYERS
        pair = min(block_pair + item // 2, pairs - 1)
        value_at[i] = 2 * ((pair * terms + start) * vector_pitch + (k if item % 2 == 0 else mirror))
    step = 2 * vector_pitch
    for ahead in range(STAGES - 1):
        wanted = start + ahead < stop
        start_copies(spectra, vectors, spectrum, vector, part_at, value_at, layer, own, ahead, wanted, term_step, step)
        commit_copies()
    sums = cuda.local.array(SUMS, REAL)
    a = cuda.local.array(FACTORS, REAL)
    scale_at = cuda.local.array(ROWS, nbtypes.int64)
    for r in range(ROWS):
        row = min(block_row + row_in_block + r, results - 1)
        scale_at[r] = row * row_scales + start * term_scales + k // RUN
        for p in range(PAIRS):
            for i in range(4):
                sums[r, p, i] = ZERO
    rows_from, pairs_from = 2 * (row_in_block * LANES + lane), 2 * (2 * pair_in_block * LANES + lane)
    slot, free = 0, STAGES - 1
    for term in range(start, stop):
        wait_for_copies()
        cuda.syncthreads()  # all threads have this term's data, and none still reads the slot of the next copies
        wanted = term + STAGES - 1 < stop
        start_copies(spectra, vectors, spectrum, vector, part_at, value_at, layer, own, free, wanted, term_step, step)
        commit_copies()
        load_factors(a, spectra, slot * PART_SLOT + rows_from, scales, scale_at, term_scales)
        for p in range(PAIRS):
            accumulate_pair(sums, p, a, vectors, slot * VALUE_SLOT + 2 * p * LANE_SLOT + pairs_from)
        free = slot
        slot = slot + 1 if slot < STAGES - 1 else 0
    row, pair = block_row + row_in_block, block_pair + pair_in_block
    store_sums(result, sums, inside, row, results, pair, pairs, part, k, mirror, result_pitch)


def gemm_nest(tile: Tile, part: Any, value: Any, pointers: Sequence[Any]) -> CudaNest:
    """Return the loop nest for a tile and the real dtypes of spectrum and vectors."""
    lane, layer = 2 * tile.threads, 2 * tile.threads * tile.layers
    block_pairs = tile.pairs * tile.groups
    bindings = {
        "PAIRS": tile.pairs,
        "GROUPS": tile.groups,
        "STAGES": tile.stages,
        "NEIGHBOURS": TOGETHER,
        "BLOCK_ROWS": tile.block_rows,
        "BLOCK_PAIRS": block_pairs,
        "PART": part.type,
        "VECTOR": value.type,
        "SUMS": (tile.rows, tile.pairs, 4),
        "FACTORS": (tile.rows, 2),
        "LANE_SLOT": lane,
        "LAYER_SLOT": layer,
        "PART_SLOT": lane * tile.block_rows,
        "VALUE_SLOT": lane * 2 * block_pairs,
        "SPECTRA": tile.stages * lane * tile.block_rows,
        "VECTORS": tile.stages * lane * 2 * block_pairs,
        "PART_COPIES": ceil_div(tile.block_rows, tile.layers),
        "VALUE_COPIES": ceil_div(2 * block_pairs, tile.layers),
        "place_block": _place_block,
        "start_copies": _start_copies,
        "load_factors": _load_factors,
        "accumulate_pair": _accumulate_pair,
        "store_sums": _store_sums,
        "copy_part": copy_async(2),
        "copy_value": copy_async(2),
        "load_part": load_shared(2),
        "load_value": load_shared(2),
        "commit_copies": commit(),
        "wait_for_copies": wait_for(tile.stages - 2),
    }
    return CudaNest(_gemm_cuda, (*pointers, *[scalar_type(np.int64)] * 12), bindings)
