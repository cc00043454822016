"""The dataset ``vec`` of an HDF5 file: its description, and the checks of an open file against it.

`docs/io_format.md` describes the format.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..arguments import check_shape, checksum_number
from ..errors import ArgumentError, ArgumentTypeError, ChecksumError, FFTMatvecError, FileFormatError, ShapeError
from ..layout import Space, VectorLayout
from .atomic import check_regular_file, file_error
from .digests import BOUND, Digests, stored_digests
from .locks import share_lock
from .storage import Storage, check_layout

_SIZE_ATTRIBUTES = {Space.COL: ("n_param", "param_steps"), Space.ROW: ("n_obs", "obs_steps")}
_PLACE = ("block_row", "block_rows")
# `share_lock` locks the file, since HDF5 refuses to read without locks. Some builds of h5py do not have the argument.
_LOCKING = {"locking": False} if hasattr(h5py.h5p.PropFAID, "set_file_locking") else {}


@dataclass(frozen=True)
class Description:
    """The required content of a file: vectors of a layout, a checksum, and a mark of quantities of interest."""

    path: Path
    layout: VectorLayout
    checksum: int = 0
    qoi: bool = False
    block_row: tuple[int, int] | None = None  # the index of a block row, and the number of block rows
    digest: bytes | None = None  # of a block row's file, by the manifest

    def __post_init__(self) -> None:
        """Check the checksum, which callers pass on unchecked."""
        checksum_number(self.checksum, f"{self.path}: checksum")

    @property
    def attributes(self) -> dict[str, int]:
        """The attributes that every such file must have; `optional` has the others."""
        blocks, steps = _SIZE_ATTRIBUTES[self.layout.space]
        sizes = {"reindex": 1, blocks: self.layout.num_blocks, steps: self.layout.block_size}
        return sizes | ({"qoi": 1} if self.qoi else {})

    @property
    def optional(self) -> dict[str, int]:
        """The attributes that only some files have: a checksum, and the number of vectors if it is not 1."""
        checksum = {"checksum": self.checksum} if self.checksum else {}
        return checksum | ({"num_vecs": self.layout.num_vecs} if self.layout.num_vecs > 1 else {})

    @property
    def stored(self) -> dict[str, int]:
        """The attributes of a new file, besides its digests."""
        place = {} if self.block_row is None else dict(zip(_PLACE, self.block_row, strict=True))
        return self.attributes | self.optional | place

    @property
    def shape(self) -> tuple[int]:
        """Shape of the dataset."""
        return (self.layout.size,)

    def spans(self, blocks: range) -> list[slice]:
        """Return the slices of the dataset that hold consecutive blocks, one for each vector."""
        layout = self.layout
        if blocks.step != 1 or not 0 <= blocks.start <= blocks.stop <= layout.num_blocks:
            raise ArgumentError(
                f"{self.path}: blocks: expected consecutive ones of 0 .. {layout.num_blocks - 1}, found {blocks}"
            )
        firsts = (vector * layout.num_blocks for vector in range(layout.num_vecs))
        size = layout.block_size
        return [slice((first + blocks.start) * size, (first + blocks.stop) * size) for first in firsts]

    def check_array(self, array: NDArray[np.float64], blocks: range) -> None:
        """Raise unless `array` is float64 and has the layout's shape for these blocks."""
        if not isinstance(array, np.ndarray) or array.dtype != np.float64:
            found = getattr(array, "dtype", type(array).__name__)
            raise ArgumentTypeError(f"{self.path}: values: expected a NumPy array of float64, found {found}")
        check_shape(array.shape, self.layout.shape_of(len(blocks)), f"{self.path}: values of {blocks}")


