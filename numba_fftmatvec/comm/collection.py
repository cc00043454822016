"""The collection of a distributed vector, part by part, on the one rank that writes a file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..layout import VectorLayout, block_ranges
from .agreement import Meeting
from .library import MPI
from .watchdog import Operation

T = TypeVar("T")
Values = npt.NDArray[np.float64]
Parts = Iterator[tuple[range, Values]]

# The first rank requests each part and sends a stop at the end, so that every message is received. A rank answers a
# request with its part, after a message that says whether the part follows.
_STOP, _SEND, _FAILED, _FOLLOWS = range(4)


class _PartMissing(Exception):
    """Another rank could not send its part and raises its own error."""


class Line:
    """The messages of a collection in a row or column of the process grid, each within the Comm's time limit.

    All of its state is known at any moment, so that `leave` can end the exchange after an interrupt.

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
        self._names = meeting.ranks_of(ranks)
        # On the first rank: the stops of the ranks that wait for a message, and the parts that are on their way.
        self.stops = (
            {rank: self.send(np.array([_STOP]), rank) for rank in range(1, self.size)} if self.rank == 0 else {}
        )
        self.requested: dict[int, _Part] = {}
        # On the others: the answer to the next request.
        self._failure = self.send(np.array([_FAILED]), 0)
        self.answer = _Answer(self)

    def leave(self) -> None:
        """End the exchange: no message is left over, and no rank waits for one. It can be repeated."""
        if self.rank == 0:
            for rank in list(self.requested):
                if not self.requested[rank].outstanding():
                    self.stops.pop(rank, None)
            for rank, stop in self.stops.items():
                self.complete(rank, stop)
            return
        if self.answer.begun:
            self.answer.complete()
            self.answer = _Answer(self)
        if self.answer.requested():
            self.complete(0, self._failure)

    def send(self, array: npt.NDArray[Any], rank: int) -> Operation:
        """Return the operation that sends an array to a rank of the line."""
        return Operation(partial(self._ranks.Isend, dest=rank), array)

    def receive(self, array: npt.NDArray[Any], rank: int) -> Operation:
        """Return the operation that fills an array with that of a rank of the line."""
        return Operation(partial(self._ranks.Irecv, source=rank), array)

    def complete(self, rank: int, *operations: Operation) -> None:
        """Complete operations with a rank of the line; those that are complete stay as they are."""
        self.watch.complete(self._phase, *operations, partner=self._names[rank])


class _Answer:
    """The answer of a rank to one request of the first rank of its line."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._code = np.zeros(1, np.int64)
        self._request = line.receive(self._code, 0)
        self._answer: tuple[Operation, ...] = ()

    def requested(self) -> bool:
        """Wait for the request or the stop; return whether it was a request."""
        self._line.complete(0, self._request)
        return bool(self._code[0] == _SEND)

    @property
    def begun(self) -> bool:
        """Whether the values are on their way."""
        return bool(self._answer) and bool(self._answer[0].requests)

    def give(self, values: Values) -> None:
        """Answer the request with values."""
        self._answer = self._line.send(np.array([_FOLLOWS]), 0), self._line.send(values, 0)
        self.complete()

    def complete(self) -> None:
        """Wait until the values are sent."""
        self._line.complete(0, *self._answer)


class _Part:
    """The request of one part by the first rank of a line, and the part."""

    def __init__(self, line: Line, rank: int, values: Values) -> None:
        self.values = values
        self._line, self._rank = line, rank
        self._code = np.zeros(1, np.int64)
        self._request = line.send(np.array([_SEND]), rank)
        self._answer, self._values = line.receive(self._code, rank), line.receive(values, rank)

    def arrived(self) -> bool:
        """Request the part and wait for it; return whether it came."""
        self._line.complete(self._rank, self._request, self._answer)
        if self._code[0] != _FOLLOWS:
            return False
        self._line.complete(self._rank, self._values)
        return True

    def outstanding(self) -> bool:
        """Complete what was begun, after an error at any moment; return whether the rank waits for a message."""
        return not self._request.requests or self.arrived()


def collect(
    meeting: Meeting,
    ranks: MPI.Intracomm,
    layout: VectorLayout,
    items: Iterable[T],
    local: Callable[[T], Values],
    consume: Callable[[T, Parts], None],
    phase: str,
) -> None:
    """Pass vectors one by one, part by part, to `consume` on the first rank. An error is raised on all ranks.

    Parameters
    ----------
    meeting : Meeting
        The agreements of all ranks.
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
    phase : str
        The work, for errors.
    """
    entered = meeting.agreement(phase, layout.description)  # a rank that has failed is missing in the exchange
    lines: list[Line] = []

    def leave() -> None:
        if entered.passed():
            meeting.watch.finish(lines[0].leave)

    with meeting.agreement(phase, layout.description):
        try:
            try:
                with entered:
                    lines.append(Line(ranks, meeting, phase))
                if lines[0].rank == 0:
                    _receive(lines[0], layout, items, local, consume)
                else:
                    _send(lines[0], items, local)
            finally:
                leave()
        except BaseException:  # of the exchange, or an interrupt between it and its end
            leave()
            raise


def _send(line: Line, items: Iterable[T], local: Callable[[T], Values]) -> None:
    for item in items:
        values = np.ascontiguousarray(local(item))
        line.watch.raise_interrupt()
        if not line.answer.requested():
            return  # another rank failed and raises its error
        line.answer.give(values)
        line.answer = _Answer(line)


def _receive(
    line: Line,
    layout: VectorLayout,
    items: Iterable[T],
    local: Callable[[T], Values],
    consume: Callable[[T, Parts], None],
) -> None:
    def parts(item: T) -> Parts:
        blocks = block_ranges(layout.num_blocks, line.size)
        yield blocks[0], local(item)
        for rank in range(1, line.size):
            part = _Part(line, rank, np.empty(layout.shape_of(len(blocks[rank]))))
            line.watch.raise_interrupt()
            line.requested[rank] = part
            if not part.arrived():
                raise _PartMissing
            del line.requested[rank]
            yield blocks[rank], part.values

    try:
        for item in items:
            pieces = parts(item)
            consume(item, pieces)
            deque(pieces, maxlen=0)
    except _PartMissing:
        pass
