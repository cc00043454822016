"""How vectors go from time to frequency and back: the stages around SBGEMV, of one kind for each backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from .backends import Buffer
from .kernels._launch import ceil_div
from .layout import MatrixLayout, Space
from .precision import Precision
from .stages import (
    CopyRows,
    Fourier,
    Overlapped,
    PackPairs,
    Stage,
    TransformPairs,
    TransformRows,
    UnpackPairs,
)
from .workspace import Workspace

# Pairs of rows are padded and transformed in chunks of this size, two at a time: larger ones gain nothing more, smaller
# ones cost launches, and the padded rows need this much memory twice whatever the number of rows.
CHUNK_BYTES = 32 << 20


class Transforms(Protocol):
    """Builds the stages between a vector's blocks and its spectrum, for this rank's blocks of one space."""

    def spectrum(self, space: Space, precision: Precision) -> Buffer:
        """Return the buffer that holds a vector's spectrum."""

    def forward(
        self, space: Space, source: Any, rounding: Any, precision: Precision, *, timed: bool
    ) -> tuple[Stage, ...]:
        """Return the stages that pad and transform blocks of the dtype `source`, rounded to `rounding`.

        With `timed` they run one after another, so that each of their phases can be timed.
        """

    def inverse(
        self, space: Space, precision: Precision, rounding: Any, own: Buffer | None, *, timed: bool
    ) -> tuple[Stage, ...]:
        """Return the stages that transform back and unpad, into `own` or the product's result."""


class RealTransforms:
    """Real transforms of every block of every vector, by scipy.fft.

    They go through in pieces that caches hold; timed, pad and transform are passes over all blocks.
    """

    def __init__(self, workspace: Workspace, layout: MatrixLayout, num_vecs: int) -> None:
        self._get = workspace.get
        self._backend: Any = workspace.backend
        self._layout = layout
        self._num_vecs = num_vecs

    def spectrum(self, space: Space, precision: Precision) -> Buffer:
        """Return (vectors x blocks, frequencies)."""
        shape = self._layout.vector(space, self._num_vecs).rows, self._layout.frequencies
        return self._get(f"spectra.{space}", shape, precision.complex)

    def forward(
        self, space: Space, source: Any, rounding: Any, precision: Precision, *, timed: bool
    ) -> tuple[Stage, ...]:
        """Return pad and FFT; the padded rows' tails stay zero."""
        length, spectrum = self._layout.padded_size, self.spectrum(space, precision)
        if not timed:
            return (TransformRows("fft", self._backend.pad_and_rfft(length, rounding, precision.real), spectrum),)
        padded = self._rows("padded", space, precision)
        transform = self._backend.rfft(length, padded, spectrum)
        return CopyRows("pad", self._backend, source, rounding, padded), Fourier("fft", transform)

    def inverse(
        self, space: Space, precision: Precision, rounding: Any, own: Buffer | None, *, timed: bool
    ) -> tuple[Stage, ...]:
        """Return IFFT and unpad."""
        length = self._layout.padded_size
        if not timed:
            return (TransformRows("ifft", self._backend.irfft_and_unpad(length, rounding, precision.real), own),)
        time = self._rows("time", space, precision)
        transform = self._backend.irfft(length, self.spectrum(space, precision), time)
        return Fourier("ifft", transform), CopyRows("unpad", self._backend, precision.real, rounding, own)

    def _rows(self, name: str, space: Space, precision: Precision) -> Buffer:
        shape = self._layout.vector(space, self._num_vecs).rows, self._layout.padded_size
        return self._get(f"{name}.{space}", shape, precision.real)


class PairedTransforms:
    """Complex transforms of pairs of blocks, of one vector or of two, which are half as many (see `kernels.pairs`).

    They go through in chunks, which bound the memory.
    """

    def __init__(self, workspace: Workspace, layout: MatrixLayout, num_vecs: int) -> None:
        self._get = workspace.get
        self._backend: Any = workspace.backend
        self._layout = layout
        self._num_vecs = num_vecs

    def spectrum(self, space: Space, precision: Precision) -> Buffer:
        """Return (pairs, padded size)."""
        shape = self._pairs(space), self._layout.padded_size
        return self._get(f"spectra.{space}", shape, precision.complex)

    def forward(
        self, space: Space, source: Any, rounding: Any, precision: Precision, *, timed: bool
    ) -> tuple[Stage, ...]:
        """Return pad and FFT of every chunk; the padded rows' tails stay zero."""
        chunks: list[tuple[Stage, ...]] = []
        for backend, first, padded, part, last in self._chunks("padded", space, precision, timed):
            pack = PackPairs(backend, source, rounding, padded, first, self._apart(space))
            transform = backend.fft(self._layout.padded_size, padded, part, inverse=False)
            # The next chunk reads the vector too: only the last one hands on what all of them have made.
            chunks.append((pack, TransformPairs("fft", transform, self.spectrum(space, precision) if last else None)))
        return self._joined("fft", chunks, timed)

    def inverse(
        self, space: Space, precision: Precision, rounding: Any, own: Buffer | None, *, timed: bool
    ) -> tuple[Stage, ...]:
        """Return IFFT and unpad of every chunk."""
        chunks: list[tuple[Stage, ...]] = []
        for backend, first, time, part, _ in self._chunks("time", space, precision, timed):
            transform = backend.fft(self._layout.padded_size, part, time, inverse=True)
            unpack = UnpackPairs(backend, time, rounding, own, first, self._apart(space))
            chunks.append((TransformPairs("ifft", transform, None), unpack))
        return self._joined("ifft", chunks, timed)

    def _joined(self, phase: str, chunks: list[tuple[Stage, ...]], timed: bool) -> tuple[Stage, ...]:
        if timed or len(chunks) == 1:
            return tuple(stage for stages in chunks for stage in stages)
        return (Overlapped(phase, (self._backend, self._backend.branch()), chunks),)

    def _apart(self, space: Space) -> int:
        """Return how far apart the rows of a pair are: neighbouring blocks, or the same block of the next vector."""
        return 1 if self._num_vecs == 1 else len(self._layout.vector(space).blocks)

    def _pairs(self, space: Space) -> int:
        apart = self._apart(space)
        return ceil_div(self._layout.vector(space, self._num_vecs).rows, 2 * apart) * apart

    def _chunks(
        self, name: str, space: Space, precision: Precision, timed: bool
    ) -> Iterator[tuple[Any, int, Buffer, Buffer, bool]]:
        """Yield for each chunk who computes it, its first pair, its rows in time, its spectrum, and if it is the last.

        Chunks take turns with the backend and its branch, each of which has rows that its chunks share.
        """
        pairs, length = self._pairs(space), self._layout.padded_size
        step = min(pairs, max(1, CHUNK_BYTES // (length * precision.complex.itemsize)))
        spectrum = self.spectrum(space, precision)
        for turn, first in enumerate(range(0, pairs, step)):
            branch = 0 if timed else turn % 2
            rows = self._get(f"{name}.{space}.{branch}", (step, length), precision.complex)
            part = spectrum.array[first : first + step]
            backend = self._backend.branch() if branch else self._backend
            wrapped = self._backend.wrap(rows.array[: len(part)]), self._backend.wrap(part)
            yield backend, first, *wrapped, first + step >= pairs


TRANSFORMS: dict[str, type[RealTransforms] | type[PairedTransforms]] = {"cpu": RealTransforms, "cuda": PairedTransforms}
