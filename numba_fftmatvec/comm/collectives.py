"""The collective operations of products, and the choice of the library that performs them."""

from __future__ import annotations

import importlib
import warnings
from typing import Any, Protocol

from ..backends import Backend
from ..errors import ArgumentError, BackendError
from .agreement import Meeting
from .library import MPI

NAMES = ("auto", "mpi", "nccl")


class Collectives(Protocol):
    """Collective operations among the ranks of one row or column of the process grid, on arrays of a backend.

    `queued` is True if they are queued on the current stream, so that a CUDA graph can contain them.
    """

    queued: bool

    def __init__(self, comm: MPI.Intracomm, meeting: Meeting, backend: Backend) -> None: ...

    def broadcast(self, array: Any, root: int) -> None:
        """Copy the root's contiguous float32 or float64 array into the array of every rank."""

    def reduce(self, send: Any, receive: Any, root: int) -> None:
        """Sum the `send` arrays of all ranks into the root's `receive`, which is None elsewhere."""

    def close(self) -> None:
        """Free the library's resources."""


def requested_collectives(name: str) -> str:
    """Return `name`; raise an ArgumentError if it is no name of a library."""
    if name not in NAMES:
        raise ArgumentError(f"collectives: expected one of {', '.join(NAMES)}, found {name!r}")
    return name


def chosen_collectives(name: str, backend: str, sharing: int, ranks: int, rank: int) -> str:
    """Return the library of a Comm, ``"mpi"`` or ``"nccl"``.

    Parameters
    ----------
    name : {"auto", "mpi", "nccl"}
        The library that the caller chose.
    backend : {"cpu", "cuda"}
        The backend.
    sharing : int
        Number of ranks that share a GPU with others.
    ranks, rank : int
        Number of ranks, and this rank, of which the first may warn.

    Raises
    ------
    BackendError
        NCCL cannot work here.
    """
    if name == "nccl" and (backend != "cuda" or sharing):
        raise BackendError(
            "collectives 'nccl': expected a GPU of its own for each rank, "
            f"found backend {backend!r} with {sharing} ranks sharing GPUs"
        )
    if name != "auto":
        return name
    if backend == "cuda" and sharing and rank == 0:
        warnings.warn(f"{sharing} ranks share GPUs: collectives go through MPI, not NCCL", stacklevel=5)
    return "nccl" if backend == "cuda" and not sharing and ranks > 1 else "mpi"


def select_collectives(name: str) -> type[Collectives]:
    """Import a library, ``"mpi"`` or ``"nccl"``, and return the class of its collectives."""
    constructor = {"mpi": "MpiCollectives", "nccl": "NcclCollectives"}[name]
    found: type[Collectives]
    found = getattr(importlib.import_module(f"{__package__}.{name}"), constructor)
    return found
