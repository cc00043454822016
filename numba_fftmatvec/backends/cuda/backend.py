"""The CUDA backend: CuPy arrays, its own cuFFT plans, kernels compiled by numba.cuda, and one stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakSet

import cupy
import cupyx
import numpy as np
from cupy.cuda import nvtx

from ...errors import CapacityError
from ...kernels.formats import COMPLEX64, Format
from ...kernels.jit import require_cuda
from ..arrays import ArrayLibrary
from ..base import Buffer, Launchers, Program, Transform
from ..substitution import Substitution
from .graphs import GraphReplay
from .queue import CudaQueue, wrap
from .staging import CudaStaging
from .substitution import RecordedSubstitution

# The legacy default stream, whose handle is 0, as DLPack names it.
LEGACY_STREAM = 1
# Compute capabilities of GPUs that run double arithmetic at half the rate of single.
STRONG_DOUBLE = {(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)}


def device_count() -> tuple[int, str]:
    """Return the number of working devices and, if it is 0, the reason."""
    try:
        require_cuda()
        return cupy.cuda.runtime.getDeviceCount(), ""
    except Exception as error:  # the driver's and numba-cuda's errors have no common base
        return 0, f"{type(error).__name__}: {error}"


@dataclass(frozen=True)
class _Exported:
    """A DLPack capsule and its device, for a consumer that takes an object with these methods."""

    capsule: Any
    device: tuple[int, int]

    def __dlpack__(self, **request: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


class _Range:
    """An NVTX range."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        nvtx.RangePush(self.name)

    def __exit__(self, *error: object) -> None:
        nvtx.RangePop()


@contextmanager
def _named_error(shape: tuple[int, ...], dtype: Any) -> Iterator[None]:
    """Raise a CapacityError for CuPy's OutOfMemoryError, which other ranks cannot rebuild."""
    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        raise CapacityError(f"array of {shape}: expected {size} bytes of free device memory, found: {error}") from error


