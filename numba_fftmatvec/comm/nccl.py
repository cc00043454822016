"""Collectives of NCCL, queued on CuPy's current stream. Each rank must have its own GPU."""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any
from weakref import WeakMethod

import cupy
import numpy as np
from cupy.cuda import nccl

from .agreement import Meeting
from .library import MPI

_TYPES = {np.dtype(np.float64): nccl.NCCL_FLOAT64, np.dtype(np.float32): nccl.NCCL_FLOAT32}


class NcclCollectives:
    """Collectives of NCCL on the ranks of one communicator. See `Collectives` for the methods.

    From now on the backend waits for its stream within the Comm's time limit.
    """

    queued = True

    def __init__(self, comm: MPI.Intracomm, meeting: Meeting, backend: Any) -> None:
        phase = "creating NCCL's communicators"
        with meeting.agreement(phase):
            identity = nccl.get_unique_id() if comm.rank == 0 else None
            identities = meeting.gather_bytes(phase, pickle.dumps(identity))
            chosen = pickle.loads(identities[meeting.ranks_of(comm)[0]])
        # All ranks call NCCL now, since all have passed the block above.
        create = partial(_communicator, backend.device, comm.size, chosen, comm.rank)
        self._nccl = meeting.watch.complete_call(phase, create)
        meeting.watch.communicators.append(self._nccl)
        forget = WeakMethod(backend.forget_programs)  # a strong reference would be a cycle
        meeting.watch.before_abort.append(lambda: (alive := forget()) and alive())
        backend.wait_by(partial(meeting.watch.complete_device, "waiting for the device"))

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


def _communicator(device: int, size: int, identity: Any, rank: int) -> Any:
    cupy.cuda.Device(device).use()  # each thread has its own current device
    return nccl.NcclCommunicator(size, identity, rank)
