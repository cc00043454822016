"""Named arrays in one HDF5 file, with a description of them and SHA-256 digests, to be read back by this library.

The dataset ``vec`` has the arrays one after another. Its attribute ``content`` is a JSON text: the kind of the file,
its version, the name and shape of each array, and further plain values.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError, ChecksumError, FileFormatError, ShapeError
from .atomic import FilePath, file_path
from .dataset import integer_attribute, open_file, values_dataset
from .digests import SPAN, Digests, stored_digests
from .storage import Storage, check_layout
from .values import ValuesWriter, written_file

Shapes = Mapping[str, tuple[int, ...]]

VERSION = 1
LARGEST_CONTENT = (
    28 * 1024
)  # bytes; HDF5 keeps all attributes of a dataset within 64 KiB, and the digests are there too
_BOUND = ("content_digest", SPAN)


class ArchiveWriter:
    """The open file of `archive_writer`.

    Parameters
    ----------
    path : Path
        The file, for messages.
    shapes : mapping
        The shapes of the arrays by name.
    values : ValuesWriter
        The values of the file.
    """

    def __init__(self, path: Path, shapes: Shapes, values: ValuesWriter) -> None:
        self._path = path
        self._shapes = shapes
        self._values = values
        self._places = _places(shapes)
        self._missing = {name: math.prod(shape) for name, shape in shapes.items()}

    def write(self, name: str, array: NDArray[np.float64]) -> None:
        """Write the array of a name. Calls may come in any order."""
        if name not in self._shapes or array.shape != tuple(self._shapes[name]):
            expected = self._shapes.get(name, f"one of {', '.join(self._shapes)}")
            raise ShapeError(f"{self._path}, {name}: expected {expected}, found shape {array.shape}")
        self.write_part(name, 0, array)

    def write_part(self, name: str, first: int, values: NDArray[np.float64]) -> None:
        """Write consecutive values of an array, from a flat index on. Each value is written once."""
        self._values.put(self._places[name].start + first, np.ascontiguousarray(values, np.float64))
        self._missing[name] -= values.size

    def finish(self) -> None:
        """Write the metadata; raise a ShapeError unless every array was written."""
        for name, count in self._missing.items():
            if count:
                found = math.prod(self._shapes[name]) - count
                raise ShapeError(f"{self._path}: expected values of every array, found {found or 'none'} of {name}")
        self._values.finish()


@contextmanager
def archive_writer(
    path: FilePath, kind: str, shapes: Shapes, description: Mapping[str, Any], threads: int | None = None
) -> Iterator[ArchiveWriter]:
    """Write named float64 arrays; an existing file is replaced in one step when the body ends.

    Parameters
    ----------
    path : path
        The file, in a directory that exists.
    kind : str
        The kind of the content, which a reader must name.
    shapes : mapping
        The shapes of the arrays by name; all of them must be written.
    description : mapping
        Plain values that describe the content, for JSON.
    threads : int, optional
        The largest number of threads; by default one for each core that this process may use.

    Raises
    ------
    FileError
        The file cannot be written. An existing file is then unchanged.
    """
    path = file_path(path)
    arrays = {name: list(shape) for name, shape in shapes.items()}
    content = json.dumps({"kind": kind, "version": VERSION, "arrays": arrays, **description}).encode()
    if len(content) > LARGEST_CONTENT:
        raise ArgumentError(f"{path}: expected a description of at most {LARGEST_CONTENT} bytes, found {len(content)}")
    size = sum(math.prod(shape) for shape in shapes.values())
    with written_file(path) as descriptor:
        values = ValuesWriter(path, descriptor, size, {"content_digest": _digest(content)}, content, threads)
        writer = ArchiveWriter(path, shapes, values)
        yield writer
        writer.finish()


class Archive:
    """The open file of `open_archive`.

    Attributes
    ----------
    description : dict
        The plain values.
    shapes : dict
        The shapes of the arrays by name.
    """

    def __init__(
        self, path: Path, description: dict[str, Any], storage: Storage, digests: Digests, threads: int | None
    ) -> None:
        self._path = path
        self._storage = storage
        self._digests = digests
        self._threads = threads
        self.description = description
        self.shapes = {str(name): tuple(map(int, shape)) for name, shape in description["arrays"].items()}
        self._places = _places(self.shapes)

    @property
    def version(self) -> str:
        """A digest of the whole file, the same for all its readers."""
        content = json.dumps(self.description).encode()
        return hashlib.sha256(content + self._digests.spans).hexdigest()

    def read(self, name: str) -> NDArray[np.float64]:
        """Return an array, verified against its digests.

        Raises
        ------
        FileFormatError, ChecksumError
            The file does not have the array, or its values are damaged.
        """
        if name not in self._places:
            raise FileFormatError(f"{self._path}: expected an array {name!r}, found only {', '.join(self._places)}")
        values = np.empty(self.shapes[name])
        self.read_parts(name, [0], values.reshape(1, -1))
        return values

    def read_parts(self, name: str, firsts: Sequence[int], out: NDArray[np.float64]) -> None:
        """Fill each row of an array with consecutive values, from a flat index on. The indices ascend."""
        if out.size:
            starts = [self._places[name].start + first for first in firsts]
            parts = [slice(start, start + out.shape[1]) for start in starts]
            self._digests.read(self._path, self._storage.read, parts, list(out), self._storage.unit, self._threads)


@contextmanager
def open_archive(path: FilePath, kind: str, threads: int | None = None) -> Iterator[Archive]:
    """Yield a file of `archive_writer` after checking everything except the values.

    Parameters
    ----------
    path : path
        The file.
    kind : str
        The kind that its content must have.
    threads : int, optional
        The largest number of threads; by default one for each core that this process may use.

    Raises
    ------
    FileError
        The file is missing or cannot be read.
    FileFormatError
        The file has another content or is malformed.
    ChecksumError
        The description or the digests are damaged.
    """
    path = file_path(path)
    with open_file(path) as file:
        dataset = values_dataset(path, file)
        check_layout(path, dataset)
        description = _description(path, dataset, kind)
        if dataset.dtype != np.float64 or dataset.ndim != 1:
            raise FileFormatError(f"{path}, vec: expected float64 values, found {dataset.dtype} of {dataset.shape}")
        bound = {name: value for name in _BOUND if (value := integer_attribute(path, dataset, name)) is not None}
        digests = stored_digests(path, dataset.size, dataset.attrs, bound)
        if digests is None:
            raise ChecksumError(f"{path}: expected SHA-256 digests, found none")
        archive = Archive(path, description, Storage(path, dataset, file.id.get_vfd_handle()), digests, threads)
        if (size := sum(map(math.prod, archive.shapes.values()))) != dataset.size:
            raise FileFormatError(f"{path}, vec: expected {size} values, as described, found {dataset.size}")
        yield archive


def _description(path: Path, dataset: Any, kind: str) -> dict[str, Any]:
    """Return the description of a file's content, verified against its digest."""
    if "content" not in dataset.attrs:
        raise FileFormatError(f"{path}: expected an attribute 'content' that describes a {kind}, found none")
    attribute = dataset.attrs.get_id("content")
    if attribute.dtype != np.uint8 or len(attribute.shape) != 1:
        raise FileFormatError(f"{path}, attribute content: expected uint8 values, found {attribute.dtype}")
    content = np.asarray(dataset.attrs["content"]).tobytes()
    expected = integer_attribute(path, dataset, "content_digest")
    if expected != _digest(content):
        raise ChecksumError(f"{path}, attribute content: expected the digest {expected}, found {_digest(content)}")
    try:
        found: dict[str, Any] = json.loads(content)
        shown = found["kind"], found["version"]
        if any(size < 0 for shape in found["arrays"].values() for size in map(int, shape)):
            raise ValueError("a negative size")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(f"{path}, attribute content: expected a description, found {error!r}") from error
    if shown != (kind, VERSION):
        raise FileFormatError(
            f"{path}: expected a {kind} of version {VERSION}, found {shown[0]!r} of version {shown[1]}"
        )
    return found


def _places(shapes: Shapes) -> dict[str, slice]:
    """Return the place of each array in the dataset."""
    ends = list(accumulate(math.prod(shape) for shape in shapes.values()))
    starts = [0, *ends[:-1]] if ends else []
    return {name: slice(start, end) for name, start, end in zip(shapes, starts, ends, strict=True)}


def _digest(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:7], "little")
