"""Vectors that are spread over ranks, collected part by part on one of them: for files, which one rank writes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from ..layout import VectorLayout, block_ranges

T = TypeVar("T")
Values = npt.NDArray[np.float64]
Parts = Iterator[tuple[range, Values]]

# The first rank asks for each part, and tells the others when it is done: no message is ever left unreceived.
_SEND, _STOP = 1, 0
_VALUES, _FAILED = 1, 2  # tags of the answers


class _PartMissing(Exception):
    """Another rank could not send its part; its own error says why."""


def collect(
    ranks: MPI.Intracomm,
    layout: VectorLayout,
    items: Iterable[T],
    local: Callable[[T], Values],
    consume: Callable[[T, Parts], None],
) -> None:
    """Have vectors consumed one by one on the first rank, part by part. The ranks end together, whatever fails.

    An error of `consume` or of `local` is raised on the rank that met it, and the other ranks stop without an error.
    The caller's agreement raises it on all of them.

    Parameters
    ----------
    ranks : mpi4py.MPI.Intracomm
        The ranks that hold the parts, in the order of the parts.
    layout : VectorLayout
        The layout of each vector.
    items : iterable
        The vectors, the same on every rank.
    local : callable
        ``local(item)`` returns this rank's part, of the layout's local shape.
    consume : callable
        ``consume(item, parts)``, called on the first rank, where `parts` yields each part's blocks and values. Parts
        that it does not take are received all the same.
    """
    if ranks.rank == 0:
        _receive(ranks, layout, items, local, consume)
    else:
        _send(ranks, items, local)


def _send(ranks: MPI.Intracomm, items: Iterable[T], local: Callable[[T], Values]) -> None:
    for item in items:
        error: Exception | None = None
        try:
            values = np.ascontiguousarray(local(item))
        except Exception as caught:
            error, values = caught, np.empty(0)
        if ranks.recv(source=0) == _STOP:
            return  # the first rank failed, or another one: their errors count
        ranks.Send(values, 0, _VALUES if error is None else _FAILED)
        if error is not None:
            raise error
    ranks.recv(source=0)


def _receive(
    ranks: MPI.Intracomm,
    layout: VectorLayout,
    items: Iterable[T],
    local: Callable[[T], Values],
    consume: Callable[[T, Parts], None],
) -> None:
    waiting = set(range(1, ranks.size))  # the ranks that wait for a request or the end

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
