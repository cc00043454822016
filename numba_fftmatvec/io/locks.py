"""Locks of files that are read. HDF5 locks a file exclusively while it writes it.

Many network, parallel and read-only file systems have no locks, and their errors differ. One of them is also that of a
lock that another program holds.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from .atomic import file_error


def share_lock(path: Path, descriptor: int) -> None:
    """Lock an open file for reading, until it is closed, if its file system has locks.

    Raises
    ------
    FileError
        Another program has locked the file for writing.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EAGAIN and _is_locked(os.fstat(descriptor).st_ino):
            text = f"{path}: cannot read the file: unable to lock file, since another program has locked it"
            raise file_error(text, error.errno) from error


def _is_locked(inode: int) -> bool:
    """Return whether a program of this machine has locked a file for writing.

    The device is not compared, since overlays and snapshots show another one here than `stat` does.
    """
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return True
    locks = (line.split() for line in lines)
    return any(fields[1::2][:2] == ["FLOCK", "WRITE"] and fields[5].endswith(f":{inode}") for fields in locks)
