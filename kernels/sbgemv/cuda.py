"""SBGEMV on CUDA: one thread owns a few frequencies of a few rows of the result, and walks along the sum.

Neighbouring threads own neighbouring frequencies, so both F and F* read the spectrum once, coalesced, by wide loads.
There are two loop nests, for one right-hand side and for several. Where there are too few results to fill the device
the sum is split: among the layers of a block, which add up in shared memory, and among chunks, whose sums a second
kernel adds, in order. Vector and result hold pairs of real rows as complex rows (see `pairs`), of one vector or of two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numba import types as nbtypes

from ..formats import COMPLEX64, FORMATS, RUN, Format, StoredArrays
from ..jit import (
    MAX_GRID_Y,
    THREADS,
    CudaNest,
    Free,
    Kernel,
    Target,
    cached_kernel,
    ceil_div,
    configure,
    cuda,
    pointer,
    pointer_type,
    resident_blocks,
    scalar_type,
)
from ..memory import commit, copy_async, load, load_shared, store_two, wait_for
from .problem import Problem
from .tiles import FEW_ROWS, MAX_GROUPS, MAX_PAIRS, TILES, TOGETHER, Tile, choose_chunks, choose_tile, few_rows_tile

ROWS, WIDTH, LANES, LAYERS = Free("ROWS"), Free("WIDTH"), Free("LANES"), Free("LAYERS")
PAIRS, GROUPS, STAGES, NEIGHBOURS = Free("PAIRS"), Free("GROUPS"), Free("STAGES"), Free("NEIGHBOURS")
BLOCK_ROWS, BLOCK_PAIRS = Free("BLOCK_ROWS"), Free("BLOCK_PAIRS")
REAL, OUT, PART, VECTOR = Free("REAL"), Free("OUT"), Free("PART"), Free("VECTOR")
ZERO, ONE, HALF, SIGN, SCALED = Free("ZERO"), Free("ONE"), Free("HALF"), Free("SIGN"), Free("SCALED")
SUMS, TERMS, SHARED, FACTORS = Free("SUMS"), Free("TERMS"), Free("SHARED"), Free("FACTORS")
LANE_SLOT, LAYER_SLOT = Free("LANE_SLOT"), Free("LAYER_SLOT")
PART_SLOT, VALUE_SLOT, SPECTRA, VECTORS = Free("PART_SLOT"), Free("VALUE_SLOT"), Free("SPECTRA"), Free("VECTORS")
PART_COPIES, VALUE_COPIES = Free("PART_COPIES"), Free("VALUE_COPIES")
load_two, load_run, load_part, load_value = Free("load_two"), Free("load_run"), Free("load_part"), Free("load_value")
start_copies, copy_part, copy_value = Free("start_copies"), Free("copy_part"), Free("copy_value")
commit_copies, wait_for_copies, store = Free("commit_copies"), Free("wait_for_copies"), Free("store")
load_pair, accumulate = Free("load_pair"), Free("accumulate")
share_sums, add_layers = Free("share_sums"), Free("add_layers")
store_pairs, place_block, load_factors = Free("store_pairs"), Free("place_block"), Free("load_factors")
accumulate_pair, store_sums = Free("accumulate_pair"), Free("store_sums")


def _load_pair(v, vector, pair, both, k, frequencies, length, vector_pitch):
    """Load twice the transforms of a pair's two rows from that of the pair, for each frequency of the thread."""
    for j in range(WIDTH):
        kj = min(k + j, frequencies - 1)
        mirror = length - kj if kj > 0 else kj
        z = load_two(vector, 2 * (pair * vector_pitch + kj))
        w = load_two(vector, 2 * (pair * vector_pitch + mirror))
        z_real, z_imag, w_real, w_imag = REAL(z[0]), REAL(z[1]), REAL(w[0]), REAL(w[1])
        v[0, j] = z_real + w_real
        v[1, j] = z_imag - w_imag
        v[2, j] = z_imag + w_imag if both else ZERO
        v[3, j] = w_real - z_real if both else ZERO


def _accumulate(real, imag, r, a, scale, v, term):
    """Add the products of a row's factors and one term of the pair to the sums of the row."""
    for j in range(WIDTH):
        a_real, a_imag = REAL(a[2 * j]), SIGN * REAL(a[2 * j + 1])
        if SCALED:
            a_real, a_imag = a_real * scale, a_imag * scale
        v_real, v_imag = v[2 * term, j], v[2 * term + 1, j]
        i = r * WIDTH + j
        real[i] = cuda.fma(a_real, v_real, real[i])
        real[i] = cuda.fma(-a_imag, v_imag, real[i])
        imag[i] = cuda.fma(a_real, v_imag, imag[i])
        imag[i] = cuda.fma(a_imag, v_real, imag[i])


