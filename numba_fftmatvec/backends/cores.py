"""The cores of a node, shared by its ranks."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Return the number of cores that the process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_of_cores(node_size: int) -> int:
    """Return this rank's number of the cores that the process may use, of a node with `node_size` ranks."""
    return max(1, available_cores() // node_size)
