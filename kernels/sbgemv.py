"""Frequency-batched GEMV (SBGEMV) on a spectrum stored as ``[d][m][k]``, for F and for F*.

    F:   result[d, k] = sum_m       spectrum[d, m, k]  vector[m, k]
    F*:  result[m, k] = sum_d  conj(spectrum[d, m, k]) vector[d, k]

On CUDA one thread owns one frequency of two result rows and walks along the reduced dimension, so that neighbouring
threads read neighbouring frequencies: both products read the spectrum once, coalesced, and share nothing between
threads. Where the tiles are too few to fill the device the reduced dimension is split into chunks whose partial sums a
second kernel adds, in order. Vector and result hold real rows in pairs (see `pairs`): their shapes are (pairs, length).

On the CPU vector and result hold a row of frequencies for each real row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from numba import complex128, get_num_threads, prange

from ._launch import (
    MAX_GRID_Y,
    THREADS,
    CudaKernel,
    Target,
    array_type,
    ceil_div,
    check,
    configure,
    cpu_kernel,
    cuda,
    cuda_formula,
    scalar_type,
    specialise,
)

TILE_THREADS = 64
ENOUGH_BYTES = 6400 * 64 * 16  # of the values that all threads load at a time
MAX_CHUNK_BYTES = 256
SHORTEST_CHUNK = 8
BLOCK_FREQUENCIES = 512
TILE_SUMS = 1 << 16  # complex128: 1 MiB, a core's share of cache


@dataclass(frozen=True)
class Tiling:
    """Launch shape of the CUDA kernel.

    Parameters
    ----------
    threads : int
        Frequencies of one block.
    chunks : int
        Parts that the reduced dimension is split into.
    """

    threads: int
    chunks: int


def choose_tiling(results: int, reduced: int, frequencies: int, itemsize: int) -> Tiling:
    """Return the tiling for a problem of `results` rows, each a sum over `reduced` terms of `itemsize` bytes.

    Chunks are added until the blocks have many times the reads in flight that the device holds at once, so that it
    never waits for a last, partial wave; to a power of two, which was measured to be best; if the sums are long enough
    to be worth splitting. The choice depends on sizes alone: the same problem is always summed in the same order.
    """
    tiles = ceil_div(results, 2) * ceil_div(frequencies, TILE_THREADS)
    wanted = ceil_div(ENOUGH_BYTES, itemsize * tiles * TILE_THREADS)
    most = min(wanted, MAX_CHUNK_BYTES // itemsize, max(1, reduced // SHORTEST_CHUNK))
    return Tiling(TILE_THREADS, 1 << (most.bit_length() - 1))


def _sbgemv_cuda(result, spectrum, vector, results, terms, frequencies, length, chunk):
    k_tiles = (frequencies + cuda.blockDim.x - 1) // cuda.blockDim.x
    tile = cuda.blockIdx.x // k_tiles
    k = np.int64(cuda.blockIdx.x % k_tiles) * cuda.blockDim.x + cuda.threadIdx.x
    part = np.int64(cuda.blockIdx.y)
    if k >= frequencies:
        return
    mirror = length - k if k > 0 else k
    first = np.int64(tile) * 2
    last = min(first + 1, results - 1)
    real0 = imag0 = real1 = imag1 = ZERO  # noqa: F821
    for pair in range(part * chunk, min((part + 1) * chunk, vector.shape[0])):
        z = vector[pair, k]
        w = vector[pair, mirror]
        z_real, z_imag = ACCUMULATE(z.real), ACCUMULATE(z.imag)  # noqa: F821
        w_real, w_imag = ACCUMULATE(w.real), ACCUMULATE(w.imag)  # noqa: F821
        # Twice the transform of the pair's first row, and of its second.
        v_real, v_imag = z_real + w_real, z_imag - w_imag
        term = 2 * pair
        a = spectrum[term, first, k] if ADJOINT else spectrum[first, term, k]  # noqa: F821
        b = spectrum[term, last, k] if ADJOINT else spectrum[last, term, k]  # noqa: F821
        a_real, a_imag = ACCUMULATE(a.real), SIGN * ACCUMULATE(a.imag)  # noqa: F821
        b_real, b_imag = ACCUMULATE(b.real), SIGN * ACCUMULATE(b.imag)  # noqa: F821
        real0 += a_real * v_real - a_imag * v_imag
        imag0 += a_real * v_imag + a_imag * v_real
        real1 += b_real * v_real - b_imag * v_imag
        imag1 += b_real * v_imag + b_imag * v_real
        if term + 1 < terms:
            v_real, v_imag = z_imag + w_imag, w_real - z_real
            a = spectrum[term + 1, first, k] if ADJOINT else spectrum[first, term + 1, k]  # noqa: F821
            b = spectrum[term + 1, last, k] if ADJOINT else spectrum[last, term + 1, k]  # noqa: F821
            a_real, a_imag = ACCUMULATE(a.real), SIGN * ACCUMULATE(a.imag)  # noqa: F821
            b_real, b_imag = ACCUMULATE(b.real), SIGN * ACCUMULATE(b.imag)  # noqa: F821
            real0 += a_real * v_real - a_imag * v_imag
            imag0 += a_real * v_imag + a_imag * v_real
            real1 += b_real * v_real - b_imag * v_imag
            imag1 += b_real * v_imag + b_imag * v_real
    real0, imag0, real1, imag1 = HALF * real0, HALF * imag0, HALF * real1, HALF * imag1  # noqa: F821
    if PARTIAL:  # noqa: F821
        result[part, first, k] = complex(real0, imag0)
        if last > first:
            result[part, last, k] = complex(real1, imag1)
    else:
        if last == first:
            real1 = imag1 = ZERO  # noqa: F821
        store_pair(result, tile, k, mirror, real0, imag0, real1, imag1)  # noqa: F821


def _store_pair(result, pair, k, mirror, real0, imag0, real1, imag1):
    # The transform of a pair of real rows whose own are y0 and y1: y0 + i y1 at k, conj y0 + i conj y1 at L - k.
    result[0, pair, k] = complex(real0 - imag1, imag0 + real1)
    if mirror != k:
        result[0, pair, mirror] = complex(real0 + imag1, real1 - imag0)


def _add_parts_cuda(result, parts, frequencies, length):
    k = np.int64(cuda.blockIdx.x) * cuda.blockDim.x + cuda.threadIdx.x
    pair = np.int64(cuda.blockIdx.y)
    if k >= frequencies:
        return
    mirror = length - k if k > 0 else k
    while pair < result.shape[1]:
        real0 = imag0 = real1 = imag1 = ZERO  # noqa: F821
        for part in range(parts.shape[0]):
            y = parts[part, 2 * pair, k]
            real0 += y.real
            imag0 += y.imag
            if 2 * pair + 1 < parts.shape[1]:
                y = parts[part, 2 * pair + 1, k]
                real1 += y.real
                imag1 += y.imag
        store_pair(result, pair, k, mirror, real0, imag0, real1, imag1)  # noqa: F821
        pair += cuda.gridDim.y


def _forward_cpu(result, spectrum, vector, frequencies):
    k_blocks = (frequencies + BLOCK_FREQUENCIES - 1) // BLOCK_FREQUENCIES
    for task in prange(result.shape[0] * k_blocks):
        row = task // k_blocks
        start = (task % k_blocks) * BLOCK_FREQUENCIES
        count = min(BLOCK_FREQUENCIES, frequencies - start)
        total = np.zeros(BLOCK_FREQUENCIES, complex128)
        for c in range(vector.shape[0]):
            a = spectrum[row, c, start : start + count]
            v = vector[c, start : start + count]
            for k in range(count):
                total[k] += a[k] * v[k]
        for k in range(count):
            result[row, start + k] = total[k]


def _adjoint_cpu(result, spectrum, vector, frequencies, rows):
    # Four block rows at a time keep the sums in registers for longer; conj(a) v is summed as conj(a conj(v)).
    width = min(frequencies, BLOCK_FREQUENCIES)
    k_blocks = (frequencies + BLOCK_FREQUENCIES - 1) // BLOCK_FREQUENCIES
    tiles = (result.shape[0] + rows - 1) // rows
    for task in prange(tiles * k_blocks):
        first = (task // k_blocks) * rows
        last = min(first + rows, result.shape[0])
        start = (task % k_blocks) * BLOCK_FREQUENCIES
        stop = min(start + BLOCK_FREQUENCIES, frequencies)
        count = stop - start
        total = np.zeros((rows, width), complex128)
        v = np.zeros((4, width), complex128)
        quads = vector.shape[0] // 4 * 4
        for d in range(0, quads, 4):
            for i in range(4):
                for k in range(count):
                    v[i, k] = np.conj(vector[d + i, start + k])
            v0, v1, v2, v3 = v[0], v[1], v[2], v[3]
            for row in range(first, last):
                a0 = spectrum[d, row, start:stop]
                a1 = spectrum[d + 1, row, start:stop]
                a2 = spectrum[d + 2, row, start:stop]
                a3 = spectrum[d + 3, row, start:stop]
                sums = total[row - first]
                for k in range(count):
                    sums[k] += (a0[k] * v0[k] + a1[k] * v1[k]) + (a2[k] * v2[k] + a3[k] * v3[k])
        for d in range(quads, vector.shape[0]):
            for row in range(first, last):
                for k in range(count):
                    total[row - first, k] += spectrum[d, row, start + k] * np.conj(vector[d, start + k])
        for row in range(first, last):
            for k in range(count):
                result[row, start + k] = np.conj(total[row - first, k])


def _real(dtype: Any) -> Any:
    return np.dtype(dtype).type(0).real.dtype


def sbgemv_kernel(stored: Any, vector: Any, result: Any, accumulator: Any, adjoint: bool, partial: bool) -> CudaKernel:
    """Return the CUDA kernel for one combination of complex dtypes and operation, for whole sums or partial ones."""
    kinds = [np.dtype(d) for d in (stored, vector, result, accumulator)]
    real = _real(accumulator)
    bindings = {
        "ACCUMULATE": real.type,
        "ZERO": real.type(0),
        "HALF": real.type(0.5),
        "SIGN": real.type(-1 if adjoint else 1),
        "ADJOINT": adjoint,
        "PARTIAL": partial,
        "store_pair": cuda_formula(_store_pair),
    }
    name = f"{'c' if adjoint else 'n'}{'p' if partial else 'w'}_{''.join(k.char for k in kinds)}"
    index = scalar_type(np.int64)
    arrays = array_type(result, 3), array_type(stored, 3), array_type(vector, 2)
    return CudaKernel(specialise(_sbgemv_cuda, name, **bindings), (*arrays, *[index] * 5))


def add_parts_kernel(parts: Any, result: Any) -> CudaKernel:
    """Return the CUDA kernel that adds the chunks' partial sums and joins the rows of the result."""
    index = scalar_type(np.int64)
    bindings = {"ZERO": _real(parts).type(0), "store_pair": cuda_formula(_store_pair)}
    function = specialise(_add_parts_cuda, f"{np.dtype(parts).char}{np.dtype(result).char}", **bindings)
    return CudaKernel(function, (array_type(result, 3), array_type(parts, 3), index, index))


