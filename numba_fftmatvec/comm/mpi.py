"""Collectives of MPI on host memory; a GPU's arrays are staged through page-locked memory."""

from __future__ import annotations

from typing import Any

from ..backends import Backend
from .agreement import Meeting
from .library import MPI


class MpiCollectives:
    """Collectives of MPI on one communicator. See `Collectives` for the methods."""

    queued = False

    def __init__(self, comm: MPI.Intracomm, meeting: Meeting, backend: Backend) -> None:
        self._comm = comm
        self._backend = backend

    def broadcast(self, array: Any, root: int) -> None:
        """Copy the root's array to all ranks."""
        host = self._backend.host_view(array)
        if self._comm.rank == root:
            self._backend.copy_to_host(host, array)
        self._comm.Bcast(host, root)
        if self._comm.rank != root:
            self._backend.copy_from_host(array, host)

    def reduce(self, send: Any, receive: Any, root: int) -> None:
        """Sum the arrays; in place if both are staged through the same memory, as a GPU's arrays of one size are."""
        host = self._backend.host_view(send)
        self._backend.copy_to_host(host, send)
        if self._comm.rank != root:
            self._comm.Reduce(host, None, MPI.SUM, root)
            return
        result = self._backend.host_view(receive)
        in_place = result.ctypes.data == host.ctypes.data
        self._comm.Reduce(MPI.IN_PLACE if in_place else host, result, MPI.SUM, root)
        self._backend.copy_from_host(receive, result)

    def close(self) -> None:
        """Do nothing: the Comm frees the communicator."""
