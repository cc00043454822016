"""Tables and JSON on the standard output. Texts are printed as they are: ``[ms]`` is a unit, no markup."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDE = 1000  # columns of an output that is no terminal, where lines do not wrap


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> Table:
    """Return a table.

    Parameters
    ----------
    title : str
        The line above the table.
    headings : sequence of str
        The headings of the columns, with units.
    rows : iterable of sequences of str
        The cells.
    left : int
        The number of columns that are aligned to the left; the others are aligned to the right.
    """
    made = Table(title=Text(title), title_justify="left", box=box.SIMPLE)
    for index, heading in enumerate(headings):
        made.add_column(Text(heading), justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def print_table(made: Table) -> None:
    """Print a table; it is as wide as its cells unless the output is a terminal."""
    Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False).print(made)


def print_json(value: Any) -> None:
    """Print a value as JSON, the only output of a command with ``--json``."""
    print(json.dumps(value, indent=2, allow_nan=False), flush=True)


def megabytes(count: int) -> str:
    """Return a number of bytes in MB (10^6 bytes), for a column whose heading has the unit."""
    return f"{count / 1e6:,.3f}"
