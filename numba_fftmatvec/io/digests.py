"""SHA-256 digests of the values of a file, by spans, so that a reader of a part verifies this part alone.

`docs/io_format.md` describes them. They are verified where a file has them.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ChecksumError, FileFormatError

Read = Callable[[int, NDArray[np.float64]], None]

ROOT, SPANS, SPAN = "sha256", "sha256_spans", "sha256_span"  # attributes
BYTES = hashlib.sha256().digest_size
LEAST_SPAN, MOST_SPANS = 2**13, 2**10  # values; 1024 digests leave half of the 64 KiB that an attribute may take
# The attributes that the digest of a file covers, in this order.
BOUND = (
    "reindex",
    "n_param",
    "param_steps",
    "n_obs",
    "obs_steps",
    "qoi",
    "num_vecs",
    "checksum",
    "block_row",
    "block_rows",
    "content_digest",
    SPAN,
)

_PIECE = 2**21  # values that are read at a time
_THREADED = 2**17  # values, from which on several threads are faster
_MOST_THREADS = 8


@dataclass(frozen=True)
class Digests:
    """The digests of a file of values.

    Parameters
    ----------
    size : int
        Number of values.
    span : int
        Number of values of each digest; the last one may be of fewer.
    spans : bytes
        The SHA-256 digests of the spans, one after another.
    """

    size: int
    span: int
    spans: bytes

    @classmethod
    def unknown(cls, size: int) -> Digests:
        """Return digests of a number of values that are not known yet."""
        span = max(LEAST_SPAN, 1 << (-(-size // MOST_SPANS) - 1).bit_length())
        return cls(size, span, bytes(BYTES * -(-size // span)))

    @classmethod
    def of(cls, size: int, read: Read, threads: int | None = None) -> Digests:
        """Return the digests of values that ``read(first, out)`` reads, by at most `threads` threads; see `read`."""
        unknown = cls.unknown(size)
        found: list[bytes] = []
        step = max(1, _PIECE // unknown.span) * unknown.span
        with _Hashing(size, threads) as digests_of:
            for first in range(0, size, step):
                values = np.empty(min(size, first + step) - first)
                read(first, values)
                found += digests_of(values, unknown.span)
        return cls(size, unknown.span, b"".join(found))

    def root(self, attributes: Mapping[str, int]) -> bytes:
        """Return the digest of a file: of the bound attributes and of all spans."""
        bound = "".join(f"{name} {attributes[name]}\n" for name in BOUND if name in attributes)
        return hashlib.sha256(bound.encode() + self.spans).digest()

    def attributes(self, others: Mapping[str, int]) -> dict[str, np.int64 | NDArray[np.uint8]]:
        """Return all attributes of a file with these other ones."""
        stored: dict[str, Any] = {name: np.int64(value) for name, value in (*others.items(), (SPAN, self.span))}
        stored[ROOT] = np.frombuffer(self.root(stored), np.uint8)
        stored[SPANS] = np.frombuffer(self.spans, np.uint8).reshape(-1, BYTES)
        return stored

    def read(
        self,
        path: Path,
        read: Read,
        wanted: Sequence[slice],
        out: Sequence[NDArray[np.float64]],
        unit: int,
        threads: int | None = None,
    ) -> None:
        """Read parts of the values, and verify the spans that contain them.

        Parameters
        ----------
        path : Path
            The file, for messages.
        read : callable
            ``read(first, out)`` reads values.
        wanted : sequence of slice
            The parts, in ascending order.
        out : sequence of array
            An array for each part.
        unit : int
            Number of values that are read together, such as those of a chunk.
        threads : int, optional
            The largest number of threads; by default one for each core that this process may use.

        Raises
        ------
        ChecksumError
            Values are not those of their digest.
        """
        starts = [part.start for part in wanted]
        with _Hashing(sum(part.stop - part.start for part in wanted), threads) as digests_of:
            for first, stop in self._pieces(wanted, unit):
                index = max(0, bisect_right(starts, first) - 1)
                part = wanted[index]
                if part.start <= first and stop <= part.stop:
                    values = out[index][first - part.start : stop - part.start]
                    read(first, values)
                    self._verify(path, first, digests_of(values, self.span))
                    continue
                values = np.empty(stop - first)
                read(first, values)
                self._verify(path, first, digests_of(values, self.span))
                for part, target in zip(wanted[index:], out[index:], strict=True):
                    low, high = max(first, part.start), min(stop, part.stop)
                    if part.start >= stop:
                        break
                    if low < high:
                        target[low - part.start : high - part.start] = values[low - first : high - first]

    def _pieces(self, wanted: Sequence[slice], unit: int) -> Iterator[tuple[int, int]]:
        """Yield whole spans that contain the parts, each once, some at a time."""
        step = max(1, max(_PIECE, unit) // self.span) * self.span
        done = 0
        for part in wanted:
            if part.start == part.stop:
                continue
            first = max(done, part.start - part.start % self.span)
            done = max(done, min(self.size, -(-part.stop // self.span) * self.span))
            for start in range(first, done, step):
                yield start, min(start + step, done)

    def _verify(self, path: Path, first: int, found: Iterable[bytes]) -> None:
        for index, digest in enumerate(found, first // self.span):
            expected = self.spans[index * BYTES : (index + 1) * BYTES]
            if digest != expected:
                place = f"vec[{index * self.span}:{min(self.size, (index + 1) * self.span)}]"
                raise ChecksumError(
                    f"{path}, {place}: expected values of the SHA-256 {expected.hex()}, found {digest.hex()}"
                )


def stored_digests(path: Path, size: int, attributes: Any, bound: Mapping[str, int]) -> Digests | None:
    """Return the digests of a file, verified against the digest of the file; None if the file has none.

    Parameters
    ----------
    path : Path
        The file, for messages.
    size : int
        Number of values.
    attributes : h5py.AttributeManager
        The attributes of the dataset.
    bound : mapping
        The values of the bound attributes that the file has.

    Raises
    ------
    FileFormatError
        The digests are incomplete or malformed.
    ChecksumError
        The digest of the file is not that of its attributes and spans.
    """
    present = [name for name in (ROOT, SPANS, SPAN) if name in attributes]
    if not present:
        return None
    if len(present) < 3:
        raise FileFormatError(f"{path}: expected all of {ROOT}, {SPANS} and {SPAN}, found only {', '.join(present)}")
    span = bound[SPAN]
    if span < 1:
        raise FileFormatError(f"{path}, attribute {SPAN}: expected a positive integer, found {span}")
    digests = Digests(size, span, _bytes(path, attributes, SPANS, (-(-size // span), BYTES)))
    expected, found = _bytes(path, attributes, ROOT, (BYTES,)), digests.root(bound)
    if expected != found:
        raise ChecksumError(
            f"{path}: expected attributes and digests of the SHA-256 {expected.hex()}, found {found.hex()}"
        )
    return digests


def _bytes(path: Path, attributes: Any, name: str, shape: tuple[int, ...]) -> bytes:
    """Return the bytes of an attribute; its shape is checked before they are read."""
    attribute = attributes.get_id(name)
    if attribute.shape != shape or attribute.dtype != np.uint8:
        raise FileFormatError(
            f"{path}, attribute {name}: expected uint8 of shape {shape}, "
            f"found {attribute.dtype} of shape {attribute.shape}"
        )
    return np.asarray(attributes[name]).tobytes()


class _Hashing:
    """A context with a function that returns the digests of the spans of values, with several threads if it helps."""

    def __init__(self, values: int, threads: int | None) -> None:
        most = len(os.sched_getaffinity(0)) if threads is None else threads
        self._threads = min(_MOST_THREADS, most) if values >= _THREADED else 1
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Callable[[NDArray[np.float64], int], Iterable[bytes]]:
        self._pool = ThreadPoolExecutor(self._threads) if self._threads > 1 else None
        return self._digests

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def _digests(self, values: NDArray[np.float64], span: int) -> Iterable[bytes]:
        spans = [values[first : first + span] for first in range(0, len(values), span)]
        return self._pool.map(_digest, spans) if self._pool is not None else map(_digest, spans)


def _digest(values: NDArray[np.float64]) -> bytes:
    return hashlib.sha256(values.data).digest()
