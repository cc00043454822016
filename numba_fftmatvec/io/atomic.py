"""Files as wholes: checked before they are read, replaced in one step when they are written."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import FileError

# Some network and user-space file systems cannot fsync a directory; the rename is then as durable as they make it.
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP)


@contextmanager
def os_errors(path: Path, doing: str) -> Iterator[None]:
    """Raise the operating system's errors of the body as a FileError that names `path` and what was being done.

    ValueError is among them because that is how Python refuses a path that holds a null byte.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: cannot {doing}: {getattr(error, 'strerror', None) or error}") from error


def check_regular_file(path: Path) -> None:
    """Raise a FileError unless `path` is a regular file, or a link to one: opening a pipe would wait for ever."""
    with os_errors(path, "read the file"):
        mode = path.stat().st_mode
    _check_regular(path, mode)


def make_directory(path: Path) -> None:
    """Create the directory `path` and its parents where they do not exist; a FileError where that fails."""
    with os_errors(path, "create the directory"):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file, not yet there, that takes the place of `path` when the body succeeds.

    The temporary file lies beside `path`, since a rename is atomic within one file system only. After the body it is
    forced to disk, renamed, and its directory forced to disk: whenever the machine stops, `path` is the old file or
    the new one. If the body raises, the temporary file is removed and `path` is as it was; a process that is killed
    leaves a hidden file ``.<name>.<pid>.<random>.tmp`` behind. A `path` that is a link is replaced, not followed.

    Parameters
    ----------
    path : Path
        The file to write; its directory exists.

    Yields
    ------
    Path
        Where the body creates and writes the file; it closes it before it ends.

    Raises
    ------
    FileError
        `path` is a directory or a special file, or the file cannot be forced to disk or renamed.
    """
    with os_errors(path, "replace the file"):
        mode = path.lstat().st_mode if os.path.lexists(path) else stat.S_IFREG
    if not stat.S_ISLNK(mode):
        _check_regular(path, mode)  # a rename would take the place of a device or a pipe, too
    # The process id tells whose a left-over is; the random part keeps nodes of one file system apart.
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
    """Raise a FileError unless `mode`, that of `path`, is a regular file's."""
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
    """Force the entries of the directory `path` to disk, where its file system can."""
    try:
        _fsync(path)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
