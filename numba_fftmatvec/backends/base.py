"""The interface of a backend, and the ends and stages of products that all backends share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..kernels import Target
from ..kernels.formats import Format
from ..layout import MatrixLayout, Space
from ..precision import Precision
from .arrays import ArrayLibrary

DOUBLE = np.dtype(np.float64)


class Buffer(NamedTuple):
    """An array of the backend's library, and the same memory as kernels take it: each is looked up once.

    Parameters
    ----------
    array : array
        The array.
    view : array
        The array as kernels take it.
    name : str
        A name to print.
    address : int
        The address of the memory on a device.
    """

    array: Any
    view: Any
    name: str = ""
    address: int = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the values."""
        dtype: np.dtype[Any] = np.dtype(self.array.dtype)
        return dtype

    def __str__(self) -> str:
        """Return name, dtype and shape."""
        return f"{self.name} {self.dtype}{list(self.array.shape)}"


class Slot:
    """An end of a plan that is another buffer at each run: a product's operand or its result, of float64 blocks.

    Parameters
    ----------
    name : str
        The name to print.
    """

    dtype = DOUBLE

    def __init__(self, name: str) -> None:
        self.name = name
        self.bind(None)

    def bind(self, buffer: Buffer | None) -> None:
        """Use a buffer until the next call; None on ranks that own none, and after a run."""
        self.array: Any = None if buffer is None else buffer.array
        self.view: Any = None if buffer is None else buffer.view

    def __str__(self) -> str:
        """Return name and dtype."""
        return f"{self.name} {self.dtype}"


End = Buffer | Slot


class Stage(ABC):
    """One step of a product, from one end to another. All memory is allocated and all kernels are compiled before.

    Parameters
    ----------
    phase : str
        The phase that a timer counts it under.
    source, destination : Buffer or Slot
        The memory that it reads and the memory that it writes.
    """

    def __init__(self, phase: str, source: End, destination: End) -> None:
        self.phase = phase
        self.source = source
        self.destination = destination

    @abstractmethod
    def run(self) -> None:
        """Queue the step."""

    def __str__(self) -> str:
        """Return phase and ends."""
        return f"{self.phase}: {self.source} -> {self.destination}"


class Transforms(Protocol):
    """Plans the stages between a vector's blocks and its spectrum, for this rank's blocks of each space."""

    def spectrum(self, space: Space, precision: Precision) -> Buffer:
        """Return the buffer that holds a vector's spectrum, as SBGEMV takes it."""

    def forward(
        self, space: Space, source: End, rounding: np.dtype[Any], precision: Precision, *, timed: bool
    ) -> tuple[Stage, ...]:
        """Return the stages that pad and transform blocks, rounded to the dtype `rounding`, into the spectrum.

        With `timed` they run one after another, so that each of their phases can be timed.
        """

    def inverse(
        self, space: Space, precision: Precision, rounding: np.dtype[Any], destination: End, *, timed: bool
    ) -> tuple[Stage, ...]:
        """Return the stages that transform the spectrum back and unpad it into blocks, rounded to `rounding`."""


class Workspace(Protocol):
    """Buffers by name; see `workspace.Workspace`."""

    def get(self, name: str, shape: tuple[int, ...], dtype: Any) -> Buffer:
        """Return the buffer of this name, shape and dtype; the first call allocates it as zeros."""


class Launchers:
    """The launchers of kernels on one target, each of which is built once.

    They belong to a backend, since a launcher queues its kernel on the stream of its target.

    Parameters
    ----------
    target : Target
        Where the kernels run.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._built: dict[tuple[Any, ...], Callable[..., None]] = {}

    def __call__(self, build: Callable[..., Callable[..., None]], *arguments: Any) -> Callable[..., None]:
        """Return ``build(target, *arguments)``, such as ``launcher(map_launcher, "scale")``."""
        key = build, arguments
        found = self._built.get(key)
        if found is None:
            found = self._built[key] = build(self._target, *arguments)
        return found


class Queue(Protocol):
    """A place for the stages of products, which run there in their order.

    Attributes
    ----------
    target : Target
        Where their kernels run.
    """

    target: Target

    def transforms(self, workspace: Workspace, layout: MatrixLayout, num_vecs: int) -> Transforms:
        """Return the planner of the transforms of a matrix's vectors, for a number of right-hand sides."""

    def active(self) -> AbstractContextManager[Any]:
        """Return a context in which the library's calls are queued here."""


Transform = Callable[[Buffer], Buffer]
Program = Callable[[Buffer | None, Buffer | None], None]


class Staging(Protocol):
    """Memory through which a matrix's values pass on their way to the device, some rows at a time."""

    def on_device(self, count: int) -> Buffer:
        """Return `count` rows of this backend's memory for kernels to fill; the next call returns the same memory."""

    def from_host(self, count: int, write: Callable[[np.ndarray], None]) -> Buffer:
        """Let `write` fill `count` rows on the host, and return them where kernels can read them.

        Parameters
        ----------
        count : int
            Number of rows, at most those of the staging memory.
        write : callable
            Fills a C-contiguous host array before it returns.

        Returns
        -------
        Buffer
            The rows. Work that is queued before the next call may read them.
        """


