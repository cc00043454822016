"""A step of a forward substitution by blocks, on CUDA in one launch: ``z = D^-1 (d - R z_known)``.

R is a block row of a triangular matrix left of its diagonal block D. A block of threads computes an element of the
residual ``d - R z_known``. The one that arrives last multiplies the residual by the inverse of D, since all elements
are there by then. The order of the additions depends on the sizes alone. The number of the step travels with
the data, so that all steps have the same arguments and one recorded launch serves them.
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


def _substitute_cuda(solutions, panel, inverses, given, residual, arrived, size, pitch, first):
    shared = cuda.shared.array(THREADS, float64)
    before = cuda.shared.array(1, int32)
    thread, i = cuda.threadIdx.x, np.int64(cuda.blockIdx.x)
    step = np.int64(given[0])
    count, ahead = step * size, (step - first) * size
    row = (ahead + i) * pitch
    t0 = t1 = t2 = t3 = np.float64(0.0)
    j = np.int64(thread)
    while j + 3 * THREADS < count:
        t0 += panel[row + j] * solutions[j]
        t1 += panel[row + j + THREADS] * solutions[j + THREADS]
        t2 += panel[row + j + 2 * THREADS] * solutions[j + 2 * THREADS]
        t3 += panel[row + j + 3 * THREADS] * solutions[j + 3 * THREADS]
        j += 4 * THREADS
    while j < count:
        t0 += panel[row + j] * solutions[j]
        j += THREADS
    shared[thread] = (t0 + t1) + (t2 + t3)
    width = THREADS // 2
    while width > 0:
        cuda.syncthreads()
        if thread < width:
            shared[thread] += shared[thread + width]
        width //= 2
    if thread == 0:
        residual[i] = given[1 + i] - shared[0]
        cuda.threadfence()
        before[0] = arrive(arrived)
    cuda.syncthreads()
    if before[0] < size - 1:
        return
    cuda.threadfence()  # the other blocks' residuals are read after they were counted
    lane = thread % LANES
    i = np.int64(thread // LANES)
    while i - thread // LANES < size:  # the same number of passes in all threads
        row = (ahead + i) * size
        t0 = t1 = t2 = t3 = np.float64(0.0)
        if i < size:
            k = np.int64(lane)
            while k + 3 * LANES <= i:
                t0 += inverses[row + k] * residual[k]
                t1 += inverses[row + k + LANES] * residual[k + LANES]
                t2 += inverses[row + k + 2 * LANES] * residual[k + 2 * LANES]
                t3 += inverses[row + k + 3 * LANES] * residual[k + 3 * LANES]
                k += 4 * LANES
            while k <= i:
                t0 += inverses[row + k] * residual[k]
                k += LANES
        shared[thread] = (t0 + t1) + (t2 + t3)
        width = LANES // 2
        while width > 0:
            cuda.syncthreads()
            if lane < width:
                shared[thread] += shared[thread + width]
            width //= 2
        if lane == 0 and i < size:
            solutions[count + i] = shared[thread]
        cuda.syncthreads()
        i += THREADS // LANES
    if thread == 0:
        arrived[0] = 0  # for the next launch


def _launch_substitution(shaped, *arguments):
    *arrays, size, pitch, first = arguments
    shaped((size,), THREADS)((*map(pointer, arrays), *map(np.int64, (size, pitch, first))))


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
        ``launch(solutions, panel, inverses, given, residual, arrived, first)`` solves the block row of a step. All
        arrays are contiguous, and float64 but for `arrived`.

        - `solutions`: those of all steps, in one dimension. The earlier steps' are read, the step's are written.
        - `panel`: (steps n, columns), the block rows of the steps from `first` on, with at most `LARGEST` rows each.
        - `inverses`: (steps, n, n), the inverses of the diagonal blocks, of which the lower triangles are read.
        - `given`: the number of the step, and n right-hand sides.
        - `residual`: a workspace of n elements at least.
        - `arrived`: one int32, which is zero before and after.
    """
    run = substitution_kernel().launcher(target)

    def launch(solutions: Any, panel: Any, inverses: Any, given: Any, residual: Any, arrived: Any, first: int) -> None:
        check(inverses, np.float64, (None, None, None), "inverses of diagonal blocks")
        steps, size, _ = inverses.shape
        check(inverses, np.float64, (steps, size, size), "inverses of diagonal blocks")
        check(panel, np.float64, (steps * size, None), "block rows")
        check(solutions, np.float64, (None,), "solutions")
        check(given, np.float64, (size + 1,), "step and right-hand sides")
        check(residual, np.float64, (None,), "residual")
        check(arrived, np.int32, (1,), "counter of blocks")
        if not 0 < size <= min(LARGEST, residual.shape[0]):
            raise ValueError(f"block rows: expected 1 to {min(LARGEST, residual.shape[0])} rows each, found {size}")
        if min(panel.shape[1], solutions.shape[0]) < (first + steps) * size:
            raise ValueError(
                f"block rows and solutions: expected at least {(first + steps) * size} columns for the steps up to "
                f"{first + steps - 1}, found {panel.shape[1]} and {solutions.shape[0]}"
            )
        run(solutions, panel, inverses, given, residual, arrived, size, panel.shape[1], first)

    return launch


def specialisations() -> dict[str, Kernel]:
    """Return every kernel that this module can launch, by name."""
    return {"substitute": substitution_kernel()}
