"""Agreement on errors: a block of local work raises the same error on all ranks if it fails on any."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import RemoteError
from .library import MPI


@contextmanager
def agreement(ranks: MPI.Intracomm, phase: str) -> Iterator[None]:
    """Run a block on all ranks such that it fails on all of them if it fails on any.

    The block must not communicate. Every rank raises the error of the lowest rank that failed: the same type, the
    same message, with a note that names the rank and the phase.

    Parameters
    ----------
    ranks : mpi4py.MPI.Intracomm
        The ranks.
    phase : str
        The work of the block, for the note.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as caught:  # the other ranks must raise it too, whatever its type
        error = caught
    failed = ranks.allreduce(ranks.size if error is None else ranks.rank, MPI.MIN)
    if failed == ranks.size:
        return
    report = None if error is None else (type(error).__name__, str(error), _pickled(type(error)))
    name, message, kind = ranks.bcast(report, failed)
    if ranks.rank != failed or error is None:
        error = _rebuild(name, message, kind)
    error.add_note(f"(on rank {failed}, while {phase})")
    error.agreed = True  # type: ignore[attr-defined]  # every rank raises it, so the runner need not abort
    try:
        raise error
    finally:
        del error  # in the frame of its own traceback it would keep the caller's objects alive


def _pickled(kind: type[Exception]) -> bytes:
    """Return an exception's type, pickled; no bytes if it cannot be pickled, such as a local class."""
    try:
        return pickle.dumps(kind)
    except Exception:
        return b""


def _rebuild(name: str, message: str, kind: bytes) -> Exception:
    """Return another rank's exception; a RemoteError if this rank cannot construct it from its message."""
    try:
        return pickle.loads(kind)(message)  # type: ignore[no-any-return]
    except Exception:
        return RemoteError(f"{name}: {message}")
