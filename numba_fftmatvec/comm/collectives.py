"""The part of a communication library that products use, and the choice between libraries."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol

from mpi4py import MPI

from ..backends import Backend


class Collectives(Protocol):
    """Collective operations among the ranks of one row or column of the process grid, on arrays of a backend.

    `queued` tells whether they are queued on the backend's stream, so that a graph can hold them.
    """

    queued: bool

    def broadcast(self, array: Any, root: int) -> None:
        """Copy the root's contiguous float32 or float64 array into everybody's."""

    def reduce(self, send: Any, receive: Any, root: int) -> None:
        """Sum everybody's `send` into the root's `receive`; `receive` is None elsewhere."""

    def close(self) -> None:
        """Free what the library holds."""


def select_collectives(name: str) -> Callable[[MPI.Intracomm, Backend], Collectives]:
    """Return the constructor of the collectives of a library, ``"mpi"`` or ``"nccl"``, which is imported only now."""
    constructor = {"mpi": "MpiCollectives", "nccl": "NcclCollectives"}[name]
    found: Callable[[MPI.Intracomm, Backend], Collectives]
    found = getattr(importlib.import_module(f"{__package__}.{name}"), constructor)
    return found
