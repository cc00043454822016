"""The process grid, this rank's device and stream, and what ranks must agree on."""

from __future__ import annotations

import importlib
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, cast

from mpi4py import MPI

from .arguments import positive_int
from .backends import Backend, select_backend
from .backends.base import cuda_devices, requested_backend
from .collectives import Collectives
from .errors import ArgumentError, ArgumentTypeError, BackendError, ClosedError, GridError, RemoteError
from .layout import Space

COLLECTIVES = ("auto", "mpi", "nccl")


class Comm:
    """A 2-D grid of MPI ranks, each with a device and a stream.

    Rank r stands in row ``r % proc_rows`` (its row color) and column ``r // proc_rows`` (its column color). Block rows
    of a matrix are split over the grid's rows, block columns over its columns. Collective over `comm`.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm, optional
        The ranks; COMM_WORLD by default. It is duplicated: our messages never meet the caller's.
    proc_rows : int
        Rows of the grid.
    proc_cols : int, optional
        Columns of the grid; by default as many as the ranks allow.
    backend : {"auto", "cpu", "cuda"}
        Where the arrays live. ``"auto"`` hears the environment variable NUMBA_FFTMATVEC_BACKEND, then takes ``"cuda"``
        if every rank has a working device.
    collectives : {"auto", "mpi", "nccl"}
        What arrays travel by. ``"auto"`` takes NCCL where every rank has a GPU of its own, else MPI.
    stream : cupy.cuda.Stream, optional
        Queue all device work there instead of on a stream of our own. CUDA only; the caller keeps it alive.

    Raises
    ------
    GridError
        ``proc_rows * proc_cols`` is not the number of ranks.
    BackendError
        The backend or the collectives asked for cannot work here.
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
    ) -> None:
        if comm is None:
            comm = MPI.COMM_WORLD
        if not isinstance(comm, MPI.Intracomm) or comm == MPI.COMM_NULL:
            raise ArgumentTypeError(f"comm: expected an mpi4py.MPI.Intracomm, found {comm!r}")
        self._closed = False
        self.global_comm: MPI.Intracomm = comm.Dup()
        with self.agreement("checking the process grid"):
            self.proc_rows, self.proc_cols = _grid(self.global_comm.size, proc_rows, proc_cols)
            backend = requested_backend(backend)
            if collectives not in COLLECTIVES:
                raise ArgumentError(f"collectives: expected one of {', '.join(COLLECTIVES)}, found {collectives!r}")
            if stream is not None and backend == "cpu":
                raise ArgumentError(f"stream: expected None with the backend 'cpu', found {stream!r}")
        self.world_rank: int = self.global_comm.rank
        self.world_size: int = self.global_comm.size
        self.row_color: int = self.world_rank % self.proc_rows
        self.col_color: int = self.world_rank // self.proc_rows
        self.row_comm = cast(MPI.Intracomm, self.global_comm.Split(self.row_color, self.col_color))
        self.col_comm = cast(MPI.Intracomm, self.global_comm.Split(self.col_color, self.row_color))
        self._external_stream = stream is not None
        self.backend: Backend = self._choose_backend(backend, stream)
        self._row_collectives, self._col_collectives = self._choose_collectives(collectives)

    def _choose_backend(self, name: str, stream: Any) -> Backend:
        node = self.global_comm.Split_type(MPI.COMM_TYPE_SHARED, self.world_rank)
        node_rank, node_size = node.rank, node.size
        node.Free()
        if name == "auto":
            everywhere = self.global_comm.allreduce(cuda_devices()[0] > 0, MPI.LAND)
            name = "cuda" if everywhere else "cpu"
        with self.agreement("choosing a device"):
            chosen = select_backend(name, node_rank, node_size, stream)
        return chosen

    def _choose_collectives(self, name: str) -> tuple[Collectives, Collectives]:
        shared = self._ranks_sharing_a_device()
        with self.agreement("choosing collectives"):
            if name == "nccl" and (self.backend.name != "cuda" or shared):
                raise BackendError(
                    "collectives 'nccl': expected a GPU of its own for each rank, "
                    f"found backend {self.backend.name!r} with {shared} ranks sharing GPUs"
                )
        if name == "auto":
            name = "nccl" if self.backend.name == "cuda" and not shared and self.world_size > 1 else "mpi"
            if self.backend.name == "cuda" and shared and self.world_rank == 0:
                warnings.warn(f"{shared} ranks share GPUs: collectives go through MPI, not NCCL", stacklevel=3)
        module = importlib.import_module(f"{__package__}.collectives.{name}")
        kind = {"mpi": "MpiCollectives", "nccl": "NcclCollectives"}[name]
        row, col = (getattr(module, kind)(c, self.backend) for c in (self.row_comm, self.col_comm))
        return row, col

    def _ranks_sharing_a_device(self) -> int:
        if self.backend.device is None:
            return 0
        mine = (MPI.Get_processor_name(), self.backend.unique_id())  # type: ignore[attr-defined]
        everybody = self.global_comm.allgather(mine)
        return sum(everybody.count(device) > 1 for device in everybody)

    @contextmanager
    def agreement(self, phase: str) -> Iterator[None]:
        """Run a block on all ranks such that it fails on all of them if it fails on any.

        The block must not communicate. Every rank raises the error of the lowest rank that failed: the same type, the
        same message, with a note that names the rank and the phase.

        Parameters
        ----------
        phase : str
            What is being done, for the note.
        """
        error: Exception | None = None
        try:
            yield
        except Exception as caught:  # whatever it is, the other ranks must hear of it
            error = caught
        rank, size = self.global_comm.rank, self.global_comm.size
        failed = self.global_comm.allreduce(size if error is None else rank, MPI.MIN)
        if failed == size:
            return
        report = None if error is None else (type(error).__name__, str(error), _pickled(type(error)))
        name, message, kind = self.global_comm.bcast(report, failed)
        if rank != failed or error is None:
            error = _rebuild(name, message, kind)
        error.add_note(f"(on rank {failed}, while {phase})")
        raise error

    def check_open(self) -> None:
        """Raise a ClosedError if `close` was called."""
        if self._closed:
            raise ClosedError("comm: expected an open Comm, found one that was closed")

    def synchronize(self) -> None:
        """Wait until everything queued on this rank's stream is done."""
        self.backend.synchronize()

    def collectives(self, space: str) -> tuple[MPI.Intracomm, Collectives]:
        """Return what a vector of the given space travels along: from its owner to the ranks that need it, and back.

        A ``"col"`` vector is owned by the grid's first row and goes down the columns; a ``"row"`` vector is owned by
        the first column and goes along the rows. In both the owner is rank 0.
        """
        if space == "col":
            return self.col_comm, self._col_collectives
        return self.row_comm, self._row_collectives

    def split(self, space: Space) -> tuple[int, int]:
        """Return how many parts the blocks of a space are split into, and which of them is this rank's."""
        return {
            Space.COL: (self.proc_cols, self.col_color),
            Space.ROW: (self.proc_rows, self.row_color),
        }[space]

    def close(self) -> None:
        """Free the communicators. Collective. Safe to call twice, and after MPI was finalised."""
        if self._closed:
            return
        self._closed = True
        if MPI.Is_finalized():
            return
        self.backend.synchronize()
        for collectives in (self._row_collectives, self._col_collectives):
            collectives.close()
        for comm in (self.row_comm, self.col_comm, self.global_comm):
            comm.Free()

    def __enter__(self) -> Comm:
        """Return the Comm itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; not after an error, which the other ranks may not share: freeing would wait for them."""
        if kind is None:
            self.close()

    def __repr__(self) -> str:
        """Return the rank's place in the grid."""
        return (
            f"Comm(rank {self.world_rank} of {self.world_size}, grid {self.proc_rows}x{self.proc_cols}, "
            f"row {self.row_color}, column {self.col_color}, backend {self.backend.name!r})"
        )

    @property
    def device(self) -> int | None:
        """Index of this rank's GPU, None on the CPU."""
        return self.backend.device

    @property
    def stream(self) -> Any:
        """The CuPy stream that the work is queued on, None on the CPU."""
        return self.backend.stream

    def get_world_rank(self) -> int:
        """Return this rank."""
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
        """Return the communicator of this rank's row; ours, not to be freed."""
        return self.row_comm

    def get_col_comm(self) -> MPI.Intracomm:
        """Return the communicator of this rank's column; ours, not to be freed."""
        return self.col_comm

    def get_global_comm(self) -> MPI.Intracomm:
        """Return the communicator of all ranks; ours, not to be freed."""
        return self.global_comm


def _grid(ranks: int, proc_rows: int, proc_cols: int | None) -> tuple[int, int]:
    rows = positive_int(proc_rows, "proc_rows")
    cols = ranks // rows if proc_cols is None else positive_int(proc_cols, "proc_cols")
    if rows * cols != ranks:
        raise GridError(f"process grid: expected proc_rows * proc_cols = {ranks} ranks, found {rows} x {cols}")
    return rows, cols


def _pickled(kind: type[Exception]) -> bytes:
    """Return an exception's type for the other ranks; nothing if it is known here alone, such as a local class."""
    try:
        return pickle.dumps(kind)
    except Exception:
        return b""


def _rebuild(name: str, message: str, kind: bytes) -> Exception:
    try:
        return pickle.loads(kind)(message)  # type: ignore[no-any-return]
    except Exception:  # a type that is unknown here, or whose constructor wants more than a message
        return RemoteError(f"{name}: {message}")
