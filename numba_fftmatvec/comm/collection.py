"""The collection of a distributed vector, part by part, on the one rank that writes a file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..layout import VectorLayout, block_ranges
from .library import MPI

T = TypeVar("T")
Values = npt.NDArray[np.float64]
Parts = Iterator[tuple[range, Values]]

# The first rank requests each part and sends a stop at the end, so that every message is received.
_SEND, _STOP = 1, 0
_VALUES, _FAILED = 1, 2  # tags of the answers


class _PartMissing(Exception):
    """Another rank could not send its part and raises its own error."""


def collect(
    ranks: MPI.Intracomm,
    layout: VectorLayout,
    items: Iterable[T],
    local: Callable[[T], Values],
    consume: Callable[[T, Parts], None],
) -> None:
    """Pass vectors one by one, part by part, to `consume` on the first rank.

    An error of `consume` or `local` is raised on its rank, and the other ranks stop without an error. The caller's
    agreement then raises it on all ranks.

    Parameters
    ----------
    ranks : mpi4py.MPI.Intracomm
        The ranks that hold the parts, in the order of the parts.
    layout : VectorLayout
        The layout of each vector.
    items : iterable
        The vectors, the same on every rank.
    local : callable
        ``local(item)`` returns this rank's part in the layout's local shape.
    consume : callable
        ``consume(item, parts)`` is called on the first rank; `parts` yields each part's blocks and values. Parts that
        it leaves over are received and discarded.
    """
    if ranks.rank == 0:
        _receive(ranks, layout, items, local, consume)
    else:
        _send(ranks, items, local)


def _send(ranks: MPI.Intracomm, items: Iterable[T], local: Callable[[T], Values]) -> None:
    for item in items:
        try:
            values = np.ascontiguousarray(local(item))
        except Exception:
            if ranks.recv(source=0) == _SEND:
                ranks.Send(np.empty(0), 0, _FAILED)
            raise
        if ranks.recv(source=0) == _STOP:
            return  # another rank failed and raises its error
        ranks.Send(values, 0, _VALUES)
    ranks.recv(source=0)


def _receive(
    ranks: MPI.Intracomm,
    layout: VectorLayout,
    items: Iterable[T],
    local: Callable[[T], Values],
    consume: Callable[[T, Parts], None],
) -> None:
    waiting = set(range(1, ranks.size))  # the ranks that wait for a request or the stop

    def parts(item: T) -> Parts:
        blocks = block_ranges(layout.num_blocks, ranks.size)
        yield blocks[0], local(item)
        for rank in range(1, ranks.size):
            values = np.empty(layout.shape_of(len(blocks[rank])))
            ranks.send(_SEND, rank)
            status = MPI.Status()
            ranks.Recv(values, rank, MPI.ANY_TAG, status)
            if status.tag == _FAILED:
                waiting.discard(rank)
                raise _PartMissing
            yield blocks[rank], values

    try:
        for item in items:
            pieces = parts(item)
            consume(item, pieces)
            deque(pieces, maxlen=0)
    except _PartMissing:
        pass
    finally:
        for rank in waiting:
            ranks.send(_STOP, rank)