def _share_sums(sums, layer, real, imag):
    """Write the sums of a layer, but for the first, to shared memory."""
    if layer > 0:
        for i in range(SUMS):
            sums[layer - 1, 2 * i, cuda.threadIdx.x] = real[i]
            sums[layer - 1, 2 * i + 1, cuda.threadIdx.x] = imag[i]


def _add_layers(real, imag, sums):
    """Add the sums of the other layers to those of the first."""
    for other in range(LAYERS - 1):
        for i in range(SUMS):
            real[i] += sums[other, 2 * i, cuda.threadIdx.x]
            imag[i] += sums[other, 2 * i + 1, cuda.threadIdx.x]


def _store_pairs(result, real, imag, first, results, part, k, frequencies, length, result_pitch):
    """Store the transforms of pairs of real rows: y0 + i y1 at k, conj y0 + i conj y1 at L - k."""
    rows = (results + 1) // 2
    for r in range(0, ROWS, 2):
        row = (first + r) // 2
        if row < rows:
            one = ONE if first + r + 1 < results else ZERO
            for j in range(WIDTH):
                if k + j < frequencies:
                    i = r * WIDTH + j
                    real0, imag0 = HALF * real[i], HALF * imag[i]
                    real1, imag1 = HALF * real[i + WIDTH] * one, HALF * imag[i + WIDTH] * one
                    mirror = length - k - j if k + j > 0 else k + j
                    at = 2 * (part * rows + row) * result_pitch
                    store(result, at + 2 * (k + j), OUT(real0 - imag1), OUT(imag0 + real1))
                    if mirror != k + j:
                        store(result, at + 2 * mirror, OUT(real0 + imag1), OUT(real1 - imag0))