class CudaBackend:
    """Arrays in a GPU's memory. See `Backend` for the methods.

    Parameters
    ----------
    device : int
        Index of the GPU; it becomes the thread's current device.
    stream : cupy.cuda.Stream, optional
        The stream of all work. The default is a new stream that synchronises with the legacy default stream, so that a
        caller's CuPy or PyTorch work is in order with it.
    sharing : int
        Number of ranks that use this GPU.
    threads : int
        This rank's share of the host's cores.
    """

    name = "cuda"

    def __init__(self, device: int, stream: Any = None, *, sharing: int = 1, threads: int = 1) -> None:
        self.device: int | None = device
        self.threads = threads
        self._sharing = sharing
        self._device = cupy.cuda.Device(device)
        self._device.use()
        self.calling_thread: AbstractContextManager[Any] = self._device
        require_cuda().select_device(device)
        self.stream = cupy.cuda.Stream(non_blocking=False) if stream is None else stream
        self._queue = CudaQueue(self.stream)
        self.target = self._queue.target
        self.launcher = Launchers(self.target)
        capability = self._device.compute_capability
        self._strong_double = (int(capability[:-1]), int(capability[-1])) in STRONG_DOUBLE
        self._pinned: dict[int, np.ndarray] = {}
        self._replays: WeakSet[GraphReplay] = WeakSet()
        self._peak = 0
        self._wait: Callable[[], object] = self.stream.synchronize
        self._watched = False

    @cached_property
    def arrays(self) -> ArrayLibrary:
        """CuPy."""
        from .arrays import CudaArrays  # products do not need it

        return CudaArrays()

    @cached_property
    def _recorder(self) -> CudaQueue:
        return CudaQueue(cupy.cuda.Stream(non_blocking=True))

    def queue(self, *, recorded: bool) -> CudaQueue:
        """Return the queue of the backend's stream, or of a stream that graphs can record."""
        return self._recorder if recorded else self._queue

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        """Allocate without initialising."""
        with self.active(), _named_error(shape, dtype):
            return self.wrap(cupy.empty(shape, dtype))

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        """Allocate and set to zero."""
        with self.active(), _named_error(shape, dtype):
            return self.wrap(cupy.zeros(shape, dtype))

    def wrap(self, array: Any) -> Buffer:
        """Return a Buffer of a CuPy array."""
        return wrap(array)

    def from_dlpack(self, source: Any) -> Any:
        """Return a CuPy array of the memory.

        A producer makes the consumer's stream wait for its own current stream. With CuPy's arrays that is CuPy's
        current stream, so the export takes place before this backend's stream becomes the current one.
        """
        exported = _Exported(source.__dlpack__(stream=self.stream.ptr or LEGACY_STREAM), source.__dlpack_device__())
        with self.active():
            return cupy.from_dlpack(exported)

    def wait_by(self, wait: Callable[[Callable[[], bool]], object]) -> None:
        """Wait for the stream from now on by a function that takes the test whether the stream is done."""
        stream = self.stream  # the functions must not keep this object alive
        self._wait = lambda: wait(lambda: bool(stream.done))
        self._watched = True

    def upload(self, destination: Any, source: np.ndarray) -> None:
        """Copy a host array to the device."""
        with self.active():
            self._settle()
            destination.set(np.ascontiguousarray(source, destination.dtype))
        self._wait()

    def download(self, source: Any) -> np.ndarray:
        """Return a host copy."""
        with self.active():
            self._settle()
            host: np.ndarray = cupy.asnumpy(source)
        self._wait()
        return host

    def host_view(self, array: Any) -> np.ndarray:
        """Return page-locked memory of the array's shape; all arrays of a size share one block."""
        if array.nbytes not in self._pinned:
            self._pinned[array.nbytes] = cupyx.empty_pinned(array.nbytes, np.uint8)
        pinned: np.ndarray = self._pinned[array.nbytes]
        return np.frombuffer(pinned, array.dtype).reshape(array.shape)

    def copy_to_host(self, host: np.ndarray, array: Any) -> None:
        """Copy to page-locked memory and wait."""
        array.get(stream=self.stream, out=host)
        self._wait()

    def copy_from_host(self, array: Any, host: np.ndarray) -> None:
        """Copy from page-locked memory and wait, since the memory is reused."""
        array.set(host, stream=self.stream)
        self._wait()

    def staging(self, shape: tuple[int, int]) -> AbstractContextManager[CudaStaging]:
        """Return slots of page-locked and device memory."""
        return CudaStaging(self, shape)

    def rfft(self, length: int, source: Buffer, destination: Buffer) -> Transform:
        """Plan real transforms from `source` into `destination`."""
        run = self._queue.lane(0).fft(length, source, destination)

        def transform(values: Buffer) -> Buffer:
            run()
            return destination

        return transform

    def substitution(self, panel: Any, inverses: Any, solutions: Any, first: int) -> Callable[[int, Any], None]:
        """Return a recorded substitution; one by cuBLAS for several right-hand sides and large blocks."""
        if RecordedSubstitution.fits(inverses.shape[1], solutions.shape[1]):
            return RecordedSubstitution(self, self._recorder.target, panel, inverses, solutions, first)
        return Substitution(self, panel, inverses, solutions, first)

    def accumulator(self, format: Format) -> np.dtype[Any]:
        """Accumulate in double, except for a single-precision spectrum on a GPU with slow double arithmetic."""
        single = format == COMPLEX64 and not self._strong_double
        return np.dtype(np.complex64 if single else np.complex128)

    def replayed(self, program: Program) -> Program:
        """Return a program that replays CUDA graphs."""
        replay = GraphReplay(self.stream, self._recorder.stream, program)
        self._replays.add(replay)
        return replay

    def forget_programs(self) -> None:
        """Drop the graphs of all programs."""
        for replay in self._replays:
            replay.clear()

    def active(self) -> AbstractContextManager[Any]:
        """Return a context that makes the stream current."""
        return self.stream  # type: ignore[no-any-return]

    def synchronize(self) -> None:
        """Wait for the stream."""
        self._wait()

    def _settle(self) -> None:
        """Wait before a copy of pageable memory, which itself waits for the stream without a time limit."""
        if self._watched:
            self._wait()

    def timestamp(self) -> Any:
        """Record an event."""
        event = cupy.cuda.Event()
        event.record(self.stream)
        return event

    def elapsed(self, start: Any, stop: Any) -> float:
        """Return the seconds between two events."""
        return float(cupy.cuda.get_elapsed_time(start, stop)) * 1e-3

    def annotate(self, name: str) -> AbstractContextManager[Any]:
        """Return an NVTX range."""
        return _Range(name)

    def peak_bytes(self) -> int:
        """Return the largest size of CuPy's memory pool that calls of this method and of `trim` have found."""
        self._peak = max(self._peak, int(cupy.get_default_memory_pool().total_bytes()))
        return self._peak

    def free_bytes(self) -> int | None:
        """Return this rank's share of free device memory plus the unused part of CuPy's pool, within its limit."""
        pool = cupy.get_default_memory_pool()
        free = cupy.cuda.runtime.memGetInfo()[0] // self._sharing
        limit = pool.get_limit()
        more = min(free, max(0, limit - pool.total_bytes())) if limit else free
        return int(more + pool.free_bytes())

    def plan_bytes(self) -> int:
        """Return the bytes of the work areas of all cuFFT plans."""
        return self._queue.plan_bytes() + self._recorder.plan_bytes()

    def trim(self) -> None:
        """Free the unused blocks of CuPy's pools of device memory and of page-locked memory."""
        self.peak_bytes()  # records the size before it shrinks
        self.synchronize()
        cupy.get_default_memory_pool().free_all_blocks()
        cupy.get_default_pinned_memory_pool().free_all_blocks()

    def device_name(self) -> str:
        """Return the GPU's name."""
        return str(cupy.cuda.runtime.getDeviceProperties(self.device)["name"].decode())

    def unique_id(self) -> str:
        """Return a name of the physical GPU: its PCI bus address."""
        return str(self._device.pci_bus_id)
