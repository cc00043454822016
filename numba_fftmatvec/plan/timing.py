"""Timers of the phases of products, and of whole runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from ..comm import Comm

PHASES = ("broadcast", "pad", "fft", "sbgemv", "ifft", "unpad", "reduce", "total")


class Timer(Protocol):
    """A timer of the phases of products."""

    def phase(self, name: str) -> AbstractContextManager[Any]:
        """Return the context manager of one phase; the phase ``"total"`` encloses a product."""


class PhaseTimer:
    """Measures the phases of products: with events on the stream on a GPU, with a clock on the CPU.

    It also marks each phase as a range for NVIDIA's profilers (NVTX).

    Parameters
    ----------
    comm : Comm
        The Comm of the products, which run on its stream.

    Examples
    --------
    >>> import numba_fftmatvec as pyFFTMatvec
    >>> comm = pyFFTMatvec.Comm()
    >>> F = pyFFTMatvec.Matrix(comm, cols=3, rows=2, block_size=4, global_sizes=True)
    >>> F.init_mat_ones()
    >>> x, y, timer = F.get_vec("input"), F.get_vec("output"), PhaseTimer(comm)
    >>> x.init_vec_ones()
    >>> F.matvec(x, y, timer=timer)
    >>> [phase for phase, seconds in timer.seconds().items() if seconds]
    ['pad', 'fft', 'sbgemv', 'ifft', 'unpad', 'total']
    """

    def __init__(self, comm: Comm) -> None:
        self._comm, self._backend = comm, comm.backend
        self.reset()

    def reset(self) -> None:
        """Discard all measurements."""
        self._spans: list[list[tuple[str, Any, Any]]] = []
        self._current: list[tuple[str, Any, Any]] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the enclosed work; the phase ``"total"`` ends a product."""
        if name == "total":
            self._current = []  # the phases of a product that an error or an interrupt ended do not count
        with self._backend.annotate(name):
            start = self._backend.timestamp()
            yield
            self._current.append((name, start, self._backend.timestamp()))
        if name == "total":
            self._spans.append(self._current)

    def seconds(self) -> dict[str, list[float]]:
        """Synchronise the stream; return this rank's seconds in each phase of `PHASES`, a figure for each product.

        The list of a phase that did not run is empty. The figure of a phase that runs twice in a product, as in F*F, is
        the sum.
        """
        self._comm.synchronize()
        result: dict[str, list[float]] = {phase: [] for phase in PHASES}
        for spans in self._spans:
            sums: dict[str, float] = {}
            for name, start, stop in spans:
                sums[name] = sums.get(name, 0.0) + self._backend.elapsed(start, stop)
            for name, value in sums.items():
                result[name].append(value)
        return result


def time_runs(comm: Comm, run: Callable[[], object], repetitions: int) -> list[float]:
    """Return the wall-clock seconds of each of several runs on this rank, including the synchronisation.

    Parameters
    ----------
    comm : Comm
        The process grid. Its ranks start each run together; a run ends when the stream is synchronised.
    run : callable
        The work to time, such as a product.
    repetitions : int
        Number of runs.
    """
    seconds = []
    for _ in range(repetitions):
        comm.synchronize()
        comm.barrier()
        start = time.perf_counter()
        run()
        comm.synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds
