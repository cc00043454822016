"""The process grid of the command: its flags, and its Comm."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..comm import Comm
from ..errors import ArgumentError
from . import launcher
from .arguments import one_of, positive


@dataclass(frozen=True)
class GridOptions:
    """The checked flags of the process grid. Comments name the flags of attributes."""

    ranks: int | None  # -n
    proc_rows: int | None  # -pr
    proc_cols: int | None  # -pc
    backend: str
    collectives: str


def add(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `GridOptions`; sizes default to None, which distinguishes them from given ones."""
    flag = parser.add_argument
    flag("-n", dest="ranks", type=positive, metavar="RANKS", help="start RANKS ranks on this machine")
    flag("-pr", dest="proc_rows", type=positive, metavar="ROWS", help="rows of the process grid (default 1)")
    flag("-pc", dest="proc_cols", type=positive, metavar="COLS", help="columns (default 1; all ranks without -pr)")
    flag("--backend", type=one_of("auto", "cpu", "cuda"), default="auto", metavar="NAME", help="auto, cpu or cuda")
    flag("--collectives", type=one_of("auto", "mpi", "nccl"), default="auto", metavar="NAME", help="auto, mpi or nccl")


@contextmanager
def process_grid(options: GridOptions) -> Iterator[Comm]:
    """Open the Comm of the options for the body, and close it afterwards; collective.

    An error that the ranks did not agree on may be one rank's alone. It aborts all ranks, since the others would wait
    for that rank forever.

    Raises
    ------
    ArgumentError
        The number of ranks that the launcher started is not that of the options.
    """
    unset = options.proc_rows is None and options.proc_cols is None
    shape = (1, None) if unset else (options.proc_rows or 1, options.proc_cols or 1)
    try:
        with Comm(None, *shape, backend=options.backend, collectives=options.collectives) as comm:
            with comm.agreement("counting the ranks"):
                if options.ranks not in (None, comm.world_size):
                    raise ArgumentError(f"-n: expected the launcher's {comm.world_size} ranks, found {options.ranks}")
            yield comm
    except BaseException as error:
        if not getattr(error, "agreed", False):
            launcher.abort_ranks(error)
        raise
