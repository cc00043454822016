"""Kernels that encode rows of transforms in a stored format, and that decode them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import float64, prange

from .formats import FORMATS, RUN, Format
from .jit import (
    MAX_GRID_Y,
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
from .memory import load, store_two
from .padding import row_kernel, row_launcher

ENCODER_THREADS = 16, 8  # threads that encode a run, runs of a block

larger, count = Free("larger"), Free("count")
load_two, store = Free("load_two"), Free("store")
LARGEST, PART = Free("LARGEST"), Free("PART")
LANES, GROUPS, BLOCK = Free("LANES"), Free("GROUPS"), Free("BLOCK")

Encoder = Callable[[Any, Any, Any], None]
Decoder = Callable[[Any, Any, Any], None]


def _larger(a, b):
    return b if b > a or b != b else a  # a NaN stays, so that it shows in the scale


def _count(value, scale):
    # The scale of subnormal values is rounded to few bits, so the quotient may exceed LARGEST.
    steps = value / scale if 0.0 < scale < np.inf else 0.0
    return np.int64(math.floor(min(max(steps, -LARGEST), LARGEST) + 0.5))


def _encode_cpu(codes, scales, transforms, parts, factor):
    for row in prange(transforms.shape[0]):
        for run in range(scales.shape[1]):
            first = run * 2 * RUN
            last = min(first + 2 * RUN, parts)
            largest = np.float64(0.0)
            for i in range(first, last):
                largest = larger(largest, abs(transforms[row, i] * factor))
            scale = largest / LARGEST
            scales[row, run] = scale
            for i in range(first, last):
                codes[row, i] = count(transforms[row, i] * factor, scale)


def _encode_cuda(codes, scales, transforms, rows, runs, parts, written, read, factor):
    # A group of threads encodes a run. Threads past the end repeat the last frequency or run and write the same values.
    shared = cuda.shared.array(BLOCK, float64)
    lane, group = cuda.threadIdx.x, cuda.threadIdx.y
    run = min(np.int64(cuda.blockIdx.x) * GROUPS + group, runs - 1)
    first, last = 2 * (run * RUN + lane), parts - 2
    row = np.int64(cuda.blockIdx.y)
    while row < rows:
        largest = np.float64(0.0)
        for step in range(RUN // LANES):
            real, imag = load_two(transforms, row * read + min(first + 2 * LANES * step, last))
            largest = larger(larger(largest, abs(real * factor)), abs(imag * factor))
        at = group * LANES + lane
        shared[at] = largest
        width = LANES // 2
        while width > 0:
            cuda.syncthreads()
            if lane < width:
                shared[at] = larger(shared[at], shared[at + width])
            width //= 2
        cuda.syncthreads()
        scale = shared[group * LANES] / LARGEST
        if lane == 0:
            scales[row * runs + run] = scale
        for step in range(RUN // LANES):
            i = min(first + 2 * LANES * step, last)
            real, imag = load_two(transforms, row * read + i)
            a, b = count(real * factor, scale), count(imag * factor, scale)
            store(codes, row * written + i, PART(a), PART(b))
        cuda.syncthreads()
        row += cuda.gridDim.y


def _launch_encoder(shaped, values, scales, transforms, parts, factor):
    count, runs = scales.shape
    grid = ceil_div(runs, ENCODER_THREADS[1]), min(count, MAX_GRID_Y)
    sizes = map(np.int64, (count, runs, parts, values.shape[1], transforms.shape[1]))
    shaped(grid, ENCODER_THREADS)((pointer(values), pointer(scales), pointer(transforms), *sizes, factor))


@cached_kernel
def encode_kernel(format: Format) -> Kernel:
    """Return the kernel that encodes rows of transforms in a fixed-point format."""
    lanes, groups = ENCODER_THREADS
    size, factor = scalar_type(np.int64), scalar_type(np.float64)
    dtypes = format.part, np.float64, np.float64
    on_cpu = *(array_type(dtype, 2) for dtype in dtypes), size, factor
    on_cuda = *map(pointer_type, dtypes), *[size] * 5, factor
    shape = {"LANES": lanes, "GROUPS": groups, "BLOCK": lanes * groups}
    memory = {"PART": format.part.type, "load_two": load(2), "store": store_two()}
    nests = {
        "cpu": CpuNest(_encode_cpu, on_cpu),
        "cuda": CudaNest(_encode_cuda, on_cuda, shape | memory, _launch_encoder),
    }
    return Kernel(format.name, nests, {"LARGEST": np.float64(format.largest), "larger": _larger, "count": _count})


def encode_launcher(target: Target, format: Format, scale: float) -> Encoder:
    """Compile an encoder and return its launcher.

    Parameters
    ----------
    target : Target
        Where it runs.
    format : Format
        Format of the stored parts.
    scale : float
        Factor of all values.

    Returns
    -------
    callable
        ``launch(values, scales, transforms)`` for a block row: (n, 2 pitch) stored parts, (n, scales) float64 scales,
        and (n, 2 width) float64 parts of the transforms. A format without scales ignores `scales`. A fixed-point
        format leaves a scale that is not finite if a value of its run is not finite.
    """
    if not format.is_fixed:
        copy = row_launcher(target, "scale", np.float64, format.part, scale)
        return lambda values, scales, transforms: copy(values, transforms)
    run, factor = encode_kernel(format).launcher(target), np.float64(scale)

    def launch(values: Any, scales: Any, transforms: Any) -> None:
        count = transforms.shape[0]
        check(transforms, np.float64, (None, None), "transforms")
        check(values, format.part, (count, None), "stored parts")
        parts = min(values.shape[1], transforms.shape[1])
        check(scales, np.float64, (count, ceil_div(parts, 2 * RUN)), "scales")
        run(values, scales, transforms, np.int64(parts), factor)

    return launch


def _decode_cpu(transforms, values, scales, parts):
    for row in prange(transforms.shape[0]):
        for i in range(parts):
            transforms[row, i] = values[row, i] * scales[row, i // (2 * RUN)]


def _decode_cuda(transforms, values, scales, parts):
    i = np.int64(cuda.blockIdx.x) * cuda.blockDim.x + cuda.threadIdx.x
    row = np.int64(cuda.blockIdx.y)
    if i < parts:
        while row < transforms.shape[0]:
            transforms[row, i] = values[row, i] * scales[row, i // (2 * RUN)]
            row += cuda.gridDim.y


def _launch_decoder(shaped, transforms, values, scales, parts):
    grid = ceil_div(parts, THREADS), min(values.shape[0], MAX_GRID_Y)
    shaped(grid, THREADS)((transforms, values, scales, parts))


@cached_kernel
def decode_kernel(format: Format) -> Kernel:
    """Return the kernel that decodes rows of a fixed-point format."""
    arrays = [array_type(dtype, 2) for dtype in (np.float64, format.part, np.float64)]
    signature = *arrays, scalar_type(np.int64)
    nests = {
        "cpu": CpuNest(_decode_cpu, signature),
        "cuda": CudaNest(_decode_cuda, signature, launch=_launch_decoder),
    }
    return Kernel(format.name, nests)


def decode_launcher(target: Target, format: Format) -> Decoder:
    """Compile a decoder and return its launcher.

    Parameters
    ----------
    target : Target
        Where it runs.
    format : Format
        Format of the stored parts.

    Returns
    -------
    callable
        ``launch(transforms, values, scales)`` with the arrays of the encoder's launcher. It writes as many parts of
        each row as the shorter rows have.
    """
    if not format.is_fixed:
        copy = row_launcher(target, "convert", format.part, np.float64)
        return lambda transforms, values, scales: copy(transforms, values)
    run = decode_kernel(format).launcher(target)

    def launch(transforms: Any, values: Any, scales: Any) -> None:
        count = values.shape[0]
        check(values, format.part, (count, None), "stored parts")
        check(scales, np.float64, (count, None), "scales")
        check(transforms, np.float64, (count, None), "transforms")
        run(transforms, values, scales, np.int64(min(values.shape[1], transforms.shape[1])))

    return launch


def specialisations() -> dict[str, Kernel]:
    """Return every kernel that this module can launch, by name."""
    kernels = {}
    for format in FORMATS:
        if format.is_fixed:
            kernels[f"encode_{format.name}"] = encode_kernel(format)
            kernels[f"decode_{format.name}"] = decode_kernel(format)
        else:
            kernels[f"encode_{format.name}"] = row_kernel("scale", np.float64, format.part)
            kernels[f"decode_{format.name}"] = row_kernel("convert", format.part, np.float64)
    return kernels