@cache
def _compiled_sbgemv(*key: Any) -> Any:
    return sbgemv_kernel(*key).compile()


@cache
def _compiled_add_parts(parts: Any, result: Any) -> Any:
    return add_parts_kernel(parts, result).compile()


@cache
def _compiled_cpu(stored: Any, vector: Any, result: Any, adjoint: bool) -> Any:
    # One signature for each cache file: numba's cache is safe for concurrent processes only then.
    name = f"{stored.char}{vector.char}{result.char}"
    kernel = cpu_kernel(specialise(_adjoint_cpu if adjoint else _forward_cpu, name))
    none = np.empty((0, 0), result), np.empty((0, 0, 0), stored), np.empty((0, 0), vector)
    kernel(*none, 0, *([1] if adjoint else []))
    return kernel


def adjoint_tile(results: int, frequencies: int, threads: int) -> int:
    """Return how many rows of the result of F* a CPU thread sums at a time.

    Neighbouring rows are neighbours in memory: a tile of them is read in one run from each block row. The longer the
    better, so there are as few tiles for each thread as the cache allows, and as many for one thread as for another.
    """
    width = min(frequencies, BLOCK_FREQUENCIES)
    rounds = results * width // (threads * TILE_SUMS) + 1
    return ceil_div(results, threads * rounds)


