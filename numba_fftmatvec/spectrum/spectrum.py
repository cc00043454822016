"""From the first block column to the stored spectrum, piece by piece, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakSet

import numpy as np

from ..backends import Backend, Buffer
from ..errors import NonFiniteError
from ..kernels.encoding import decode_launcher, encode_launcher
from ..kernels.formats import COMPLEX128, StoredArrays, decode
from ..kernels.padding import copy_launcher
from ..kernels.reductions import PARTIALS, reduce_launcher
from ..layout import MatrixLayout
from ..precision import Precision
from .capacity import check_capacity, column_pieces
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
    precision : Precision
        Precision of the stored values.

    Attributes
    ----------
    owners : WeakSet
        The matrices that use it: values may be loaded over it only while there is no other one.
    """

    def __init__(self, backend: Backend, layout: MatrixLayout, precision: Precision) -> None:
        self._backend = backend
        self._layout = layout
        self.precision = precision
        self.format = precision.format
        self.owners: WeakSet[Any] = WeakSet()
        values, scales = self.format.shapes(layout.nd, layout.nm, layout.frequencies)
        self._values: Buffer = backend.zeros(values, self.format.part)
        self._scales: Buffer = backend.zeros(scales, DOUBLE)

    @property
    def views(self) -> StoredArrays:
        """The stored arrays, as kernels take them."""
        return StoredArrays(self._values.view, self._scales.view)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored values and scales."""
        layout = self._layout
        return self.format.nbytes(layout.nd, layout.nm, layout.frequencies)

    def load(self, source: BlockRowSource, progress: Callable[[range], Iterable[int]] = iter) -> None:
        """Transform and store every block row of this rank, in pieces of columns that bound the memory.

        Parameters
        ----------
        source : callable
            Called for each piece, in order.
        progress : callable
            Wraps the iteration over the rows, to show how far it is.

        Raises
        ------
        NonFiniteError
            A block has a NaN or an infinity, and the format has neither.
        """
        self._fill(source, progress)
        self._backend.trim()  # before products are planned, which need other memory
        self._check_finite()

    def _fill(self, source: BlockRowSource, progress: Callable[[range], Iterable[int]]) -> None:
        backend, layout = self._backend, self._layout
        pieces = column_pieces(layout)
        largest = len(pieces[0])
        with backend.active(), backend.intake((largest, layout.Nt)) as intake:
            transform = self._transform(largest)
            encode = encode_launcher(backend.target, self.format, 1.0 / layout.padded_size)
            for row in progress(layout.block_rows):
                for cols in pieces:
                    transforms = transform(source(row, cols, intake))
                    encode(*self._part(row, cols), transforms.view)
            backend.synchronize()

    def _transform(self, rows: int) -> Callable[[Buffer], Buffer]:
        """Return the function that pads and transforms (n, Nt) values, n <= rows, to (n, 2 width) parts."""
        backend, length = self._backend, self._layout.padded_size
        padded = backend.zeros((rows, length), DOUBLE)
        # The padding of each run is encoded too. It is zero, so it does not affect the scales.
        room = backend.zeros((rows, COMPLEX128.pitch(self._layout.frequencies)), np.complex128)
        run = backend.rfft(length, padded, room)
        pad = copy_launcher(backend.target, DOUBLE, DOUBLE, DOUBLE)

        def transform(values: Buffer) -> Buffer:
            count = len(values.array)
            head = backend.wrap(padded.array[:count])
            pad(head.view, values.view)
            return backend.wrap(run(head).array[:count].view(DOUBLE))

        return transform

    def _part(self, row: int, cols: range) -> StoredArrays:
        """Return some columns of a block row as kernels take them; None for the scales of formats that have none."""
        first = self._layout.block_cols.start
        place = row - self._layout.block_rows.start, slice(cols.start - first, cols.stop - first)
        scales = self._backend.wrap(self._scales.array[place]).view if self.format.is_fixed else None
        return StoredArrays(self._backend.wrap(self._values.array[place]).view, scales)

    def _check_finite(self) -> None:
        """Raise if an encode_launcher met what fixed point has no number for: it left a scale that is not finite."""
        if not self.format.is_fixed:
            return
        backend = self._backend
        with backend.active():
            scales, partials = backend.wrap(self._scales.array.reshape(-1)), backend.empty((PARTIALS + 1,), DOUBLE)
            reduce_launcher(backend.target, "max_magnitude")(partials.view, scales.view, scales.view)
        if np.isfinite(backend.download(partials.array[PARTIALS:])).all():
            return
        row, col, _ = np.argwhere(~np.isfinite(backend.download(self._scales.array)))[0]
        block = f"block (row {self._layout.block_rows[row]}, column {self._layout.block_cols[col]})"
        raise NonFiniteError(
            f"{block}: expected values with a finite transform, to be stored as {self.precision.name}, "
            "found NaN or infinity"
        )

    def converted(self, precision: Precision) -> Spectrum:
        """Return a spectrum of the values that this one represents, in a precision. Local.

        It is this one where the precision is the same, else a new one.

        Raises
        ------
        CapacityError
            It does not fit the memory.
        NonFiniteError
            A block has a NaN or an infinity, and the new format has neither.
        """
        if precision == self.precision:
            return self
        check_capacity(self._backend, self._layout, precision, "converting a spectrum")
        result = Spectrum(self._backend, self._layout, precision)
        self._convert(result)
        self._backend.trim()
        result._check_finite()
        return result

    def _convert(self, result: Spectrum) -> None:
        backend, layout = self._backend, self._layout
        pieces = column_pieces(layout)
        parts = 2 * COMPLEX128.pitch(layout.frequencies)
        with backend.active():
            transforms = backend.zeros((len(pieces[0]), parts), DOUBLE)
            read, write = (
                decode_launcher(backend.target, self.format),
                encode_launcher(backend.target, result.format, 1.0),
            )
            for row in layout.block_rows:
                for cols in pieces:
                    piece = backend.wrap(transforms.array[: len(cols)]).view
                    read(piece, *self._part(row, cols))
                    write(*result._part(row, cols), piece)
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
        index = row - layout.block_rows.start
        parts = backend.download(self._values.array[index])
        scales = backend.download(self._scales.array[index if self.format.is_fixed else 0])
        stored = decode(self.format, parts, scales)[:, : layout.frequencies]
        values = np.fft.irfft(stored, layout.padded_size, axis=-1, norm="forward")
        return np.ascontiguousarray(values[:, : layout.Nt])
