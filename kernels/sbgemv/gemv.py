"""SBGEMV on CUDA for one right-hand side.

Vector and result hold pairs of real rows as complex rows (see `pairs`), which this module separates and joins. If a
block has several layers, each of them adds up a part of the terms, and the first adds their sums in shared memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..formats import RUN
from ..jit import CudaNest, Free, cuda, scalar_type
from ..memory import load
from .tiles import Tile

ROWS, WIDTH, LANES, LAYERS = Free("ROWS"), Free("WIDTH"), Free("LANES"), Free("LAYERS")
REAL, OUT, SCALED = Free("REAL"), Free("OUT"), Free("SCALED")
follow = Free("follow")
ZERO, ONE, HALF, SIGN = Free("ZERO"), Free("ONE"), Free("HALF"), Free("SIGN")
SUMS, TERMS, SHARED = Free("SUMS"), Free("TERMS"), Free("SHARED")
load_two, load_run, store = Free("load_two"), Free("load_run"), Free("store")
load_pair, accumulate, store_pairs = Free("load_pair"), Free("accumulate"), Free("store_pairs")
share_sums, add_layers = Free("share_sums"), Free("add_layers")


def _load_pair(v, vector, pair, both, k, frequencies, length, vector_pitch):
    """Load a pair and separate it: into `v` go twice the transforms of its two rows, at the thread's frequencies."""
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
    """Write the sums of a layer to shared memory, unless it is the first."""
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
    follow()
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


def gemv_nest(tile: Tile, real: Any, pointers: Sequence[Any]) -> CudaNest:
    """Return the loop nest for a tile and the real dtype of its sums."""
    sums = tile.rows * tile.width
    bindings = {
        "WIDTH": tile.width,
        "ONE": real.type(1),
        "HALF": real.type(0.5),
        "SUMS": sums,
        "TERMS": (4, tile.width),
        "SHARED": (max(1, tile.layers - 1), 2 * sums, tile.threads),
        "load_two": load(2, constant=False),
        "load_run": load(2 * tile.width),
        "load_pair": _load_pair,
        "accumulate": _accumulate,
        "share_sums": _share_sums,
        "add_layers": _add_layers,
        "store_pairs": _store_pairs,
    }
    return CudaNest(_gemv_cuda, (*pointers, *[scalar_type(np.int64)] * 11), bindings)
