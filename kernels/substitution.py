"""A step of a forward substitution by blocks, on CUDA in one launch: ``z = D^-1 (d - R z_known)``.

R is a block row of a triangular matrix left of its diagonal block D. A block of threads computes an element of the
residual ``d - R z_known``. The one that arrives last multiplies the residual by the inverse of D, since it alone knows
that all elements are there. The order of the additions depends on the sizes alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import config, float64, int32, types

from .jit import (
    CudaNest,
    Free,
    Kernel,
    Target,
    cached_kernel,
    check,
    cuda,
    pointer,
    pointer_type,
    scalar_type,
)

THREADS = 512
LANES = 32  # threads that add up a row of the inverse
LARGEST = 256  # rows of a block; one multiprocessor multiplies by the inverse of a larger one too slowly

arrive = Free("arrive")


@cache
def _arrival() -> Callable[[Any], int]:
    """Return ``arrive(counter)``, which counts up atomically and returns the count before."""
    if config.ENABLE_CUDASIM:

        def count(counter: Any) -> int:
            counter[0] += 1  # blocks run one after another
            return int(counter[0]) - 1

        return count
    from llvmlite import ir
    from numba.cuda.extending import intrinsic

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [arguments[0].type])
        assembly = ir.InlineAsm(kind, "atom.add.u32 $0, [$1], 1;", "=r,l,~{memory}", side_effect=True)
        return builder.call(assembly, arguments)

    @intrinsic
    def arrival(context, counter):
        return types.int32(counter), codegen

    return arrival  # type: ignore[no-any-return]


def _substitute_cuda(values, row, known, inverse, residual, arrived, size, count, pitch):
    shared = cuda.shared.array(THREADS, float64)
    before = cuda.shared.array(1, int32)
    thread, i = cuda.threadIdx.x, np.int64(cuda.blockIdx.x)
    t0 = t1 = t2 = t3 = np.float64(0.0)
    j = np.int64(thread)
    while j + 3 * THREADS < count:
        t0 += row[i * pitch + j] * known[j]
        t1 += row[i * pitch + j + THREADS] * known[j + THREADS]
        t2 += row[i * pitch + j + 2 * THREADS] * known[j + 2 * THREADS]
        t3 += row[i * pitch + j + 3 * THREADS] * known[j + 3 * THREADS]
        j += 4 * THREADS
    while j < count:
        t0 += row[i * pitch + j] * known[j]
        j += THREADS
    shared[thread] = (t0 + t1) + (t2 + t3)
    width = THREADS // 2
    while width > 0:
        cuda.syncthreads()
        if thread < width:
            shared[thread] += shared[thread + width]
        width //= 2
    if thread == 0:
        residual[i] = values[i] - shared[0]
        cuda.threadfence()
        before[0] = arrive(arrived)
    cuda.syncthreads()
    if before[0] < size - 1:
        return
    cuda.threadfence()  # the other blocks' residuals are read after they were counted
    lane = thread % LANES
    i = np.int64(thread // LANES)
    while i - thread // LANES < size:  # the same number of passes in all threads
        t0 = t1 = t2 = t3 = np.float64(0.0)
        if i < size:
            k = np.int64(lane)
            while k + 3 * LANES <= i:
                t0 += inverse[i * size + k] * residual[k]
                t1 += inverse[i * size + k + LANES] * residual[k + LANES]
                t2 += inverse[i * size + k + 2 * LANES] * residual[k + 2 * LANES]
                t3 += inverse[i * size + k + 3 * LANES] * residual[k + 3 * LANES]
                k += 4 * LANES
            while k <= i:
                t0 += inverse[i * size + k] * residual[k]
                k += LANES
        shared[thread] = (t0 + t1) + (t2 + t3)
        width = LANES // 2
        while width > 0:
            cuda.syncthreads()
            if lane < width:
                shared[thread] += shared[thread + width]
            width //= 2
        if lane == 0 and i < size:
            values[i] = shared[thread]
        cuda.syncthreads()
        i += THREADS // LANES
    if thread == 0:
        arrived[0] = 0  # for the next launch


def _launch_substitution(shaped, values, row, known, inverse, residual, arrived, sizes):
    addresses = map(pointer, (values, row, known, inverse, residual, arrived))
    shaped((int(sizes[0]),), THREADS)((*addresses, *map(np.int64, sizes)))


@cached_kernel
def substitution_kernel() -> Kernel:
    """Return the kernel of a step."""
    reals, sizes = [pointer_type(np.float64)] * 5, [scalar_type(np.int64)] * 3
    nest = CudaNest(_substitute_cuda, (*reals, pointer_type(np.int32), *sizes), launch=_launch_substitution)
    return Kernel("substitute", {"cuda": nest}, {"arrive": _arrival()})


def substitution_launcher(target: Target) -> Callable[..., None]:
    """Compile the kernel and return its launcher.

    Parameters
    ----------
    target : Target
        A CUDA device or the simulator.

    Returns
    -------
    callable
        ``launch(values, row, known, inverse, residual, arrived)`` replaces d in `values`, of n elements, by
        ``inverse (d - row known)``. All arrays are float64; `row` is (n, k), whose rows may have gaps; `known` has k
        elements; `inverse`, (n, n), is lower triangular; n is at most `LARGEST`. `residual` is a workspace of n
        elements at least. `arrived` is one int32, which is zero before and after.
    """
    run = substitution_kernel().launcher(target)

    def launch(values: Any, row: Any, known: Any, inverse: Any, residual: Any, arrived: Any) -> None:
        size, count = row.shape
        check(values, np.float64, (size,), "values of a substitution")
        check(row, np.float64, (size, count), "block row")
        check(known, np.float64, (count,), "known values")
        check(inverse, np.float64, (size, size), "inverse of a diagonal block")
        check(residual, np.float64, (None,), "residual")
        check(arrived, np.int32, (1,), "counter of blocks")
        if not 0 < size <= min(LARGEST, residual.shape[0]):
            raise ValueError(f"block row: expected 1 to {min(LARGEST, residual.shape[0])} rows, found {size}")
        run(values, row, known, inverse, residual, arrived, (size, count, row.strides[0] // row.dtype.itemsize))

    return launch


def specialisations() -> dict[str, Kernel]:
    """Return every kernel that this module can launch, by name."""
    return {"substitute": substitution_kernel()}
