"""Deterministic reductions of float64 vectors: dot products, and the sums and maxima that norms need.

The order of the additions depends only on the length. A result therefore has the same bits in every run and for every
number of threads. Stage one leaves `PARTIALS` values. The CPU sums each in order over a chunk; on CUDA a block sums
strided elements and then a tree in shared memory. Stage two combines the partial values in the same way. Equal runs of
an array, such as several vectors, are reduced together, each to its own result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import float64, prange

from .jit import (
    CpuNest,
    CudaNest,
    Free,
    Kernel,
    Target,
    array_type,
    cached_kernel,
    check,
    cuda,
    pointer,
    pointer_type,
    scalar_type,
)

PARTIALS = 1024
# A device with 128 multiprocessors holds all blocks at a time. With as many registers as the bounds allow, a thread has
# four loads under way; with fewer of them the assembler puts loads behind additions.
THREADS, RESIDENT = 128, 8

term, combine = Free("term"), Free("combine")


def _product(x, y, scale):
    return x * y


def _magnitude(x, y, scale):
    return abs(x)


def _scaled_square(x, y, scale):
    return (x * scale) * (x * scale)


def _identity(x, y, scale):
    return x


def _sum(a, b):
    return a + b


def _largest(a, b):
    # A NaN must win on either side; it compares false with everything.
    return a if a >= b or a != a else b


TERMS = {
    "dot": (_product, _sum),
    "sum_magnitude": (_magnitude, _sum),
    "sum_square": (_scaled_square, _sum),
    "max_magnitude": (_magnitude, _largest),
}
FINAL_TERMS = {combine: (_identity, combine) for combine in (_sum, _largest)}


# Each loop nest keeps four running totals, so four independent reads and additions are in flight.


def _reduce_cpu(out, first, count, x, y, runs, length, scale):
    chunk = (length + count - 1) // count
    for p in prange(runs * count):
        start = p // count * length
        i = start + p % count * chunk
        stop = min(i + chunk, start + length)
        t0 = t1 = t2 = t3 = 0.0
        while i + 3 < stop:
            t0 = combine(t0, term(x[i], y[i], scale))
            t1 = combine(t1, term(x[i + 1], y[i + 1], scale))
            t2 = combine(t2, term(x[i + 2], y[i + 2], scale))
            t3 = combine(t3, term(x[i + 3], y[i + 3], scale))
            i += 4
        while i < stop:
            t0 = combine(t0, term(x[i], y[i], scale))
            i += 1
        out[first + p] = combine(combine(t0, t1), combine(t2, t3))


def _reduce_cuda(out, first, count, x, y, length, scale):
    shared = cuda.shared.array(THREADS, float64)
    thread, block = cuda.threadIdx.x, np.int64(cuda.blockIdx.x)
    start, step = block // count * length, count * THREADS
    stop = start + length
    i = start + block % count * THREADS + thread
    t0 = t1 = t2 = t3 = np.float64(0.0)
    while i + 3 * step < stop:
        t0 = combine(t0, term(x[i], y[i], scale))
        t1 = combine(t1, term(x[i + step], y[i + step], scale))
        t2 = combine(t2, term(x[i + 2 * step], y[i + 2 * step], scale))
        t3 = combine(t3, term(x[i + 3 * step], y[i + 3 * step], scale))
        i += 4 * step
    while i < stop:
        t0 = combine(t0, term(x[i], y[i], scale))
        i += step
    shared[thread] = combine(combine(t0, t1), combine(t2, t3))
    width = THREADS // 2
    while width > 0:
        cuda.syncthreads()
        if thread < width:
            shared[thread] = combine(shared[thread], shared[thread + width])
        width //= 2
    if thread == 0:
        out[first + block] = shared[0]


def _launch_reduction(shaped, out, first, count, x, y, runs, length, scale):
    if runs:
        shaped((runs * count,), THREADS)((pointer(out), first, count, pointer(x), pointer(y), length, scale))


@cached_kernel
def reduce_kernel(term: Callable[..., Any], combine: Callable[..., Any]) -> Kernel:
    """Return the kernel that leaves `count` partial results of each run, one of a chunk (CPU) or block (CUDA).

    The results of run r are ``out[first + r count]`` and the following ones. The run has `length` elements of x and y,
    of which the first is ``x[r length]``.
    """
    array, address, size = array_type(np.float64, 1), pointer_type(np.float64), scalar_type(np.int64)
    real = scalar_type(np.float64)
    on_cuda = address, size, size, address, address, size, real
    nests = {
        "cpu": CpuNest(_reduce_cpu, (array, size, size, array, array, size, size, real)),
        "cuda": CudaNest(_reduce_cuda, on_cuda, launch=_launch_reduction, bounds=(THREADS, RESIDENT)),
    }
    return Kernel(_name(term, combine), nests, {"term": term, "combine": combine})


def _name(term: Callable[..., Any], combine: Callable[..., Any]) -> str:
    return f"{term.__name__}{combine.__name__}"


def reduce_launcher(target: Target, name: str) -> Callable[..., None]:
    """Compile a reduction and return its launcher.

    Parameters
    ----------
    target : Target
        Where it runs.
    name : str
        ``"dot"``: sum of x y. ``"sum_magnitude"``: sum of |x|. ``"sum_square"``: sum of (scale x)^2.
        ``"max_magnitude"``: max |x|, or NaN if any element is NaN.

    Returns
    -------
    callable
        ``launch(workspace, x, y, scale=1.0, runs=1, place=0)`` for two flat float64 arrays of one length, which consist
        of a number of equal runs; pass `x` twice if the reduction has no `y`. The workspace is a flat float64 array.
        Its first ``runs PARTIALS`` elements are for partial results. The result of run r goes to element ``place + r``
        after them. A run without elements gives 0.
    """
    term, combine = TERMS[name]
    first = reduce_kernel(term, combine).launcher(target)
    last = reduce_kernel(*FINAL_TERMS[combine]).launcher(target)
    one, none = np.float64(1.0), np.int64(0)

    def launch(workspace: Any, x: Any, y: Any, scale: float = 1.0, runs: int = 1, place: int = 0) -> None:
        check(x, np.float64, (None,), "reduced vector")
        check(y, np.float64, x.shape, "second reduced vector")
        check(workspace, np.float64, (None,), "workspace of a reduction")
        heads, length = runs * PARTIALS, x.shape[0] // max(1, runs)
        if length * runs != x.shape[0]:
            raise ValueError(f"reduced vector: expected {runs} equal runs, found {x.shape[0]} elements")
        if place < 0:
            raise ValueError(f"place of a reduction's results: expected 0 or more, found {place}")
        if workspace.shape[0] < heads + place + runs:
            raise ValueError(
                f"workspace of a reduction: expected at least {heads + place + runs} elements for place {place}, "
                f"found {workspace.shape[0]}"
            )
        several, count = np.int64(runs), np.int64(PARTIALS)
        first(workspace, none, count, x, y, several, np.int64(length), np.float64(scale))
        last(workspace, np.int64(heads + place), np.int64(1), workspace, workspace, several, count, one)

    return launch


def specialisations() -> dict[str, Kernel]:
    """Return every kernel that this module can launch, by name."""
    stages = dict.fromkeys([*TERMS.values(), *FINAL_TERMS.values()])
    return {f"reduce{_name(*stage)}": reduce_kernel(*stage) for stage in stages}
