"""Frequency-batched GEMV (SBGEMV) on a spectrum stored as ``[d][m][k]``, for F and for F*.

    F:   result[d, k] = sum_m       spectrum[d, m, k]  vector[m, k]
    F*:  result[m, k] = sum_d  conj(spectrum[d, m, k]) vector[d, k]

There are one or several right-hand sides, which are rows of one array, vector by vector. On CUDA vector and result
hold pairs of real rows as complex rows (see `pairs`). On the CPU they hold each row by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..formats import StoredArrays
from ..jit import Kernel, Target
from . import cpu, cuda
from .problem import Problem
from .tiles import TensorTile, Tile

Sbgemv = Callable[[Any, StoredArrays, Any], None]

LAUNCHERS: dict[str, Callable[..., Sbgemv]] = {"cpu": cpu.launcher, "cuda": cuda.launcher}


def sbgemv_launcher(
    target: Target,
    problem: Problem,
    allocate: Callable[..., Any] = np.empty,
    tile: Tile | TensorTile | None = None,
    chunks: int | None = None,
) -> Sbgemv:
    """Compile an SBGEMV and return its launcher.

    Parameters
    ----------
    target : Target
        Where it runs.
    problem : Problem
        Sizes and dtypes.
    allocate : callable
        ``allocate(shape, dtype)`` returns workspace for partial sums, as an array that the target's kernels take.
    tile : Tile or TensorTile, optional
        Shape of a block on CUDA; the default follows from the problem and the device.
    chunks : int, optional
        Number of parts of each sum on CUDA; the default follows from the problem and the device.

    Returns
    -------
    callable
        ``launch(result, spectrum, vector)`` with `StoredArrays` for the spectrum. Only the heads of longer runs are
        read and written.
    """
    return LAUNCHERS[target.name](target, problem, allocate, tile, chunks)


def provider(target: Target, problem: Problem) -> str:
    """Return the units that multiply several right-hand sides on CUDA, to print; an empty text for other problems."""
    return cuda.provider(problem) if target.name == "cuda" else ""


def specialisations() -> dict[str, Kernel]:
    """Return kernels that this module can launch, by name."""
    return cuda.specialisations()
