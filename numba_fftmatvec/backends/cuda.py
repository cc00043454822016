"""The CUDA backend: CuPy arrays, cuFFT plans that we own, kernels compiled by numba.cuda, one stream."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from typing import Any, Self
from weakref import WeakValueDictionary

import cupy
import cupyx
import numpy as np
from cupy.cuda import cufft, nvtx

from ..errors import CapacityError
from ..kernels import Target
from ..kernels._launch import require_cuda
from ..kernels.storage import COMPLEX64, Format
from .base import Buffer, Program, Transform

# A batched cuFFT plan addresses its elements with 32 bits.
MAX_PLAN_ELEMENTS = 2**31 - 1

# Compute capabilities whose double arithmetic runs at half the rate of single.
STRONG_DOUBLE = {(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)}

_FORWARD = {
    np.dtype(np.float64): cufft.CUFFT_D2Z,
    np.dtype(np.float32): cufft.CUFFT_R2C,
    np.dtype(np.complex128): cufft.CUFFT_Z2Z,
    np.dtype(np.complex64): cufft.CUFFT_C2C,
}


def device_count() -> tuple[int, str]:
    """Return how many devices work, and if none, why."""
    try:
        require_cuda()
        return cupy.cuda.runtime.getDeviceCount(), ""
    except Exception as error:  # the driver's and numba-cuda's errors share no base
        return 0, f"{type(error).__name__}: {error}"


# Slots of an intake: one is filled by the host while another one is on its way.
SLOTS = 2

# The legacy default stream and the per-thread default stream.
UNCAPTURABLE_STREAMS = {0, 1, 2}


class GraphReplay:
    """A program whose second run on the same pair of vectors is recorded as a CUDA graph, which later runs launch.

    The first run is eager: it loads what is loaded lazily. Graphs hold addresses, so the cache is keyed by them; a new
    vector at an old address has the same size and is served by the old graph. The least recently used graph goes first.
    """

    LIMIT = 32

    def __init__(self, stream: Any, program: Program) -> None:
        self._stream = stream
        self._program = program
        self._graphs: OrderedDict[tuple[int, int], Any] = OrderedDict()

    def __call__(self, source: Buffer | None, destination: Buffer | None) -> None:
        """Run the program on the stream."""
        key = _address(source), _address(destination)
        if key not in self._graphs:
            self._graphs[key] = None
            if len(self._graphs) > self.LIMIT:
                self._graphs.popitem(last=False)
            self._program(source, destination)
            return
        self._graphs.move_to_end(key)
        if self._graphs[key] is None:
            self._graphs[key] = self._capture(source, destination)
        self._graphs[key].launch(stream=self._stream)

    def _capture(self, source: Buffer | None, destination: Buffer | None) -> Any:
        with self._stream:
            self._stream.begin_capture()
            try:
                self._program(source, destination)
            finally:
                graph = self._stream.end_capture()
        return graph


def _address(buffer: Buffer | None) -> int:
    return 0 if buffer is None else int(buffer.array.data.ptr)


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
    """Raise a CapacityError for CuPy's, which other ranks cannot rebuild."""
    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        raise CapacityError(f"array of {shape}: expected {size} bytes of free device memory, found: {error}") from error


def _event() -> Any:
    return cupy.cuda.Event(disable_timing=True)


@dataclass
class _Slot:
    """Rows on the device, and page-locked memory that they come through, with the events that say when both are free.

    Parameters
    ----------
    device : cupy.ndarray
        Rows for kernels to read.
    uploaded : Event
        After the last copy out of the page-locked memory.
    read : Event
        After everything that reads the device's rows.
    """

    device: Any
    uploaded: Any
    read: Any

    @cached_property
    def host(self) -> np.ndarray:
        """Page-locked memory of the device array's shape; there is none until the host has something to write."""
        pinned: np.ndarray = cupyx.empty_pinned(self.device.shape, self.device.dtype)
        return pinned


