"""SBGEMV on CUDA for several right-hand sides, on tensor cores in double precision.

A warp multiplies a few rows of the spectrum by eight columns or more, at a few neighbouring frequencies. A column is a
pair of right-hand sides at k or at L - k (see `pairs`), so that 16 right-hand sides have 16 columns. A block stages the
spectrum, its scales and the vectors in dynamic shared memory by asynchronous copies, a few stages ahead. A stage has a
line of neighbouring frequencies for each term of each row or column. The pieces of a line are permuted, so that threads
that read one frequency of eight lines find them in different banks. Results leave through the same memory, so that
stores are whole lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import types as nbtypes

from ..conversions import widening
from ..formats import RUN
from ..jit import CudaNest, Free, ceil_div, cuda, scalar_type
from ..memory import WIDEST, commit, copy_async, load_shared, wait_for
from ..tensor import COLUMNS, TERMS, WARP, multiply_add
from .tiles import TOGETHER_FREQUENCIES as TOGETHER
from .tiles import TensorTile

BANKS = 128  # bytes that shared memory reads or writes at a time

HEIGHT, HALVES, ROWS, COLUMN_TILES = Free("HEIGHT"), Free("HALVES"), Free("ROWS"), Free("COLUMN_TILES")
WIDTH, WARPS, THREADS, LINE = Free("WIDTH"), Free("WARPS"), Free("THREADS"), Free("LINE")
GROUPS, STEP, STAGES, NEIGHBOURS = Free("GROUPS"), Free("STEP"), Free("STAGES"), Free("NEIGHBOURS")
BLOCK_ROWS, BLOCK_COLUMNS = Free("BLOCK_ROWS"), Free("BLOCK_COLUMNS")
PIECE, PIECES, LOADED = Free("PIECE"), Free("PIECES"), Free("LOADED")
PASSES, STEPS, NEXT_PARTS = Free("PASSES"), Free("STEPS"), Free("NEXT_PARTS")
PART_LINES, PART_MASK, VALUE_LINES, VALUE_MASK = (
    Free("PART_LINES"),
    Free("PART_MASK"),
    Free("VALUE_LINES"),
    Free("VALUE_MASK"),
)
ROW_STEP, ROW_COPIES, COLUMN_STEP, COLUMN_COPIES = (
    Free("ROW_STEP"),
    Free("ROW_COPIES"),
    Free("COLUMN_STEP"),
    Free("COLUMN_COPIES"),
)
SCALE_STEP, SCALE_COPIES = Free("SCALE_STEP"), Free("SCALE_COPIES")
PART_SLOT, VALUE_SLOT, SCALE_SLOT = Free("PART_SLOT"), Free("VALUE_SLOT"), Free("SCALE_SLOT")
VALUES_FROM, SCALES_FROM = Free("VALUES_FROM"), Free("SCALES_FROM")
PASS_MASK, wait_for_first = Free("PASS_MASK"), Free("wait_for_first")
multiply_block, clear_sums = Free("multiply_block"), Free("clear_sums")
SUMS, FACTORS, COLUMN_FACTORS = Free("SUMS"), Free("FACTORS"), Free("COLUMN_FACTORS")
REAL, OUT, PART, VECTOR = Free("REAL"), Free("OUT"), Free("PART"), Free("VECTOR")
ZERO, SIGN, SCALED, widen = Free("ZERO"), Free("SIGN"), Free("SCALED"), Free("widen")
copy_part, copy_value, copy_scale = Free("copy_part"), Free("copy_value"), Free("copy_scale")
load_part, load_value, load_scale = Free("load_part"), Free("load_value"), Free("load_scale")
commit_copies, wait_for_copies, wait_for_all = Free("commit_copies"), Free("wait_for_copies"), Free("wait_for_all")
multiply, store, follow = Free("multiply"), Free("store"), Free("follow")
place_block, share_copies, start_copies = Free("place_block"), Free("share_copies"), Free("start_copies")
load_columns, decode_columns = Free("load_columns"), Free("decode_columns")
load_factors, decode_factors = Free("load_factors"), Free("decode_factors")
accumulate, accumulate_step, store_sums = Free("accumulate"), Free("accumulate_step"), Free("store_sums")


def _place_block(results, frequencies):
    """Return the block's first row, its number of rows and its first frequency.

    The order of blocks is that of `gemm`. Blocks have equally many rows, so that they take equally long.
    """
    blocks = (results + BLOCK_ROWS - 1) // BLOCK_ROWS
    share = (results + blocks - 1) // blocks
    first_line = np.int64(cuda.blockIdx.x) // (blocks * NEIGHBOURS) * NEIGHBOURS
    block = np.int64(cuda.blockIdx.x) % (blocks * NEIGHBOURS)
    together = min(NEIGHBOURS, (frequencies + LINE - 1) // LINE - first_line)
    row0 = block // together * share
    return row0, min(results - row0, share), (first_line + block % together) * LINE


def _share_copies(
    own, at, first, count, term, tid, row0, rows, k0, pair0, pairs, terms, frequencies, length, steps, start
):
    """Place the thread's copies of parts, of values and of scales, which are the items 0 to 2 of each array.

    Parameters
    ----------
    own, at : array
        The first copy's place in a slot of shared memory, and its place in global memory.
    first, count : array
        Its row or column in the block, and the number of rows or columns from there on.
    term : array
        Its term in a stage.
    steps : array
        Distances of rows or pairs, and of terms, in global memory.
    """
    piece, line = tid % PIECES, tid // PIECES
    k = k0 + piece * PIECE
    own[0] = (line * PIECES + (piece ^ (line // PART_LINES & PART_MASK))) * (2 * PIECE)
    first[0], term[0] = line // TERMS, np.int32(line % TERMS)
    count[0] = np.int32(rows - first[0] if k < frequencies else 0)
    at[0] = (row0 + first[0]) * steps[0, 0] + (start + term[0]) * steps[0, 1] + 2 * k
    value, line = tid % LINE, tid // LINE
    k = k0 + value
    own[1] = VALUES_FROM + (line * LINE + (value ^ (line // VALUE_LINES & VALUE_MASK))) * 2
    first[1], term[1] = line // TERMS, np.int32(line % TERMS)
    count[1] = np.int32(min(2 * (pairs - pair0) - first[1], BLOCK_COLUMNS) if k < frequencies else 0)
    there = k if first[1] % 2 == 0 or k == 0 else length - k
    at[1] = (pair0 + first[1] // 2) * steps[1, 0] + (start + term[1]) * steps[1, 1] + 2 * there
    own[2], first[2], term[2] = SCALES_FROM + tid, tid // TERMS, np.int32(tid % TERMS)
    count[2] = np.int32(rows - first[2])
    at[2] = (row0 + first[2]) * steps[2, 0] + (start + term[2]) * steps[2, 1] + k0 // RUN


def _start_copies(parts, values, factors, spectrum, vector, scales, own, at, first, count, term, steps, slot, left):
    """Start to copy a stage, of which `left` terms are wanted, to a slot; advance the places."""
    left = np.int32(min(max(left, 0), STEP))
    for group in range(GROUPS):
        rows = count[0] if term[0] + group * TERMS < left else np.int32(0)
        for i in range(ROW_COPIES):
            if (i + 1) * ROW_STEP <= BLOCK_ROWS or first[0] + i * ROW_STEP < BLOCK_ROWS:
                to = own[0] + slot * PART_SLOT + (group * BLOCK_ROWS + i * ROW_STEP) * (TERMS * LINE * 2)
                copy_part(parts, to, spectrum, at[0] + i * ROW_STEP * steps[0, 0], i * ROW_STEP < rows)
        at[0] += TERMS * steps[0, 1]
        columns = count[1] if term[1] + group * TERMS < left else np.int32(0)
        for i in range(COLUMN_COPIES):
            if (i + 1) * COLUMN_STEP <= BLOCK_COLUMNS or first[1] + i * COLUMN_STEP < BLOCK_COLUMNS:
                to = own[1] + slot * VALUE_SLOT + (group * BLOCK_COLUMNS + i * COLUMN_STEP) * (TERMS * LINE * 2)
                copy_value(values, to, vector, at[1] + i * (COLUMN_STEP // 2) * steps[1, 0], i * COLUMN_STEP < columns)
        at[1] += TERMS * steps[1, 1]
        if SCALED:
            rows = count[2] if term[2] + group * TERMS < left else np.int32(0)
            for i in range(SCALE_COPIES):
                if (i + 1) * SCALE_STEP <= BLOCK_ROWS or first[2] + i * SCALE_STEP < BLOCK_ROWS:
                    to = own[2] + slot * SCALE_SLOT + (group * BLOCK_ROWS + i * SCALE_STEP) * TERMS
                    copy_scale(factors, to, scales, at[2] + i * SCALE_STEP * steps[2, 0], i * SCALE_STEP < rows)
            at[2] += TERMS * steps[2, 1]


def _load_columns(waiting, values, at, lane, first):
    """Load one term's columns at the warp's frequencies."""
    for f in range(WIDTH):
        piece = (first + f) ^ (lane // VALUE_LINES & VALUE_MASK)
        for n in range(COLUMN_TILES):
            waiting[f, n, 0], waiting[f, n, 1] = load_value(values, at + ((n * WARP + lane) * LINE + piece) * 2)


def _decode_columns(b, waiting, sign):
    """Decode columns; `sign` is -1 for those that a conjugate matrix multiplies.

    The product is that of the matrix and the conjugate column, and its conjugate is stored.
    """
    for f in range(WIDTH):
        for n in range(COLUMN_TILES):
            b[f, n, 0], b[f, n, 1] = REAL(waiting[f, n, 0]), sign * REAL(waiting[f, n, 1])


def _load_factors(raw, waiting, parts, at, factors, scales_at, lane, step, first):
    """Load one term of the rows and at the frequencies of a step."""
    at += step // PASSES * (HEIGHT * TERMS * LINE * 2)
    scales_at += step // PASSES * (HEIGHT * TERMS)
    k = first + step % PASSES * LOADED
    piece, inside = (k // PIECE) ^ (lane // PART_LINES & PART_MASK), k % PIECE
    for h in range(HALVES):
        line = h * COLUMNS * TERMS + lane
        value = load_part(parts, at + ((line * PIECES + piece) * PIECE + inside) * 2)
        for i in range(2 * LOADED):
            raw[h, i] = value[i]
        if SCALED:
            waiting[h] = load_scale(factors, scales_at + line)[0]


def _decode_factors(a, raw, waiting):
    """Decode the rows of a step."""
    for h in range(HALVES):
        for f in range(LOADED):
            a[h, f, 0], a[h, f, 1] = widen(raw[h, 2 * f]), widen(raw[h, 2 * f + 1])
            if SCALED:
                a[h, f, 0], a[h, f, 1] = a[h, f, 0] * waiting[h], a[h, f, 1] * waiting[h]


def _accumulate_step(sums, step, a, b):
    """Add the products of a step's rows."""
    for i in range(LOADED):
        for n in range(COLUMN_TILES):
            accumulate(sums, step % PASSES * LOADED + i, step // PASSES, n, a, i, b)


def _accumulate_eight(sums, f, r, n, a, i, b):
    """Add the products of the warp's rows r at its frequency f, which is the i-th of those loaded."""
    c = multiply(a[0, i, 0], b[f, n, 0], sums[f, r, n, 0, 0], sums[f, r, n, 0, 1])
    c = multiply(a[0, i, 1], -b[f, n, 1], c[0], c[1])
    sums[f, r, n, 0, 0], sums[f, r, n, 0, 1] = c[0], c[1]
    c = multiply(a[0, i, 0], b[f, n, 1], sums[f, r, n, 0, 2], sums[f, r, n, 0, 3])
    c = multiply(a[0, i, 1], b[f, n, 0], c[0], c[1])
    sums[f, r, n, 0, 2], sums[f, r, n, 0, 3] = c[0], c[1]


def _accumulate_sixteen(sums, f, r, n, a, i, b):
    """Add as `_accumulate_eight`; the further four terms of the instruction are the imaginary parts."""
    real, imag, real_below, imag_below = a[0, i, 0], a[0, i, 1], a[1, i, 0], a[1, i, 1]
    c = multiply(
        real, real_below, imag, imag_below, b[f, n, 0], -b[f, n, 1],
        sums[f, r, n, 0, 0], sums[f, r, n, 0, 1], sums[f, r, n, 1, 0], sums[f, r, n, 1, 1],
    )  # fmt: skip
    sums[f, r, n, 0, 0], sums[f, r, n, 0, 1], sums[f, r, n, 1, 0], sums[f, r, n, 1, 1] = c
    c = multiply(
        real, real_below, imag, imag_below, b[f, n, 1], b[f, n, 0],
        sums[f, r, n, 0, 2], sums[f, r, n, 0, 3], sums[f, r, n, 1, 2], sums[f, r, n, 1, 3],
    )  # fmt: skip
    sums[f, r, n, 0, 2], sums[f, r, n, 0, 3], sums[f, r, n, 1, 2], sums[f, r, n, 1, 3] = c


def _clear_sums(sums):
    for f in range(WIDTH):
        for r in range(ROWS):
            for n in range(COLUMN_TILES):
                for h in range(HALVES):
                    for i in range(4):
                        sums[f, r, n, h, i] = ZERO


def _store_sums(result, sums, passed, tid, row0, rows, pair0, pairs, part, k0, results, frequencies, length, pitch):
    """Store the block's sums, which pass through shared memory."""
    lane, warp = tid % WARP, tid // WARP
    g, t = lane // TERMS, lane % TERMS
    own = 2 * t * BLOCK_ROWS + warp // WARPS * (ROWS * HEIGHT) + g
    swap = (g % 2 * TERMS + t) & PASS_MASK
    cuda.syncthreads()  # no thread reads the last stage
    for f in range(WIDTH):
        piece = (warp % WARPS * WIDTH + f) ^ swap
        for r in range(ROWS):
            for n in range(COLUMN_TILES):
                for h in range(HALVES):
                    for side in range(2):
                        line = own + (n * COLUMNS + side) * BLOCK_ROWS + r * HEIGHT + h * COLUMNS
                        to = (line * LINE + piece) * 2
                        imag = sums[f, r, n, h, 2 + side]
                        passed[to], passed[to + 1] = sums[f, r, n, h, side], SIGN * imag if side == 0 else -SIGN * imag
    cuda.syncthreads()
    column = tid % LINE
    k = k0 + column
    mirror = length - k if k > 0 else k
    for line in range(tid // LINE, BLOCK_COLUMNS * BLOCK_ROWS, THREADS // LINE):
        side, row = line // BLOCK_ROWS, line % BLOCK_ROWS
        pair, side = side // 2, side % 2
        at = (line * LINE + (column ^ ((row % 2 * TERMS + pair % TERMS) & PASS_MASK))) * 2
        pair += pair0
        if pair < pairs and row < rows and k < frequencies and (side == 0 or mirror != k):
            to = 2 * (((part * pairs + pair) * results + row0 + row) * pitch + (k if side == 0 else mirror))
            store(result, to, OUT(passed[at]), OUT(passed[at + 1]))


def _multiply_block(
    sums, parts, values, factors, spectrum, vector, scales, own, at, first, count, term, steps, tid, left
):
    """Add up the products of a block, whose first stages are being copied."""
    a = cuda.local.array(FACTORS, REAL)
    b = cuda.local.array(COLUMN_FACTORS, REAL)
    next_parts = cuda.local.array(NEXT_PARTS, PART)
    next_scales = cuda.local.array(HALVES, nbtypes.float64)
    next_columns = cuda.local.array(COLUMN_FACTORS, VECTOR)
    clear_sums(sums)
    lane, warp = tid % WARP, tid // WARP
    row, k = warp // WARPS * (ROWS * HEIGHT), warp % WARPS * WIDTH
    sign = SIGN if lane // TERMS % 2 == 0 else -SIGN  # the matrix is real: its transform at L - k is the conjugate
    slot, group = 0, 0
    wait_for_first()
    cuda.syncthreads()  # all threads have the first stage's data
    parts_at, scales_at, values_at = row * (TERMS * LINE * 2), SCALES_FROM + row * TERMS, np.int64(VALUES_FROM)
    load_columns(next_columns, values, values_at, lane, k)
    load_factors(next_parts, next_scales, parts, parts_at, factors, scales_at, lane, 0, k)
    decode_columns(b, next_columns, sign)
    decode_factors(a, next_parts, next_scales)
    while left > 0:
        # Instructions on tensor cores take long. The next step's data are loaded and decoded meanwhile.
        for step in range(1, STEPS):
            load_factors(next_parts, next_scales, parts, parts_at, factors, scales_at, lane, step, k)
            accumulate_step(sums, step - 1, a, b)
            decode_factors(a, next_parts, next_scales)
        group, free = group + 1, slot
        if group == GROUPS:
            group, slot = 0, slot + 1 if slot < STAGES - 1 else 0
            left -= STEP
            wait_for_copies()
            cuda.syncthreads()  # all threads have the next stage's data, and none still reads this one's
        line = group * BLOCK_ROWS + row
        parts_at, scales_at = slot * PART_SLOT + line * (TERMS * LINE * 2), slot * SCALE_SLOT + line * TERMS
        scales_at += SCALES_FROM
        values_at = VALUES_FROM + slot * VALUE_SLOT + group * (BLOCK_COLUMNS * TERMS * LINE * 2)
        load_columns(next_columns, values, values_at, lane, k)
        load_factors(next_parts, next_scales, parts, parts_at, factors, scales_at, lane, 0, k)
        accumulate_step(sums, STEPS - 1, a, b)
        decode_columns(b, next_columns, sign)
        decode_factors(a, next_parts, next_scales)
        if group == 0:
            start_copies(
                parts, values, factors, spectrum, vector, scales, own, at, first, count, term, steps, free,
                left - (STAGES - 1) * STEP,
            )  # fmt: skip
            commit_copies()


def _mma_cuda(
    result, spectrum, scales, vector, results, terms, frequencies, length,
    row_step, term_step, row_scales, term_scales, vector_pitch, result_pitch, chunk, pairs,
):  # fmt: skip
    follow()
    tid = np.int64(cuda.threadIdx.x)
    row0, rows, k0 = place_block(results, frequencies)
    pair0, part = np.int64(cuda.blockIdx.z) * (BLOCK_COLUMNS // 2), np.int64(cuda.blockIdx.y)
    start = part * chunk
    left = min(chunk, terms - start)
    # These arrays are one: each of them begins where dynamic shared memory begins.
    parts = cuda.shared.array(0, PART)
    values = cuda.shared.array(0, VECTOR)
    factors = cuda.shared.array(0, nbtypes.float64)
    own = cuda.local.array(3, nbtypes.int64)
    at = cuda.local.array(3, nbtypes.int64)
    first = cuda.local.array(3, nbtypes.int64)
    count = cuda.local.array(3, nbtypes.int32)
    term = cuda.local.array(3, nbtypes.int32)
    steps = cuda.local.array((3, 2), nbtypes.int64)
    steps[0, 0], steps[0, 1] = row_step, term_step
    steps[1, 0], steps[1, 1] = 2 * terms * vector_pitch, 2 * vector_pitch
    steps[2, 0], steps[2, 1] = row_scales, term_scales
    share_copies(
        own, at, first, count, term, tid, row0, rows, k0, pair0, pairs, terms, frequencies, length, steps, start
    )
    for ahead in range(STAGES):
        start_copies(
            parts, values, factors, spectrum, vector, scales, own, at, first, count, term, steps, ahead,
            left - ahead * STEP,
        )  # fmt: skip
        commit_copies()
    sums = cuda.local.array(SUMS, REAL)
    multiply_block(
        sums, parts, values, factors, spectrum, vector, scales, own, at, first, count, term, steps, tid, left
    )
    wait_for_all()
    store_sums(
        result, sums, factors, tid, row0, rows, pair0, pairs, part, k0, results, frequencies, length, result_pitch
    )


ACCUMULATE = {8: _accumulate_eight, 16: _accumulate_sixteen}


def mma_nest(tile: TensorTile, part: Any, value: Any, pointers: Sequence[Any]) -> CudaNest:
    """Return the loop nest for a tile and the real dtypes of spectrum and vectors."""
    line, rows, columns, threads = tile.line, tile.block_rows, tile.block_columns, tile.threads
    piece = tile.piece(part)
    loaded = min(tile.width, piece)
    pieces, banks = line // piece, BANKS // (2 * value.itemsize)
    row_step, column_step, scale_step = threads // (TERMS * pieces), threads // (TERMS * line), threads // TERMS
    # Neighbouring lines lie in the same banks once they are `permuted` pieces apart.
    part_permuted, value_permuted = min(BANKS // WIDEST, TERMS * row_step), min(banks, TERMS * column_step)
    parts_bytes, values_bytes, _ = tile.slots(part, value)
    bindings = {
        "HEIGHT": tile.height,
        "HALVES": tile.height // COLUMNS,
        "ROWS": tile.rows,
        "COLUMN_TILES": tile.columns,
        "WIDTH": tile.width,
        "WARPS": tile.warps,
        "THREADS": threads,
        "LINE": line,
        "GROUPS": tile.terms // TERMS,
        "STEP": tile.terms,
        "STAGES": tile.stages,
        "NEIGHBOURS": ceil_div(TOGETHER, line),
        "BLOCK_ROWS": rows,
        "BLOCK_COLUMNS": columns,
        "PIECE": piece,
        "PIECES": pieces,
        "LOADED": loaded,
        "PASSES": tile.width // loaded,
        "STEPS": tile.rows * (tile.width // loaded),
        "PART_LINES": max(1, part_permuted // pieces),
        "PART_MASK": min(part_permuted, pieces) - 1,
        "VALUE_LINES": max(1, value_permuted // line),
        "VALUE_MASK": min(value_permuted, line) - 1,
        "ROW_STEP": row_step,
        "ROW_COPIES": ceil_div(rows, row_step),
        "COLUMN_STEP": column_step,
        "COLUMN_COPIES": ceil_div(columns, column_step),
        "PART_SLOT": parts_bytes // part.itemsize,
        "VALUE_SLOT": values_bytes // value.itemsize,
        "SCALE_SLOT": rows * tile.terms,
        "VALUES_FROM": tile.stages * parts_bytes // value.itemsize,
        "SCALES_FROM": tile.stages * (parts_bytes + values_bytes) // 8,
        "SCALE_STEP": scale_step,
        "SCALE_COPIES": ceil_div(rows, scale_step),
        "PASS_MASK": min(COLUMNS, line) - 1,
        "PART": scalar_type(part),
        "VECTOR": scalar_type(value),
        "SUMS": (tile.width, tile.rows, tile.columns, tile.height // COLUMNS, 4),
        "FACTORS": (tile.height // COLUMNS, loaded, 2),
        "NEXT_PARTS": (tile.height // COLUMNS, 2 * loaded),
        "COLUMN_FACTORS": (tile.width, tile.columns, 2),
        "place_block": _place_block,
        "share_copies": _share_copies,
        "start_copies": _start_copies,
        "multiply_block": _multiply_block,
        "clear_sums": _clear_sums,
        "load_columns": _load_columns,
        "decode_columns": _decode_columns,
        "load_factors": _load_factors,
        "decode_factors": _decode_factors,
        "accumulate_step": _accumulate_step,
        "accumulate": ACCUMULATE[tile.height],
        "store_sums": _store_sums,
        "multiply": multiply_add(tile.height),
        "widen": widening(part),
        "copy_part": copy_async(2 * piece, streamed=2 * piece * part.itemsize == WIDEST, small=True),
        "copy_value": copy_async(2, small=True),
        "copy_scale": copy_async(1, small=True),
        "load_part": load_shared(2 * loaded),
        "load_value": load_shared(2),
        "load_scale": load_shared(1),
        "commit_copies": commit(),
        "wait_for_first": wait_for(tile.stages - 1),
        "wait_for_copies": wait_for(tile.stages - 2),
        "wait_for_all": wait_for(0),
    }
    return CudaNest(_mma_cuda, (*pointers, *[scalar_type(np.int64)] * 12), bindings, bounds=(threads, tile.resident))
