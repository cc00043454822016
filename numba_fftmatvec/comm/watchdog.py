"""Waiting for other ranks: with a time limit, and with interrupts between messages instead of within them."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..arguments import positive_number
from ..backends.cores import available_cores
from ..errors import BackendError, ClosedError, CollectiveTimeout, FFTMatvecError
from .library import MPI

ENVIRONMENT_VARIABLE = "NUMBA_FFTMATVEC_TIMEOUT"
DEFAULT_SECONDS = 300.0

# A message is tested without a pause at first, which suits ranks that arrive together: for some 5 ms where each rank
# has a core. Then other processes may use the core between the tests, and in the end the process sleeps.
_SPINS = {True: 20_000, False: 50}
_YIELDS = 2000
_SHORTEST, _LONGEST = 5e-5, 2e-3  # seconds of a sleep

# A device is asked without a pause for as long as most products take, since a sleep would add to their time.
_DEVICE_SPIN_SECONDS = 0.02
_CHECK_SECONDS = 2e-3  # between two questions to NCCL for errors

# Seconds that a message may still take after an interrupt. Ranks that are in step need less.
_GRACE = 5.0

# Operations that are started and not known to be complete. MPI may still read and write their memory, so it must not be
# freed. The set has one reference for ever: Python frees what modules hold before MPI ends.
_under_way: set[object] = set()
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_under_way))

# The tag of the messages in which a rank that waits for long reports the number of the message that it waits for.
_ARRIVED = 32_001


def time_limit(seconds: object) -> float:
    """Return the seconds of the argument `timeout`; by default those of the environment variable, else 300.

    Raises
    ------
    ArgumentError
        The value is not a positive number.
    """
    if seconds is not None:
        return positive_number(seconds, "timeout")
    value = os.environ.get(ENVIRONMENT_VARIABLE)
    if value is None:
        return DEFAULT_SECONDS
    try:
        seconds = float(value)
    except ValueError:
        seconds = value
    return positive_number(seconds, ENVIRONMENT_VARIABLE)


class Operation:
    """A non-blocking operation, which is started once.

    Parameters
    ----------
    start : callable
        ``start(message)`` starts the operation and returns its request. It must run no Python code: it is a method of a
        communicator, or a `functools.partial` of one.
    message : object
        The memory of the message.
    """

    def __init__(self, start: Callable[[Any], MPI.Request], message: Any) -> None:
        self.requests: list[MPI.Request] = []
        self._start = start
        self._message = message

    def begin(self) -> None:
        """Start the operation if it is not started. Its memory stays allocated until `complete`."""
        if not self.requests:
            _under_way.add(self)
            # The loop inside `extend` runs no Python code, so that no interrupt comes between start and store.
            self.requests.extend(map(self._start, (self._message,)))

    def complete(self) -> bool:
        """Return whether the operation is complete, so that MPI does not use its memory any more."""
        found = bool(self.requests[0].Test())
        if found:
            _under_way.discard(self)
        return found


class Watch:
    """Completes non-blocking operations of a communicator, each within a time limit.

    An interrupt (any exception of a signal handler) that comes during an operation is raised after the operation, by
    `raise_interrupt`, so that the ranks stay in step. An operation that is not complete some seconds after an
    interrupt, or after the time limit, is given up. From then on the communicator cannot be used, and the memory of the
    operation stays allocated.

    Parameters
    ----------
    ranks : mpi4py.MPI.Intracomm
        The communicator.
    timeout : float
        The time limit in seconds.

    Attributes
    ----------
    has_core : bool
        Whether this rank has a core for itself, so that it may test messages without a pause for longer. Until the
        Comm finds this out, all ranks are assumed to be on one node.
    given_up : str or None
        The phase in which an operation was given up.
    """

    def __init__(self, ranks: MPI.Intracomm, timeout: float) -> None:
        self.ranks = ranks
        self.timeout = timeout
        self.has_core = ranks.size <= available_cores()
        self.given_up: str | None = None
        #: NCCL's communicators, which are aborted when a message is given up.
        self.communicators: list[Any] = []
        #: Called before the abort, which waits for graphs that hold NCCL's operations: they drop these graphs.
        self.before_abort: list[Callable[[], object]] = []
        self._interrupt: BaseException | None = None
        self._presence = _Presence(ranks)

    def complete(
        self,
        phase: str,
        *operations: Operation,
        follow: Callable[[], Sequence[Operation]] = tuple,
        partner: int | None = None,
    ) -> None:
        """Complete operations one after another, and then those that `follow` returns.

        An interrupt at any moment repeats this method's work, which starts no operation twice.

        Parameters
        ----------
        phase : str
            The work, for errors.
        *operations : Operation
            The operations. Those that are complete already are left as they are.
        follow : callable
            Returns further operations, which depend on the results of the first ones; always the same.
        partner : int, optional
            The rank at the other end; by default all ranks take part.

        Raises
        ------
        CollectiveTimeout
            The time limit is over. The message names the missing ranks.
        ClosedError
            An operation was given up before.
        """
        self._check_in_step(phase)
        if partner is None:
            self._presence.number += 1
        limit = time.monotonic() + self.timeout
        while True:
            try:
                if self._completed(operations, limit, partner) and self._completed(follow(), limit, partner):
                    return
            except MPI.Exception:
                self._abort(phase)
                raise
            except BaseException as interrupt:  # from a signal handler
                if self._interrupt is not None:
                    self._abort(phase)
                    raise
                self._interrupt = interrupt
                limit = min(limit, time.monotonic() + _GRACE)
                continue
            late = self._late(partner)
            self._abort(phase)
            self.raise_interrupt()
            raise CollectiveTimeout(f"{phase}: {late}")

    def _completed(self, operations: Sequence[Operation], limit: float, partner: int | None) -> bool:
        for operation in operations:
            operation.begin()
            request = operation.requests[0]
            if not (_spun(request, _SPINS[self.has_core]) or self._waited(request, limit, partner)):
                return False
            operation.complete()
        return True

    def finish(self, work: Callable[[], None]) -> None:
        """Do work that messages of other ranks depend on, and repeat it after an interrupt.

        Parameters
        ----------
        work : callable
            Completes operations; it can be repeated.
        """
        while self.given_up is None:
            try:
                return work()
            except (FFTMatvecError, MPI.Exception):
                raise
            except BaseException as interrupt:  # from a signal handler
                if self._interrupt is not None:
                    self._abort("ending messages")
                    raise
                self._interrupt = interrupt

    def complete_device(self, phase: str, done: Callable[[], bool]) -> None:
        """Wait until a device has done its work, which may wait for other ranks in NCCL's operations.

        Parameters
        ----------
        phase : str
            The work, for errors.
        done : callable
            Whether the work is done.

        Raises
        ------
        CollectiveTimeout
            The time limit is over. NCCL's communicators are aborted.
        BackendError
            NCCL reports an error, for example of a lost rank. The communicators are aborted.
        ClosedError
            An operation was given up before.
        """
        self._check_in_step(phase)
        started = checked = time.monotonic()
        while not done():
            now = time.monotonic()
            if now - checked > _CHECK_SECONDS:
                checked = now
                self._check_communicators(phase)
            if now - started > _DEVICE_SPIN_SECONDS:
                time.sleep(_SHORTEST)
            if now - started > self.timeout:
                self._abort(phase)
                raise CollectiveTimeout(
                    f"{phase}: expected the device's work within {self.timeout:g} s, found it unfinished; "
                    "another rank may not have joined it"
                )

    def complete_call(self, phase: str, function: Callable[[], Any]) -> Any:
        """Return the result of a function that waits for other ranks.

        After the time limit the function goes on in a thread. The errors are those of `complete_device` and of the
        function.
        """
        outcome: list[tuple[Any, BaseException | None]] = []

        def run() -> None:
            try:
                outcome.append((function(), None))
            except BaseException as error:
                outcome.append((None, error))

        threading.Thread(target=run, daemon=True).start()
        self.complete_device(phase, lambda: bool(outcome))
        found, error = outcome[0]
        if error is not None:
            raise error
        return found

    def _check_communicators(self, phase: str) -> None:
        for communicator in self.communicators:
            try:
                communicator.check_async_error()
            except Exception as error:
                self._abort(phase)
                raise BackendError(f"{phase}: expected NCCL without an error, found: {error}") from error

    def _abort(self, phase: str) -> None:
        """Give up, and end the operations of NCCL that wait for other ranks."""
        self.given_up = phase
        while self.before_abort:
            self.before_abort.pop()()
        while self.communicators:
            self.communicators.pop().abort()

    def _check_in_step(self, phase: str) -> None:
        if self.given_up is not None:
            raise ClosedError(
                f"{phase}: expected ranks in step, found a Comm that gave up a message while {self.given_up}"
            )

    def raise_interrupt(self) -> None:
        """Raise an interrupt that came during an operation."""
        interrupt, self._interrupt = self._interrupt, None
        if interrupt is not None:
            try:
                raise interrupt
            finally:
                del interrupt  # in the frame of its own traceback it would keep the caller's objects alive

    def _waited(self, request: MPI.Request, limit: float, partner: int | None) -> bool:
        """Wait until the request is complete and return True, or until the limit and return False."""
        ask = limit - self.timeout / 2
        pause = _SHORTEST
        while not request.Test():
            now = time.monotonic()
            if now >= limit:
                return False
            if partner is None:
                self._presence.exchange(now >= ask)
            time.sleep(pause)
            pause = min(1.5 * pause, _LONGEST)
        return True

    def _late(self, partner: int | None) -> str:
        expected = f"expected a message of every rank within {self.timeout:g} s"
        if partner is not None:
            return f"{expected}, found none of rank {partner}"
        missing = self._presence.missing()
        return (
            f"{expected}, found none of {named_ranks(missing)}" if missing else f"{expected}, found an incomplete one"
        )


class _Presence:
    """Finds out which ranks wait for the same message as this one.

    Ranks count the messages of a communicator. A rank that has waited for half of the time limit sends its count to all
    others. Every rank that waits answers with its own.
    """

    def __init__(self, ranks: MPI.Intracomm) -> None:
        self.number = 0
        self._ranks = ranks
        self._reached = np.zeros(ranks.size, np.int64)
        self._sent = np.zeros(1, np.int64)
        self._sending: list[Operation] = []
        self._count = np.zeros(1, np.int64)
        self._status = MPI.Status()

    def exchange(self, ask: bool) -> None:
        """Receive the counts that have arrived; send this rank's once, if it is to `ask` or another one asked."""
        status, count = self._status, self._count
        while self._ranks.Iprobe(MPI.ANY_SOURCE, _ARRIVED, status):
            self._ranks.Recv(count, status.source, _ARRIVED)
            self._reached[status.source] = max(count[0], self._reached[status.source])
            ask = ask or count[0] >= self.number
        if ask and self._sent[0] < self.number:
            self._sent[0] = self.number
            others = (rank for rank in range(self._ranks.size) if rank != self._ranks.rank)
            self._sending += [
                Operation(partial(self._ranks.Isend, dest=rank, tag=_ARRIVED), self._sent) for rank in others
            ]
            for operation in self._sending:
                operation.begin()
            self._sending = [operation for operation in self._sending if not operation.complete()]

    def missing(self) -> list[int]:
        """Return the ranks that are not known to have reached this rank's message."""
        self._reached[self._ranks.rank] = self.number
        return [rank for rank, count in enumerate(self._reached.tolist()) if count < self.number]


def named_ranks(ranks: list[int]) -> str:
    """Return ``rank 3``, or ``ranks 1, 2, 3``, with at most twenty of them."""
    shown = ", ".join(map(str, ranks[:20])) + (f" and {len(ranks) - 20} more" if len(ranks) > 20 else "")
    return f"{'rank' if len(ranks) == 1 else 'ranks'} {shown}"


def _spun(request: MPI.Request, spins: int) -> bool:
    """Test a request repeatedly for a short time; return whether it is complete."""
    for _ in range(spins):
        if request.Test():
            return True
    for _ in range(_YIELDS):
        if request.Test():
            return True
        os.sched_yield()
    return False
