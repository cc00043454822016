"""SBGEMV on the CPU: vector and result hold a row of frequencies for each block of each right-hand side.

A task sums a tile of the result: some rows at a block of neighbouring frequencies. It decodes the spectrum in
registers, to complex conjugates for F*. It adds four terms at a time, so that sums stay in registers for longer. It
prefetches the next runs of the spectrum, which are too short for the processor to predict.

Memory is the bottleneck for one right-hand side. For several, arithmetic takes as long. Real and imaginary parts of a
few frequencies are therefore split into lanes once, in cache, and used for all vectors, two result rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import complex128, get_num_threads, prange, types
from numba.extending import intrinsic

from ..formats import RUN, Format, StoredArrays
from ..jit import Called, CpuNest, Free, Kernel, Target, array_type, cached_kernel, ceil_div, scalar_type
from .problem import Problem

BLOCK_FREQUENCIES = 512
LANES = RUN  # frequencies that are multiplied at a time, for several right-hand sides: those of one scale
TILE_SUMS = 1 << 16  # complex128: 1 MiB, a core's share of cache
TERMS = 4
LINE = 64  # bytes of a line of cache, and of the widest vector
WHOLE = 8  # real or imaginary parts in the widest vector

# Nanoseconds as measured on one core, for several right-hand sides: READ to read and decode a value of the spectrum,
# which takes longer the fewer frequencies are neighbours in memory; MULTIPLY to multiply it by a value of one vector;
# SPLIT to split a value of a vector. The sums of a tile may exceed the second level of cache: they mostly wait for the
# spectrum.
READ, NEIGHBOURS, MULTIPLY, SPLIT = 0.55, 80, 0.1, 0.8
SEVERAL_SUMS = 2 * TILE_SUMS

sum_tile, fetch, scale = Free("sum_tile"), Free("fetch"), Free("scale")
add_four, add_one, product = Free("add_four"), Free("add_one"), Free("product")
zeros, split, fetch_four, decode = Free("zeros"), Free("split"), Free("fetch_four"), Free("decode")
add_lanes, products, part_of = Free("add_lanes"), Free("products"), Free("part_of")
ADJOINT, SIGN = Free("ADJOINT"), Free("SIGN")
DOWN, RIGHT, AHEAD = Free("DOWN"), Free("RIGHT"), Free("AHEAD")


@intrinsic
def _prefetch(context, address):
    def codegen(context, builder, signature, arguments):
        word, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        function_type = ir.FunctionType(ir.VoidType(), [pointer, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], function_type)
        to_read, first_level, data = word(0), word(3), word(1)
        builder.call(function, [builder.inttoptr(arguments[0], pointer), to_read, first_level, data])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def _stay_apart(context):
    # A function that calls this is not merged into its callers, which numba would otherwise optimise one by one.
    def codegen(context, builder, signature, arguments):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen


def _fetch(array, i, j, start, stop):
    # A prefetch past the end of the array has no effect.
    address = np.int64(array.ctypes.data) + (i * array.shape[1] + j) * array.strides[1]
    for offset in range(start * array.itemsize, stop * array.itemsize, LINE):
        _prefetch(address + offset)


def _scale_fixed(scales, d, m, run):
    return scales[d, m, run]


def _scale_float(scales, d, m, run):
    return 1.0


def _product(parts, scale, vector, k):
    return complex(parts[2 * k] * scale, parts[2 * k + 1] * (SIGN * scale)) * vector[k]


def _add_four(total, values, scales, vector, row, term, start, stop):
    d, m = (term, row) if ADJOINT else (row, term)
    for begin in range(start, stop, RUN):
        end, run = min(begin + RUN, stop), begin // RUN
        for i in range(TERMS):
            fetch(values, d + i * DOWN, m + i * RIGHT + AHEAD, 2 * begin, 2 * end)
        a0 = values[d, m, 2 * begin : 2 * end]
        a1 = values[d + DOWN, m + RIGHT, 2 * begin : 2 * end]
        a2 = values[d + 2 * DOWN, m + 2 * RIGHT, 2 * begin : 2 * end]
        a3 = values[d + 3 * DOWN, m + 3 * RIGHT, 2 * begin : 2 * end]
        s0 = scale(scales, d, m, run)
        s1 = scale(scales, d + DOWN, m + RIGHT, run)
        s2 = scale(scales, d + 2 * DOWN, m + 2 * RIGHT, run)
        s3 = scale(scales, d + 3 * DOWN, m + 3 * RIGHT, run)
        v0, v1 = vector[0, term, begin:end], vector[0, term + 1, begin:end]
        v2, v3 = vector[0, term + 2, begin:end], vector[0, term + 3, begin:end]
        sums = total[begin - start : end - start]
        for k in range(end - begin):
            first = product(a0, s0, v0, k) + product(a1, s1, v1, k)
            second = product(a2, s2, v2, k) + product(a3, s3, v3, k)
            sums[k] += first + second


def _add_one(total, values, scales, vector, row, term, start, stop):
    d, m = (term, row) if ADJOINT else (row, term)
    for begin in range(start, stop, RUN):
        end = min(begin + RUN, stop)
        a, v = values[d, m, 2 * begin : 2 * end], vector[0, term, begin:end]
        s = scale(scales, d, m, begin // RUN)
        sums = total[begin - start : end - start]
        for k in range(end - begin):
            sums[k] += product(a, s, v, k)


def _sum_one(result, values, scales, vector, first, last, start, stop):
    total = np.zeros((last - first, stop - start), complex128)
    terms = vector.shape[1]
    fours = terms // TERMS * TERMS
    for term in range(0, fours, TERMS):
        for row in range(first, last):
            add_four(total[row - first], values, scales, vector, row, term, start, stop)
    for term in range(fours, terms):
        for row in range(first, last):
            add_one(total[row - first], values, scales, vector, row, term, start, stop)
    for row in range(first, last):
        sums, out = total[row - first], result[0, row, start:stop]
        for k in range(stop - start):
            out[k] = sums[k]


def _decode(lanes, values, scales, row, term, terms, start, stop):
    _stay_apart()
    # The loop always loads four terms. Past the last term it reloads that term; `_split` supplies zero factors, so it
    # adds nothing.
    for i in range(TERMS):
        other = min(term + i, terms - 1)
        d, m = (other, row) if ADJOINT else (row, other)
        parts, s = values[d, m, 2 * start : 2 * stop], scale(scales, d, m, start // RUN)
        real, imag = lanes[2 * i], lanes[2 * i + 1]
        for k in range(stop - start):
            real[k] = parts[2 * k] * s
            imag[k] = parts[2 * k + 1] * (SIGN * s)


def _fetch_four(values, row, term, start, stop):
    _stay_apart()
    for i in range(TERMS):
        d, m = (term + i, row) if ADJOINT else (row, term + i)
        fetch(values, d, m, 2 * start, 2 * stop)


def _split(lanes, vector, term, start, stop):
    _stay_apart()
    terms = vector.shape[1]
    for v in range(vector.shape[0]):
        for i in range(TERMS):
            fetch(vector, v, term + TERMS + i, start, stop)
        for i in range(TERMS):
            other = min(term + i, terms - 1)
            one = 1.0 if other == term + i else 0.0
            values, real, imag = vector[v, other, start:stop], lanes[v, 2 * i], lanes[v, 2 * i + 1]
            for k in range(stop - start):
                real[k] = one * values[k].real
                imag[k] = one * values[k].imag


def _products(real, imag, a, x, k):
    # With one index and offsets the compiled loop uses vector instructions; with an index for each part it does not.
    for i in range(TERMS):
        at = 2 * i * LANES + k
        real += a[at] * x[at]
        imag += a[at] * x[at + LANES]
        real -= a[at + LANES] * x[at + LANES]
        imag += a[at + LANES] * x[at]
    return real, imag


def _add_lanes(total, other_total, a, b, vectors, count):
    _stay_apart()
    for v in range(vectors.shape[0]):
        sums, others, x = total[v], other_total[v], vectors[v]
        for k in range(count):
            first = products(sums[k], sums[LANES + k], a, x, k)
            second = products(others[k], others[LANES + k], b, x, k)
            sums[k], sums[LANES + k] = first
            others[k], others[LANES + k] = second


def _aligned_zeros(size):
    values = np.zeros(size + LINE // 8)
    first = -(np.int64(values.ctypes.data) // 8) % (LINE // 8)
    return values[first : first + size]


def _part(part, start, stop):
    # A tile's frequencies are divided into parts of one scale each.
    first = start // LANES + part
    return max(start, first * LANES), min((first + 1) * LANES, stop)


def _sum_several(result, values, scales, vector, first, last, start, stop):
    _stay_apart()
    num_vecs, terms = vector.shape[:2]
    rows = (last - first + 1) // 2 * 2
    parts = (stop + LANES - 1) // LANES - start // LANES
    total = zeros(rows * parts * num_vecs * 2 * LANES).reshape(rows, parts, num_vecs, 2 * LANES)
    block, vectors = zeros(2 * 2 * TERMS * LANES), zeros(parts * num_vecs * 2 * TERMS * LANES)
    a, x = block.reshape(2, 2 * TERMS * LANES), vectors.reshape(parts, num_vecs, 2 * TERMS * LANES)
    a_lanes, x_lanes = block.reshape(2, 2 * TERMS, LANES), vectors.reshape(parts, num_vecs, 2 * TERMS, LANES)
    for term in range(0, terms, TERMS):
        for part in range(parts):
            begin, end = part_of(part, start, stop)
            split(x_lanes[part], vector, term, begin, end)
        for row in range(first, last, 2):
            ahead, later = (row + 2, term) if row + 2 < last else (first, term + TERMS)
            sums, others = total[row - first], total[row - first + 1]
            for part in range(parts):
                begin, end = part_of(part, start, stop)
                count = (end - begin + WHOLE - 1) // WHOLE * WHOLE  # lanes past the end are not stored
                for i in range(2):
                    fetch_four(values, ahead + i, later, begin, end)
                    # Without a second row the first is decoded again, for sums that are not stored.
                    decode(a_lanes[i], values, scales, min(row + i, last - 1), term, terms, begin, end)
                add_lanes(sums[part], others[part], a[0], a[1], x[part], count)
    for row in range(first, last):
        for part in range(parts):
            begin, end = part_of(part, start, stop)
            for v in range(num_vecs):
                sums_of_v, out = total[row - first, part, v], result[v, row, begin:end]
                for k in range(end - begin):
                    out[k] = complex(sums_of_v[k], sums_of_v[LANES + k])


def _sbgemv_cpu(result, values, scales, vector, frequencies, rows, width):
    blocks = (frequencies + width - 1) // width
    tiles = (result.shape[1] + rows - 1) // rows
    for task in prange(tiles * blocks):
        first, start = task // blocks * rows, task % blocks * width
        last, stop = min(first + rows, result.shape[1]), min(start + width, frequencies)
        sum_tile(result, values, scales, vector, first, last, start, stop)


def _one(adjoint: bool) -> dict[str, Any]:
    """Return the bindings for one right-hand side."""
    # The four terms are neighbours in a column of blocks, or for F in a row. The blocks to their right are read next.
    steps = {"DOWN": int(adjoint), "RIGHT": int(not adjoint), "AHEAD": 1 if adjoint else TERMS}
    functions = {"sum_tile": Called(_sum_one), "add_four": Called(_add_four), "add_one": Called(_add_one)}
    return {**steps, **functions, "product": _product}


def _several() -> dict[str, Any]:
    """Return the bindings for several right-hand sides."""
    called: dict[str, Callable[..., Any]] = {
        "sum_tile": _sum_several,
        "zeros": _aligned_zeros,
        "split": _split,
        "fetch_four": _fetch_four,
        "decode": _decode,
        "add_lanes": _add_lanes,
    }
    functions = {name: Called(formula) for name, formula in called.items()}
    return {**functions, "products": _products, "part_of": _part}


@cached_kernel
def sbgemv_kernel(format: Format, vector: Any, result: Any, adjoint: bool, several: bool) -> Kernel:
    """Return the kernel for a format, complex dtypes, an operation, and one or several right-hand sides."""
    operation = f"{'adjoint' if adjoint else 'forward'}_{'several' if several else 'one'}"
    signature = *(array_type(dtype, 3) for dtype in (result, format.part, np.float64, vector)), *[scalar_type(int)] * 3
    bindings = {
        "ADJOINT": adjoint,
        "SIGN": -1.0 if adjoint else 1.0,
        "scale": _scale_fixed if format.is_fixed else _scale_float,
        "fetch": _fetch,
        **(_several() if several else _one(adjoint)),
    }
    name = f"{operation}_{format.part.char}{vector.char}{result.char}"
    return Kernel(name, {"cpu": CpuNest(_sbgemv_cpu, signature)}, bindings)


class Tile(NamedTuple):
    """Rows of the result and neighbouring frequencies that a thread sums at a time."""

    rows: int
    width: int


def tile_for_one(results: int, frequencies: int, adjoint: bool, threads: int) -> Tile:
    """Choose the tile for one right-hand side.

    For F the tile is a row. For F* neighbouring rows are neighbours in memory, so a tile is read in one run from each
    block row, and long runs are fast. Each thread therefore gets as few tiles as the cache allows, and all threads get
    the same number.
    """
    if not adjoint:
        return Tile(1, BLOCK_FREQUENCIES)
    rounds = results * min(frequencies, BLOCK_FREQUENCIES) // (threads * TILE_SUMS) + 1
    return Tile(ceil_div(results, threads * rounds), BLOCK_FREQUENCIES)


def tile_for_several(results: int, frequencies: int, num_vecs: int, threads: int) -> Tile:
    """Choose the fastest tile for several right-hand sides, among those whose sums fit the cache.

    A tile of few rows makes the vectors be read often; one of few frequencies makes the runs of the spectrum short. The
    model also counts the time that threads wait for one another.
    """
    candidates = []
    for blocks in range(1, ceil_div(frequencies, LANES) + 1):
        width = WHOLE * ceil_div(frequencies, WHOLE * blocks)
        most = max(2, SEVERAL_SUMS // (width * num_vecs))
        fewest = ceil_div(results, most)
        candidates += [(2 * ceil_div(results, 2 * tiles), width) for tiles in range(fewest, fewest + 2 * threads)]

    def nanoseconds(rows: int, width: int) -> float:
        read = rows * (READ * (1 + NEIGHBOURS / width) + num_vecs * MULTIPLY) + num_vecs * SPLIT
        tasks = ceil_div(results, rows) * ceil_div(frequencies, width)
        return ceil_div(tasks, threads) * width * read

    return Tile(*min(candidates, key=lambda candidate: nanoseconds(*candidate)))


def launcher(target: Target, problem: Problem, *_cuda: Any) -> Callable[[Any, StoredArrays, Any], None]:
    """Compile and return the launcher; see `sbgemv_launcher`, whose options for CUDA are not used."""
    several = problem.num_vecs > 1
    dtypes = np.dtype(problem.vector), np.dtype(problem.result)
    run = sbgemv_kernel(problem.format, *dtypes, problem.adjoint, several).launcher(target)
    results, frequencies, threads = problem.results, problem.frequencies, get_num_threads()
    if several:
        tile = tile_for_several(results, frequencies, problem.num_vecs, threads)
    else:
        tile = tile_for_one(results, frequencies, problem.adjoint, threads)

    def launch(result: Any, spectrum: StoredArrays, vector: Any) -> None:
        problem.check(result, spectrum, vector, paired=False)
        by_vector = [
            array.reshape(problem.num_vecs, blocks, array.shape[1])
            for array, blocks in ((result, results), (vector, problem.reduced))
        ]
        run(by_vector[0], *spectrum, by_vector[1], frequencies, *tile)

    return launch
