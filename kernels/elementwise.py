"""Elementwise kernels on float64 vectors: fills from the global index, and maps of one, two or three operands.

A map reads each operand once and writes once, whatever its formula; the result may be one of the operands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import prange, uint64

from .jit import (
    THREADS,
    CpuNest,
    CudaNest,
    Free,
    Kernel,
    Target,
    array_type,
    cached_kernel,
    ceil_div,
    check,
    cuda,
    pointer,
    pointer_type,
    scalar_type,
)

MAX_BLOCKS = 4096

formula = Free("formula")
BLOCK, UNROLL = Free("BLOCK"), Free("UNROLL")  # threads of a block, elements of a thread


def _constant(index, value):
    return value


def _consecutive(index, value):
    return np.float64(index)


def _doubles(index, value):
    # This is splitmix64's finaliser (Steele, Lea, Flood, OOPSLA 2014). Its low 52 bits, with bit 24 set, are the
    # mantissa of a double in [1, 2): 1 + bits * 2^-52, where both steps are exact. Bit 24 excludes values of float32.
    # pyFFTMatvec hashes a matrix's index in rows of `value` elements that are padded to twice their length.
    length = np.int64(value)
    z = uint64(index)
    if length > 0:
        z += z // uint64(length) * uint64(length)
    z = uint64((z ^ (z >> uint64(30))) * uint64(0xBF58476D1CE4E5B9))
    z = uint64((z ^ (z >> uint64(27))) * uint64(0x94D049BB133111EB))
    z = z ^ (z >> uint64(31))
    bits = (z & uint64((1 << 52) - 1)) | uint64(1 << 24)
    return np.float64(1.0) + np.float64(bits) * np.float64(2.0**-52)


FILLS = {"constant": _constant, "consecutive": _consecutive, "doubles": _doubles}


def _fill_cpu(out, start, value):
    for i in prange(out.shape[0]):
        out[i] = formula(start + i, value)


def _fill_cuda(out, start, value):
    i = np.int64(cuda.blockIdx.x) * cuda.blockDim.x + cuda.threadIdx.x
    step = np.int64(cuda.gridDim.x) * cuda.blockDim.x
    while i < out.shape[0]:
        out[i] = formula(start + i, value)
        i += step


def _launch_fill(shaped, out, start, value):
    if count := out.shape[0]:
        shaped((min(ceil_div(count, THREADS), MAX_BLOCKS),), THREADS)((out, start, value))


@cached_kernel
def fill_kernel(formula: str) -> Kernel:
    """Return the kernel that fills a float64 array by a formula of `FILLS`."""
    signature = array_type(np.float64, 1), scalar_type(np.int64), scalar_type(np.float64)
    nests = {"cpu": CpuNest(_fill_cpu, signature), "cuda": CudaNest(_fill_cuda, signature, launch=_launch_fill)}
    return Kernel(formula, nests, {"formula": FILLS[formula]})


def fill_launcher(target: Target, formula: str) -> Callable[..., None]:
    """Compile a fill and return its launcher.

    Parameters
    ----------
    target : Target
        Where it runs.
    formula : str
        ``"constant"`` is the value, ``"consecutive"`` the element's index. ``"doubles"`` is a hash of the index in
        [1, 2) that no float32 represents; with a `value`, of the index in rows of `value` elements that are padded to
        twice their length.

    Returns
    -------
    callable
        ``launch(out, start=0, value=0.0)`` for a flat float64 array whose first element has the global index `start`.
    """
    run = fill_kernel(formula).launcher(target)

    def launch(out: Any, start: int = 0, value: float = 0.0) -> None:
        check(out, np.float64, (None,), "filled array")
        run(out, np.int64(start), np.float64(value))

    return launch


# Formulas of maps take one element of each operand and two scalars.


def _scale(x, a, b):
    return a * x


def _add_scalar(x, a, b):
    return x + a


def _subtract_from_scalar(x, a, b):
    return a - x


def _divide_by_scalar(x, a, b):
    return x / a


def _divide_scalar(x, a, b):
    return a / x


def _power(x, a, b):
    return x**a


def _magnitude(x, a, b):
    return abs(x)


def _add(x, y, a, b):
    return x + y


def _subtract(x, y, a, b):
    return x - y


def _multiply(x, y, a, b):
    return x * y


def _divide(x, y, a, b):
    return x / y


def _axpy(x, y, a, b):
    return x + a * y


def _axpby(x, y, a, b):
    return a * x + b * y


def _multiply_add(x, y, z, a, b):
    return x * y + z


def _map_1_cpu(out, x, a, b):
    for i in prange(out.shape[0]):
        out[i] = formula(x[i], a, b)


def _map_2_cpu(out, x, y, a, b):
    for i in prange(out.shape[0]):
        out[i] = formula(x[i], y[i], a, b)


def _map_3_cpu(out, x, y, z, a, b):
    for i in prange(out.shape[0]):
        out[i] = formula(x[i], y[i], z[i], a, b)


# CUDA maps take pointers. A launch with arrays spends most of its time on their shapes and strides.


def _map_1_cuda(out, x, count, a, b):
    start = np.int64(cuda.blockIdx.x) * (UNROLL * BLOCK) + cuda.threadIdx.x
    for u in range(UNROLL):
        i = start + u * BLOCK
        if i < count:
            out[i] = formula(x[i], a, b)


def _map_2_cuda(out, x, y, count, a, b):
    start = np.int64(cuda.blockIdx.x) * (UNROLL * BLOCK) + cuda.threadIdx.x
    for u in range(UNROLL):
        i = start + u * BLOCK
        if i < count:
            out[i] = formula(x[i], y[i], a, b)


def _map_3_cuda(out, x, y, z, count, a, b):
    start = np.int64(cuda.blockIdx.x) * (UNROLL * BLOCK) + cuda.threadIdx.x
    for u in range(UNROLL):
        i = start + u * BLOCK
        if i < count:
            out[i] = formula(x[i], y[i], z[i], a, b)


# Threads of a block and elements of a thread, by number of operands. These shapes were the fastest of those measured.
# The elements of a thread lie a block's width apart.
MAP_SHAPES = {1: (128, 2), 2: (512, 1), 3: (512, 1)}
MAP_LOOPS: dict[str, dict[int, Callable[..., Any]]] = {
    "cpu": {1: _map_1_cpu, 2: _map_2_cpu, 3: _map_3_cpu},
    "cuda": {1: _map_1_cuda, 2: _map_2_cuda, 3: _map_3_cuda},
}
MAPS: dict[str, tuple[int, Callable[..., Any]]] = {
    "scale": (1, _scale),
    "add_scalar": (1, _add_scalar),
    "subtract_from_scalar": (1, _subtract_from_scalar),
    "divide_by_scalar": (1, _divide_by_scalar),
    "divide_scalar": (1, _divide_scalar),
    "power": (1, _power),
    "magnitude": (1, _magnitude),
    "add": (2, _add),
    "subtract": (2, _subtract),
    "multiply": (2, _multiply),
    "divide": (2, _divide),
    "axpy": (2, _axpy),
    "axpby": (2, _axpby),
    "multiply_add": (3, _multiply_add),
}


def _launch_map(shaped, *arguments):
    *arrays, a, b = arguments
    if count := arrays[0].shape[0]:
        threads, unroll = MAP_SHAPES[len(arrays) - 1]
        values = *map(pointer, arrays), np.int64(count), a, b
        shaped((ceil_div(count, threads * unroll),), threads)(values)


@cached_kernel
def map_kernel(name: str) -> Kernel:
    """Return the kernel of a map of `MAPS`."""
    arity, formula = MAPS[name]
    threads, unroll = MAP_SHAPES[arity]
    scalars = [scalar_type(np.float64)] * 2
    on_cpu = [array_type(np.float64, 1)] * (arity + 1) + scalars
    on_cuda = [pointer_type(np.float64)] * (arity + 1) + [scalar_type(np.int64), *scalars]
    shape = {"BLOCK": threads, "UNROLL": unroll}
    nests = {
        "cpu": CpuNest(MAP_LOOPS["cpu"][arity], on_cpu),
        "cuda": CudaNest(MAP_LOOPS["cuda"][arity], on_cuda, shape, _launch_map),
    }
    return Kernel(name, nests, {"formula": formula})


def map_launcher(target: Target, name: str) -> Callable[..., None]:
    """Compile a map and return its launcher.

    Parameters
    ----------
    target : Target
        Where it runs.
    name : str
        A key of `MAPS`. Its formula computes an element from operands x, y, z and scalars a, b.

    Returns
    -------
    callable
        ``launch(out, *operands, a=0.0, b=0.0)`` for flat float64 arrays of one length, as many as the map has operands.
    """
    run = map_kernel(name).launcher(target)
    arity = MAPS[name][0]

    def launch(out: Any, *operands: Any, a: float = 0.0, b: float = 0.0) -> None:
        if len(operands) != arity:
            raise ValueError(f"operands of {name}: expected {arity}, found {len(operands)}")
        check(out, np.float64, (None,), "result")
        for operand in operands:
            check(operand, np.float64, out.shape, "operand")
        run(out, *operands, np.float64(a), np.float64(b))

    return launch


def specialisations() -> dict[str, Kernel]:
    """Return every kernel that this module can launch, by name."""
    fills = {f"fill_{name}": fill_kernel(name) for name in FILLS}
    return fills | {f"map_{name}": map_kernel(name) for name in MAPS}
