"""Checks of files before they are read, and their replacement in one step when they are written."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import FileError

# Some network and user-space file systems cannot fsync a directory. They alone decide how durable a rename is.
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP)


@contextmanager
def os_errors(path: Path, doing: str) -> Iterator[None]:
    """Raise the operating system's errors in the body as a FileError that names `path` and the failed action.

    ValueError is included because Python raises it for a path that contains a null byte.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: cannot {doing}: {getattr(error, 'strerror', None) or error}") from error


def check_regular_file(path: Path) -> None:
    """Raise a FileError unless `path` is a regular file or a link to one: opening a pipe would block."""
    with os_errors(path, "read the file"):
        mode = path.stat().st_mode
    _check_regular(path, mode)


def make_directory(path: Path) -> None:
    """Create the directory `path` and its missing parents; raise a FileError if that fails."""
    with os_errors(path, "create the directory"):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file, not yet created, that replaces `path` when the body succeeds.

    The temporary file lies in the folder of `path`, since a rename is atomic within one file system only. After the
    body the file is forced to disk and renamed, and its directory is forced to disk. Whenever the machine stops,
    `path` is the old file or the new one. If the body raises, the temporary file is removed and `path` is unchanged. A
    process that is killed leaves a hidden file ``.<name>.<pid>.<random>.tmp``. If `path` is a link, the link is
    replaced, not its target.

    Parameters
    ----------
    path : Path
        The file to write, in a directory that exists.

    Yields
    ------
    Path
        The temporary path, where the body creates, writes and closes the file.

    Raises
    ------
    FileError
        `path` is a directory or a special file, or the file cannot be forced to disk or renamed.
    """
    with os_errors(path, "replace the file"):
        mode = path.lstat().st_mode if os.path.lexists(path) else stat.S_IFREG
    if not stat.S_ISLNK(mode):
        _check_regular(path, mode)  # a rename would also replace a device or a pipe
    # The process id identifies the writer of a left-over file. The random part differs between nodes.
    temporary = path.parent / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        yield temporary
        with os_errors(path, "replace the file"):
            _fsync(temporary)
            os.replace(temporary, path)
            _fsync_directory(path.parent)
    except BaseException:
        with suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)
        raise


def _check_regular(path: Path, mode: int) -> None:
    """Raise a FileError unless `mode`, the mode of `path`, is that of a regular file."""
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "a special file"
        raise FileError(f"{path}: expected a regular file, found {kind}")


def _fsync(path: Path) -> None:
    """Force the content of `path` to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync_directory(path: Path) -> None:
    """Force the entries of the directory `path` to disk, if its file system supports that."""
    try:
        _fsync(path)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
