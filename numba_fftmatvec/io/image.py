"""The metadata of a new HDF5 file, built in memory.

HDF5 writes some values and metadata only when a file is closed. If that fails, as on a full disk, the library goes on
with freed objects and ends the process. HDF5 therefore writes to memory, which cannot be full in this way, and plain
I/O writes the file.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from .plain import write_at

# The NAME of a dimension without values of its own, as the NetCDF library writes it.
_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable."


@dataclass(frozen=True)
class Image:
    """A file with a contiguous dataset of float64, but for its values.

    Parameters
    ----------
    size : int
        Bytes of the file.
    offset : int
        Place of the values.
    pieces : tuple of (int, bytes)
        The metadata, each piece with its place, in the order of writing.
    """

    size: int
    offset: int
    pieces: tuple[tuple[int, bytes], ...]

    @classmethod
    def of(cls, values: int, attributes: Mapping[str, np.int64 | NDArray[np.uint8]]) -> Image:
        """Return the image of a file of a number of values, with the attributes of the dataset."""

        def build(file: h5py.File) -> h5py.Dataset:
            dataset = _unwritten(file, "vec", (values,))
            dataset.attrs.update(attributes)
            return dataset

        return cls._of(build)

    @classmethod
    def netcdf(cls, name: str, dimensions: Mapping[str, int]) -> Image:
        """Return the image of a NetCDF-4 file with a variable that has the dimensions, in their order."""

        def build(file: h5py.File) -> h5py.Dataset:
            dataset = _unwritten(file, name, tuple(dimensions.values()))
            for axis, (dimension, size) in enumerate(dimensions.items()):
                scale = _unwritten(file, dimension, (size,), h5py.h5d.ALLOC_TIME_LATE)
                scale.make_scale(f"{_NO_VARIABLE}{size:10d}")
                scale.attrs["_Netcdf4Dimid"] = np.int32(axis)
                dataset.dims[axis].attach_scale(scale)
            return dataset

        return cls._of(build)

    @classmethod
    def _of(cls, build: Callable[[h5py.File], h5py.Dataset]) -> Image:
        """Return the image of a file whose values are those of the dataset that `build` returns."""
        memory = _Memory()
        with h5py.File(memory, "w") as file:
            offset = build(file).id.get_offset()
        return cls(memory.size, offset, tuple(memory.pieces))

    def write(self, descriptor: int) -> None:
        """Write the metadata to a file."""
        for offset, piece in self.pieces:
            write_at(descriptor, piece, offset)


def _unwritten(
    file: h5py.File, name: str, shape: tuple[int, ...], allocated: int = h5py.h5d.ALLOC_TIME_EARLY
) -> h5py.Dataset:
    """Create a contiguous dataset of float64 whose values HDF5 does not write."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_alloc_time(allocated)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(shape)
    return h5py.Dataset(h5py.h5d.create(file.id, name.encode(), h5py.h5t.NATIVE_DOUBLE, space, plist))


class _Memory(io.RawIOBase):
    """A file of any size in memory that keeps the written pieces alone."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[tuple[int, bytes]] = []
        self.size = 0
        self._place = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = offset + {0: 0, 1: self._place, 2: self.size}[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self.pieces.append((self._place, piece))
        self._place += len(piece)
        self.size = max(self.size, self._place)
        return len(piece)

    def readinto(self, out: Any) -> int:
        view = memoryview(out).cast("B")
        count = max(0, min(len(view), self.size - self._place))
        view[:count] = bytes(count)
        for offset, piece in self.pieces:
            first, stop = max(offset, self._place), min(offset + len(piece), self._place + count)
            if first < stop:
                view[first - self._place : stop - self._place] = piece[first - offset : stop - offset]
        self._place += count
        return count

    def truncate(self, size: int | None = None) -> int:
        self.size = self._place if size is None else size
        return self.size

    def flush(self) -> None:
        """Do nothing: the pieces are in memory."""
