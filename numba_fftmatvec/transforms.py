"""How vectors go from time to frequency and back: the stages around SBGEMV, of one kind for each backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from .backends import Buffer
from .kernels._launch import ceil_div
from .layout import Layout
from .precision import Precision
from .stages import CopyRows, Fourier, PackPairs, Stage, TransformPairs, UnpackPairs
from .workspace import Workspace

# Pairs of rows are padded and transformed in chunks of this size: larger ones gain nothing more, smaller ones cost
# launches, and the padded rows need this much memory whatever the number of rows.
CHUNK_BYTES = 64 << 20


class Transforms(Protocol):
    """Builds the stages between a vector's blocks and its spectrum, for this rank's blocks of one space."""

    def spectrum(self, space: str, precision: Precision) -> Buffer:
        """Return the buffer that holds a vector's spectrum."""

    def forward(self, space: str, source: Any, rounding: Any, precision: Precision) -> tuple[Stage, ...]:
        """Return the stages that pad and transform blocks of the dtype `source`, rounded to `rounding`."""

    def inverse(self, space: str, precision: Precision, rounding: Any, own: Buffer | None) -> tuple[Stage, ...]:
        """Return the stages that transform back and unpad, into `own` or the product's result."""


class RealTransforms:
    """Real transforms of every block: scipy.fft works on several rows at once by itself."""

    def __init__(self, workspace: Workspace, layout: Layout) -> None:
        self._get = workspace.get
        self._backend: Any = workspace.backend
        self._layout = layout

    def spectrum(self, space: str, precision: Precision) -> Buffer:
        """Return (blocks, frequencies)."""
        shape = self._layout.local_blocks(space), self._layout.frequencies
        return self._get(f"spectra.{space}", shape, precision.complex)

    def forward(self, space: str, source: Any, rounding: Any, precision: Precision) -> tuple[Stage, ...]:
        """Return pad and FFT; the padded rows' tails stay zero."""
        padded = self._rows("padded", space, precision)
        transform = self._backend.rfft(self._layout.padded_size, padded, self.spectrum(space, precision))
        return CopyRows("pad", self._backend, source, rounding, padded), Fourier("fft", transform)

    def inverse(self, space: str, precision: Precision, rounding: Any, own: Buffer | None) -> tuple[Stage, ...]:
        """Return IFFT and unpad."""
        time = self._rows("time", space, precision)
        transform = self._backend.irfft(self._layout.padded_size, self.spectrum(space, precision), time)
        return Fourier("ifft", transform), CopyRows("unpad", self._backend, precision.real, rounding, own)

    def _rows(self, name: str, space: str, precision: Precision) -> Buffer:
        shape = self._layout.local_blocks(space), self._layout.padded_size
        return self._get(f"{name}.{space}", shape, precision.real)


class PairedTransforms:
    """Complex transforms of pairs of blocks, half as many (see `kernels.pairs`), in chunks of bounded memory."""

    def __init__(self, workspace: Workspace, layout: Layout) -> None:
        self._get = workspace.get
        self._backend: Any = workspace.backend
        self._layout = layout

    def spectrum(self, space: str, precision: Precision) -> Buffer:
        """Return (pairs, padded size)."""
        shape = self._pairs(space), self._layout.padded_size
        return self._get(f"spectra.{space}", shape, precision.complex)

    def forward(self, space: str, source: Any, rounding: Any, precision: Precision) -> tuple[Stage, ...]:
        """Return pad and FFT of every chunk; the padded rows' tails stay zero."""
        stages: list[Stage] = []
        for first, padded, part in self._chunks("padded", space, precision):
            stages.append(PackPairs(self._backend, source, rounding, padded, first))
            transform = self._backend.fft(self._layout.padded_size, padded, part, inverse=False)
            # The next chunk reads the vector too: only the last one hands on what all of them have made.
            last = 2 * (first + len(part.array)) >= self._layout.local_blocks(space)
            stages.append(TransformPairs("fft", transform, self.spectrum(space, precision) if last else None))
        return tuple(stages)

    def inverse(self, space: str, precision: Precision, rounding: Any, own: Buffer | None) -> tuple[Stage, ...]:
        """Return IFFT and unpad of every chunk."""
        stages: list[Stage] = []
        for first, time, part in self._chunks("time", space, precision):
            transform = self._backend.fft(self._layout.padded_size, part, time, inverse=True)
            stages.append(TransformPairs("ifft", transform, None))
            stages.append(UnpackPairs(self._backend, time, rounding, own, first))
        return tuple(stages)

    def _pairs(self, space: str) -> int:
        return ceil_div(self._layout.local_blocks(space), 2)

    def _chunks(self, name: str, space: str, precision: Precision) -> Iterator[tuple[int, Buffer, Buffer]]:
        """Yield each chunk's first pair, its rows in time, which chunks share, and its part of the spectrum."""
        pairs, length = self._pairs(space), self._layout.padded_size
        step = min(pairs, max(1, CHUNK_BYTES // (length * precision.complex.itemsize)))
        rows = self._get(f"{name}.{space}", (step, length), precision.complex)
        spectrum = self.spectrum(space, precision)
        for first in range(0, pairs, step):
            part = spectrum.array[first : first + step]
            yield first, self._backend.wrap(rows.array[: len(part)]), self._backend.wrap(part)


TRANSFORMS: dict[str, type[RealTransforms] | type[PairedTransforms]] = {"cpu": RealTransforms, "cuda": PairedTransforms}
