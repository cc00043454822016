"""SBGEMV on the CPU: vectors and results are tiles of frequencies, as the spectrum is.

A task sums some rows of the result at some tiles. It reads the spectrum a strip of a few block rows at a time: as many
streams of consecutive memory, which the processor predicts. The products are those of `lanes`. For several right-hand
sides a piece of the strip stays in cache until all of them are multiplied.

The order of the additions depends on the numbers of block rows and columns only, not on tasks and threads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads, prange

from ..formats import PARTS, TILE, Format, StoredArrays, vector_tiles
from ..jit import Called, CpuNest, Free, Kernel, Target, array_type, cached_kernel, ceil_div, check, scalar_type
from ..lanes import Block, block_prefetch, block_product, vector_width
from .blocks import Multiply, choose_block
from .problem import Problem, check_runs

PIECE = 64  # block columns of a strip that are multiplied by one vector after the other
TASK_BYTES = 1 << 20  # tiles of vectors and sums of a task: a core's share of cache
STREAM = 100  # tiles of the spectrum that are read while a stream of memory begins

sum_task, add_strip, add_columns = Free("sum_task"), Free("add_strip"), Free("add_columns")
add_block, add_row, add_column, add_one = Free("add_block"), Free("add_row"), Free("add_column"), Free("add_one")
fetch_block, fetch_row = Free("fetch_block"), Free("fetch_row")
ADJOINT, DOWN, RIGHT, VECS = Free("ADJOINT"), Free("DOWN"), Free("RIGHT"), Free("VECS")


def _add_columns(sums, values, scales, vectors, v, d, whole, tile, begin, end):
    # Block columns `begin` to `end` of a strip of DOWN block rows, or of one. The first vector's are prefetched.
    last = begin + (end - begin) // RIGHT * RIGHT
    for m in range(begin, last, RIGHT):
        row, term = (m, d) if ADJOINT else (d, m)
        if whole:
            if v == 0:
                fetch_block(values, d, tile, m)
            add_block(sums, v, row, values, scales, d, tile, m, vectors, term)
        else:
            if v == 0:
                fetch_row(values, d, tile, m)
            add_row(sums, v, row, values, scales, d, tile, m, vectors, term)
    for m in range(last, end):
        row, term = (m, d) if ADJOINT else (d, m)
        if whole:
            add_column(sums, v, row, values, scales, d, tile, m, vectors, term)
        else:
            add_one(sums, v, row, values, scales, d, tile, m, vectors, term)


def _add_strip(sums, values, scales, vectors, d, whole, first, last, start, stop):
    for tile in range(start, stop):
        for begin in range(first, last, PIECE):
            end = min(begin + PIECE, last)
            for v in range(0, sums.shape[0], VECS):
                add_columns(sums, values, scales, vectors, v, d, whole, tile, begin, end)


def _sum_task(sums, values, scales, vectors, first, last, start, stop):
    terms = vectors.shape[2]
    sums[:, start:stop, first:last] = 0.0
    top, bottom, left, right = (0, terms, first, last) if ADJOINT else (first, last, 0, terms)
    whole = top + (bottom - top) // DOWN * DOWN
    for d in range(top, whole, DOWN):
        add_strip(sums, values, scales, vectors, d, True, left, right, start, stop)
    for d in range(whole, bottom):
        add_strip(sums, values, scales, vectors, d, False, left, right, start, stop)


def _sbgemv_cpu(sums, values, scales, vectors, rows, width):
    tiles, results = sums.shape[1:3]
    across = (tiles + width - 1) // width
    down = (results + rows - 1) // rows
    for task in prange(down * across):
        first, start = task // across * rows, task % across * width
        last, stop = min(first + rows, results), min(start + width, tiles)
        sum_task(sums, values, scales, vectors, first, last, start, stop)


@cached_kernel
def sbgemv_kernel(format: Format, adjoint: bool, block: Block) -> Kernel:
    """Return the kernel for a format, an operation and a block of products."""
    signature = (
        *(array_type(np.float64, 4), array_type(format.part, 4), array_type(np.float64, 3), array_type(np.float64, 4)),
        *[scalar_type(int)] * 2,
    )
    width, (down, right, vecs) = vector_width(), block

    def product(down: int, right: int) -> Any:
        return block_product(Block(down, right, vecs), format, adjoint, width)

    called: dict[str, Callable[..., Any]] = {
        "sum_task": _sum_task,
        "add_strip": _add_strip,
        "add_columns": _add_columns,
    }
    bindings = {
        **{"ADJOINT": adjoint, "DOWN": down, "RIGHT": right, "VECS": vecs},
        **{name: Called(formula) for name, formula in called.items()},
        "add_block": product(down, right),
        "add_row": product(1, right),
        "add_column": product(down, 1),
        "add_one": product(1, 1),
        "fetch_block": block_prefetch(down, right, format.part.itemsize),
        "fetch_row": block_prefetch(1, right, format.part.itemsize),
    }
    name = f"{'adjoint' if adjoint else 'forward'}_{format.part.char}_{64 * width}"
    return Kernel(name, {"cpu": CpuNest(_sbgemv_cpu, signature)}, bindings)


class Task(NamedTuple):
    """Rows of the result and tiles of frequencies that a thread sums at a time."""

    rows: int
    width: int


def choose_task(problem: Problem, block: Block, threads: int) -> Task:
    """Choose the tasks that all threads finish soonest, and of these the largest.

    Its strips should be long, and its tiles of vectors and sums fit a core's share of cache, unless one tile of
    frequencies has more.
    """
    results, terms = problem.results, problem.reduced
    tiles = ceil_div(problem.frequencies, TILE)
    step = block.right if problem.adjoint else block.down
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


def block_launcher(target: Target, problem: Problem, block: Block) -> Multiply:
    """Compile the SBGEMV of a block of products and return its launcher."""
    run = sbgemv_kernel(problem.format, problem.adjoint, block).launcher(target)
    task = choose_task(problem, block, get_num_threads())

    def launch(result: Any, spectrum: StoredArrays, vector: Any) -> None:
        for tiles, blocks, what in ((result, problem.results, "result's"), (vector, problem.reduced, "vector's")):
            check(tiles, np.float64, vector_tiles(problem.num_vecs, problem.frequencies, blocks), f"{what} spectrum")
        runs = problem.format.scales(problem.frequencies)
        shapes = (problem.nd, None, problem.nm, PARTS), (problem.nd, runs, problem.nm)
        problem.check_spectrum(spectrum, *shapes)
        check_runs("spectrum", spectrum.values.shape[1] * TILE, problem.frequencies)
        run(result, *spectrum, vector, *task)

    return launch


def launcher(target: Target, problem: Problem, *_cuda: Any) -> Multiply:
    """Compile and return the launcher; see `sbgemv_launcher`, whose options for CUDA are not used."""
    return block_launcher(target, problem, choose_block(problem, partial(block_launcher, target)))
