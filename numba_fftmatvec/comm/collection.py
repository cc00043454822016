"""The collection of a distributed vector, part by part, on the one rank that writes a file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..layout import VectorLayout, block_ranges
from .agreement import Meeting
from .library import MPI

T = TypeVar("T")
Values = npt.NDArray[np.float64]
Parts = Iterator[tuple[range, Values]]

# The first rank requests each part and sends a stop at the end, so that every message is received. A rank answers a
# request with its part, after a message that says whether the part follows.
_STOP, _SEND, _FAILED, _FOLLOWS = (np.array([code]) for code in range(4))


class _PartMissing(Exception):
    """Another rank could not send its part and raises its own error."""


class Line:
    """Messages between the ranks of a row or column of the process grid, each within the Comm's time limit.

    Parameters
    ----------
    ranks : mpi4py.MPI.Intracomm
        The ranks of the line.
    meeting : Meeting
        The agreements of all ranks.
    phase : str
        The work, for errors.
    """

    def __init__(self, ranks: MPI.Intracomm, meeting: Meeting, phase: str) -> None:
        self.rank: int = ranks.rank
        self.size: int = ranks.size
        self.watch = meeting.watch
        self._ranks = ranks
        self._phase = phase
        self._code = np.zeros(1, _STOP.dtype)
        self._names = meeting.ranks_of(ranks)

    def send(self, array: npt.NDArray[Any], rank: int) -> None:
        """Send an array to a rank of the line."""
        start = self._ranks.Isend
        self.watch.complete(self._phase, lambda array: start(array, rank), array, self._names[rank])

    def receive(self, array: npt.NDArray[Any], rank: int) -> None:
        """Fill an array with that of a rank of the line."""
        start = self._ranks.Irecv
        self.watch.complete(self._phase, lambda array: start(array, rank), array, self._names[rank])

    def receives(self, code: npt.NDArray[Any], rank: int) -> bool:
        """Receive a code from a rank of the line; return whether it is the given one."""
        self.receive(self._code, rank)
        return bool(self._code[0] == code[0])


def collect(
    line: Line,
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
    line : Line
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
    if line.rank == 0:
        _receive(line, layout, items, local, consume)
    else:
        _send(line, items, local)


def _send(line: Line, items: Iterable[T], local: Callable[[T], Values]) -> None:
    requested = stopped = False
    try:
        for item in items:
            values = np.ascontiguousarray(local(item))
            line.watch.raise_interrupt()
            requested = line.receives(_SEND, 0)
            stopped = not requested
            if stopped:
                return  # another rank failed and raises its error
            line.send(_FOLLOWS, 0)
            line.send(values, 0)
            requested = False
        stopped = not line.receives(_SEND, 0)
    except BaseException:
        if line.watch.given_up is None and not stopped and (requested or line.receives(_SEND, 0)):
            line.send(_FAILED, 0)
        raise


def _receive(
    line: Line,
    layout: VectorLayout,
    items: Iterable[T],
    local: Callable[[T], Values],
    consume: Callable[[T, Parts], None],
) -> None:
    waiting = set(range(1, line.size))  # the ranks that wait for a request or the stop

    def parts(item: T) -> Parts:
        blocks = block_ranges(layout.num_blocks, line.size)
        yield blocks[0], local(item)
        for rank in range(1, line.size):
            values = np.empty(layout.shape_of(len(blocks[rank])))
            line.watch.raise_interrupt()
            line.send(_SEND, rank)
            if not line.receives(_FOLLOWS, rank):
                waiting.discard(rank)
                raise _PartMissing
            line.receive(values, rank)
            yield blocks[rank], values

    try:
        for item in items:
            pieces = parts(item)
            consume(item, pieces)
            deque(pieces, maxlen=0)
    except _PartMissing:
        pass
    finally:
        if line.watch.given_up is None:
            for rank in waiting:
                line.send(_STOP, rank)
