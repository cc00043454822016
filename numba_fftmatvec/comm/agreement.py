"""Agreement on errors: a block of work raises the same error on all ranks if it fails on any.

Every block ends with one message of a fixed size from each rank to all others, its record: whether the rank failed, a
digest of the call and its arguments, and up to six values that the block returns to all ranks. Blocks may contain
blocks. A rank that fails between two messages sends its record as the next one, and so meets the others at whichever
message they have reached.
"""

from __future__ import annotations

import hashlib
import json
import numbers
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import AgreementError, named_error
from . import reports
from .library import MPI
from .watchdog import Operation, Watch, named_ranks

Arguments = Mapping[str, object]

# The 64-bit words of a record: length of the report of an error, or 0; digest; values.
_REPORT, _DIGEST, _VALUES, _WORDS = 0, 1, 2, 8
_PLAIN = {bool, float, int, str, type(None)}
LONGEST_SHOWN = 200  # characters of an argument in a message


class Meeting:
    """The agreements of the ranks of one communicator.

    Parameters
    ----------
    ranks : mpi4py.MPI.Intracomm
        The communicator. Its other messages go through this object too.
    timeout : float
        The time limit of a message in seconds.
    """

    def __init__(self, ranks: MPI.Intracomm, timeout: float) -> None:
        self.size: int = ranks.size
        self.rank: int = ranks.rank
        self.watch = Watch(ranks, timeout)
        #: Number of agreements so far.
        self.count = 0
        self._ranks = ranks
        self._record = np.zeros(_WORDS)
        self._records = np.zeros((self.size, _WORDS))
        self._words, self._all_words = self._record.view(np.int64), self._records.view(np.int64)

    def agreement(self, phase: str, arguments: Arguments | None = None) -> Agreement:
        """Return the context of a block. See `Comm.agreement`."""
        return Agreement(self, phase, arguments)

    def conclude(self, agreement: Agreement, error: BaseException | None) -> BaseException | None:
        """End a block: return the error that every rank raises, or None after setting the block's `stacked` values."""
        report, text = b"", ""
        try:
            error = error and named_error(error, agreement.phase)
            report = reports.encode(error) if error is not None else b""
            if self.size > 1:
                text = repr((agreement.phase, plain(agreement.arguments), len(agreement.values)))
        except BaseException as late:  # an interrupt: the other ranks must not wait
            error, report = late, reports.encode(late)
        message = self._exchange(agreement, report, text)
        failed, alike = self._outcome()
        shared: BaseException | None = None
        if failed is not None:
            shared = error if self.rank == failed and error is not None else reports.decode(message)
            shared.add_note(f"(on rank {failed}, while {agreement.phase})")
        elif not alike:
            shared = self._difference(agreement)
        elif 0 < (count := len(agreement.values)) <= _WORDS - _VALUES:
            agreement.stacked[...] = self._records[:, _VALUES : _VALUES + count]
        self.watch.raise_interrupt()
        return shared

    def _exchange(self, agreement: Agreement, report: bytes, text: str) -> bytearray:
        """Exchange the records and complete the messages that follow; return the report of the rank that failed."""
        self.count += 1
        count = len(agreement.values)
        self._words[_REPORT] = len(report)
        self._words[_DIGEST] = _digest(text) if self.size > 1 else 0
        if 0 < count <= _WORDS - _VALUES:
            self._record[_VALUES : _VALUES + count] = agreement.values
        message = bytearray(report)
        if self.size == 1:
            self._records[0] = self._record
            return message
        shared: list[Operation] = []

        def follow() -> list[Operation]:
            """Return the broadcast of the report, or what follows a block without errors."""
            failed, alike = self._outcome()
            if failed is None:
                return agreement.following if alike else []
            if not shared:
                if self.rank != failed:
                    message[:] = bytes(int(self._all_words[failed, _REPORT]))
                shared.append(Operation(partial(self._ranks.Ibcast, root=failed), message))
            return shared

        if count > _WORDS - _VALUES:
            values = Operation(partial(self._ranks.Iallgather, recvbuf=agreement.stacked), agreement.values)
            agreement.following.insert(0, values)
        agreement.exchange = Operation(partial(self._ranks.Iallgather, recvbuf=self._records), self._record)
        self.watch.complete(agreement.phase, agreement.exchange, follow=follow)
        return message

    def alike(self) -> bool:
        """Return whether the last block passed on all ranks."""
        failed, alike = self._outcome()
        return failed is None and alike and self.watch.given_up is None

    def _outcome(self) -> tuple[int | None, bool]:
        """Return the lowest rank that failed, and whether all digests are the same, by the present records."""
        mine = self._words[:_VALUES]
        if not mine[_REPORT] and (self._all_words[:, :_VALUES] == mine).all():  # the usual case, by one comparison
            return None, True
        failures, digests = self._all_words[:, _REPORT], self._all_words[:, _DIGEST]
        failed = int(np.flatnonzero(failures)[0]) if failures.any() else None
        return failed, bool((digests == digests[0]).all())

    def has_agreed(self, error: BaseException | None, count: int = 0) -> bool:
        """Return whether all ranks raise the error since an agreement after the one of number `count`."""
        meeting, number = getattr(error, "_agreed", (0, 0))
        return bool(meeting == id(self) and number > count)

    def gather_bytes(self, phase: str, mine: bytes) -> list[bytes]:
        """Return the bytes of all ranks, in the order of the ranks."""
        with self.agreement(phase) as agreed:
            agreed.share([len(mine)])
        counts = [int(count) for count in agreed.stacked[:, 0]]
        if self.size == 1:
            return [mine]
        with self.agreement(phase) as sending:
            everything = bytearray(sum(counts))
            sending.then(partial(self._ranks.Iallgatherv, recvbuf=[everything, counts, MPI.BYTE]), mine)
        ends = np.cumsum(counts).tolist()
        return [bytes(everything[end - count : end]) for end, count in zip(ends, counts, strict=True)]

    def ranks_of(self, line: MPI.Intracomm) -> list[int]:
        """Return the ranks of this object's communicator that form another one, in the order of the latter."""
        groups = line.Get_group(), self._ranks.Get_group()
        found: list[int] = list(MPI.Group.Translate_ranks(groups[0], list(range(line.size)), groups[1]))
        for group in groups:
            group.Free()
        return found

    def _difference(self, agreement: Agreement) -> AgreementError:
        """Return the error that shows the differing calls or arguments by rank."""
        count = len(agreement.values)
        content = _shown({"call": agreement.phase, **(agreement.arguments or {}), "number of values": count})
        gathered = self.gather_bytes("comparing the ranks' calls", json.dumps(content).encode())
        return AgreementError(difference([json.loads(call) for call in gathered], agreement.phase))