class Backend(Protocol):
    """Arrays, transforms and clocks of one kind of device; all work is queued on `stream`, if there is one.

    Attributes
    ----------
    name : str
        ``"cpu"`` or ``"cuda"``.
    target : Target
        Where kernels run.
    launcher : Launchers
        The launchers of kernels on `target`.
    device : int or None
        Index of the GPU, None on the CPU.
    stream : cupy.cuda.Stream or None
        The stream, None on the CPU.
    threads : int
        The number of threads of this rank's calls: by default its share of the host's cores.
    calling_thread : context manager
        Makes a thread's calls go to this backend's device and use its number of threads. It is reentrant.
    """

    name: str
    target: Target
    launcher: Launchers
    device: int | None
    stream: Any
    threads: int
    calling_thread: AbstractContextManager[Any]

    @property
    def arrays(self) -> ArrayLibrary:
        """Dense linear algebra and transforms on the backend's arrays."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        """Allocate without initialising."""

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        """Allocate and set to zero."""

    def wrap(self, array: Any) -> Buffer:
        """Return a Buffer of an array, or of a view of one, of this backend's library."""

    def from_dlpack(self, source: Any) -> Any:
        """Return an array of this backend's library that shares the memory of an object with ``__dlpack__``.

        The object's memory lies on this backend's device. Work that the producer has queued on its stream is complete
        before work that is queued on `stream` from now on.
        """

    def upload(self, destination: Any, source: np.ndarray) -> None:
        """Copy a host array into one of this backend; the source may be reused on return."""

    def download(self, source: Any) -> np.ndarray:
        """Return a new host array with a copy of the data, complete on return."""

    def host_view(self, array: Any) -> np.ndarray:
        """Return host memory of the array's shape and dtype for copies; the array itself if it is on the host."""

    def copy_to_host(self, host: np.ndarray, array: Any) -> None:
        """Fill a `host_view` from its array, complete on return; do nothing if both are the same memory."""

    def copy_from_host(self, array: Any, host: np.ndarray) -> None:
        """Fill an array from its `host_view`, complete on return."""

    def staging(self, shape: tuple[int, int]) -> AbstractContextManager[Staging]:
        """Return staging memory for float64 rows of the shape; it is in use until the context ends."""

    def rfft(self, length: int, source: Buffer, destination: Buffer) -> Transform:
        """Plan real-to-complex transforms of the rows of `source`, unnormalised.

        The transform is called with `source` and returns the Buffer of the result: `destination` if the library can
        write to it, else a new one.
        """

    def substitution(self, panel: Any, inverses: Any, solutions: Any, first: int) -> Callable[[int, Any], None]:
        """Return ``solve(step, given)`` for the steps of a panel; see `Substitution` for the arguments."""

    def queue(self, *, recorded: bool) -> Queue:
        """Return the queue of `stream`, or with `recorded` the one of the programs that `replayed` takes."""

    def accumulator(self, format: Format) -> np.dtype[Any]:
        """Return the complex dtype that SBGEMV accumulates in."""

    def replayed(self, program: Program) -> Program:
        """Return a program of the same effect, with less overhead if the backend can record and replay it.

        A program takes a product's operand and result, and must only queue work, on the queue of recorded programs. Its
        runs are in order with the work on `stream`.
        """

    def forget_programs(self) -> None:
        """Drop all recordings of programs. An NCCL communicator cannot be freed while a recording refers to it."""

    def active(self) -> AbstractContextManager[Any]:
        """Return a context in which the library's calls go to this backend's device and stream."""

    def synchronize(self) -> None:
        """Wait until all queued work is done."""

    def timestamp(self) -> Any:
        """Record a moment of the stream."""

    def elapsed(self, start: Any, stop: Any) -> float:
        """Return the seconds between two timestamps; synchronise first."""

    def annotate(self, name: str) -> AbstractContextManager[Any]:
        """Return a context that profilers show as a range."""

    def peak_bytes(self) -> int:
        """Return the peak of the memory held: by the device's pool, or by the process on the CPU."""

    def free_bytes(self) -> int | None:
        """Return the bytes that this rank can still allocate; None if the backend cannot report them.

        Ranks that share a device, or the memory of a node, have equal shares of the free memory.
        """

    def plan_bytes(self) -> int:
        """Return the bytes of the work areas of all planned transforms, which the backend's matrices share."""

    def trim(self) -> None:
        """Return unused memory to the system."""

    def device_name(self) -> str:
        """Return the name of the GPU or CPU."""

    def unique_id(self) -> str | None:
        """Return a name of the physical GPU that is unique on the node; None on the CPU."""
