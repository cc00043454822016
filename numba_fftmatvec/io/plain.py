"""Plain reads and writes of whole buffers, which the operating system may do in parts."""

from __future__ import annotations

import errno
import os


def write_at(descriptor: int, data: memoryview | bytes, offset: int) -> None:
    """Write all bytes of a contiguous buffer at an offset of a file."""
    left = memoryview(data).cast("B")
    while left:
        count = os.pwrite(descriptor, left, offset)
        if count == 0:  # no file system returns it, but a loop without progress would not end
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        offset, left = offset + count, left[count:]


def read_at(descriptor: int, out: memoryview, offset: int) -> int:
    """Fill a contiguous buffer from an offset of a file on; return the number of bytes before the file's end."""
    left = out.cast("B")
    while left and (count := os.preadv(descriptor, [left], offset)):
        offset, left = offset + count, left[count:]
    return len(out.cast("B")) - len(left)
