"""The exchange of arrays between any two ranks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from .comm import Comm

Values = npt.NDArray[np.float64]


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
