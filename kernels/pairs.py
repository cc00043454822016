"""Two real rows as one complex row: half the transforms, on CUDA.

The transform Z of ``x0 + i x1``, of length L, holds those of both real rows: ``X0[k] = (Z[k] + conj Z[L - k]) / 2`` and
``X1[k] = (Z[k] - conj Z[L - k]) / 2i`` (Press et al., Numerical Recipes, section 12.3). SBGEMV separates them while it
loads its vector and joins its results while it stores them, so pairing costs no pass. An odd last row is paired with
zeros. `pack` writes the heads of the complex rows and leaves the tails alone, like `padding`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from ._launch import (
    MAX_GRID_Y,
    THREADS,
    CudaKernel,
    Target,
    array_type,
    ceil_div,
    check,
    configure,
    cuda,
    cuda_formula,
    scalar_type,
    specialise,
)
from .padding import FORMULAS

Packing = Callable[[Any, Any, int], None]


def _pack_cuda(packed, rows, first):
    i = np.int64(cuda.blockIdx.x) * cuda.blockDim.x + cuda.threadIdx.x
    pair = np.int64(cuda.blockIdx.y)
    if i < rows.shape[1]:
        while pair < packed.shape[0]:
            row = 2 * (first + pair)
            real = formula(rows[row, i], ONE)  # noqa: F821
            imag = formula(rows[row + 1, i], ONE) if row + 1 < rows.shape[0] else ZERO  # noqa: F821
            packed[pair, i] = complex(REAL(real), REAL(imag))  # noqa: F821
            pair += cuda.gridDim.y


def _unpack_cuda(rows, packed, first):
    i = np.int64(cuda.blockIdx.x) * cuda.blockDim.x + cuda.threadIdx.x
    pair = np.int64(cuda.blockIdx.y)
    if i < rows.shape[1]:
        while pair < packed.shape[0]:
            row = 2 * (first + pair)
            value = packed[pair, i]
            rows[row, i] = formula(value.real, ONE)  # noqa: F821
            if row + 1 < rows.shape[0]:
                rows[row + 1, i] = formula(value.imag, ONE)  # noqa: F821
            pair += cuda.gridDim.y


def _kernel(template: Callable[..., None], rounds: bool, rows: Any, packed: Any) -> CudaKernel:
    rows, packed = np.dtype(rows), np.dtype(packed)
    real = packed.type(0).real.dtype
    source = rows if template is _pack_cuda else real
    formula = "round" if rounds else "convert"
    bindings = {"ONE": source.type(1), "ZERO": source.type(0), "REAL": real.type}
    name = f"{formula}_{rows.char}{packed.char}"
    function = specialise(template, name, formula=cuda_formula(FORMULAS[formula]), **bindings)
    arrays = [array_type(rows, 2), array_type(packed, 2)]
    return CudaKernel(function, (*(arrays[::-1] if template is _pack_cuda else arrays), scalar_type(np.int64)))


@cache
def _compiled(template: Callable[..., None], rounds: bool, rows: Any, packed: Any) -> Any:
    return _kernel(template, rounds, rows, packed).compile()


def _launcher(template: Callable[..., None], target: Target, rows: Any, rounding: Any, packed: Any) -> Packing:
    rows, packed = np.dtype(rows), np.dtype(packed)
    narrow = np.dtype(np.float32)
    rounds = np.dtype(rounding) == narrow and narrow not in (rows, packed.type(0).real.dtype)
    kernel = _compiled(template, rounds, rows, packed)

    def launch(pairs: Any, values: Any, first: int) -> None:
        check(values, rows, (None, None), "rows")
        check(pairs, packed, (None, None), "pairs of rows")
        count = pairs.shape[0]
        if not 0 <= first <= ceil_div(values.shape[0], 2) - count or pairs.shape[1] < values.shape[1]:
            raise ValueError(
                f"pairs of rows: expected room for those of {values.shape}, found {pairs.shape} from {first}"
            )
        grid = ceil_div(values.shape[1], THREADS), min(count, MAX_GRID_Y)
        arrays = (pairs, values) if template is _pack_cuda else (values, pairs)
        configure(kernel, grid, THREADS, target.stream)(*arrays, np.int64(first))

    return launch


def pack(target: Target, rows: Any, rounding: Any, packed: Any) -> Packing:
    """Compile the kernel that joins rows and return its launcher.

    Parameters
    ----------
    target : Target
        A CUDA device or the simulator.
    rows, rounding : dtype
        float32 or float64: of the rows, and what their values are rounded to.
    packed : dtype
        complex64 or complex128: of the pairs.

    Returns
    -------
    callable
        ``launch(pairs, rows, first)`` writes the pairs of rows from pair `first` on, as many as `pairs` holds.
    """
    return _launcher(_pack_cuda, target, rows, rounding, packed)


def unpack(target: Target, rows: Any, rounding: Any, packed: Any) -> Packing:
    """Compile the kernel that separates rows and return its launcher, of the same form as that of `pack`."""
    return _launcher(_unpack_cuda, target, rows, rounding, packed)


def specialisations() -> dict[str, CudaKernel]:
    """Return every CUDA kernel that this module can launch, by name."""
    kernels = {}
    for (name, template), (rows, packed) in product(
        {"pack": _pack_cuda, "unpack": _unpack_cuda}.items(), product("fd", "FD")
    ):
        kernels[f"{name}_{rows}{packed}"] = _kernel(template, False, rows, packed)
    for name, template in {"pack": _pack_cuda, "unpack": _unpack_cuda}.items():
        kernels[f"{name}_round_dD"] = _kernel(template, True, "d", "D")
    return kernels
