"""The values of a new file, written by plain I/O, with the metadata and digests around them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import FileError
from .atomic import os_errors, replacing
from .dataset import hdf5_errors
from .digests import SPAN, Digests
from .image import Image
from .plain import read_at, write_at


@contextmanager
def written_file(path: Path, like: Path | None = None) -> Iterator[int]:
    """Yield the descriptor of an empty file that replaces `path` when the body succeeds; see `replacing`."""
    with replacing(path, like) as temporary:
        with os_errors(path, "write the file"):
            descriptor = os.open(temporary, os.O_RDWR)
        try:
            yield descriptor
        finally:
            with os_errors(path, "write the file"):
                os.close(descriptor)


class ValuesWriter:
    """An open file of a number of values.

    Parameters
    ----------
    path : Path
        The file that it will become, for messages.
    descriptor : int
        The descriptor of an empty file, for reading and writing.
    size : int
        Number of values.
    attributes : mapping
        The integer attributes of the dataset, besides its digests.
    content : bytes
        The attribute that describes the values; none if it is empty.
    threads : int, optional
        The largest number of threads; by default one for each core that this process may use.
    """

    def __init__(
        self,
        path: Path,
        descriptor: int,
        size: int,
        attributes: Mapping[str, int],
        content: bytes = b"",
        threads: int | None = None,
    ) -> None:
        self._path = path
        self._descriptor = descriptor
        self._size = size
        self._attributes = attributes
        self._content = content
        self._threads = threads
        self._image = self._image_with(Digests.unknown(size))
        with os_errors(path, "write the file"):
            os.ftruncate(descriptor, self._image.size)

    def put(self, first: int, values: NDArray[np.float64]) -> None:
        """Write a contiguous array from a value on."""
        if values.size:
            with os_errors(self._path, "write the file"):
                write_at(self._descriptor, values.reshape(-1).data, self._image.offset + 8 * first)

    def finish(self) -> bytes:
        """Write the metadata; return the SHA-256 of the file's attributes and values."""
        with os_errors(self._path, "write the file"):
            digests = Digests.of(self._size, self._read, self._threads)
            self._image_with(digests).write(self._descriptor)
        return digests.root({**self._attributes, SPAN: digests.span})

    def _read(self, first: int, out: NDArray[np.float64]) -> None:
        if read_at(self._descriptor, out.data, self._image.offset + 8 * first) < out.nbytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def _image_with(self, digests: Digests) -> Image:
        """Return the image of the file. Its layout depends on the number of the digests, not on their values."""
        attributes = digests.attributes(self._attributes)
        if self._content:
            attributes["content"] = np.frombuffer(self._content, np.uint8)
        with hdf5_errors(self._path, "write", FileError):
            return Image.of(digests.size, attributes)
