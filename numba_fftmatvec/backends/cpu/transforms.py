"""Transforms on the CPU: scipy.fft's real transforms of every block, fused with the copies to and from padded rows.

Several threads transform the rows in pieces that fit into caches. With a timer, pad and transform are separate passes
over all blocks, so that each can be timed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

from ...kernels import Target, ceil_div
from ...layout import MatrixLayout, Space
from ...precision import Precision
from ..base import Buffer, End, Stage, Workspace
from ..rows import CopyRows
from ..workers import Workers

# Size of the rows that one thread transforms at a time. Their transform stays in a core's cache until it is copied.
# With smaller pieces, waking a second thread takes longer than its work.
PIECE_BYTES = 1 << 19
# Threads that call scipy.fft. Each piece holds the interpreter's lock for about a tenth of its time, so more than eight
# threads do not help. With more cores, scipy.fft uses several for each piece.
MAX_CALLERS = 8

Array = npt.NDArray[Any]
# ``transform(source rows, destination rows, workers)``.
RowTransform = Callable[[Array, Array, int], None]


class Pieces:
    """Threads that transform rows in pieces.

    Parameters
    ----------
    threads : int
        The most cores that may work at a time.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._workers = Workers(MAX_CALLERS - 1)

    def run(self, transform: RowTransform, row_bytes: int, source: Array, destination: Array) -> None:
        """Transform all rows; `row_bytes` is the size of a row during its transform.

        After an error or an interrupt no thread runs on.
        """
        rows = len(source)
        callers = max(1, min(self.threads, MAX_CALLERS, rows * row_bytes // PIECE_BYTES))
        workers = self.threads // callers if callers == MAX_CALLERS else 1
        rounds = max(1, ceil_div(rows * row_bytes, callers * workers * PIECE_BYTES))
        step = max(1, ceil_div(rows, callers * rounds))

        def share(caller: int) -> None:
            for first in range(caller * step, rows, callers * step):
                transform(source[first : first + step], destination[first : first + step], workers)

        self._workers.run([partial(share, caller) for caller in range(callers)])


def pad_and_rfft(length: int, rounding: np.dtype[Any], real: np.dtype[Any]) -> RowTransform:
    """Return the transform of blocks into their spectra: rounded to `rounding`, computed in `real`."""

    def transform(blocks: Array, spectrum: Array, workers: int) -> None:
        values = blocks.astype(rounding, copy=False).astype(real, copy=False)
        spectrum[...] = scipy.fft.rfft(values, length, axis=-1, workers=workers)

    return transform


def irfft_and_unpad(length: int, rounding: np.dtype[Any]) -> RowTransform:
    """Return the unscaled inverse transform of spectra into blocks, the heads of rows, rounded to `rounding`."""

    def transform(spectrum: Array, blocks: Array, workers: int) -> None:
        values = scipy.fft.irfft(spectrum, length, axis=-1, norm="forward", workers=workers)
        blocks[...] = values[:, : blocks.shape[1]].astype(rounding, copy=False)

    return transform


class TransformRows(Stage):
    """Transform all rows in pieces."""

    def __init__(
        self, phase: str, pieces: Pieces, transform: RowTransform, row_bytes: int, source: End, destination: End
    ) -> None:
        super().__init__(phase, source, destination)
        self._pieces = pieces
        self._work = transform, row_bytes

    def run(self) -> None:
        """Read and write each row once."""
        self._pieces.run(*self._work, self.source.array, self.destination.array)


class RealTransforms:
    """Plans the transforms of a matrix's vectors. See `Transforms` for the methods.

    Parameters
    ----------
    pieces : Pieces
        The threads that transform rows.
    target : Target
        The target of the kernels.
    workspace : Workspace
        The memory of the buffers between stages.
    layout : MatrixLayout
        Sizes of the matrix.
    num_vecs : int
        Number of right-hand sides.
    """

    def __init__(
        self, pieces: Pieces, target: Target, workspace: Workspace, layout: MatrixLayout, num_vecs: int
    ) -> None:
        self._pieces = pieces
        self._target = target
        self._get = workspace.get
        self._length = layout.padded_size
        self._layout = layout
        self._num_vecs = num_vecs

    def spectrum(self, space: Space, precision: Precision) -> Buffer:
        """Return a buffer of shape (vectors x blocks, frequencies)."""
        return self._get(f"spectrum.{space}", (self._rows(space), self._layout.frequencies), precision.complex)

    def forward(
        self, space: Space, source: End, rounding: np.dtype[Any], precision: Precision, *, timed: bool
    ) -> tuple[Stage, ...]:
        """Return pad and FFT in one stage, or with `timed` in two; the padded rows' tails stay zero."""
        spectrum = self.spectrum(space, precision)
        if not timed:
            transform = pad_and_rfft(self._length, rounding, precision.real)
            return (self._transform("fft", transform, precision, source, spectrum),)
        padded = self._padded("padded", space, precision)
        transform = pad_and_rfft(self._length, precision.real, precision.real)
        return (
            CopyRows("pad", self._target, source, rounding, padded),
            self._transform("fft", transform, precision, padded, spectrum),
        )

    def inverse(
        self, space: Space, precision: Precision, rounding: np.dtype[Any], destination: End, *, timed: bool
    ) -> tuple[Stage, ...]:
        """Return IFFT and unpad in one stage, or with `timed` in two."""
        spectrum = self.spectrum(space, precision)
        if not timed:
            transform = irfft_and_unpad(self._length, rounding)
            return (self._transform("ifft", transform, precision, spectrum, destination),)
        time = self._padded("time", space, precision)
        transform = irfft_and_unpad(self._length, precision.real)
        return (
            self._transform("ifft", transform, precision, spectrum, time),
            CopyRows("unpad", self._target, time, rounding, destination),
        )

    def _transform(
        self, phase: str, transform: RowTransform, precision: Precision, source: End, destination: End
    ) -> TransformRows:
        row_bytes = self._length * precision.real.itemsize
        return TransformRows(phase, self._pieces, transform, row_bytes, source, destination)

    def _padded(self, name: str, space: Space, precision: Precision) -> Buffer:
        return self._get(f"{name}.{space}", (self._rows(space), self._length), precision.real)

    def _rows(self, space: Space) -> int:
        return self._layout.vector(space, self._num_vecs).rows
