"""A progress bar for loops over block rows that take more than a few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import Progress

PATIENCE = 2.0  # seconds before the bar appears


def show_progress(rows: range, description: str, *, enabled: bool) -> Iterator[int]:
    """Iterate over `rows`; after two seconds show a bar on the error output, if it is an open terminal.

    Parameters
    ----------
    rows : range
        The range to iterate over.
    description : str
        The text before the bar.
    enabled : bool
        Whether this rank shows the bar.
    """
    if not (enabled and _is_terminal(sys.stderr)):
        yield from rows
        return
    start, bar = time.monotonic(), Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task(description, total=len(rows))
    started = False
    try:
        for done, row in enumerate(rows):
            if not started and time.monotonic() - start > PATIENCE:
                bar.start()
                started = True
            bar.update(task, completed=done)
            yield row
    finally:
        if started:
            bar.stop()


def _is_terminal(stream: Any) -> bool:
    """Return whether a stream is an open terminal; False for None, a closed stream, and one without `isatty`."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False