@dataclass(frozen=True)
class Content:
    """The values of an open file, and their digests if the file has them."""

    path: Path
    storage: Storage
    digests: Digests | None
    version: bytes  # differs between versions of a file that were written in its place
    root: bytes | None  # the digest of the file, which its manifest has too
    threads: int | None = None  # the most that verify values; by default one for each core of this process

    def read(self, parts: list[slice], out: list[NDArray[np.float64]]) -> None:
        """Read parts of the values, in ascending order, each into a contiguous array; verify those with digests."""
        if self.digests is not None:
            self.digests.read(self.path, self.storage.read, parts, out, self.storage.unit, self.threads)
            return
        for part, values in zip(parts, out, strict=True):
            if values.size:
                self.storage.read(part.start, values)


def described(path: Path) -> Description:
    """Return the description of a vector's file by its own attributes, for a file of which nothing else is known."""
    with open_file(path) as file:
        dataset = values_dataset(path, file)
        names = [name for pair in _SIZE_ATTRIBUTES.values() for name in pair]
        found = {name: integer_attribute(path, dataset, name) for name in (*names, "qoi", "num_vecs")}
        listed = _listed(dataset.attrs)
    vectors = found["num_vecs"]
    for space, (blocks, steps) in _SIZE_ATTRIBUTES.items():
        num_blocks, block_size = found[blocks], found[steps]
        if num_blocks is not None and block_size is not None:
            try:
                layout = VectorLayout(space, num_blocks, block_size, 1 if vectors is None else vectors, range(0))
            except ShapeError as error:
                raise FileFormatError(f"{path}, attributes: {error}") from error
            return Description(path, layout, qoi=space is Space.ROW and found["qoi"] == 1)
    expected = " or ".join(", ".join(pair) for pair in _SIZE_ATTRIBUTES.values())
    raise FileFormatError(f"{path}: expected the attributes {expected}, found {listed}")


@contextmanager
def open_file(path: Path) -> Iterator[Any]:
    """Yield an open HDF5 file that no other program writes."""
    check_regular_file(path)
    with hdf5_errors(path, "read", FileFormatError), h5py.File(path, "r", **_LOCKING) as file:
        share_lock(path, file.id.get_vfd_handle())
        yield file


@contextmanager
def opened(description: Description, threads: int | None = None) -> Iterator[Content]:
    """Yield the content of a file, for at most `threads` threads, after checking everything except the values."""
    path = description.path
    with open_file(path) as file:
        dataset = values_dataset(path, file)
        check_layout(path, dataset)
        _check_attributes(description, dataset)
        _check_checksum(description, dataset)
        if dataset.dtype != np.float64:
            raise FileFormatError(f"{path}, vec: expected dtype float64, found {dataset.dtype}")
        if dataset.shape != description.shape:
            expected = f"{description.shape} ({description.layout})"
            raise FileFormatError(f"{path}, vec: expected shape {expected}, found {dataset.shape}")
        descriptor = file.id.get_vfd_handle()
        storage = Storage(path, dataset, descriptor)
        digests, root = _digests(description, dataset)
        status = os.fstat(descriptor)
        version = b"" if digests is None else hashlib.sha256(digests.spans).digest()
        version = version or f"{status.st_mtime_ns} {status.st_size}".encode()
        yield Content(path, storage, digests, version, root, threads)


def values_dataset(path: Path, file: Any) -> Any:
    """Return the dataset ``vec``, which must lie in this file itself."""
    link = file.get("vec", getlink=True)
    if link is None:
        raise FileFormatError(f"{path}: expected a dataset 'vec', found {_listed(file)}")
    if not isinstance(link, h5py.HardLink):
        target = " of ".join(str(getattr(link, name)) for name in ("path", "filename") if hasattr(link, name))
        raise FileFormatError(f"{path}, vec: expected a dataset in this file, found {type(link).__name__} to {target}")
    dataset = file["vec"]
    if not isinstance(dataset, h5py.Dataset):
        raise FileFormatError(f"{path}, vec: expected a dataset, found a {type(dataset).__name__}")
    return dataset


