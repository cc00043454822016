"""The exchange of arrays between ranks: from one to all, of the sum of all, and between any two."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from ..arguments import check_contiguous
from .comm import Comm

Values = npt.NDArray[np.float64]


def bcast_array(comm: Comm, array: Values, root: int, phase: str) -> None:
    """Copy a rank's C-contiguous array into those of the same size on all ranks. Collective."""
    with comm.agreement(phase, {"root": root}) as sending:
        check_contiguous(array)
        sending.then(partial(comm.global_comm.Ibcast, root=root), array)


def sum_array(comm: Comm, array: Values, phase: str) -> Values:
    """Return the sum of the C-contiguous arrays of all ranks on every rank. Collective."""
    with comm.agreement(phase) as sending:
        check_contiguous(array)
        total = array.copy() if comm.world_size == 1 else np.empty_like(array)
        sending.then(partial(comm.global_comm.Iallreduce, recvbuf=total), array)
    return total


def exchange(comm: Comm, values: Sequence[Values], counts: npt.NDArray[np.int64], phase: str) -> list[Values]:
    """Send a flat array to each rank and return the arrays that arrive. Collective.

    Parameters
    ----------
    comm : Comm
        The ranks.
    values : sequence of array
        The array for each rank, of any length.
    counts : array of int
        The length of the array from each rank.
    phase : str
        The work, for errors.
    """
    with comm.agreement(phase) as sending:
        lengths = [len(array) for array in values]
        received = np.empty(int(counts.sum()))
        start = partial(comm.global_comm.Ialltoallv, recvbuf=[received, counts.tolist()])
        sending.then(start, [np.concatenate([*values, np.empty(0)]), lengths])
    return np.split(received, np.cumsum(counts)[:-1])