@dataclass(frozen=True)
class Problem:
    """One SBGEMV: sizes of this rank's share of the spectrum and the dtypes on the edges.

    Parameters
    ----------
    num_rows, num_cols, length : int
        Block rows and block columns of the spectrum, and the length of its real transforms.
    adjoint : bool
        F* instead of F.
    stored, vector, result, accumulator : dtype
        Complex dtypes of the spectrum, of the operand, of the result and of the sums.
    """

    num_rows: int
    num_cols: int
    length: int
    adjoint: bool
    stored: Any
    vector: Any
    result: Any
    accumulator: Any

    @property
    def frequencies(self) -> int:
        """Frequencies of a real transform."""
        return self.length // 2 + 1

    @property
    def results(self) -> int:
        """Rows of the result."""
        return self.num_cols if self.adjoint else self.num_rows

    @property
    def reduced(self) -> int:
        """Terms of each sum."""
        return self.num_rows if self.adjoint else self.num_cols

    def check(self, result: Any, spectrum: Any, vector: Any, *, paired: bool) -> None:
        """Raise TypeError or ValueError for an array that does not fit the problem."""
        rows = [ceil_div(n, 2) if paired else n for n in (self.results, self.reduced)]
        least = self.length if paired else self.frequencies
        check(spectrum, self.stored, (self.num_rows, self.num_cols, None), "spectrum")
        check(vector, self.vector, (rows[1], None), "vector's spectrum")
        check(result, self.result, (rows[0], None), "result's spectrum")
        for name, array, width in (
            ("spectrum", spectrum, self.frequencies),
            ("vector's spectrum", vector, least),
            ("result's spectrum", result, least),
        ):
            *_, found = array.shape
            if found < width:
                raise ValueError(f"{name}: expected runs of at least {width} frequencies, found {found}")


