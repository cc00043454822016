"""Frequency-batched GEMV (SBGEMV) on a spectrum stored as ``[d][m][k]``, for F and for F*.

    F:   result[d, k] = sum_m       spectrum[d, m, k]  vector[m, k]
    F*:  result[m, k] = sum_d  conj(spectrum[d, m, k]) vector[d, k]

One thread owns one frequency of a tile of result rows and walks along the reduced dimension, so that neighbouring
threads read neighbouring frequencies: both products read the spectrum once, coalesced, and share nothing between
threads. Where the tiles are too few to fill the device the reduced dimension is split into chunks whose partial sums a
second kernel adds, in order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from numba import complex128, prange

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
    scalar_type,
    specialise,
)

TILE_ROWS = (1, 2)
TILE_THREADS = 64
ENOUGH_BLOCKS = 20_000
MAX_CHUNKS = 32
SHORTEST_CHUNK = 16
BLOCK_FREQUENCIES = 512
TILE_SUMS = 4096


@dataclass(frozen=True)
class Tiling:
    """Launch shape of the CUDA kernel.

    Parameters
    ----------
    rows : int
        Result rows of one thread: the vector's value is loaded once for all of them. One of `TILE_ROWS`.
    threads : int
        Frequencies of one block.
    chunks : int
        Parts that the reduced dimension is split into.
    """

    rows: int
    threads: int
    chunks: int


def choose_tiling(results: int, reduced: int, frequencies: int, adjoint: bool) -> Tiling:
    """Return the tiling for a problem of `results` rows, each a sum over `reduced` terms.

    F* reads its rows from neighbouring memory and gains from two a thread; F streams and does not. Chunks are added
    until the blocks are many times what the device holds at once, so that it never waits for a last, partial wave, if
    the sums are long enough to be worth splitting.
    """
    rows = min(2, results) if adjoint else 1
    tiles = ceil_div(results, rows) * ceil_div(frequencies, TILE_THREADS)
    chunks = min(MAX_CHUNKS, ceil_div(ENOUGH_BLOCKS, tiles), max(1, reduced // SHORTEST_CHUNK))
    return Tiling(rows, TILE_THREADS, chunks)


def _sbgemv_cuda(result, spectrum, vector, frequencies, chunk):
    k_tiles = (frequencies + cuda.blockDim.x - 1) // cuda.blockDim.x
    tile = cuda.blockIdx.x // k_tiles
    k = np.int64(cuda.blockIdx.x % k_tiles) * cuda.blockDim.x + cuda.threadIdx.x
    part = np.int64(cuda.blockIdx.y)
    if k >= frequencies:
        return
    first = np.int64(tile) * ROWS  # noqa: F821
    count = min(ROWS, result.shape[1] - first)  # noqa: F821
    real = cuda.local.array(ROWS, ACCUMULATOR)  # noqa: F821
    imag = cuda.local.array(ROWS, ACCUMULATOR)  # noqa: F821
    for r in range(ROWS):  # noqa: F821
        real[r] = ZERO  # noqa: F821
        imag[r] = ZERO  # noqa: F821
    for c in range(part * chunk, min((part + 1) * chunk, vector.shape[0])):
        v = vector[c, k]
        v_real = ACCUMULATE(v.real)  # noqa: F821
        v_imag = ACCUMULATE(v.imag)  # noqa: F821
        for r in range(ROWS):  # noqa: F821
            if r < count:
                a = spectrum[c, first + r, k] if ADJOINT else spectrum[first + r, c, k]  # noqa: F821
                a_real = ACCUMULATE(a.real)  # noqa: F821
                a_imag = -ACCUMULATE(a.imag) if ADJOINT else ACCUMULATE(a.imag)  # noqa: F821
                real[r] += a_real * v_real - a_imag * v_imag
                imag[r] += a_real * v_imag + a_imag * v_real
    for r in range(ROWS):  # noqa: F821
        if r < count:
            result[part, first + r, k] = complex(real[r], imag[r])


def _add_parts_cuda(result, parts, frequencies):
    k = np.int64(cuda.blockIdx.x) * cuda.blockDim.x + cuda.threadIdx.x
    row = np.int64(cuda.blockIdx.y)
    if k < frequencies:
        while row < parts.shape[1]:
            total = parts[0, row, k]
            for part in range(1, parts.shape[0]):
                total += parts[part, row, k]
            result[row, k] = total
            row += cuda.gridDim.y


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


def _adjoint_cpu(result, spectrum, vector, frequencies):
    # Neighbouring rows of the result are neighbours in memory: a tile of them is read in one run from each block row.
    # Four block rows at a time keep the sums in registers for longer; conj(a) v is summed as conj(a conj(v)).
    width = min(frequencies, BLOCK_FREQUENCIES)
    rows = max(1, TILE_SUMS // max(1, width))
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


def sbgemv_kernel(stored: Any, vector: Any, result: Any, accumulator: Any, adjoint: bool, rows: int) -> CudaKernel:
    """Return the CUDA kernel for one combination of complex dtypes, operation and rows a thread."""
    kinds = [np.dtype(d) for d in (stored, vector, result, accumulator)]
    real = _real(accumulator)
    bindings = {
        "ROWS": rows,
        "ACCUMULATOR": scalar_type(real),
        "ACCUMULATE": real.type,
        "ZERO": real.type(0),
        "ADJOINT": adjoint,
    }
    name = f"{'c' if adjoint else 'n'}{rows}_{''.join(k.char for k in kinds)}"
    index = scalar_type(np.int64)
    signature = (array_type(result, 3), array_type(stored, 3), array_type(vector, 2), index, index)
    return CudaKernel(specialise(_sbgemv_cuda, name, **bindings), signature)


def add_parts_kernel(parts: Any, result: Any) -> CudaKernel:
    """Return the CUDA kernel that adds the chunks' partial sums."""
    signature = (array_type(result, 2), array_type(parts, 3), scalar_type(np.int64))
    return CudaKernel(specialise(_add_parts_cuda, f"{np.dtype(parts).char}{np.dtype(result).char}"), signature)


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
    kernel(np.empty((0, 0), result), np.empty((0, 0, 0), stored), np.empty((0, 0), vector), 0)
    return kernel