class CudaIntake:
    """Slots that take turns. See `Intake` for the methods.

    The host writes a slot while the one before is copied to the device on a stream of its own, and while the kernels
    that read the one before that run on the backend's stream. Events order the streams; the host waits for a slot whose
    last copy has not left it, and for nothing else.
    """

    def __init__(self, backend: CudaBackend, shape: tuple[int, int]) -> None:
        self._backend = backend
        self._copies = cupy.cuda.Stream(non_blocking=True)
        with backend.active():
            self._slots = [_Slot(cupy.empty(shape), _event(), _event()) for _ in range(SLOTS)]
        for slot in self._slots:
            # The pool hands out memory that work queued earlier on the backend's stream may still use.
            slot.read.record(backend.stream)
        self._turns = cycle(self._slots)
        self._current = next(self._turns)

    def on_device(self, count: int) -> Buffer:
        """Return the first rows of a slot: both sides of it are on the backend's stream."""
        return self._backend.wrap(self._current.device[:count])

    def from_host(self, count: int, write: Callable[[np.ndarray], None]) -> Buffer:
        """Have the next slot's first rows written, and queue their copy."""
        self._current.read.record(self._backend.stream)  # all that reads what the last call returned is queued by now
        slot = self._current = next(self._turns)
        slot.uploaded.synchronize()
        write(slot.host[:count])
        self._copies.wait_event(slot.read)
        slot.device[:count].set(slot.host[:count], stream=self._copies)
        slot.uploaded.record(self._copies)
        self._backend.stream.wait_event(slot.uploaded)
        return self._backend.wrap(slot.device[:count])

    def __enter__(self) -> Self:
        """Return the intake itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Wait for the copies, after an error as well: they must not reach memory that has another use by then."""
        self._copies.synchronize()


class _Plan:
    """A cuFFT plan of rows, and the bytes of its work area; CuPy's plans cannot be referred to weakly."""

    def __init__(self, length: int, pitches: tuple[int, int], kind: int, batch: int) -> None:
        layout = [(length,), (pitches[0],), 1, pitches[0], (pitches[1],), 1, pitches[1]]
        plan = cufft.PlanNd(*layout, kind, batch, "C", 0, None)
        self.fft: Callable[[Any, Any, int], None] = plan.fft
        self.nbytes = int(plan.work_area.mem.size)