def difference(calls: list[dict[str, str]], phase: str) -> str:
    """Return the message on ranks in different calls, or in one call with different arguments.

    Parameters
    ----------
    calls : list of dict
        The call and the arguments of each rank, by name.
    phase : str
        This rank's call.
    """
    alike = len({call["call"] for call in calls}) == 1
    names = list(dict.fromkeys(name for call in calls for name in call)) if alike else ["call"]
    found = []
    for name in names:
        ranks: dict[str, list[int]] = {}
        for rank, call in enumerate(calls):
            ranks.setdefault(call.get(name, "nothing"), []).append(rank)
        if len(ranks) > 1:
            found.append(f"{name}: " + ", ".join(f"{value} on {named_ranks(where)}" for value, where in ranks.items()))
    where = phase if alike else "collective call"
    return f"{where}: expected the same call and arguments on every rank, found {'; '.join(found)}"


class Agreement:
    """A block that fails on all ranks if it fails on any; the context that `Meeting.agreement` returns.

    Attributes
    ----------
    values : (n,) array of float64
        This rank's values; none by default.
    stacked : (ranks, n) array of float64
        The values of all ranks, after the block.
    """

    __slots__ = ("_count", "_meeting", "arguments", "exchange", "following", "phase", "stacked", "values")

    def __init__(self, meeting: Meeting, phase: str, arguments: Arguments | None) -> None:
        self.phase = phase
        self.arguments = arguments
        self.values: Any = ()
        self.stacked: Any = None
        self.following: list[Operation] = []
        self.exchange: Operation | None = None
        self._meeting = meeting

    def share(self, values: npt.ArrayLike) -> None:
        """Set this rank's values, as many as on every other rank. They add no message if they are at most 6."""
        mine = np.ascontiguousarray(values, np.float64)
        self.stacked = np.empty((self._meeting.size, len(mine)))
        self.stacked[self._meeting.rank] = mine
        self.values = mine

    def then(self, start: Callable[[Any], MPI.Request], message: Any) -> None:
        """Set a collective operation that follows if no rank fails; see `Operation`. Several follow in their order."""
        self.following.append(Operation(start, message))

    def passed(self) -> bool:
        """Return whether all ranks have ended the block without an error, before another block ends."""
        return self.exchange is not None and bool(self.exchange.requests) and self._meeting.alike()

    def __enter__(self) -> Agreement:
        """Return the block."""
        self._count = self._meeting.count
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the block with a message; raise the error of the lowest rank that failed."""
        meeting = self._meeting
        if error is None and meeting.size == 1:
            return
        if isinstance(error, GeneratorExit) or meeting.has_agreed(error, self._count):
            return
        if error is not None and meeting.watch.given_up is not None:
            return  # no message can follow
        shared = meeting.conclude(self, error)
        if shared is None:
            return
        with suppress(Exception):
            shared._agreed = id(meeting), meeting.count  # type: ignore[attr-defined]
            shared.agreed = True  # type: ignore[attr-defined]  # every rank raises it, so the runner need not abort
        if shared is error:
            return
        try:
            raise shared
        finally:
            del shared  # in the frame of its own traceback it would keep the caller's objects alive


def plain(value: object) -> Any:
    """Return an argument as a value whose ``repr`` is the same on all ranks: a number, a string, or the type's name."""
    if type(value) in _PLAIN:
        return value
    if value is None or isinstance(value, str | bool):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return tuple(map(plain, value))
    if isinstance(value, bytes | os.PathLike):
        return os.fsdecode(value)
    return type(value).__name__


def _shown(arguments: Arguments) -> dict[str, str]:
    """Return the arguments as bounded strings."""
    found = {name: repr(value) for name, value in plain(arguments).items()}
    return {name: text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..." for name, text in found.items()}


def _digest(text: str) -> int:
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