@dataclass(frozen=True)
class Problem:
    """One SBGEMV: sizes of this rank's share of the spectrum and the dtypes on the edges.

    Parameters
    ----------
    num_rows, num_cols, frequencies : int
        Block rows, block columns and frequencies of the spectrum.
    adjoint : bool
        F* instead of F.
    stored, vector, result, accumulator : dtype
        Complex dtypes of the spectrum, of the operand, of the result and of the sums.
    """

    num_rows: int
    num_cols: int
    frequencies: int
    adjoint: bool
    stored: Any
    vector: Any
    result: Any
    accumulator: Any

    @property
    def results(self) -> int:
        """Rows of the result."""
        return self.num_cols if self.adjoint else self.num_rows

    @property
    def reduced(self) -> int:
        """Terms of each sum."""
        return self.num_rows if self.adjoint else self.num_cols

    def check(self, result: Any, spectrum: Any, vector: Any) -> None:
        """Raise TypeError or ValueError for an array that does not fit the problem."""
        check(spectrum, self.stored, (self.num_rows, self.num_cols, None), "spectrum")
        check(vector, self.vector, (self.reduced, None), "vector's spectrum")
        check(result, self.result, (self.results, None), "result's spectrum")
        shortest = min(spectrum.shape[2], vector.shape[1], result.shape[1])
        if shortest < self.frequencies:
            raise ValueError(f"rows of spectra: expected at least {self.frequencies} frequencies, found {shortest}")


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
        ``launch(result, spectrum, vector)``. Only the first `frequencies` entries of each run are read and written.
    """
    return _BUILDERS[target.name](target, problem, allocate, tiling)


def _build_cpu(target: Target, problem: Problem, allocate: Callable[..., Any], tiling: Tiling | None) -> Sbgemv:
    kernel = _compiled_cpu(*(np.dtype(d) for d in (problem.stored, problem.vector, problem.result)), problem.adjoint)

    def launch(result: Any, spectrum: Any, vector: Any) -> None:
        problem.check(result, spectrum, vector)
        kernel(result, spectrum, vector, problem.frequencies)

    return launch


def _build_cuda(target: Target, problem: Problem, allocate: Callable[..., Any], tiling: Tiling | None) -> Sbgemv:
    t = tiling or choose_tiling(problem.results, problem.reduced, problem.frequencies, problem.adjoint)
    chunk = np.int64(ceil_div(problem.reduced, t.chunks))
    chunks = ceil_div(problem.reduced, int(chunk))
    frequencies = np.int64(problem.frequencies)
    partial = np.dtype(problem.accumulator if chunks > 1 else problem.result)
    stored, vector, accumulator = (np.dtype(d) for d in (problem.stored, problem.vector, problem.accumulator))
    kernel = _compiled_sbgemv(stored, vector, partial, accumulator, problem.adjoint, t.rows)
    grid = (ceil_div(problem.results, t.rows) * ceil_div(problem.frequencies, t.threads), chunks)
    run = configure(kernel, grid, t.threads, target.stream)
    if chunks == 1:

        def launch(result: Any, spectrum: Any, vector: Any) -> None:
            problem.check(result, spectrum, vector)
            run(result.reshape(1, *result.shape), spectrum, vector, frequencies, chunk)

        return launch

    parts = allocate((chunks, problem.results, problem.frequencies), partial)
    adder = _compiled_add_parts(partial, np.dtype(problem.result))
    add_grid = (ceil_div(problem.frequencies, THREADS), min(problem.results, MAX_GRID_Y))
    add = configure(adder, add_grid, THREADS, target.stream)

    def launch_parts(result: Any, spectrum: Any, vector: Any) -> None:
        problem.check(result, spectrum, vector)
        run(parts, spectrum, vector, frequencies, chunk)
        add(result, parts, frequencies)

    return launch_parts


_BUILDERS = {"cpu": _build_cpu, "cuda": _build_cuda}


def specialisations() -> dict[str, CudaKernel]:
    """Return every CUDA kernel that this module can launch, by name."""
    kinds = {"D": np.dtype(np.complex128), "F": np.dtype(np.complex64)}
    kernels = {}
    for letters in product(kinds, repeat=4):
        dtypes: Any = dict(zip(("stored", "vector", "result", "accumulator"), map(kinds.get, letters), strict=True))
        if letters[0] == "D" and letters[3] == "F":
            continue  # no backend narrows a double spectrum
        for adjoint, rows in product((False, True), TILE_ROWS):
            name = f"sbgemv_{'c' if adjoint else 'n'}{rows}_{''.join(letters)}"
            kernels[name] = sbgemv_kernel(**dtypes, adjoint=adjoint, rows=rows)
    for parts, result in product(kinds, kinds):
        kernels[f"add_parts_{parts}{result}"] = add_parts_kernel(kinds[parts], kinds[result])
    return kernels
