"""The memory that is available to this process, within the limits of its control groups."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

# For each kind of control group that limits memory: its folder, the files with limit and usage, and the line of
# memory.stat with the part of the usage that the system can reclaim.
_CONTROL_GROUPS = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def available_bytes(root: Path = Path("/")) -> int | None:
    """Return the memory that is available in the system, or in this process's control groups if that is less.

    Parameters
    ----------
    root : path
        The root of the file system.

    Returns
    -------
    int or None
        The number of bytes; None if the system does not report it.
    """
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", _text(root / "proc/meminfo"), re.MULTILINE)
    rooms = [1024 * int(found[1])] if found else []
    return min([*rooms, *_rooms_of_groups(root)], default=None)


def _rooms_of_groups(root: Path) -> Iterator[int]:
    """Yield the memory available in each control group of this process, and in the groups above them."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in _CONTROL_GROUPS.keys() & set(controllers.split(",")):
            folder, *names = _CONTROL_GROUPS[controller]
            top = root / "sys/fs/cgroup" / folder
            group = top / path.strip("/")
            rooms = (_room(place, *names) for place in (group, *group.parents) if place.is_relative_to(top))
            yield from (room for room in rooms if room is not None)


def _room(group: Path, limit: str, usage: str, kept: str) -> int | None:
    """Return the memory that a group may still use; None if it has no limit."""
    try:
        most, used = (int((group / name).read_text()) for name in (limit, usage))
    except (OSError, ValueError):  # no such file, or "max"
        return None
    given_up = re.search(rf"^{kept} (\d+)$", _text(group / "memory.stat"), re.MULTILINE)
    return max(0, most - used + (int(given_up[1]) if given_up else 0))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
