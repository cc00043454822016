"""The storage of the values in an HDF5 file: checks that all of them were written, and bounded decompression.

HDF5 returns zeros, or memory of its own, for values that a file does not have. It also inflates a compressed chunk to
any size. The storage is therefore checked before HDF5 reads a value.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import FileFormatError
from .atomic import os_errors
from .plain import read_at

_LARGEST_CHUNK = 64 * 2**20  # bytes; HDF5 reads whole chunks into memory
_PIECE = 2**18  # bytes that are inflated in one step
_SHUFFLE, _FLETCHER32 = h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32
_GZIP, _LZF = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_LZF
_FILTERS = {_GZIP: "gzip", _SHUFFLE: "shuffle", _FLETCHER32: "fletcher32", _LZF: "lzf"}
_SUM_BYTES = 4  # that fletcher32 appends to a chunk


def check_layout(path: Path, dataset: Any, name: str = "vec") -> None:
    """Raise unless the values lie in the file itself, in chunks of limited size, and behind known filters only.

    This check comes first: reading the shape of a virtual dataset opens the files that it refers to.
    """
    plist = dataset.id.get_create_plist()
    if plist.get_layout() == h5py.h5d.VIRTUAL:
        raise FileFormatError(f"{path}, {name}: expected values in this file, found a virtual dataset")
    if plist.get_external_count():
        raise FileFormatError(f"{path}, {name}: expected values in this file, found external storage")
    for code, _, _, filter_name in _filters(plist):
        if code not in _FILTERS:
            raise FileFormatError(
                f"{path}, {name}: expected no filters but {', '.join(_FILTERS.values())}, "
                f"found {code} ({filter_name.decode()!r})"
            )
    if plist.get_layout() == h5py.h5d.CHUNKED:
        size = math.prod(plist.get_chunk()) * dataset.id.get_type().get_size()
        if size > _LARGEST_CHUNK:
            raise FileFormatError(f"{path}, {name}: expected chunks of at most {_LARGEST_CHUNK} bytes, found {size}")


class Storage:
    """The values of a one-dimensional float64 dataset that passed `check_layout`. All of them are in the file.

    Parameters
    ----------
    path : Path
        The file, for messages.
    dataset : h5py.Dataset
        The dataset.
    descriptor : int
        The descriptor with which HDF5 reads the file.

    Raises
    ------
    FileFormatError
        The file does not have all values.
    """

    def __init__(self, path: Path, dataset: Any, descriptor: int) -> None:
        self._path = path
        self._dataset = dataset
        self._descriptor = descriptor
        self._end = os.fstat(descriptor).st_size
        plist = dataset.id.get_create_plist()
        #: Number of values that are read together: those of a chunk.
        self.unit = 1
        self._offset: int | None = None
        self._unchecked: set[int] = set()  # the first values of compressed chunks
        if plist.get_layout() == h5py.h5d.CHUNKED:
            self.unit = plist.get_chunk()[0]
            self._pipeline = _Pipeline.of(path, _filters(plist), 8 * self.unit)
            self._check_chunks()
        else:
            self._offset = self._checked_offset()

    def read(self, first: int, out: NDArray[np.float64]) -> None:
        """Fill `out`, a contiguous array that is not empty, with the values from `first` on."""
        stop = first + out.size
        if self._offset is not None:
            with os_errors(self._path, "read the file"):
                count = read_at(self._descriptor, out.reshape(-1).data, self._offset + 8 * first)
            if count < out.nbytes:
                raise FileFormatError(f"{self._path}: expected {out.nbytes} bytes of values, found {count} of them")
            return
        for start in range(first - first % self.unit, stop, self.unit) if self._unchecked else ():
            if start in self._unchecked:
                self._check_inflated(start)
                self._unchecked.remove(start)
        self._dataset.read_direct(out.reshape(-1), source_sel=slice(first, stop))

    def _checked_offset(self) -> int | None:
        """Return the place of contiguous values; None if they lie in the header of the dataset."""
        identifier, size = self._dataset.id, 8 * self._dataset.size
        found = identifier.get_storage_size()
        if found != size:
            written = "values that were never written" if found == 0 else f"{found} bytes"
            raise FileFormatError(f"{self._path}, vec: expected {size} bytes of values, found {written}")
        if identifier.get_create_plist().get_layout() == h5py.h5d.COMPACT:
            return None
        offset: int | None = identifier.get_offset()
        if offset is None or offset + size > self._end:
            raise FileFormatError(
                f"{self._path}, vec: expected {size} bytes of values in a file of {self._end}, found them at {offset}"
            )
        return offset

    def _check_chunks(self) -> None:
        """Check the number, the places, the sizes and the filter masks of all chunks."""
        where, pipeline = f"{self._path}, vec", self._pipeline
        expected = -(-self._dataset.size // self.unit)
        found = _chunks(self._dataset.id)
        if len(found) != expected or {chunk.chunk_offset for chunk in found} != {
            (index * self.unit,) for index in range(expected)
        }:
            raise FileFormatError(
                f"{where}: expected all {expected} chunks of {self.unit} values, found {len(found)} that were written"
            )
        end = 0
        for chunk in sorted(found, key=lambda chunk: int(chunk.byte_offset)):
            if chunk.byte_offset < end or chunk.byte_offset + chunk.size > self._end:
                raise FileFormatError(
                    f"{where}: expected chunks side by side in a file of {self._end} bytes, found "
                    f"{chunk.size} bytes at {chunk.byte_offset} (values from {chunk.chunk_offset[0]} on)"
                )
            end = chunk.byte_offset + chunk.size
            pipeline.check_stored(self._path, chunk)
            if pipeline.compressor is not None and not chunk.filter_mask:
                self._unchecked.add(chunk.chunk_offset[0])

    def _check_inflated(self, start: int) -> None:
        """Raise unless a compressed chunk inflates to the size of a chunk, without inflating more than that."""
        pipeline = self._pipeline
        _, data = self._dataset.id.read_direct_chunk((start,))
        expected = pipeline.inflated
        found = _COUNTS[pipeline.compressor](memoryview(data)[: len(data) - pipeline.tail], expected)
        if found != expected:
            name = _FILTERS[pipeline.compressor or 0]
            shown = "damaged data" if found is None else f"more than {expected}" if found > expected else found
            raise FileFormatError(
                f"{self._path}, vec: expected {name} chunks of {expected} bytes, found {shown} (values from {start} on)"
            )


@dataclass(frozen=True)
class _Pipeline:
    """The filters of a chunk.

    Parameters
    ----------
    compressor : int or None
        The code of gzip or lzf, if either is used.
    inflated : int
        Bytes of a chunk that the compressor inflated.
    tail : int
        Bytes behind the compressed ones.
    skip : int
        The filter mask of a chunk that the compressor could not compress, which is stored without it.
    """

    compressor: int | None
    inflated: int
    tail: int
    skip: int = 0

    @classmethod
    def of(cls, path: Path, filters: list[tuple[int, int, tuple[int, ...], bytes]], chunk: int) -> _Pipeline:
        """Return the pipeline of the filters of a dataset, in the order of writing, with chunks of `chunk` bytes."""
        codes = [code for code, *_ in filters]
        names = ", ".join(_FILTERS[code] for code in codes)
        places = [index for index, code in enumerate(codes) if code in _COUNTS]
        if len(set(codes)) != len(codes) or len(places) > 1:
            raise FileFormatError(f"{path}, vec: expected each filter once and one of gzip and lzf, found {names}")
        place = places[0] if places else len(codes)
        if _SHUFFLE in codes[place:]:
            raise FileFormatError(f"{path}, vec: expected shuffle before compression, found {names}")
        for code, _, values, _ in filters:
            # The second one is the length that h5py's lzf allocates for a chunk.
            rule = {_SHUFFLE: (0, 8), _LZF: (2, chunk)}.get(code)
            if rule is not None and len(values) > rule[0] and values[rule[0]] not in (0, rule[1]):
                raise FileFormatError(
                    f"{path}, vec: expected {_FILTERS[code]} of {rule[1]} bytes, found {values[rule[0]]}"
                )
        before, after = (_SUM_BYTES * (_FLETCHER32 in part) for part in (codes[:place], codes[place:]))
        if not places:
            return cls(None, chunk + before, 0)
        return cls(codes[place], chunk + before, after, 1 << place)

    def check_stored(self, path: Path, chunk: Any) -> None:
        """Raise unless a stored chunk has a filter mask that is allowed, and the size that the filters leave."""
        where = f"{path}, vec, chunk of the values from {chunk.chunk_offset[0]} on"
        if chunk.filter_mask not in (0, self.skip):
            raise FileFormatError(f"{where}: expected all filters, found the filter mask {chunk.filter_mask:#x}")
        size = self.inflated + self.tail
        if (self.compressor is None or chunk.filter_mask) and chunk.size != size:
            raise FileFormatError(f"{where}: expected {size} bytes, found {chunk.size}")


def _filters(plist: Any) -> list[tuple[int, int, tuple[int, ...], bytes]]:
    return [plist.get_filter(index) for index in range(plist.get_nfilters())]


def _chunks(identifier: Any) -> list[Any]:
    """Return the descriptions of all chunks that a file has."""
    found: list[Any] = []
    if hasattr(identifier, "chunk_iter"):  # HDF5 1.12.3 and later
        identifier.chunk_iter(found.append)
        return found
    return [identifier.get_chunk_info(index) for index in range(identifier.get_num_chunks())]


def _gzip_count(data: memoryview, limit: int) -> int | None:
    """Return the number of bytes that `data` inflates to, or a number over `limit`; None if it is damaged."""
    inflater, total = zlib.decompressobj(), 0
    try:
        for start in range(0, len(data), _PIECE):
            piece: bytes | memoryview = data[start : start + _PIECE]
            count = _PIECE
            while (piece or count == _PIECE) and total <= limit:
                count = len(inflater.decompress(piece, _PIECE))
                piece = inflater.unconsumed_tail
                total += count
    except zlib.error:
        return None
    return total if total > limit or (inflater.eof and not inflater.unused_data) else None


def _lzf_count(data: memoryview, limit: int) -> int | None:
    """Return as `_gzip_count` does. A byte below 32 begins a copy of the input, another one a copy of the output."""
    codes, total, place, length = bytes(data), 0, 0, len(data)
    try:
        while place < length and total <= limit:
            code = codes[place]
            if code < 32:
                total, place = total + code + 1, place + code + 2
            elif code < 224:
                total, place = total + (code >> 5) + 2, place + 2
            else:
                total, place = total + codes[place + 1] + 9, place + 3
    except IndexError:
        return None
    return total if total > limit or place == length else None


_COUNTS: dict[int | None, Callable[[memoryview, int], int | None]] = {_GZIP: _gzip_count, _LZF: _lzf_count}