Sbgemv = Callable[[Any, Any, Any], None]


def sbgemv(
    target: Target, problem: Problem, allocate: Callable[..., Any] = np.empty, tiling: Tiling | None = None
) -> Sbgemv:
    """Compile an SBGEMV and return its launcher.

    Parameters
    ----------
    target : Target
        Where it runs.
    problem : Problem
        Sizes and dtypes.
    allocate : callable
        ``allocate(shape, dtype)`` returns workspace for partial sums, as the target's kernels take it.
    tiling : Tiling, optional
        Launch shape on CUDA; chosen from the sizes by default.

    Returns
    -------
    callable
        ``launch(result, spectrum, vector)``. Of longer runs only the head is read and written.
    """
    return _BUILDERS[target.name](target, problem, allocate, tiling)


def _build_cpu(target: Target, problem: Problem, allocate: Callable[..., Any], tiling: Tiling | None) -> Sbgemv:
    kernel = _compiled_cpu(*(np.dtype(d) for d in (problem.stored, problem.vector, problem.result)), problem.adjoint)

    sizes = [problem.frequencies]
    if problem.adjoint:
        sizes.append(adjoint_tile(problem.results, problem.frequencies, get_num_threads()))

    def launch(result: Any, spectrum: Any, vector: Any) -> None:
        problem.check(result, spectrum, vector, paired=False)
        kernel(result, spectrum, vector, *sizes)

    return launch


def _build_cuda(target: Target, problem: Problem, allocate: Callable[..., Any], tiling: Tiling | None) -> Sbgemv:
    t = tiling or choose_tiling(
        problem.results, problem.reduced, problem.frequencies, np.dtype(problem.stored).itemsize
    )
    pairs = ceil_div(problem.reduced, 2)
    chunk = ceil_div(pairs, t.chunks)
    chunks = ceil_div(pairs, chunk)
    partial = np.dtype(problem.accumulator if chunks > 1 else problem.result)
    stored, vector, accumulator = (np.dtype(d) for d in (problem.stored, problem.vector, problem.accumulator))
    kernel = _compiled_sbgemv(stored, vector, partial, accumulator, problem.adjoint, chunks > 1)
    tiles = ceil_div(problem.results, 2) * ceil_div(problem.frequencies, t.threads)
    run = configure(kernel, (tiles, chunks), t.threads, target.stream)
    frequencies, length = np.int64(problem.frequencies), np.int64(problem.length)
    sizes = np.int64(problem.results), np.int64(problem.reduced), frequencies, length, np.int64(chunk)
    if chunks == 1:

        def launch(result: Any, spectrum: Any, vector: Any) -> None:
            problem.check(result, spectrum, vector, paired=True)
            run(result.reshape(1, *result.shape), spectrum, vector, *sizes)

        return launch

    parts = allocate((chunks, problem.results, problem.frequencies), partial)
    adder = _compiled_add_parts(partial, np.dtype(problem.result))
    add_grid = (ceil_div(problem.frequencies, THREADS), min(ceil_div(problem.results, 2), MAX_GRID_Y))
    add = configure(adder, add_grid, THREADS, target.stream)

    def launch_parts(result: Any, spectrum: Any, vector: Any) -> None:
        problem.check(result, spectrum, vector, paired=True)
        run(parts, spectrum, vector, *sizes)
        add(result.reshape(1, *result.shape), parts, frequencies, length)

    return launch_parts


_BUILDERS = {"cpu": _build_cpu, "cuda": _build_cuda}


def specialisations() -> dict[str, CudaKernel]:
    """Return every CUDA kernel that this module can launch, by name."""
    kinds = {"D": np.dtype(np.complex128), "F": np.dtype(np.complex64)}
    roles = "stored", "vector", "result", "accumulator"
    kernels = {}
    for letters in product(kinds, repeat=4):
        dtypes: Any = dict(zip(roles, map(kinds.get, letters), strict=True))
        if letters[0] == "D" and letters[3] == "F":
            continue  # no backend narrows a double spectrum
        for adjoint, partial in product((False, True), (False, True)):
            if partial and letters[2] != letters[3]:
                continue  # partial sums are kept as they are accumulated
            name = f"sbgemv_{'c' if adjoint else 'n'}{'p' if partial else 'w'}_{''.join(letters)}"
            kernels[name] = sbgemv_kernel(**dtypes, adjoint=adjoint, partial=partial)
    for parts, result in product(kinds, kinds):
        kernels[f"add_parts_{parts}{result}"] = add_parts_kernel(kinds[parts], kinds[result])
    return kernels