def _gemv_cuda(
    result, spectrum, scales, vector, results, terms, frequencies, length,
    row_step, term_step, row_scales, term_scales, vector_pitch, result_pitch, chunk,
):  # fmt: skip
    k_tiles = (frequencies + LANES * WIDTH - 1) // (LANES * WIDTH)
    first = np.int64(cuda.blockIdx.x // k_tiles) * ROWS
    k = (np.int64(cuda.blockIdx.x % k_tiles) * LANES + cuda.threadIdx.x) * WIDTH
    part = np.int64(cuda.blockIdx.y)
    inside = k < frequencies
    if LAYERS == 1 and not inside:
        return
    k = min(k, (frequencies - 1) // WIDTH * WIDTH)
    real = cuda.local.array(SUMS, REAL)
    imag = cuda.local.array(SUMS, REAL)
    for i in range(SUMS):
        real[i] = ZERO
        imag[i] = ZERO
    v = cuda.local.array(TERMS, REAL)
    pairs = (terms + 1) // 2
    start = part * chunk
    stop = min(start + chunk, pairs)
    if LAYERS > 1:
        share = (stop - start + LAYERS - 1) // LAYERS
        start = min(start + share * cuda.threadIdx.y, stop)
        stop = min(start + share, stop)
    for pair in range(start, stop):
        both = 2 * pair + 1 < terms
        load_pair(v, vector, pair, both, k, frequencies, length, vector_pitch)
        for r in range(ROWS):
            row = min(first + r, results - 1)
            for term in range(2):
                other = term if both else 0
                a = load_run(spectrum, row * row_step + (2 * pair + other) * term_step + 2 * k)
                scale = ONE
                if SCALED:
                    scale = REAL(scales[row * row_scales + (2 * pair + other) * term_scales + k // RUN])
                accumulate(real, imag, r, a, scale, v, term)
    if LAYERS > 1:
        sums = cuda.shared.array(SHARED, REAL)
        layer = cuda.threadIdx.y
        share_sums(sums, layer, real, imag)
        cuda.syncthreads()
        if layer > 0 or not inside:
            return
        add_layers(real, imag, sums)
    store_pairs(result, real, imag, first, results, part, k, frequencies, length, result_pitch)


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
    lane, layer = np.int64(cuda.threadIdx.x), np.int64(cuda.threadIdx.y)
    block_row, k, inside, mirror = place_block(results, frequencies, length, lane)
    block_pair = np.int64(cuda.blockIdx.z) * BLOCK_PAIRS
    row_in_block, pair_in_block = layer // GROUPS * ROWS, layer % GROUPS * PAIRS
    part = np.int64(cuda.blockIdx.y)
    start = part * chunk
    stop = min(start + chunk, terms)
    # What one term needs of spectrum and vectors goes to shared memory, STAGES - 1 terms ahead. Addresses advance by
    # steps: computed anew they would be most of the loop's instructions.
    spectra = cuda.shared.array(SPECTRA, PART)
    vectors = cuda.shared.array(VECTORS, VECTOR)  # on a line of its own: the simulator knows an array by its line
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


def _add_cuda(result, parts, rows, length, result_pitch, chunks):
    k = np.int64(cuda.blockIdx.x) * cuda.blockDim.x + cuda.threadIdx.x
    row = np.int64(cuda.blockIdx.y)
    if k >= length:
        return
    while row < rows:
        real = imag = ZERO
        for part in range(chunks):
            y = load_two(parts, 2 * ((part * rows + row) * length + k))
            real += y[0]
            imag += y[1]
        store(result, 2 * (row * result_pitch + k), OUT(real), OUT(imag))
        row += cuda.gridDim.y


def _real(dtype: Any) -> Any:
    return np.dtype(dtype).type(0).real.dtype


@cached_kernel
def sbgemv_kernel(format: Format, vector: Any, result: Any, accumulator: Any, adjoint: bool, tile: Tile) -> Kernel:
    """Return the kernel for a format, complex dtypes, an operation and a tile."""
    real, out, values = (_real(dtype) for dtype in (accumulator, result, vector))
    bindings: dict[str, Any] = {
        "ROWS": tile.rows,
        "LANES": tile.threads,
        "LAYERS": tile.layers,
        "REAL": real.type,
        "OUT": out.type,
        "ZERO": real.type(0),
        "SIGN": real.type(-1 if adjoint else 1),
        "SCALED": format.is_fixed,
        "store": store_two(),
        **(_gemm(tile, format.part, values) if tile.pairs else _gemv(tile, real)),
    }
    kinds = "".join(np.dtype(dtype).char for dtype in (vector, result, accumulator))
    pointers = [pointer_type(dtype) for dtype in (out, format.part, np.float64, values)]
    sizes = [scalar_type(np.int64)] * (12 if tile.pairs else 11)
    nest = CudaNest(_gemm_cuda if tile.pairs else _gemv_cuda, (*pointers, *sizes))
    return Kernel(f"{'adjoint' if adjoint else 'forward'}_{format.name}_{kinds}", {"cuda": nest}, bindings)


def _gemv(tile: Tile, real: Any) -> dict[str, Any]:
    sums = tile.rows * tile.width
    return {
        "WIDTH": tile.width,
        "ONE": real.type(1),
        "HALF": real.type(0.5),
        "SUMS": sums,
        "TERMS": (4, tile.width),
        "SHARED": (max(1, tile.layers - 1), 2 * sums, tile.threads),
        "load_two": load(2),
        "load_run": load(2 * tile.width),
        "load_pair": _load_pair,
        "accumulate": _accumulate,
        "share_sums": _share_sums,
        "add_layers": _add_layers,
        "store_pairs": _store_pairs,
    }


def _gemm(tile: Tile, part: Any, value: Any) -> dict[str, Any]:
    lane, layer = 2 * tile.threads, 2 * tile.threads * tile.layers
    block_pairs = tile.pairs * tile.groups
    return {
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


@cached_kernel
def add_kernel(parts: Any, result: Any) -> Kernel:
    """Return the kernel that adds the sums of chunks."""
    real, out = _real(parts), _real(result)
    bindings = {"ZERO": real.type(0), "OUT": out.type, "load_two": load(2), "store": store_two()}
    signature = pointer_type(out), pointer_type(real), *[scalar_type(np.int64)] * 4
    nests = {"cuda": CudaNest(_add_cuda, signature)}
    return Kernel(f"{np.dtype(parts).char}{np.dtype(result).char}", nests, bindings)


def launcher(
    target: Target,
    problem: Problem,
    allocate: Callable[..., Any],
    tile: Tile | None = None,
    chunks: int | None = None,
) -> Callable[[Any, StoredArrays, Any], None]:
    """Compile and return the launcher; see `sbgemv_launcher`."""
    tile = tile or choose_tile(problem)
    vector, result, sums = (np.dtype(d) for d in (problem.vector, problem.result, problem.accumulator))
    block = tile.threads, tile.layers
    split = sbgemv_kernel(problem.format, vector, sums, sums, problem.adjoint, tile)
    if chunks is None:
        chunks = choose_chunks(problem, tile, resident_blocks(split.compile(target.name), math.prod(block)))
    terms = problem.reduced if tile.pairs else ceil_div(problem.reduced, 2)
    chunk = ceil_div(terms, chunks)
    chunks = ceil_div(terms, chunk)
    pairs = ceil_div(problem.num_vecs, 2)
    grid = tile.blocks(problem), chunks, tile.groups_of_pairs(problem)
    whole = sbgemv_kernel(problem.format, vector, result, sums, problem.adjoint, tile)
    multiply = configure((split if chunks > 1 else whole).compile(target.name), target.stream, grid, block)
    scales = max(1, problem.format.scales(problem.frequencies))
    rows = problem.rows(problem.results, paired=True)
    parts = allocate((chunks, rows, problem.length), sums) if chunks > 1 else None
    if chunks > 1:
        add_grid = ceil_div(problem.length, THREADS), min(rows, MAX_GRID_Y)
        add = configure(add_kernel(sums, result).compile(target.name), target.stream, add_grid, THREADS)

    more = (pairs,) if tile.pairs else ()

    def launch(out: Any, spectrum: StoredArrays, operand: Any) -> None:
        problem.check(out, spectrum, operand, paired=True)
        steps = [(problem.nm * run, run) for run in (spectrum.values.shape[2], scales)]
        (row_step, term_step), (row_scales, term_scales) = (s[::-1] if problem.adjoint else s for s in steps)
        sums_of, pitch = (out, out.shape[1]) if parts is None else (parts, problem.length)
        sizes = (problem.results, problem.reduced, problem.frequencies, problem.length)
        strides = (row_step, term_step, row_scales, term_scales, operand.shape[1], pitch)
        arrays = (sums_of, spectrum.values, spectrum.scales, operand)
        multiply((*map(_pointer, arrays), *map(np.int64, (*sizes, *strides, chunk, *more))))
        if parts is not None:
            add((_pointer(out), _pointer(parts), *map(np.int64, (rows, problem.length, out.shape[1], chunks))))

    return launch


def _pointer(array: Any) -> Any:
    return pointer(array, _real(array.dtype))


class Case(NamedTuple):
    """What a kernel is specialised for: `sbgemv_kernel`'s arguments."""

    format: Format
    vector: Any
    result: Any
    accumulator: Any
    adjoint: bool
    tile: Tile


def cases() -> dict[str, Case]:
    """Return every loop nest, format and combination of dtypes, on a few tiles, by name."""
    double: Any = np.dtype(np.complex128)
    single: Any = np.dtype(np.complex64)
    dtypes: dict[str, tuple[Any, Any, Any]] = {
        "D": (double, double, double),
        "F": (single, single, double),
        "M": (double, single, double),
        "S": (single, single, single),
        "W": (single, double, single),
    }
    tiles = {
        "one": TILES,
        "layers": dict.fromkeys(FORMATS, Tile(2, 32, layers=4)),
        "few": {format: few_rows_tile(format, FEW_ROWS) for format in FORMATS},
        "several": dict.fromkeys(FORMATS, Tile(5, 32, layers=8, pairs=MAX_PAIRS, groups=MAX_GROUPS, stages=5)),
    }
    found = {}
    for format, adjoint, kind, (name, tile) in product(FORMATS, (False, True), dtypes, tiles.items()):
        if (kind in "SW") <= (format == COMPLEX64) and (kind == "D" or name in ("one", "several")):
            label = f"sbgemv_{name}_{'adjoint' if adjoint else 'forward'}_{format.name}_{kind}"
            vector, result, sums = dtypes[kind]
            found[label] = Case(format, vector, result, sums, adjoint, tile[format])
    return found


def specialisations() -> dict[str, Kernel]:
    """Return kernels that this module can launch, by name: those of `cases`, and those that add."""
    kernels = {label: sbgemv_kernel(*case) for label, case in cases().items()}
    for parts, result in product("DF", repeat=2):
        kernels[f"add_{parts}{result}"] = add_kernel(parts, result)
    return kernels
