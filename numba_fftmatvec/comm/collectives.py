"""The collective operations of products, and the choice of the library that performs them."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

from ..backends import Backend
from .agreement import Meeting
from .library import MPI


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


def select_collectives(name: str) -> type[Collectives]:
    """Import a library, ``"mpi"`` or ``"nccl"``, and return the class of its collectives."""
    constructor = {"mpi": "MpiCollectives", "nccl": "NcclCollectives"}[name]
    found: type[Collectives]
    found = getattr(importlib.import_module(f"{__package__}.{name}"), constructor)
    return found
