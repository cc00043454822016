"""The CPU backend: NumPy arrays, scipy.fft and kernels compiled by numba.njit, on this rank's share of the cores."""

from __future__ import annotations

import platform
import re
import resource
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from threading import local
from types import FrameType
from typing import Any

import numpy as np
import scipy.fft

from ...errors import ArgumentError
from ...kernels import Target
from ...kernels.formats import Format
from ...kernels.sbgemv.blocks import measures
from ...kernels.threads import accessors
from ...layout import MatrixLayout
from ..arrays import ArrayLibrary
from ..base import Buffer, Launchers, Program, Transform, Workspace
from ..cores import Place, default_threads
from ..substitution import Substitution
from .memory import available_bytes
from .transforms import RealTransforms


def cpu_model() -> str:
    """Return the processor's name as the system reports it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


class _Entered(local):
    """The calls that set the number of threads of this thread, the outermost first.

    Each is the frame of its with statement, the number that it found, and the number that it set.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[FrameType, int, int]] = []


_entered = _Entered()


class CallingThread:
    """Sets the number of threads of kernels for the calling thread, and the caller's number afterwards.

    Python raises a KeyboardInterrupt between any two instructions. One in `__enter__` or `__exit__` restores the
    number at once, but for one at the start of `__exit__`. The next call of any Comm then restores it: the frame of the
    interrupted call no longer runs. With statements of these objects are therefore in the frame of their function, not
    in a generator or an ExitStack.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._get, self._set = accessors()

    def __enter__(self) -> None:
        """Set the number."""
        frame, calls = sys._getframe(1), _entered.calls
        if calls:
            self._end_interrupted(calls, frame)
        depth, found = len(calls), self._get()
        try:
            calls.append((frame, found, self._threads))
            if found != self._threads:
                self._set(self._threads)
        except BaseException:
            self._set(found)
            del calls[depth:]
            raise

    def __exit__(self, *error: object) -> None:
        """Restore the number."""
        frame, calls = sys._getframe(1), _entered.calls
        if calls[-1][0] is not frame:
            self._end_interrupted(calls, frame)
        depth = len(calls) - 1
        found = calls[depth][1]
        try:
            if found != self._threads:
                self._set(found)
            del calls[depth:]
        except BaseException:
            self._set(found)
            del calls[depth:]
            raise

    def _end_interrupted(self, calls: list[tuple[FrameType, int, int]], frame: FrameType) -> None:
        """Restore the numbers of the innermost calls whose frames no longer run, unless the caller set another one."""
        while calls and not _runs_in(calls[-1][0], frame):
            _, found, number = calls[-1]
            if self._get() == number:
                self._set(found)
            calls.pop()


def _runs_in(outer: FrameType, frame: FrameType | None) -> bool:
    """Return whether a frame is `outer` or was called from it."""
    while frame is not None and frame is not outer:
        frame = frame.f_back
    return frame is not None


class CpuStaging:
    """One block of staging memory, which is written in place. See `Staging` for the methods."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self._rows = np.empty(shape)

    def on_device(self, count: int) -> Buffer:
        """Return the first rows."""
        return Buffer(self._rows[:count], self._rows[:count])

    def from_host(self, count: int, write: Callable[[np.ndarray], None]) -> Buffer:
        """Let `write` fill the first rows, and return them."""
        write(self._rows[:count])
        return self.on_device(count)


class CpuBackend:
    """Arrays in host memory. See `Backend` for the methods.

    Parameters
    ----------
    place : Place
        This rank's place in its node, whose cores and memory its ranks share.
    threads : int, optional
        The number of threads. By default it is the smallest of the rank's share of the cores, OMP_NUM_THREADS, the size
        of numba's pool and the calling thread's number in numba.

    Raises
    ------
    ArgumentError
        NUMBA_FFTMATVEC_MEASURE is neither 0 nor 1.
    """

    name = "cpu"
    target = Target("cpu")
    device = None
    stream = None

    def __init__(self, place: Place, threads: int | None = None) -> None:
        try:
            measures()  # a wrong setting is refused here, before a plan needs it
        except ValueError as error:
            raise ArgumentError(str(error)) from None
        self._place = place
        self.launcher = Launchers(self.target)
        self.threads = threads or default_threads(place, self.name).number
        self.calling_thread: AbstractContextManager[Any] = CallingThread(self.threads)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        """Allocate without initialising."""
        return self.wrap(np.empty(shape, dtype))

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        """Allocate and set to zero."""
        return self.wrap(np.zeros(shape, dtype))

    def wrap(self, array: Any) -> Buffer:
        """Return a Buffer of a NumPy array."""
        return Buffer(array, array)

    def from_dlpack(self, source: Any) -> Any:
        """Return a NumPy array of the memory."""
        return np.from_dlpack(source)

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
        """Do nothing: both are the same memory."""

    def copy_from_host(self, array: Any, host: np.ndarray) -> None:
        """Do nothing: both are the same memory."""

    def staging(self, shape: tuple[int, int]) -> AbstractContextManager[CpuStaging]:
        """Return one block of memory."""
        return nullcontext(CpuStaging(shape))

    def rfft(self, length: int, source: Buffer, destination: Buffer) -> Transform:
        """Return a transform that allocates its result, as scipy.fft does."""

        def transform(values: Buffer) -> Buffer:
            return self.wrap(scipy.fft.rfft(values.array, length, axis=-1, workers=self.threads))

        return transform

    def substitution(self, panel: Any, inverses: Any, solutions: Any, first: int) -> Substitution:
        """Return a substitution by NumPy."""
        return Substitution(self, panel, inverses, solutions, first)

    def queue(self, *, recorded: bool) -> CpuBackend:
        """Return the backend: nothing is recorded."""
        return self

    def transforms(self, workspace: Workspace, layout: MatrixLayout, num_vecs: int) -> RealTransforms:
        """Return the planner of real transforms."""
        return RealTransforms(self.target, workspace, layout, num_vecs)

    @cached_property
    def arrays(self) -> ArrayLibrary:
        """NumPy and SciPy."""
        from .arrays import CpuArrays  # scipy.sparse.linalg takes 0.3 s to import, and products do not need it

        return CpuArrays(self.threads)

    def accumulator(self, format: Format) -> np.dtype[Any]:
        """Accumulate in double: a CPU core runs it at half the speed of single, and memory is slower than both."""
        return np.dtype(np.complex128)

    def replayed(self, program: Program) -> Program:
        """Return the program: calls on the CPU have no overhead worth saving."""
        return program

    def forget_programs(self) -> None:
        """Do nothing, since no program is recorded."""

    def active(self) -> AbstractContextManager[Any]:
        """Return a context that does nothing."""
        return nullcontext()

    def synchronize(self) -> None:
        """Do nothing: no work is queued."""

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
        """Return the peak resident set of the process."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def free_bytes(self) -> int | None:
        """Return this rank's share of the available memory, within the limits of control groups."""
        available = available_bytes()
        return None if available is None else available // self._place.size

    def plan_bytes(self) -> int:
        """Return 0: scipy.fft keeps no work areas."""
        return 0

    def trim(self) -> None:
        """Do nothing: no unused memory is held."""

    def device_name(self) -> str:
        """Return the processor's model name."""
        return cpu_model()

    def unique_id(self) -> None:
        """Return None: each rank has its own share of the cores."""
