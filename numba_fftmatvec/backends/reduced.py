"""Reductions of arrays of a backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..kernels.reductions import PARTIALS, reduce_launcher
from .base import DOUBLE, Backend


def reduced(
    backend: Backend, name: str, operands: Sequence[tuple[Any, Any]], *, scales: Sequence[float] = (), runs: int = 1
) -> npt.NDArray[np.float64]:
    """Return the results of reductions on the host, with one copy from the device.

    Parameters
    ----------
    backend : Backend
        The backend of the arrays.
    name : str
        The reduction; see `reduce_launcher`.
    operands : sequence of two arrays
        Pairs of flat float64 arrays, as kernels take them.
    scales : sequence of float, optional
        The factor of each pair; 1 by default.
    runs : int
        Number of equal runs of each array; each has its own result.

    Returns
    -------
    (pairs runs,) array of float64
        The results, by pair and run.
    """
    heads = runs * PARTIALS
    workspace = backend.empty((heads + runs * len(operands),), DOUBLE)
    launch = backend.launcher(reduce_launcher, name)
    for i, (pair, scale) in enumerate(zip(operands, scales or [1.0] * len(operands), strict=True)):
        launch(workspace.view, *pair, scale, runs, i * runs)
    return backend.download(workspace.array[heads:])
