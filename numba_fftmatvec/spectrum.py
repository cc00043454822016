"""From the first block column to the stored spectrum, one block row at a time, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .backends import Backend, Buffer
from .kernels.padding import copy_rows
from .kernels.storage import COMPLEX128, Format, encoder
from .layout import Layout
from .sources import BlockRowSource

DOUBLE = np.dtype(np.float64)


class Spectrum:
    """A rank's share of F_hat, stored as ``[d][m][k]`` with each run of frequencies padded to 128 bytes.

    ``F_hat[d, m, k] = rfft(F[d, m, :], 2 Nt)[k] / (2 Nt)``: the scale of the inverse transform is folded in. The
    transforms are double whatever the format, so that storing is the only rounding that the format adds.

    Parameters
    ----------
    backend : Backend
        Where the spectrum lives.
    layout : Layout
        Sizes of the matrix.
    stored : Format
        Format of the values.
    """

    def __init__(self, backend: Backend, layout: Layout, stored: Format) -> None:
        self._backend = backend
        self._layout = layout
        self.stored = stored
        shape = (len(layout.rows), len(layout.cols), stored.pitch(layout.frequencies))
        self.buffer: Buffer = backend.empty(shape, stored.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored values."""
        return int(self.buffer.array.nbytes)

    def load(self, source: BlockRowSource, progress: Callable[[range], Iterable[int]] = iter) -> None:
        """Transform and store every block row of this rank.

        Parameters
        ----------
        source : callable
            Called once for each of this rank's block rows, in order.
        progress : callable
            Wraps the iteration over the rows, to show how far it is.
        """
        backend, layout = self._backend, self._layout
        length = layout.padded_size
        blocks = len(layout.cols)
        raw = backend.empty((blocks, layout.block_size), DOUBLE)
        padded = backend.zeros((blocks, length), DOUBLE)
        pitch = COMPLEX128.pitch(layout.frequencies)
        transform = backend.rfft(length, padded, backend.empty((blocks, pitch), np.complex128))
        pad = copy_rows(backend.target, DOUBLE, DOUBLE, DOUBLE)
        encode = encoder(backend.target, self.stored, 1.0 / length)
        rows = self._reals()
        for row in progress(layout.rows):
            with backend.active():
                source(row, raw)
                pad(padded.view, raw.view)
                values = transform(padded)
                encode(rows[row - layout.rows.start].view, backend.wrap(values.array.view(DOUBLE)).view)
        backend.synchronize()

    def block_row(self, row: int) -> np.ndarray[Any, Any]:
        """Return this rank's part of a block row of F, as a (nm, Nt) float64 host array.

        Parameters
        ----------
        row : int
            The block row's global index; one of this rank's.

        Returns
        -------
        numpy.ndarray
            The values that the stored spectrum represents: those that were loaded, up to its rounding.
        """
        backend, layout = self._backend, self._layout
        stored = backend.download(self.buffer.array[row - layout.rows.start])[:, : layout.frequencies]
        values = np.fft.irfft(stored.astype(np.complex128), layout.padded_size, axis=-1, norm="forward")
        return np.ascontiguousarray(values[:, : layout.block_size])

    def _reals(self) -> list[Buffer]:
        """Return each block row as an array of real and imaginary parts."""
        kind = self.stored.dtype.type(0).real.dtype
        return [self._backend.wrap(row.view(kind)) for row in self.buffer.array]
