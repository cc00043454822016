"""The CPU backend: NumPy arrays, scipy.fft on all cores of this rank's share, kernels compiled by numba.njit."""

from __future__ import annotations

import os
import platform
import re
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
import scipy.fft

from ..kernels import Target
from ..kernels._launch import ceil_div
from ..kernels.storage import Format
from .base import Buffer, Program, Transform, share_of_cores

# Rows that one thread transforms at a time: their transform is still in a core's cache when it is copied on, and with
# fewer a second thread takes longer to wake than to work.
PIECE_BYTES = 1 << 19
# Threads that call scipy.fft. The interpreter, which a piece needs for a tenth of its time, lets no more of them run;
# where there are more cores, scipy.fft itself takes several for a piece.
MAX_CALLERS = 8

RowsTransform = Callable[[Any, Any], None]

# Of each kind of control group that limits memory: its folder, the files with limit and usage, and the line of
# memory.stat that says how much of the usage the system would give up.
_CONTROL_GROUPS = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def cpu_model() -> str:
    """Return the processor's name as the system gives it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def available_bytes(root: Path = Path("/")) -> int | None:
    """Return how much memory the system can still give: to all, or to this process's control groups if that is less.

    Parameters
    ----------
    root : path
        Of the file system.

    Returns
    -------
    int or None
        None where the system does not say.
    """
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", _text(root / "proc/meminfo"), re.MULTILINE)
    rooms = [1024 * int(found[1])] if found else []
    return min([*rooms, *_rooms_of_groups(root)], default=None)


def _rooms_of_groups(root: Path) -> Iterator[int]:
    """Yield what each control group of this process leaves: its own and those above it, which limit it as well."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in _CONTROL_GROUPS.keys() & set(controllers.split(",")):
            folder, *names = _CONTROL_GROUPS[controller]
            top = root / "sys/fs/cgroup" / folder
            group = top / path.strip("/")
            rooms = (_room(place, *names) for place in (group, *group.parents) if place.is_relative_to(top))
            yield from (room for room in rooms if room is not None)


def _room(group: Path, limit: str, usage: str, kept: str) -> int | None:
    """Return how much memory a group may still take; None where it has no limit."""
    try:
        most, used = (int((group / name).read_text()) for name in (limit, usage))
    except (OSError, ValueError):  # no such file, or "max"
        return None
    given_up = re.search(rf"^{kept} (\d+)$", _text(group / "memory.stat"), re.MULTILINE)
    return max(0, most - used + (int(given_up[1]) if given_up else 0))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


class CpuIntake:
    """One block of memory, which is written in place. See `Intake` for the methods."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self._rows = np.empty(shape)

    def on_device(self, count: int) -> Buffer:
        """Return the first rows."""
        return Buffer(self._rows[:count], self._rows[:count])

    def from_host(self, count: int, write: Callable[[np.ndarray], None]) -> Buffer:
        """Have the first rows written and return them."""
        write(self._rows[:count])
        return self.on_device(count)


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
        self._node_size = node_size
        # Read when numba's pool starts. By default its idle threads spin on, on cores that transforms want.
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
        self.threads = min(numba.config.NUMBA_NUM_THREADS, share_of_cores(node_size))
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

    def intake(self, shape: tuple[int, int]) -> AbstractContextManager[CpuIntake]:
        """Return one block of memory."""
        return nullcontext(CpuIntake(shape))

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

    def pad_and_rfft(self, length: int, rounding: Any, real: Any) -> RowsTransform:
        """Return ``transform(blocks, spectrum)`` in the precision `real`, of blocks rounded to `rounding`."""

        def transform(blocks: np.ndarray, spectrum: np.ndarray, workers: int) -> None:
            values = blocks.astype(rounding, copy=False).astype(real, copy=False)
            spectrum[...] = scipy.fft.rfft(values, length, axis=-1, workers=workers)

        return partial(self._in_pieces, transform, length * np.dtype(real).itemsize)

    def irfft_and_unpad(self, length: int, rounding: Any, real: Any) -> RowsTransform:
        """Return ``transform(spectrum, blocks)``, its inverse but unscaled; the blocks are rounded to `rounding`."""

        def transform(spectrum: np.ndarray, blocks: np.ndarray, workers: int) -> None:
            values = scipy.fft.irfft(spectrum, length, axis=-1, norm="forward", workers=workers)
            blocks[...] = values[:, : blocks.shape[1]].astype(rounding, copy=False)

        return partial(self._in_pieces, transform, length * np.dtype(real).itemsize)

    def _in_pieces(self, transform: Callable[..., None], row_bytes: int, source: Any, destination: Any) -> None:
        rows = len(source)
        callers = max(1, min(self.threads, MAX_CALLERS, rows * row_bytes // PIECE_BYTES))
        workers = self.threads // callers if callers == MAX_CALLERS else 1
        rounds = max(1, ceil_div(rows * row_bytes, callers * workers * PIECE_BYTES))
        step = max(1, ceil_div(rows, callers * rounds))

        def share(caller: int) -> None:
            for first in range(caller * step, rows, callers * step):
                transform(source[first : first + step], destination[first : first + step], workers)

        others = [self._callers.submit(share, caller) for caller in range(1, callers)]
        share(0)
        for other in others:
            other.result()

    @cached_property
    def _callers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(MAX_CALLERS, thread_name_prefix="fft")

    def accumulator(self, stored: Format, vector: np.dtype[Any]) -> np.dtype[Any]:
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

    def free_bytes(self) -> int | None:
        """Return this rank's share of what the system says is available, within the limits of control groups."""
        available = available_bytes()
        return None if available is None else available // self._node_size

    def plan_bytes(self) -> int:
        """Return 0: scipy.fft keeps no work areas."""
        return 0

    def trim(self) -> None:
        """Nothing is held back."""

    def device_name(self) -> str:
        """Return the processor's model name."""
        return cpu_model()

    def unique_id(self) -> None:
        """Return None: ranks share the cores by their threads."""
