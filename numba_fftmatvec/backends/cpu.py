"""The CPU backend: NumPy arrays, scipy.fft on all cores of this rank's share, kernels compiled by numba.njit."""

from __future__ import annotations

import os
import platform
import re
import resource
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numba
import numpy as np
import scipy.fft

from ..kernels import Target
from .base import Buffer, Program, Transform


def cpu_model() -> str:
    """Return the processor's name as the system gives it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


class CpuBackend:
    """Arrays in host memory. See `Backend` for the methods.

    Parameters
    ----------
    node_size : int
        Ranks on this node; each takes its share of the cores that this process may use.
    """

    name = "cpu"
    target = Target("cpu")
    device = None
    stream = None

    def __init__(self, node_size: int = 1) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.threads = max(1, min(numba.config.NUMBA_NUM_THREADS, cores // node_size))
        numba.set_num_threads(self.threads)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        """Allocate without initialising."""
        return self.wrap(np.empty(shape, dtype))

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        """Allocate and set to zero."""
        return self.wrap(np.zeros(shape, dtype))

    def wrap(self, array: Any) -> Buffer:
        """Return a Buffer of a NumPy array."""
        return Buffer(array, array)

    def upload(self, destination: Any, source: np.ndarray) -> None:
        """Copy a host array."""
        np.copyto(destination, source)

    def download(self, source: Any) -> np.ndarray:
        """Return a copy."""
        return np.array(source)

    def host_view(self, array: Any) -> np.ndarray:
        """Return the array itself."""
        return array  # type: ignore[no-any-return]

    def copy_to_host(self, host: np.ndarray, array: Any) -> None:
        """Nothing to do: both are the same memory."""

    def copy_from_host(self, array: Any, host: np.ndarray) -> None:
        """Nothing to do: both are the same memory."""

    def rfft(self, length: int, source: Buffer, destination: Buffer) -> Transform:
        """Return a transform that allocates its result, as scipy.fft does."""

        def transform(values: Buffer) -> Buffer:
            return self.wrap(scipy.fft.rfft(values.array, length, axis=-1, workers=self.threads))

        return transform

    def irfft(self, length: int, source: Buffer, destination: Buffer) -> Transform:
        """Return a transform that allocates its result; ``norm="forward"`` leaves the inverse unscaled."""
        frequencies = length // 2 + 1

        def transform(values: Buffer) -> Buffer:
            spectrum = values.array[:, :frequencies]
            return self.wrap(
                scipy.fft.irfft(spectrum, length, axis=-1, norm="forward", workers=self.threads, overwrite_x=True)
            )

        return transform

    def accumulator(self, stored: np.dtype[Any], vector: np.dtype[Any]) -> np.dtype[Any]:
        """Accumulate in double: a CPU core has it at half the speed of single, and memory is slower than either."""
        return np.dtype(np.complex128)

    def replayed(self, program: Program) -> Program:
        """Return the program: calls on the CPU have no overhead worth saving."""
        return program

    def active(self) -> AbstractContextManager[Any]:
        """Return a context that does nothing."""
        return nullcontext()

    def synchronize(self) -> None:
        """Nothing is ever queued."""

    def timestamp(self) -> float:
        """Read the clock."""
        return time.perf_counter()

    def elapsed(self, start: float, stop: float) -> float:
        """Return the seconds between two timestamps."""
        return stop - start

    def annotate(self, name: str) -> AbstractContextManager[Any]:
        """Return a context that does nothing."""
        return nullcontext()

    def peak_bytes(self) -> int:
        """Return the process's peak resident set."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def device_name(self) -> str:
        """Return the processor's model name."""
        return cpu_model()
