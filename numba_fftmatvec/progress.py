"""Progress of work that takes more than two seconds: bars for loops and solvers, descriptions for other work."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.status import Status
from rich.text import Text

PATIENCE = 2.0  # seconds before the bar appears
_PAUSE = 0.2  # seconds between two drawings without a thread
_bars: list[Progress] = []  # on the terminal
_waiting: list[Status] = []  # on the terminal, or about to be


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
    with show_steps(len(rows), enabled=enabled) as show:
        for done, row in enumerate(rows):
            show(done, description)
            yield row


@contextmanager
def show_steps(total: int, *, enabled: bool, refresh: bool = True) -> Iterator[Callable[[int, str], None]]:
    """Yield a function that takes the number of finished steps and the text before the bar.

    Its first call after two seconds shows a bar on the error output, if that is an open terminal.

    Parameters
    ----------
    total : int
        The largest number of steps.
    enabled : bool
        Whether this rank shows the bar.
    refresh : bool
        Whether a thread refreshes the bar. Otherwise some of the calls do, so that work between them can be timed.
    """
    if not (enabled and _is_terminal(sys.stderr)):
        yield lambda done, description: None
        return
    start = drawn = time.monotonic()
    bar = Progress(console=Console(stderr=True), transient=True, auto_refresh=refresh)
    task = bar.add_task("", total=total)

    def show(done: int, description: str) -> None:
        nonlocal drawn
        now = time.monotonic()
        if not refresh and now - drawn < _PAUSE and done < total:
            return
        drawn = now
        if not bar.live.is_started and now - start > PATIENCE:
            _start_instead(bar)
        bar.update(task, completed=done, description=escape(description))
        if not refresh and bar.live.is_started:
            bar.refresh()

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()
            _bars.remove(bar)


@contextmanager
def show_waiting(description: str, *, enabled: bool) -> Iterator[None]:
    """Show a description after two seconds of the body, whose steps cannot be counted.

    Parameters
    ----------
    description : str
        The work of the body.
    enabled : bool
        Whether this rank shows it, if its error output is an open terminal.
    """
    if not (enabled and _is_terminal(sys.stderr)):
        yield
        return
    status = Console(stderr=True).status(Text(description))

    def start() -> None:
        if not _bars:
            status.start()

    timer = threading.Timer(PATIENCE, start)
    timer.daemon = True
    _waiting.append(status)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()
        _waiting.remove(status)


def _start_instead(bar: Progress) -> None:
    """Show a bar in the place of all descriptions, since a terminal shows one of them at a time."""
    _bars.append(bar)
    for status in _waiting:
        status.stop()
    bar.start()


def _is_terminal(stream: Any) -> bool:
    """Return whether a stream is an open terminal; False for None, a closed stream, and one without `isatty`."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False
