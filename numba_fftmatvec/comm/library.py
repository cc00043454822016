"""mpi4py's module MPI, imported at its first use.

The import starts MPI in the process. A program that imports this package without a Comm must not start it: MPI's
libraries end a child process that a rank has spawned and that starts MPI again.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpi4py import MPI
else:

    class _Library:
        """The names of mpi4py.MPI; the first use of each looks it up."""

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):  # inspections of this object are not a use of MPI
                raise AttributeError(name)
            value = getattr(importlib.import_module("mpi4py.MPI"), name)
            setattr(self, name, value)
            return value

    MPI = _Library()

__all__ = ["MPI"]
