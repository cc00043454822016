"""The process grid: this rank's place in it, its device and stream, and the messages between ranks."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Any, TypeVar
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from ..backends import Backend
from ..backends.cores import requested_threads
from ..backends.select import cuda_devices, requested_backend, select_backend
from ..errors import ArgumentError, ArgumentTypeError, ClosedError, ForkedError
from ..layout import Space, VectorLayout
from .agreement import Agreement, Arguments, Meeting
from .axis import Axis
from .collection import Parts, collect
from .collectives import Collectives, chosen_collectives, requested_collectives, select_collectives
from .communicators import find_place, first_meeting
from .grids import checked_grid
from .library import MPI, check_process
from .watchdog import time_limit

T = TypeVar("T")

# With this environment variable set to 1, products agree on errors and compare their arguments, as other calls do.
CHECK_VARIABLE = "NUMBA_FFTMATVEC_CHECK"


class Comm:
    """A 2-D grid of MPI ranks, each with a device and a stream.

    Rank r stands in row ``r % proc_rows`` (its row color) and column ``r // proc_rows`` (its column color). Block rows
    of a matrix are split over the grid's rows, block columns over its columns. Collective over `comm`.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm, optional
        The ranks; COMM_WORLD by default. The Comm duplicates it, so that its messages never match the caller's.
    proc_rows : int
        Rows of the grid.
    proc_cols : int, optional
        Columns of the grid; by default as many as the ranks allow.
    backend : {"auto", "cpu", "cuda"}
        The backend that holds the arrays. ``"auto"`` takes the value of the environment variable
        NUMBA_FFTMATVEC_BACKEND if it is set, else ``"cuda"`` if every rank has a working device, else ``"cpu"``.
    collectives : {"auto", "mpi", "nccl"}
        The library for collective operations on arrays. ``"auto"`` takes NCCL if every rank has its own GPU, else MPI.
    stream : cupy.cuda.Stream, optional
        The stream of all device work; a new one by default. It is for CUDA only, and the caller keeps it alive.
    timeout : float, optional
        Seconds that a collective call waits for a rank before it raises a CollectiveTimeout; ``math.inf`` for no limit.
        By default the value of the environment variable NUMBA_FFTMATVEC_TIMEOUT if it is set, else 300.
    threads : int, optional
        The number of threads of this rank's calls; ranks may have different numbers. It is at most the cores that this
        process may use, and at most NUMBA_NUM_THREADS. By default it is the value of the environment variable
        NUMBA_FFTMATVEC_THREADS if it is set. Else it is the rank's share of the cores, or the smallest of
        OMP_NUM_THREADS, NUMBA_NUM_THREADS and the calling thread's ``numba.set_num_threads`` if that is smaller.

    Raises
    ------
    GridError
        ``proc_rows * proc_cols`` is not the number of ranks.
    BackendError
        The requested backend or collectives cannot work here.
    ForkedError
        This process was forked from one that had started MPI.
    AgreementError
        The ranks have different arguments.
    CapacityError
        MPI has no communicators left, since too many Comms are open.
    ArgumentError, ArgumentTypeError
        Another argument is outside its domain.

    Examples
    --------
    >>> with Comm(proc_rows=1, backend="cpu") as comm:
    ...     comm.get_world_rank(), comm.proc_cols
    (0, 1)
    """

    def __init__(
        self,
        comm: MPI.Intracomm | None = None,
        proc_rows: int = 1,
        proc_cols: int | None = None,
        *,
        backend: str = "auto",
        collectives: str = "auto",
        stream: Any = None,
        timeout: float | None = None,
        threads: int | None = None,
    ) -> None:
        check_process()
        if comm is None:
            comm = MPI.COMM_WORLD
        if not isinstance(comm, MPI.Intracomm) or comm == MPI.COMM_NULL:
            raise ArgumentTypeError(f"comm: expected an mpi4py.MPI.Intracomm, found {comm!r}")
        #: The lock of the threads that use this Comm; see `exclusive`.
        self.lock = threading.RLock()
        self._closed = self._forked = False
        self._family, self._meeting, early = first_meeting(comm)  # the ranks meet on `comm` until its duplicate exists
        self._number = self._family.created
        self._family.created += 1
        arguments = {
            "proc_rows": proc_rows,
            "proc_cols": proc_cols,
            "backend": backend,
            "collectives": collectives,
            "stream": stream is not None,
            "timeout": timeout,
            CHECK_VARIABLE: os.environ.get(CHECK_VARIABLE),
            "number of the Comm": self._number,
        }
        with self.agreement("checking the process grid", arguments):
            if early is not None:
                raise early
            self.timeout = self._meeting.watch.timeout = time_limit(timeout)
            #: Whether products compare their arguments on all ranks.
            self.checks_products: bool = os.environ.get(CHECK_VARIABLE, "0") not in ("", "0")
            self.proc_rows, self.proc_cols = checked_grid(comm.size, proc_rows, proc_cols)
            number = requested_threads(threads)
            backend = requested_backend(backend)
            collectives = requested_collectives(collectives)
            if stream is not None and backend == "cpu":
                raise ArgumentError(f"stream: expected None with the backend 'cpu', found {stream!r}")
        self._external_stream = stream is not None
        self._create_communicators(comm)
        try:
            self._place = find_place(self._meeting, self._neighbours)
            self.backend: Backend = self._choose_backend(backend, stream, number)
            self._kind = self._choose_collectives(collectives)
            self._world: Collectives | None = None
            self._axes = self._create_axes(self._kind)
        except BaseException as error:
            self._abandon(error)
            raise
        _comms.add(self)

    def _create_communicators(self, parent: MPI.Intracomm) -> None:
        with self.agreement("creating communicators"):
            grid = self.proc_rows, self.proc_cols
            made = self._family.create(parent, self._meeting, grid, self._number, self)
            self.global_comm, self.row_comm, self.col_comm, self._neighbours = made
            meeting = Meeting(self.global_comm, self.timeout)
        self._meeting = meeting
        self.world_rank: int = self.global_comm.rank
        self.world_size: int = self.global_comm.size
        self.row_color: int = self.world_rank % self.proc_rows
        self.col_color: int = self.world_rank // self.proc_rows

    def _choose_backend(self, name: str, stream: Any, threads: int | None) -> Backend:
        phase = "choosing a device"
        with self.agreement(phase, {"backend": name}) as agreed:
            agreed.share([name != "auto" or cuda_devices()[0] > 0])
        if name == "auto":
            name = "cuda" if agreed.stacked.all() else "cpu"
        with self.agreement(phase):
            chosen = select_backend(name, self._place, stream, threads)
        return chosen

    def _choose_collectives(self, name: str) -> type[Collectives]:
        shared = self._ranks_sharing_a_device()
        with self.agreement("choosing collectives"):
            name = chosen_collectives(name, self.backend.name, shared, self.world_size, self.world_rank)
            chosen = select_collectives(name)
        return chosen

    def _create_axes(self, kind: type[Collectives]) -> dict[Space, Axis]:
        lines = {Space.COL: (self.row_comm, self.col_comm), Space.ROW: (self.col_comm, self.row_comm)}
        axes: dict[Space, Axis] = {}
        try:
            with self.agreement("creating collectives"):
                for space, (parts, copies) in lines.items():
                    axes[space] = Axis(space, parts, copies, kind(copies, self._meeting, self.backend))
        except BaseException:
            if self._meeting.watch.given_up is None:
                for axis in axes.values():
                    axis.close()
            raise
        return axes

    def _ranks_sharing_a_device(self) -> int:
        if self.backend.device is None:
            return 0
        with self.agreement("looking for ranks that share a device"):
            mine = (MPI.Get_processor_name(), self.backend.unique_id())
            everybody = self.allgather(mine)
        return sum(everybody.count(device) > 1 for device in everybody)

    def _abandon(self, error: BaseException) -> None:
        """Free the communicators if every rank raises the error; else a later call of all ranks frees them."""
        if self._meeting.watch.given_up is not None:
            self._family.forget(self._number)
        elif self._meeting.has_agreed(error):
            self._family.free(self._number)
        else:
            self._family.abandoned.add(self._number)

    def agreement(self, phase: str, arguments: Arguments | None = None) -> Agreement:
        """Run a block on all ranks such that it fails on all of them if it fails on any. Collective.

        Every rank raises the error of the lowest rank that failed: the same type, the same message, with a note that
        names the rank and the phase. The block may call the Comm's collective methods and have further blocks; other
        messages must not be in it.

        Parameters
        ----------
        phase : str
            The work of the block, for the note.
        arguments : dict, optional
            The arguments of the call by name. Ranks with different phases or arguments raise an AgreementError.

        Returns
        -------
        Agreement
            The block's context. ``share(values)`` in the block sets up to a few numbers of this rank, and afterwards
            ``stacked`` has those of all ranks as a (ranks, n) array.
        """
        self.check_open()
        return self._meeting.agreement(phase, arguments)

    def check_open(self) -> None:
        """Raise a ClosedError if `close` was called or a message was given up, a ForkedError in a forked process."""
        if self._forked:
            raise ForkedError(
                f"comm: expected the process that created it, found its forked child {os.getpid()}; the start method "
                "'spawn' of multiprocessing makes processes that can create a Comm"
            )
        if self._closed:
            raise ClosedError("comm: expected an open Comm, found one that was closed")
        if (phase := self._meeting.watch.given_up) is not None:
            raise ClosedError(f"comm: expected ranks in step, found a Comm that gave up a message while {phase}")

    def synchronize(self) -> None:
        """Wait until all work on this rank's stream is done."""
        with self.lock, self.backend.calling_thread:  # to wait for a stream that records would end the recording
            self.backend.synchronize()

    # All messages of the library are sent by the following methods or by an axis. Their argument `phase` names the work
    # in errors.

    def axis(self, space: str) -> Axis:
        """Return the axis of a space, ``"col"`` or ``"row"``: the split of its vectors and their communication."""
        return self._axes[Space.of(space)]

    def barrier(self) -> None:
        """Wait until every rank has called this."""
        with self.agreement("waiting for all ranks"):
            pass

    def bcast(self, value: T, phase: str = "broadcasting a value") -> T:
        """Return the first rank's value, which must be picklable, on every rank."""
        if self.world_size == 1:
            return value
        first = self.world_rank == 0
        with self.agreement(phase):
            with self.agreement(phase) as agreed:
                mine = pickle.dumps(value) if first else b""
                agreed.share([len(mine)])
            with self.agreement(phase) as sending:
                message = bytearray(mine or int(agreed.stacked[0, 0]))
                sending.then(self.global_comm.Ibcast, message)
            found: T = value if first else pickle.loads(message)
        return found

    def allgather(self, value: T, phase: str = "gathering values") -> list[T]:
        """Return the picklable values of all ranks, in the order of the ranks, on every rank."""
        with self.agreement(phase):
            found = [pickle.loads(message) for message in self._meeting.gather_bytes(phase, pickle.dumps(value))]
        return found

    def stack(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the (n,) values of all ranks as one (ranks, n) array on every rank."""
        with self.agreement("stacking values") as agreed:
            agreed.share(values)
        return agreed.stacked  # type: ignore[no-any-return]

    def device_collectives(self) -> Collectives | None:
        """Return collectives of all ranks that are queued on the device's stream, or None without NCCL. Collective."""
        if self._kind.queued and self.world_size > 1 and self._world is None:
            with self.agreement("creating collectives"):
                self._world = self._kind(self.global_comm, self._meeting, self.backend)
        return self._world

    def concatenate(self, values: npt.NDArray[np.float64], phase: str = "joining arrays") -> npt.NDArray[np.float64]:
        """Return the (n, length) values of all ranks, of any lengths, joined along the second axis, on every rank."""
        with self.agreement(phase, {"rows": len(values)}) as agreed:
            values = np.ascontiguousarray(values, np.float64)
            agreed.share([values.shape[1]])
        counts = [int(count) for count in agreed.stacked[:, 0]]
        with self.agreement(phase) as sending:
            joined = np.empty((len(values), sum(counts)))
            if self.world_size == 1:
                joined[...] = values
            for send, receive in zip(values, joined, strict=True):
                sending.then(partial(self.global_comm.Iallgatherv, recvbuf=[receive, counts]), send)
        return joined

    def collect(
        self,
        layout: VectorLayout,
        items: Iterable[T],
        local: Callable[[T], npt.NDArray[np.float64]],
        consume: Callable[[T, Parts], None],
        phase: str,
    ) -> None:
        """Pass vectors one by one, part by part, to `consume` on the first rank of each line of the grid.

        Collective. An error on any rank is raised on all ranks. The parameters are those of `collection.collect`. A
        line is a row of the grid for ``"col"`` vectors, a column for ``"row"`` vectors; `items` are the same along it.
        """
        self.check_open()
        collect(self._meeting, self.axis(layout.space).parts_comm, layout, items, local, consume, phase)

    def abort(self, status: int) -> None:
        """End the processes of all ranks with an exit status."""
        self.global_comm.Abort(status)

    def close(self) -> None:
        """Free the communicators. Collective. It may be called twice, and after MPI was finalised.

        In a forked child process it does nothing. Matrices and vectors may still be open; from now on they raise a
        ClosedError.
        """
        if self._closed or self._forked:
            return
        if MPI.Is_finalized() or self._meeting.watch.given_up is not None:
            self._closed = True
            self._family.forget(self._number)
            return
        with self.lock, self.backend.calling_thread:
            with self.agreement("closing a Comm"):
                self.backend.synchronize()
                self.backend.forget_programs()
            self._closed = True
            self._family.reclaim(self._meeting)
            for axis in self._axes.values():
                axis.close()
            if self._world is not None:
                self._world.close()
            self._family.free(self._number)

    def __enter__(self) -> Comm:
        """Return the Comm itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the Comm, except after an error: freeing would wait for ranks without an error."""
        if kind is None:
            self.close()

    def __repr__(self) -> str:
        """Return the rank's place in the grid and its backend."""
        return (
            f"Comm(rank {self.world_rank} of {self.world_size}, grid {self.proc_rows}x{self.proc_cols}, "
            f"row {self.row_color}, column {self.col_color}, backend {self.backend.name!r})"
        )

    @property
    def device(self) -> int | None:
        """Index of this rank's GPU, None on the CPU."""
        return self.backend.device

    @property
    def threads(self) -> int:
        """Number of threads of this rank's calls."""
        return self.backend.threads

    @property
    def stream(self) -> Any:
        """The CuPy stream that the work is queued on, None on the CPU."""
        return self.backend.stream

    def get_world_rank(self) -> int:
        """Return the index of this rank."""
        return self.world_rank

    def get_world_size(self) -> int:
        """Return the number of ranks."""
        return self.world_size

    def get_proc_rows(self) -> int:
        """Return the number of rows of the grid."""
        return self.proc_rows

    def get_proc_cols(self) -> int:
        """Return the number of columns of the grid."""
        return self.proc_cols

    def get_row_color(self) -> int:
        """Return this rank's row in the grid."""
        return self.row_color

    def get_col_color(self) -> int:
        """Return this rank's column in the grid."""
        return self.col_color

    def get_device(self) -> int | None:
        """Return the index of this rank's GPU, None on the CPU."""
        return self.device

    def get_stream(self) -> Any:
        """Return the CuPy stream that the work is queued on, None on the CPU."""
        return self.stream

    def has_external_stream(self) -> bool:
        """Return whether the stream is the caller's."""
        return self._external_stream

    def get_row_comm(self) -> MPI.Intracomm:
        """Return the communicator of this rank's row, which the Comm frees."""
        return self.row_comm

    def get_col_comm(self) -> MPI.Intracomm:
        """Return the communicator of this rank's column, which the Comm frees."""
        return self.col_comm

    def get_global_comm(self) -> MPI.Intracomm:
        """Return the communicator of all ranks, which the Comm frees."""
        return self.global_comm


_comms: WeakSet[Comm] = WeakSet()


def _after_fork() -> None:
    """Mark the Comms of the parent, whose locks other threads may have held."""
    for comm in _comms:
        comm._forked = True
        comm.lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
