"""Deterministic reductions of float64 vectors: dot products, and the sums and maxima that norms need.

The order of the additions depends only on the length. A result therefore has the same bits in every run and for every
number of threads. Stage one leaves `PARTIALS` values. The CPU sums each in order over a chunk; on CUDA a block sums
strided elements and then a tree in shared memory. Stage two combines the partial values in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import float64, prange

from .jit import (
    THREADS,
    CpuNest,
    CudaNest,
    Free,
    Kernel,
    Target,
    array_type,
    cached_kernel,
    check,
    cuda,
    scalar_type,
)

PARTIALS = 1024

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


def _reduce_cpu(partials, x, y, scale):
    chunk = (x.shape[0] + partials.shape[0] - 1) // partials.shape[0]
    for p in prange(partials.shape[0]):
        i = p * chunk
        stop = min(i + chunk, x.shape[0])
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
        partials[p] = combine(combine(t0, t1), combine(t2, t3))


def _reduce_cuda(partials, x, y, scale):
    shared = cuda.shared.array(THREADS, float64)
    thread = cuda.threadIdx.x
    i = np.int64(cuda.blockIdx.x) * cuda.blockDim.x + thread
    step = np.int64(cuda.gridDim.x) * cuda.blockDim.x
    t0 = t1 = t2 = t3 = np.float64(0.0)
    while i + 3 * step < x.shape[0]:
        t0 = combine(t0, term(x[i], y[i], scale))
        t1 = combine(t1, term(x[i + step], y[i + step], scale))
        t2 = combine(t2, term(x[i + 2 * step], y[i + 2 * step], scale))
        t3 = combine(t3, term(x[i + 3 * step], y[i + 3 * step], scale))
        i += 4 * step
    while i < x.shape[0]:
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
        partials[cuda.blockIdx.x] = shared[0]


def _launch_reduction(shaped, partials, x, y, scale):
    shaped((partials.shape[0],), THREADS)((partials, x, y, scale))


@cached_kernel
def reduce_kernel(term: Callable[..., Any], combine: Callable[..., Any]) -> Kernel:
    """Return the kernel that leaves one partial result for each chunk (CPU) or block (CUDA)."""
    signature = *[array_type(np.float64, 1)] * 3, scalar_type(np.float64)
    nests = {
        "cpu": CpuNest(_reduce_cpu, signature),
        "cuda": CudaNest(_reduce_cuda, signature, launch=_launch_reduction),
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
        ``launch(partials, x, y, scale=1.0)`` for two flat float64 arrays of one length; pass `x` twice if the
        reduction has no `y`. `partials` is a workspace of ``PARTIALS + 1`` float64, whose last element receives the
        result. An empty vector gives 0.
    """
    term, combine = TERMS[name]
    first = reduce_kernel(term, combine).launcher(target)
    last = reduce_kernel(*FINAL_TERMS[combine]).launcher(target)
    one = np.float64(1.0)

    def launch(partials: Any, x: Any, y: Any, scale: float = 1.0) -> None:
        check(x, np.float64, (None,), "reduced vector")
        check(y, np.float64, x.shape, "second reduced vector")
        check(partials, np.float64, (PARTIALS + 1,), "workspace of partial results")
        scale = np.float64(scale)
        heads, result = partials[:PARTIALS], partials[PARTIALS:]
        first(heads, x, y, scale)
        last(result, heads, heads, one)

    return launch


def specialisations() -> dict[str, Kernel]:
    """Return every kernel that this module can launch, by name."""
    stages = dict.fromkeys([*TERMS.values(), *FINAL_TERMS.values()])
    return {f"reduce{_name(*stage)}": reduce_kernel(*stage) for stage in stages}
