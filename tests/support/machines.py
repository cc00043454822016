"""The targets of kernel tests, and the transfer of arrays to them.

With NUMBA_ENABLE_CUDASIM=1 the CUDA kernels run in numba's simulator, on NumPy arrays; without it on the CPU and, with
the mark `gpu`, on a device.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from numba_fftmatvec.kernels import Target
from numba_fftmatvec.kernels.jit import require_cuda

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") == "1"
CUDA_TARGETS = ["simulator"] if SIMULATED else [pytest.param("cuda", marks=pytest.mark.gpu)]
TARGETS = CUDA_TARGETS if SIMULATED else ["cpu", *CUDA_TARGETS]


class Machine:
    """A target, with the transfer of NumPy arrays to it and back."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.target = Target("cpu" if name == "cpu" else "cuda")

    def put(self, array: np.ndarray) -> Any:
        return array if self.name == "cpu" else require_cuda().to_device(array)

    def get(self, array: Any) -> np.ndarray:
        return array if self.name == "cpu" else array.copy_to_host()

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self.put(np.full(shape, np.nan, dtype))

    def run(self, launch: Callable[..., None], out: np.ndarray, *arguments: Any) -> np.ndarray:
        """Launch into a copy of `out` and return it."""
        result = self.put(out.copy())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "overflow", RuntimeWarning)  # hashes wrap; the simulator's scalars warn
            launch(result, *[self.put(a) if isinstance(a, np.ndarray) else a for a in arguments])
        return self.get(result)
