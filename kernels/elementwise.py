"""Vectors filled from the global index of each element."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import prange, uint64

from ._launch import (
    THREADS,
    CudaKernel,
    Target,
    array_type,
    ceil_div,
    check,
    configure,
    cpu_formula,
    cpu_kernel,
    cuda,
    cuda_formula,
    scalar_type,
    specialise,
)

MAX_BLOCKS = 4096


def _constant(index, value):
    return value


def _consecutive(index, value):
    return np.float64(index)


def _doubles(index, value):
    # splitmix64's finaliser (Steele, Lea, Flood, OOPSLA 2014); its low 52 bits, bit 24 set, are the mantissa of a
    # double in [1, 2): 1 + bits * 2^-52, where both steps are exact. Bit 24 keeps the value from being a single's.
    z = uint64(index)
    z = uint64((z ^ (z >> uint64(30))) * uint64(0xBF58476D1CE4E5B9))
    z = uint64((z ^ (z >> uint64(27))) * uint64(0x94D049BB133111EB))
    z = z ^ (z >> uint64(31))
    bits = (z & uint64((1 << 52) - 1)) | uint64(1 << 24)
    return np.float64(1.0) + np.float64(bits) * np.float64(2.0**-52)


FORMULAS = {"constant": _constant, "consecutive": _consecutive, "doubles": _doubles}


def _fill_cpu(out, start, value):
    for i in prange(out.shape[0]):
        out[i] = formula(start + i, value)  # noqa: F821


def _fill_cuda(out, start, value):
    i = np.int64(cuda.blockIdx.x) * cuda.blockDim.x + cuda.threadIdx.x
    step = np.int64(cuda.gridDim.x) * cuda.blockDim.x
    while i < out.shape[0]:
        out[i] = formula(start + i, value)  # noqa: F821
        i += step


def fill_kernel(formula: str) -> CudaKernel:
    """Return the CUDA kernel that fills a float64 array by a formula of `FORMULAS`."""
    signature = (array_type(np.float64, 1), scalar_type(np.int64), scalar_type(np.float64))
    return CudaKernel(specialise(_fill_cuda, formula, formula=cuda_formula(FORMULAS[formula])), signature)


@cache
def _compiled(target_name: str, formula: str) -> Any:
    if target_name == "cuda":
        return fill_kernel(formula).compile()
    return cpu_kernel(specialise(_fill_cpu, formula, formula=cpu_formula(FORMULAS[formula])))


def fill(target: Target, formula: str) -> Callable[..., None]:
    """Compile a fill and return its launcher.

    Parameters
    ----------
    target : Target
        Where it runs.
    formula : str
        ``"constant"``: the value. ``"consecutive"``: the element's index. ``"doubles"``: a hash of the index, in
        [1, 2), that no float32 represents.

    Returns
    -------
    callable
        ``launch(out, start=0, value=0.0)`` for a flat float64 array whose first element has the global index `start`.
    """
    kernel = _compiled(target.name, formula)

    def launch(out: Any, start: int = 0, value: float = 0.0) -> None:
        check(out, np.float64, (None,), "filled array")
        arguments = out, np.int64(start), np.float64(value)
        if target.name == "cpu":
            kernel(*arguments)
        elif out.shape[0]:
            grid = min(ceil_div(out.shape[0], THREADS), MAX_BLOCKS)
            configure(kernel, (grid,), THREADS, target.stream)(*arguments)

    return launch


def specialisations() -> dict[str, CudaKernel]:
    """Return every CUDA kernel that this module can launch, by name."""
    return {f"fill_{name}": fill_kernel(name) for name in FORMULAS}