class CudaBackend:
    """Arrays in a GPU's memory. See `Backend` for the methods.

    Parameters
    ----------
    device : int
        Index of the GPU; it becomes the thread's current device.
    stream : cupy.cuda.Stream, optional
        Where everything is queued. By default a new stream that orders itself with the legacy default stream, so that
        a caller's own CuPy or PyTorch work needs no synchronisation with ours.
    sharing : int
        How many ranks use this GPU.
    threads : int
        This rank's share of the host's cores.
    """

    name = "cuda"

    def __init__(self, device: int, stream: Any = None, *, sharing: int = 1, threads: int = 1) -> None:
        self.device = device
        self.threads = threads
        self._sharing = sharing
        self._device = cupy.cuda.Device(device)
        self._device.use()
        numba_cuda = require_cuda()
        numba_cuda.select_device(device)
        self._as_kernel_array = numba_cuda.as_cuda_array
        self.stream = cupy.cuda.Stream(non_blocking=False) if stream is None else stream
        self.target = Target("cuda", numba_cuda.external_stream(self.stream.ptr))
        capability = self._device.compute_capability
        self._strong_double = (int(capability[:-1]), int(capability[-1])) in STRONG_DOUBLE
        self._pinned: dict[int, np.ndarray] = {}
        self._plans: WeakValueDictionary[tuple[int, ...], _Plan] = WeakValueDictionary()
        self._branches: list[CudaBackend] = []
        self._peak = 0

    def branch(self) -> CudaBackend:
        """Return this backend on a stream of its own, for work that `forked` overlaps with this one's."""
        if not self._branches:
            other = copy(self)
            other.stream = cupy.cuda.Stream(non_blocking=True)
            other.target = Target("cuda", require_cuda().external_stream(other.stream.ptr))
            other._plans = WeakValueDictionary()  # work areas are used by one stream at a time
            self._branches.append(other)
        return self._branches[0]

    @contextmanager
    def forked(self, other: CudaBackend) -> Iterator[None]:
        """Return a context in which the branch starts after what is queued here, and at whose end this waits for it."""
        start, end = _event(), _event()
        start.record(self.stream)
        other.stream.wait_event(start)
        yield
        end.record(other.stream)
        self.stream.wait_event(end)

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
        return Buffer(array, self._as_kernel_array(array, sync=False))

    def upload(self, destination: Any, source: np.ndarray) -> None:
        """Copy a host array to the device."""
        with self.active():
            destination.set(np.ascontiguousarray(source, destination.dtype))
        self.stream.synchronize()

    def download(self, source: Any) -> np.ndarray:
        """Return a host copy."""
        with self.active():
            host: np.ndarray = cupy.asnumpy(source)
        self.stream.synchronize()
        return host

    def host_view(self, array: Any) -> np.ndarray:
        """Return page-locked memory of the array's shape; one block serves all arrays of a size."""
        if array.nbytes not in self._pinned:
            self._pinned[array.nbytes] = cupyx.empty_pinned(array.nbytes, np.uint8)
        pinned: np.ndarray = self._pinned[array.nbytes]
        return np.frombuffer(pinned, array.dtype).reshape(array.shape)

    def copy_to_host(self, host: np.ndarray, array: Any) -> None:
        """Copy to page-locked memory and wait."""
        array.get(stream=self.stream, out=host)
        self.stream.synchronize()

    def copy_from_host(self, array: Any, host: np.ndarray) -> None:
        """Copy from page-locked memory and wait, since the memory is used again."""
        array.set(host, stream=self.stream)
        self.stream.synchronize()

    def intake(self, shape: tuple[int, int]) -> AbstractContextManager[CudaIntake]:
        """Return slots of page-locked and device memory."""
        return CudaIntake(self, shape)

    def rfft(self, length: int, source: Buffer, destination: Buffer) -> Transform:
        """Plan real transforms from `source` into `destination`."""
        run = self._plan(length, source, destination, _FORWARD[np.dtype(source.array.dtype)], cufft.CUFFT_FORWARD)

        def transform(values: Buffer) -> Buffer:
            run()
            return destination

        return transform

    def fft(self, length: int, source: Buffer, destination: Buffer, *, inverse: bool) -> Callable[[], None]:
        """Plan complex transforms from `source` into `destination`, unnormalised in both directions."""
        direction = cufft.CUFFT_INVERSE if inverse else cufft.CUFFT_FORWARD
        return self._plan(length, source, destination, _FORWARD[np.dtype(source.array.dtype)], direction)

    def _plan(self, length: int, source: Buffer, destination: Buffer, kind: int, direction: int) -> Callable[[], None]:
        rows, pitches = source.array.shape[0], (source.array.shape[1], destination.array.shape[1])
        step = max(1, MAX_PLAN_ELEMENTS // max(*pitches, length))
        calls = []
        with self.active():
            for start in range(0, rows, step):
                part = slice(start, min(start + step, rows))
                plan = self._cufft_plan(length, pitches, kind, part.stop - part.start)
                calls.append((plan, source.array[part], destination.array[part]))

        def run() -> None:
            for plan, inputs, outputs in calls:
                plan.fft(inputs, outputs, direction)

        return run

    def _cufft_plan(self, length: int, pitches: tuple[int, int], kind: int, batch: int) -> _Plan:
        """Return a plan, the same one as long as it lives: its users run on one stream and can share a work area."""
        key = (length, *pitches, kind, batch)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = _Plan(length, pitches, kind, batch)
        return plan

    def accumulator(self, stored: Format, vector: np.dtype[Any]) -> np.dtype[Any]:
        """Accumulate in double wherever that costs nothing: always, but for single spectra on GPUs weak in double."""
        single = stored == COMPLEX64 and not self._strong_double
        return np.dtype(np.complex64 if single else np.complex128)

    def replayed(self, program: Program) -> Program:
        """Return a program that replays CUDA graphs; the default streams cannot be captured, so there it is eager."""
        return GraphReplay(self.stream, program) if self.stream.ptr not in UNCAPTURABLE_STREAMS else program

    def active(self) -> AbstractContextManager[Any]:
        """Return a context that makes the stream current."""
        return self.stream  # type: ignore[no-any-return]

    def synchronize(self) -> None:
        """Wait for the stream."""
        self.stream.synchronize()

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
        """Return the most that CuPy's memory pool has held of the device, as far as `trim` and this have seen it."""
        self._peak = max(self._peak, int(cupy.get_default_memory_pool().total_bytes()))
        return self._peak

    def free_bytes(self) -> int | None:
        """Return this rank's share of the device's free memory and what CuPy's pool holds unused, within its limit."""
        pool = cupy.get_default_memory_pool()
        free = cupy.cuda.runtime.memGetInfo()[0] // self._sharing
        limit = pool.get_limit()
        more = min(free, max(0, limit - pool.total_bytes())) if limit else free
        return int(more + pool.free_bytes())

    def plan_bytes(self) -> int:
        """Return the bytes of the work areas of all cuFFT plans."""
        return sum(plan.nbytes for backend in (self, *self._branches) for plan in backend._plans.values())

    def trim(self) -> None:
        """Give the unused blocks of CuPy's pools back: device memory and page-locked memory."""
        self.peak_bytes()  # what goes now counts
        self.synchronize()
        cupy.get_default_memory_pool().free_all_blocks()
        cupy.get_default_pinned_memory_pool().free_all_blocks()

    def device_name(self) -> str:
        """Return the GPU's name."""
        return str(cupy.cuda.runtime.getDeviceProperties(self.device)["name"].decode())

    def unique_id(self) -> str:
        """Return a name of the physical GPU: its PCI bus address."""
        return str(self._device.pci_bus_id)
