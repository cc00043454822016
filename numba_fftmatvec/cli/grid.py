"""The process grid of the command: its flags, and its Comm."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Literal

from ..comm import Comm
from ..errors import ArgumentError
from . import launcher
from .arguments import one_of, positive, positive_or_auto


@dataclass(frozen=True)
class GridOptions:
    """The checked flags of the process grid. Comments name the flags of attributes."""

    ranks: int | None  # -n
    proc_rows: int | Literal["auto"] | None  # -pr
    proc_cols: int | None  # -pc
    backend: str
    collectives: str


def add(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `GridOptions`; sizes default to None, which distinguishes them from given ones."""
    flag = parser.add_argument
    flag("-n", dest="ranks", type=positive, metavar="RANKS", help="start RANKS ranks on this machine")
    rows = (
        "rows of the process grid (default 1), or auto: the fastest grid by the model of best_grid, with global sizes"
    )
    flag("-pr", dest="proc_rows", type=positive_or_auto, metavar="ROWS", help=rows)
    flag("-pc", dest="proc_cols", type=positive, metavar="COLS", help="columns (default 1; all ranks without -pr)")
    flag("--backend", type=one_of("auto", "cpu", "cuda"), default="auto", metavar="NAME", help="auto, cpu or cuda")
    flag("--collectives", type=one_of("auto", "mpi", "nccl"), default="auto", metavar="NAME", help="auto, mpi or nccl")


def check_combination(given: Mapping[str, Any]) -> None:
    """Raise an ArgumentError for a flag of the grid that has no meaning together with the others."""
    if given["proc_rows"] == "auto" and given["proc_cols"] is not None:
        raise ArgumentError(f"-pc: expected without -pr auto, which sets the columns, found {given['proc_cols']}")


def grid_options(given: Mapping[str, Any]) -> GridOptions:
    """Return the options of the parsed flags; raise an ArgumentError for a flag that has no meaning beside others."""
    check_combination(given)
    return GridOptions(**{field.name: given[field.name] for field in fields(GridOptions)})


def start_ranks(options: GridOptions, command: str, arguments: Sequence[str]) -> None:
    """Replace this process by the ranks of ``-n``, which run the same command, unless a launcher started ranks."""
    if options.ranks is not None and not launcher.is_launched(os.environ):
        launcher.relaunch(options.ranks, [command, *arguments])


@contextmanager
def process_grid(options: GridOptions, choose: Callable[[Comm], tuple[int, int]] | None = None) -> Iterator[Comm]:
    """Open the Comm of the options for the body, and close it afterwards; collective.

    An error that the ranks did not agree on may be one rank's alone. It aborts all ranks, since the others would wait
    for that rank forever.

    Parameters
    ----------
    options : GridOptions
        The flags.
    choose : callable, optional
        ``choose(comm)`` returns the grid (proc_rows, proc_cols) for ``-pr auto``. It is called on all ranks, with a
        Comm of all of them in one row.

    Raises
    ------
    ArgumentError
        The number of ranks that the launcher started is not that of the options, or they have ``-pr auto`` without
        `choose`.
    """
    try:
        shape = _shape(options, choose)
        with Comm(None, *shape, backend=options.backend, collectives=options.collectives) as comm:
            with comm.agreement("counting the ranks"):
                if options.ranks not in (None, comm.world_size):
                    raise ArgumentError(f"-n: expected the launcher's {comm.world_size} ranks, found {options.ranks}")
            yield comm
    except BaseException as error:
        if not getattr(error, "agreed", False):
            launcher.abort_ranks(error)
        raise


def _shape(options: GridOptions, choose: Callable[[Comm], tuple[int, int]] | None) -> tuple[int, int | None]:
    """Return the arguments proc_rows and proc_cols of the Comm; collective."""
    rows, cols = options.proc_rows, options.proc_cols
    if rows != "auto":
        return (1, None) if rows is None and cols is None else (rows or 1, cols or 1)
    with Comm(None, backend=options.backend, collectives="mpi") as comm:
        with comm.agreement("choosing the process grid"):
            if choose is None:
                raise ArgumentError("-pr: expected a number of rows, since no sizes are known, found auto")
        return comm.bcast(choose(comm))
