"""Collectives of NCCL, queued on CuPy's current stream. Each rank must have its own GPU."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np
from cupy.cuda import nccl

from ..backends import Backend
from .agreement import Meeting
from .library import MPI

_TYPES = {np.dtype(np.float64): nccl.NCCL_FLOAT64, np.dtype(np.float32): nccl.NCCL_FLOAT32}


class NcclCollectives:
    """Collectives of NCCL on the ranks of one communicator. See `Collectives` for the methods."""

    queued = True

    def __init__(self, comm: MPI.Intracomm, meeting: Meeting, backend: Backend) -> None:
        identity = comm.bcast(nccl.get_unique_id() if comm.rank == 0 else None)
        comm.Barrier()
        self._nccl = nccl.NcclCommunicator(comm.size, identity, comm.rank)

    def broadcast(self, array: Any, root: int) -> None:
        """Copy the root's array to all ranks."""
        pointer = array.data.ptr
        stream = cupy.cuda.get_current_stream().ptr
        self._nccl.broadcast(pointer, pointer, array.size, _TYPES[array.dtype], root, stream)

    def reduce(self, send: Any, receive: Any, root: int) -> None:
        """Sum the arrays."""
        output = send.data.ptr if receive is None else receive.data.ptr
        kind = _TYPES[send.dtype]
        stream = cupy.cuda.get_current_stream().ptr
        self._nccl.reduce(send.data.ptr, output, send.size, kind, nccl.NCCL_SUM, root, stream)

    def close(self) -> None:
        """Destroy the NCCL communicator."""
        self._nccl.destroy()
