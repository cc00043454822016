"""SBGEMV on the CPU: vector and result hold a row of frequencies for each block of each right-hand side.

The rows of the vector are cut into tiles, as the spectrum is, and the tiles of the result are joined to rows. A task
sums some rows of the result at some tiles. It reads the spectrum a strip of a few block rows at a time: as many streams
of consecutive memory, which the processor predicts. The products are those of `lanes`. For several right-hand sides a
piece of the strip stays in cache until all of them are multiplied.

The order of the additions depends on the numbers of block rows and columns only, not on tasks and threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads, prange

from ..formats import LINE, TILE, Format, StoredArrays, aligned
from ..jit import Called, CpuNest, Free, Kernel, Target, array_type, cached_kernel, ceil_div, scalar_type
from ..lanes import PARTS, block_product, vector_width
from .problem import Problem

PIECE = 64  # block columns of a strip that are multiplied by one vector after the other
TASK_BYTES = 1 << 20  # tiles of vectors and sums of a task: a core's share of cache
STREAM = 100  # tiles of the spectrum that are read while a stream of memory begins

cut, join, sum_task = Free("cut"), Free("join"), Free("sum_task")
add_strip, add_columns = Free("add_strip"), Free("add_columns")
add_block, add_row, add_column, add_one = Free("add_block"), Free("add_row"), Free("add_column"), Free("add_one")
ADJOINT, DOWN, RIGHT = Free("ADJOINT"), Free("DOWN"), Free("RIGHT")


class Strip(NamedTuple):
    """Block rows and block columns of a block of products."""

    down: int
    right: int


# Each sum of a block takes two vectors; AVX2 has 16. For F a long sum is the cheaper one; for F* a block row is a term.
STRIPS = {False: Strip(4, 8), True: Strip(4, 4)}


def _cut(tiles, row, vector, frequencies):
    whole = frequencies // TILE
    for tile in range(whole):
        for k in range(TILE):
            value = vector[tile * TILE + k]
            tiles[tile, row, 2 * k], tiles[tile, row, 2 * k + 1] = value.real, value.imag
    for k in range(frequencies - whole * TILE):
        value = vector[whole * TILE + k]
        tiles[whole, row, 2 * k], tiles[whole, row, 2 * k + 1] = value.real, value.imag


def _join(result, tiles, row, frequencies):
    sign = -1.0 if ADJOINT else 1.0  # the sums of F* are the complex conjugates
    whole = frequencies // TILE
    for tile in range(whole):
        for k in range(TILE):
            result[tile * TILE + k] = complex(tiles[tile, row, 2 * k], sign * tiles[tile, row, 2 * k + 1])
    for k in range(frequencies - whole * TILE):
        result[whole * TILE + k] = complex(tiles[whole, row, 2 * k], sign * tiles[whole, row, 2 * k + 1])


def _add_columns(sums, values, scales, vector, d, whole, tile, begin, end):
    # Block columns `begin` to `end` of a strip of DOWN block rows, or of one.
    last = begin + (end - begin) // RIGHT * RIGHT
    for m in range(begin, last, RIGHT):
        row, term = (m, d) if ADJOINT else (d, m)
        if whole:
            add_block(sums, row, values, scales, d, tile, m, vector, term)
        else:
            add_row(sums, row, values, scales, d, tile, m, vector, term)
    for m in range(last, end):
        row, term = (m, d) if ADJOINT else (d, m)
        if whole:
            add_column(sums, row, values, scales, d, tile, m, vector, term)
        else:
            add_one(sums, row, values, scales, d, tile, m, vector, term)


def _add_strip(sums, values, scales, vectors, d, whole, first, last, start, stop):
    for tile in range(start, stop):
        for begin in range(first, last, PIECE):
            end = min(begin + PIECE, last)
            for v in range(sums.shape[0]):
                add_columns(sums[v, tile], values, scales, vectors[v, tile], d, whole, tile, begin, end)


def _sum_task(sums, values, scales, vectors, first, last, start, stop):
    terms = vectors.shape[2]
    sums[:, start:stop, first:last] = 0.0
    top, bottom, left, right = (0, terms, first, last) if ADJOINT else (first, last, 0, terms)
    whole = top + (bottom - top) // DOWN * DOWN
    for d in range(top, whole, DOWN):
        add_strip(sums, values, scales, vectors, d, True, left, right, start, stop)
    for d in range(whole, bottom):
        add_strip(sums, values, scales, vectors, d, False, left, right, start, stop)


def _sbgemv_cpu(result, values, scales, vector, sums, vectors, frequencies, rows, width):
    num_vecs, tiles, results = sums.shape[:3]
    terms = vector.shape[1]
    for row in prange(num_vecs * terms):
        cut(vectors[row // terms], row % terms, vector[row // terms, row % terms], frequencies)
    across = (tiles + width - 1) // width
    down = (results + rows - 1) // rows
    for task in prange(down * across):
        first, start = task // across * rows, task % across * width
        last, stop = min(first + rows, results), min(start + width, tiles)
        sum_task(sums, values, scales, vectors, first, last, start, stop)
    for row in prange(num_vecs * results):
        join(result[row // results, row % results], sums[row // results], row % results, frequencies)


@cached_kernel
def sbgemv_kernel(format: Format, vector: Any, result: Any, adjoint: bool) -> Kernel:
    """Return the kernel for a format, complex dtypes and an operation."""
    signature = (
        *(array_type(result, 3), array_type(format.part, 4), array_type(np.float64, 3), array_type(vector, 3)),
        *[array_type(np.float64, 4)] * 2,
        *[scalar_type(int)] * 3,
    )
    width, (down, right) = vector_width(), STRIPS[adjoint]

    def block(down: int, right: int) -> Any:
        rows, terms = (right, down) if adjoint else (down, right)
        return block_product(rows, terms, format, adjoint, width)

    called: dict[str, Callable[..., Any]] = {
        "cut": _cut,
        "join": _join,
        "sum_task": _sum_task,
        "add_strip": _add_strip,
        "add_columns": _add_columns,
    }
    bindings = {
        **{"ADJOINT": adjoint, "DOWN": down, "RIGHT": right},
        **{name: Called(formula) for name, formula in called.items()},
        "add_block": block(down, right),
        "add_row": block(1, right),
        "add_column": block(down, 1),
        "add_one": block(1, 1),
    }
    name = f"{'adjoint' if adjoint else 'forward'}_{format.part.char}{vector.char}{result.char}_{64 * width}"
    return Kernel(name, {"cpu": CpuNest(_sbgemv_cpu, signature)}, bindings)


class Task(NamedTuple):
    """Rows of the result and tiles of frequencies that a thread sums at a time."""

    rows: int
    width: int


def choose_task(problem: Problem, threads: int) -> Task:
    """Choose the tasks that all threads finish soonest, and of these the largest.

    Its strips should be long, and its tiles of vectors and sums fit a core's share of cache, unless one tile of
    frequencies has more.
    """
    results, terms = problem.results, problem.reduced
    tiles = ceil_div(problem.frequencies, TILE)
    step = STRIPS[problem.adjoint][problem.adjoint]
    rows = {step * ceil_div(results, step * parts) for parts in range(1, min(threads, results) + 1)}
    widths = {ceil_div(tiles, parts) for parts in range(1, tiles + 1)}
    candidates = [Task(min(count, results), width) for count in rows for width in widths]

    def bytes_of(task: Task) -> int:
        return 8 * PARTS * problem.num_vecs * task.width * (task.rows + terms)

    def time(task: Task) -> tuple[int, int]:
        rounds = ceil_div(ceil_div(results, task.rows) * ceil_div(tiles, task.width), threads)
        block_rows, whole = (terms, task.rows == results) if problem.adjoint else (task.rows, True)
        streams = block_rows * (1 if whole else task.width)
        return rounds * (task.width * task.rows * terms + STREAM * streams), -task.rows * task.width

    return min((task for task in candidates if task.width == 1 or bytes_of(task) <= TASK_BYTES), key=time)


def launcher(
    target: Target, problem: Problem, allocate: Callable[..., Any], *_cuda: Any
) -> Callable[[Any, StoredArrays, Any], None]:
    """Compile and return the launcher; see `sbgemv_launcher`, whose options for CUDA are not used."""
    dtypes = np.dtype(problem.vector), np.dtype(problem.result)
    run = sbgemv_kernel(problem.format, *dtypes, problem.adjoint).launcher(target)
    results, terms, frequencies = problem.results, problem.reduced, problem.frequencies
    task = choose_task(problem, get_num_threads())
    shapes = [(problem.num_vecs, ceil_div(frequencies, TILE), blocks, PARTS) for blocks in (results, terms)]
    count = math.prod(shapes[0])
    room = aligned(allocate((count + math.prod(shapes[1]) + LINE // 8,), np.float64))
    room[:] = 0.0
    sums, vectors = room[:count].reshape(shapes[0]), room[count : count + math.prod(shapes[1])].reshape(shapes[1])

    def launch(result: Any, spectrum: StoredArrays, vector: Any) -> None:
        problem.check(result, spectrum, vector, paired=False)
        by_vector = [
            array.reshape(problem.num_vecs, blocks, array.shape[1])
            for array, blocks in ((result, results), (vector, terms))
        ]
        run(by_vector[0], *spectrum, by_vector[1], sums, vectors, frequencies, *task)

    return launch
