"""Kernels that join two real rows to one complex row, which halves the number of transforms on CUDA.

The transform Z of ``x0 + i x1``, of length L, holds those of both real rows: ``X0[k] = (Z[k] + conj Z[L - k]) / 2`` and
``X1[k] = (Z[k] - conj Z[L - k]) / 2i`` (Press et al., Numerical Recipes, section 12.3). SBGEMV separates them while it
loads its vector and joins its results while it stores them, so pairing costs no pass. With several right-hand sides a
pair is the same block of two vectors. Nothing is separated then, since a real matrix takes x0 + i x1 to y0 + i y1. A
row without a partner is paired with zeros. Packing writes the heads of the complex rows and leaves the tails alone,
like `padding`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from .jit import (
    MAX_GRID_Y,
    THREADS,
    CudaNest,
    Free,
    Kernel,
    Target,
    cached_kernel,
    ceil_div,
    check,
    cuda,
    pointer,
    pointer_type,
    scalar_type,
)
from .memory import load, store_two
from .padding import FORMULAS

PAIRS = 2  # pairs that a thread joins or separates at a time

Packing = Callable[..., None]

formula, first_rows = Free("formula"), Free("first_rows")
load_one, load_two, store = Free("load_one"), Free("load_two"), Free("store")
ZERO, ONE, REAL = Free("ZERO"), Free("ONE"), Free("REAL")


def _first_rows(pair, other, stride):
    whole = pair // stride * stride
    row = pair + whole
    following = row + 1 if row + 1 < 2 * whole + stride else row + 1 + stride
    return row, row if other == pair else following


def _pack_cuda(packed, rows, pairs, total, columns, pitch, first, stride):
    i = np.int64(cuda.blockIdx.x) * cuda.blockDim.x + cuda.threadIdx.x
    pair = np.int64(cuda.blockIdx.y) * PAIRS
    if i < columns:
        while pair < pairs:
            # Two pairs are loaded at a time. The index of the second is clamped to the last pair, which may then be
            # written twice, with the same values.
            other = min(pair + 1, pairs - 1)
            a, b = first_rows(first + pair, first + other, stride)
            u = load_one(rows, a * columns + i)[0]
            v = load_one(rows, min(a + stride, total - 1) * columns + i)[0]
            w = load_one(rows, b * columns + i)[0]
            x = load_one(rows, min(b + stride, total - 1) * columns + i)[0]
            v = formula(v, ONE) if a + stride < total else ZERO
            x = formula(x, ONE) if b + stride < total else ZERO
            store(packed, 2 * (pair * pitch + i), REAL(formula(u, ONE)), REAL(v))
            store(packed, 2 * (other * pitch + i), REAL(formula(w, ONE)), REAL(x))
            pair += PAIRS * cuda.gridDim.y


def _unpack_cuda(packed, rows, pairs, total, columns, pitch, first, stride):
    i = np.int64(cuda.blockIdx.x) * cuda.blockDim.x + cuda.threadIdx.x
    pair = np.int64(cuda.blockIdx.y) * PAIRS
    if i < columns:
        while pair < pairs:
            other = min(pair + 1, pairs - 1)  # clamped as in _pack_cuda
            a, b = first_rows(first + pair, first + other, stride)
            u, v = load_two(packed, 2 * (pair * pitch + i))
            w, x = load_two(packed, 2 * (other * pitch + i))
            rows[a * columns + i] = formula(u, ONE)
            rows[b * columns + i] = formula(w, ONE)
            if a + stride < total:
                rows[(a + stride) * columns + i] = formula(v, ONE)
            if b + stride < total:
                rows[(b + stride) * columns + i] = formula(x, ONE)
            pair += PAIRS * cuda.gridDim.y


def _launch_pairs(shaped, pairs, values, real, first, stride):
    (count, pitch), (total, columns) = pairs.shape, values.shape
    grid = ceil_div(columns, THREADS), min(ceil_div(count, PAIRS), MAX_GRID_Y)
    sizes = map(np.int64, (count, total, columns, pitch, first, stride))
    shaped(grid, THREADS)((pointer(pairs, real), pointer(values), *sizes))


@cached_kernel
def _kernel(nest: Callable[..., None], rounds: bool, rows: Any, packed: Any) -> Kernel:
    rows, packed = np.dtype(rows), np.dtype(packed)
    real = packed.type(0).real.dtype
    packing = nest is _pack_cuda
    source = rows if packing else real
    formula = "round" if rounds else "convert"
    bindings = {"ONE": source.type(1), "formula": FORMULAS[formula], "first_rows": _first_rows}
    if packing:
        bindings |= {"ZERO": source.type(0), "REAL": real.type, "load_one": load(1), "store": store_two()}
    else:
        bindings["load_two"] = load(2)
    signature = pointer_type(real), pointer_type(rows), *[scalar_type(np.int64)] * 6
    nests = {"cuda": CudaNest(nest, signature, launch=_launch_pairs)}
    return Kernel(f"{formula}_{rows.char}{packed.char}", nests, bindings)


def _launcher(nest: Callable[..., None], target: Target, rows: Any, rounding: Any, packed: Any) -> Packing:
    rows, packed = np.dtype(rows), np.dtype(packed)
    narrow, real = np.dtype(np.float32), packed.type(0).real.dtype
    rounds = np.dtype(rounding) == narrow and narrow not in (rows, real)
    run = _kernel(nest, rounds, rows, packed).launcher(target)

    def launch(pairs: Any, values: Any, first: int, stride: int = 1) -> None:
        check(values, rows, (None, None), "rows")
        check(pairs, packed, (None, None), "pairs of rows")
        (count, pitch), (total, columns) = pairs.shape, values.shape
        room = ceil_div(total, 2 * stride) * stride
        if not 0 <= first <= room - count or pitch < columns:
            raise ValueError(
                f"pairs of rows: expected room for those of {values.shape}, found {pairs.shape} from {first}"
            )
        run(pairs, values, real, first, stride)

    return launch


def pack_launcher(target: Target, rows: Any, rounding: Any, packed: Any) -> Packing:
    """Compile the kernel that joins rows and return its launcher.

    Parameters
    ----------
    target : Target
        A CUDA device or the simulator.
    rows : dtype
        float32 or float64, the dtype of the rows.
    rounding : dtype
        float32 or float64; values are rounded to it.
    packed : dtype
        complex64 or complex128, the dtype of the pairs.

    Returns
    -------
    callable
        ``launch(pairs, rows, first, stride=1)`` writes as many pairs of rows as `pairs` holds, beginning with pair
        `first`. The partner of a row is `stride` rows further. The pairs are thus (0, stride), (1, stride + 1), ...,
        (2 stride, 3 stride), ...
    """
    return _launcher(_pack_cuda, target, rows, rounding, packed)


def unpack_launcher(target: Target, rows: Any, rounding: Any, packed: Any) -> Packing:
    """Compile the kernel that separates rows and return its launcher, which has the arguments of `pack_launcher`'s."""
    return _launcher(_unpack_cuda, target, rows, rounding, packed)


def specialisations() -> dict[str, Kernel]:
    """Return every kernel that this module can launch, by name."""
    kernels = {}
    for (name, template), (rows, packed) in product(
        {"pack": _pack_cuda, "unpack": _unpack_cuda}.items(), product("fd", "FD")
    ):
        kernels[f"{name}_{rows}{packed}"] = _kernel(template, False, rows, packed)
    for name, template in {"pack": _pack_cuda, "unpack": _unpack_cuda}.items():
        kernels[f"{name}_round_dD"] = _kernel(template, True, "d", "D")
    return kernels
