"""Frequency-batched GEMV (SBGEMV) on a spectrum stored as ``[d][m][k]``, for F and for F*.

    F:   result[d, k] = sum_m       spectrum[d, m, k]  vector[m, k]
    F*:  result[m, k] = sum_d  conj(spectrum[d, m, k]) vector[d, k]

for one right-hand side or for several, which are rows of one array, vector by vector. On CUDA vector and result hold
real rows in pairs (see `pairs`), on the CPU as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..formats import StoredArrays
from ..jit import Kernel, Target
from . import cpu, cuda
from .problem import Problem
from .tiles import Tile

Sbgemv = Callable[[Any, StoredArrays, Any], None]

LAUNCHERS: dict[str, Callable[..., Sbgemv]] = {"cpu": cpu.launcher, "cuda": cuda.launcher}


def sbgemv_launcher(
    target: Target,
    problem: Problem,
    allocate: Callable[..., Any] = np.empty,
    tile: Tile | None = None,
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
        ``allocate(shape, dtype)`` returns workspace for partial sums, as the target's kernels take it.
    tile, chunks : Tile, int, optional
        Shape of a block and parts of the sums on CUDA; chosen from the problem and the device by default.

    Returns
    -------
    callable
        ``launch(result, spectrum, vector)`` with `StoredArrays` for the spectrum. Only the heads of longer runs are
        read and written.
    """
    return LAUNCHERS[target.name](target, problem, allocate, tile, chunks)


def specialisations() -> dict[str, Kernel]:
    """Return kernels that this module can launch, by name."""
    return cuda.specialisations()
