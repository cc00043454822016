"""mpi4py's module MPI, imported at its first use.

The import starts MPI in the process. A program that imports this package without a Comm must not start it: MPI's
libraries end a child process that a rank has spawned and that starts MPI again.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from ..errors import BackendError, ForkedError


def _imported() -> Any:
    """Return the module mpi4py.MPI; a BackendError says why no MPI library can be loaded."""
    try:
        return importlib.import_module("mpi4py.MPI")
    except (ImportError, RuntimeError) as error:
        found = " ".join(str(error).split())
        raise BackendError(
            f"MPI: expected a library that mpi4py can load, found: {found}; "
            f"pip install 'numba-fftmatvec[mpich]', or load the site's MPI"
        ) from error


if TYPE_CHECKING:
    from mpi4py import MPI
else:

    class _Library:
        """The names of mpi4py.MPI; the first use of each looks it up."""

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):  # inspections of this object are not a use of MPI
                raise AttributeError(name)
            value = getattr(_imported(), name)
            setattr(self, name, value)
            return value

    MPI = _Library()

__all__ = ["MPI", "check_process"]

_started_by_parent = False


def _after_fork() -> None:
    global _started_by_parent
    _started_by_parent = "mpi4py.MPI" in sys.modules


def check_process() -> None:
    """Raise a ForkedError in a child process that was forked after MPI was started: no library of MPI works there."""
    if _started_by_parent:
        raise ForkedError(
            f"process {os.getpid()}: expected one that starts MPI itself, found a child that was forked from a process "
            "with MPI; the start method 'spawn' of multiprocessing makes processes that can use a Comm"
        )


os.register_at_fork(after_in_child=_after_fork)