def _check_attributes(description: Description, dataset: Any) -> None:
    path, layout = description.path, description.layout
    for name, expected in description.attributes.items():
        found = integer_attribute(path, dataset, name)
        if found is None:
            raise FileFormatError(f"{path}, attribute {name}: expected {expected}, found {_listed(dataset.attrs)}")
        if found != expected:
            raise FileFormatError(f"{path}, attribute {name}: expected {expected}, found {found}")
    num_vecs = integer_attribute(path, dataset, "num_vecs")
    if (1 if num_vecs is None else num_vecs) != layout.num_vecs:
        shown = f"{_listed(dataset.attrs)}: one vector" if num_vecs is None else num_vecs
        raise FileFormatError(f"{path}, attribute num_vecs: expected {layout.num_vecs}, found {shown}")
    if layout.space is Space.ROW and not description.qoi and integer_attribute(path, dataset, "qoi") == 1:
        raise FileFormatError(
            f"{path}, attribute qoi: expected an observation vector (no qoi, or 0), found 1: the file holds quantities "
            f"of interest, which are no observations; read it with QoI=True"
        )


def _check_checksum(description: Description, dataset: Any) -> None:
    path, expected = description.path, description.checksum
    if expected == 0:
        return
    found = integer_attribute(path, dataset, "checksum")
    if found != expected:
        shown = _listed(dataset.attrs) if found is None else found
        raise ChecksumError(f"{path}, attribute checksum: expected {expected}, found {shown}")


def _digests(description: Description, dataset: Any) -> tuple[Digests | None, bytes | None]:
    """Return the digests of a file that has them, and that of the whole file.

    They must be those of the manifest, and of the block row.
    """
    path, manifest = description.path, description.digest
    values = {name: integer_attribute(path, dataset, name) for name in BOUND}
    bound = {name: value for name, value in values.items() if value is not None}
    digests = stored_digests(path, description.layout.size, dataset.attrs, bound)
    found = None if digests is None else digests.root(bound)
    if manifest not in (None, found):
        shown = "no digests" if found is None else found.hex()
        raise ChecksumError(f"{path}: expected the SHA-256 {manifest.hex()} of the manifest, found {shown}")
    if found is not None and description.block_row is not None:
        for name, expected in zip(_PLACE, description.block_row, strict=True):
            if bound.get(name, expected) != expected:
                raise FileFormatError(f"{path}, attribute {name}: expected {expected}, found {bound[name]}")
    return digests, found


def integer_attribute(path: Path, dataset: Any, name: str) -> int | None:
    """Return the integer value of an attribute of any numeric type; None if the attribute is absent."""
    if name not in dataset.attrs:
        return None
    attribute = dataset.attrs.get_id(name)
    count, kind = attribute.get_space().get_simple_extent_npoints(), attribute.dtype.kind
    if count != 1 or kind not in "biuf":
        raise FileFormatError(
            f"{path}, attribute {name}: expected one integer, found {count} value(s) of dtype {attribute.dtype}"
        )
    value = np.asarray(dataset.attrs[name]).reshape(-1)[0]
    if kind == "f" and not value.is_integer():
        raise FileFormatError(f"{path}, attribute {name}: expected an integer, found {value}")
    return int(value)


def _listed(names: Any) -> str:
    """Return up to twelve names of a file's items or a dataset's attributes, for a message."""
    found = sorted(names)
    return f"only {', '.join(map(repr, found[:12]))}{', ...' if len(found) > 12 else ''}" if found else "none"


@contextmanager
def hdf5_errors(path: Path, doing: str, damaged: type[FFTMatvecError]) -> Iterator[None]:
    """Raise h5py's errors as this package's: as a FileError if they have an errno, else as `damaged`."""
    try:
        yield
    except FFTMatvecError:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError) as error:
        text = f"{path}: cannot {doing} it as an HDF5 file: {error}"
        number = error.errno if isinstance(error, OSError) else None
        if damaged is FileFormatError:
            check_regular_file(path)  # HDF5 fails without an errno if the file is removed while it opens it
        raise (file_error(text, number) if number else damaged(text)) from error
