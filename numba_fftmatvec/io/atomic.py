"""Checks of files before they are read, and their replacement in one step when they are written."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import ArgumentTypeError, FFTMatvecError, FileError
from .owner import remove_temporaries, temporary_path

FilePath = str | bytes | os.PathLike[str] | os.PathLike[bytes]

# Some network and user-space file systems cannot fsync a directory. They alone decide how durable a rename is.
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP)


def file_path(path: FilePath) -> Path:
    """Return a path as a Path; raise an ArgumentTypeError if it has another type."""
    try:
        return Path(os.fsdecode(path))
    except TypeError:
        raise ArgumentTypeError(f"path: expected a str, bytes or path-like object, found {path!r}") from None


@contextmanager
def os_errors(path: Path, doing: str) -> Iterator[None]:
    """Raise the operating system's errors in the body as a FileError that names `path` and the failed action.

    It has the errno of the error. ValueError is included because Python raises it for a path that contains a null byte.
    """
    try:
        yield
    except FFTMatvecError:
        raise
    except (OSError, ValueError) as error:
        text = f"{path}: cannot {doing}: {getattr(error, 'strerror', None) or error}"
        raise file_error(text, getattr(error, "errno", None)) from error


def file_error(text: str, number: int | None) -> FileError:
    """Return a FileError with a message and an errno."""
    error = FileError(text)
    error.errno = number
    return error


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
def replacing(path: Path, like: Path | None = None) -> Iterator[Path]:
    """Yield the path of a temporary file, which is empty, that replaces `path` when the body succeeds.

    The temporary file lies in the folder of `path`, since a rename is atomic within one file system only. After the
    body the file is forced to disk and renamed, and its directory is forced to disk. Whenever the machine stops,
    `path` is the old file or the new one. If the body raises, the temporary file is removed and `path` is unchanged. A
    process that is killed leaves a hidden file ``.fftmatvec.<owner>.<random>.tmp``, which a later call on the same
    system removes from the folder. If `path` is a link, the link is replaced, not its target.

    Parameters
    ----------
    path : Path
        The file to write, in a directory that exists.
    like : Path, optional
        A file that gives the new one its permissions and must be writable; by default `path`. If it does not exist, or
        is a link, the permissions are the user's usual ones.

    Yields
    ------
    Path
        The temporary path, where the body writes and closes the file.

    Raises
    ------
    FileError
        `path` is a directory, a special or a read-only file, or the file cannot be forced to disk or renamed.
    """
    with os_errors(path, "replace the file"):
        replaced = _replaceable(path)
        pattern = replaced if like is None else _replaceable(like)
        remove_temporaries(path.parent)
        temporary = _create(path.parent, pattern)
    try:
        yield temporary
        with os_errors(path, "replace the file"):
            _fsync(temporary, pattern)
            os.replace(temporary, path)
            _fsync_directory(path.parent)
    except BaseException:
        with suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)
        raise


def _replaceable(path: Path) -> os.stat_result | None:
    """Return the status of a regular file that may be written; None for a link and for no file."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(status.st_mode):
        return None
    _check_regular(path, status.st_mode)  # a rename would also replace a device or a pipe
    # A rename needs no permission to write the file, and the root user needs none at all. Its mode is heeded.
    if not status.st_mode & 0o222 or not os.access(path, os.W_OK):
        found = stat.filemode(status.st_mode)
        raise file_error(
            f"{path}: cannot replace the file: expected one that may be written, found {found}", errno.EACCES
        )
    return status


def _create(folder: Path, pattern: os.stat_result | None) -> Path:
    """Create an empty temporary file in a folder; only the user may read it if there is a pattern."""
    path = temporary_path(folder)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if pattern is None else 0o600)
    try:
        os.close(descriptor)
    except BaseException:
        os.unlink(path)
        raise
    return path


def _check_regular(path: Path, mode: int) -> None:
    """Raise a FileError unless `mode`, the mode of `path`, is that of a regular file."""
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "a special file"
        raise FileError(f"{path}: expected a regular file, found {kind}")


def _fsync(path: Path, pattern: os.stat_result | None = None) -> None:
    """Give a file the permissions of a pattern, if there is one, and force its content to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if pattern is not None:
            with suppress(OSError):  # another group needs a right that users seldom have
                os.fchown(descriptor, -1, pattern.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(pattern.st_mode))
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
