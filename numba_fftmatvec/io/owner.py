"""The names of unfinished files: each names the process that writes it, so that a later one removes what it left.

Process numbers mean nothing on another machine or in another container. A file is therefore removed only if the running
system, its process namespace, the process and its start time are in the name, and that process has ended.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path

OWNER = r"[0-9a-f]{8}-[0-9]+-[0-9]+"
_TEMPORARY = re.compile(rf"\.fftmatvec\.({OWNER})\.[0-9a-f]{{8}}\.tmp")
_UNKNOWN = "00000000"
_PAUSE = 20  # a folder is searched again after this many times the duration of the last search
_next_search = 0.0


def owner() -> str:
    """Return the name of this process: ``<system>-<process>-<start time>``."""
    return f"{_system()}-{os.getpid()}-{_start_time(os.getpid()) or 0}"


def has_ended(name: str) -> bool:
    """Return whether the process of a name that `owner` returned belongs to this system and has ended."""
    system, process, start = name.split("-")
    return system == _system() != _UNKNOWN and _start_time(int(process)) != int(start)


def temporary_path(folder: Path) -> Path:
    """Return the path of a new temporary file in a folder; the length of the target's name does not matter."""
    return folder / f".fftmatvec.{owner()}.{secrets.token_hex(4)}.tmp"


def remove_temporaries(folder: Path, *, always: bool = False) -> None:
    """Remove the temporary files of ended processes from a folder. Searches take a small part of the time."""
    global _next_search
    began = time.monotonic()
    if began < _next_search and not always:
        return
    for _, path in owned_by_ended(folder, _TEMPORARY, 1):
        with suppress(OSError):  # another process may have removed it
            os.unlink(path)
    ended = time.monotonic()
    _next_search = ended + _PAUSE * (ended - began)


def owned_by_ended(folder: Path, names: re.Pattern[str], group: int) -> list[tuple[re.Match[str], str]]:
    """Return the matches and paths of a folder's files with matching names whose owner, a group of it, has ended."""
    found: list[tuple[re.Match[str], str]] = []
    ended: dict[str, bool] = {}
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if match := names.fullmatch(entry.name):
                name = match[group]
                if name not in ended:
                    ended[name] = has_ended(name)
                if ended[name]:
                    found.append((match, entry.path))
    return found


def _system() -> str:
    """Return eight digits for the running system and its process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return _UNKNOWN
    return hashlib.sha256(f"{boot}{namespace}".encode()).hexdigest()[:8]


def _start_time(process: int) -> int | None:
    """Return the start time of a process in the kernel's ticks; None if it has ended."""
    try:
        stat = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return None
    state, *fields = stat.rpartition(b")")[2].split()
    return None if state in (b"Z", b"X") else int(fields[18])
