"""Timing for the benchmarks of a GPU: medians between events on the stream."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

WARM_UP_RUNS = 3


def median_seconds(backend: Any, run: Callable[[], object], repetitions: int) -> float:
    """Return the median time of a run between events on the stream.

    The calling thread does not wait between runs, so that it stays ahead of the device and launches take no time.
    """
    for _ in range(WARM_UP_RUNS):
        run()
    moments = []
    for _ in range(repetitions):
        start = backend.timestamp()
        run()
        moments.append((start, backend.timestamp()))
    backend.synchronize()
    return statistics.median(backend.elapsed(*pair) for pair in moments)
