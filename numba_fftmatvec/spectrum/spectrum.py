"""The stored spectrum of a matrix, computed from the first block column in pieces, and converted back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any
from weakref import WeakSet

import numpy as np

from ..backends import Backend, Buffer
from ..backends.base import DOUBLE
from ..backends.reduced import reduced
from ..errors import NonFiniteError
from ..kernels.formats import COMPLEX128, StoredArrays
from ..kernels.padding import copy_launcher
from ..layout import MatrixLayout
from ..precision import Precision
from .capacity import check_capacity, column_pieces, rows_together
from .sources import BlockRowSource
from .store import STORES

_versions = count(1)


class Spectrum:
    """A rank's share of F_hat, in the backend's order of frequencies (see `store`).

    ``F_hat[d, m, k] = rfft(F[d, m, :], 2 Nt)[k] / (2 Nt)``: the scale of the inverse transform is folded in. The
    transforms are double for every format, so the format adds only the rounding of the stored values.

    Parameters
    ----------
    backend : Backend
        The backend that holds the spectrum.
    layout : MatrixLayout
        Sizes of the matrix.
    precision : Precision
        Precision of the stored values.

    Attributes
    ----------
    precision : Precision
        Precision of the stored values.
    format : Format
        Format of the stored arrays.
    version : int
        A number that no other values of a spectrum have in this process.
    owners : WeakSet of Spectra
        The owners of the spectrum, one for each matrix that uses it. Only a single owner may load new values.
    """

    def __init__(self, backend: Backend, layout: MatrixLayout, precision: Precision) -> None:
        self._backend = backend
        self._layout = layout
        self.precision = precision
        self.format = precision.format
        self.version = next(_versions)
        self.owners: WeakSet[Any] = WeakSet()
        self._allow_nonfinite = False
        self._squared_gain: float | None = None
        self._store = STORES[backend.target.name](backend, layout, self.format)

    @property
    def views(self) -> StoredArrays:
        """The stored arrays, as arguments of kernels."""
        return self._store.views

    @property
    def nbytes(self) -> int:
        """Bytes of the stored values and scales."""
        layout = self._layout
        return self.format.nbytes(layout.nd, layout.nm, layout.frequencies)

    def load(
        self,
        source: BlockRowSource,
        progress: Callable[[range], Iterable[int]] = iter,
        *,
        allow_nonfinite: bool = False,
    ) -> None:
        """Transform and store every block row of this rank, in pieces of columns that bound the memory.

        Parameters
        ----------
        source : callable
            Source of the values, which is called for each piece in order.
        progress : callable
            A function that wraps the iteration over the rows and shows its progress.
        allow_nonfinite : bool
            Whether NaN and infinities are accepted, if the format can represent them.

        Raises
        ------
        NonFiniteError
            The transform of a block has a NaN or an infinity, which the caller or the format does not allow.
        """
        self._allow_nonfinite = allow_nonfinite
        self._squared_gain = None
        self.version = next(_versions)
        self._fill(source, progress)
        self._backend.trim()  # the plans of products, which follow, need other memory
        self._check_finite()

    def _fill(self, source: BlockRowSource, progress: Callable[[range], Iterable[int]]) -> None:
        backend, layout = self._backend, self._layout
        pieces = column_pieces(layout)
        largest = len(pieces[0])
        # The source may call the caller's function, whose stream must stay the current one.
        with backend.staging((largest, layout.Nt)) as staging:
            with backend.active():
                transform = self._transform(largest)
                write = self._store.encoder(1.0 / layout.padded_size, largest)
            for row in progress(layout.block_rows):
                for cols in pieces:
                    values = source(row, cols, staging)
                    with backend.active():
                        write(*self._place(row, cols), transform(values))
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

    def _place(self, row: int, cols: range) -> tuple[int, slice]:
        """Return the place of some columns of a block row among this rank's."""
        first = self._layout.block_cols.start
        return row - self._layout.block_rows.start, slice(cols.start - first, cols.stop - first)

    def _check_finite(self) -> None:
        """Raise a NonFiniteError that names a block whose stored values are not all finite, unless that is allowed.

        In the fixed-point formats the scales are not finite, since the encoder leaves that for a NaN or an infinity.
        """
        fixed = self.format.is_fixed
        if self._allow_nonfinite and not fixed:
            return
        stored = self._store.bounds
        pieces = [stored] if stored.dtype == DOUBLE else stored  # other dtypes are converted, row by row
        if all(math.isfinite(self._largest(piece)) for piece in pieces):
            return
        finite = np.array([np.isfinite(self._backend.download(row)).all(axis=(0, -1)) for row in stored])
        row, col = np.argwhere(~finite)[0]
        block = f"block (row {self._layout.block_rows[row]}, column {self._layout.block_cols[col]})"
        allowing = "" if fixed else " (allow_nonfinite=True accepts them)"
        raise NonFiniteError(
            f"{block}: expected values with a finite transform, to be stored as {self.precision.name}, "
            f"found NaN or infinity{allowing}"
        )

    def _largest(self, array: Any) -> float:
        """Return the largest magnitude of an array, NaN if it has one."""
        backend = self._backend
        with backend.active():
            values = backend.wrap(array.reshape(-1).astype(DOUBLE, copy=False))
            return float(reduced(backend, "max_magnitude", [(values.view, values.view)])[0])

    def squared_gain(self) -> float:
        """Return the sum of the squared gains of this rank's blocks, computed once.

        The gain of a block is the largest magnitude of its unnormalised transform. Here it is the largest real or
        imaginary part times sqrt(2). In the fixed-point formats the scales give that part.
        """
        if self._squared_gain is None:
            fixed = self.format.is_fixed
            total = 0.0
            first = self._layout.block_cols.start
            for row in self._store.bounds:
                for cols in column_pieces(self._layout):  # they bound the memory of the magnitudes
                    with self._backend.active():
                        largest = abs(row[:, cols.start - first : cols.stop - first]).max(axis=(0, -1))
                    total += float(np.square(self._backend.download(largest), dtype=DOUBLE).sum())
            factor = self._layout.padded_size * (self.format.largest if fixed else 1)
            self._squared_gain = 2.0 * total * factor**2
        return self._squared_gain

    def converted(self, precision: Precision) -> Spectrum:
        """Return a spectrum of the values that this one represents, in a precision. Local.

        Parameters
        ----------
        precision : Precision
            Precision of the stored values.

        Returns
        -------
        Spectrum
            This spectrum if it has that precision; otherwise a new one.

        Raises
        ------
        CapacityError
            The new spectrum does not fit in memory.
        NonFiniteError
            A block has a NaN or an infinity, which the new format cannot represent.
        """
        if precision == self.precision:
            return self
        check_capacity(self._backend, self._layout, precision, "converting a spectrum")
        result = Spectrum(self._backend, self._layout, precision)
        result._allow_nonfinite = self._allow_nonfinite
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
            read = self._store.decoder(len(pieces[0]))
            write = result._store.encoder(1.0, len(pieces[0]))
            for row in layout.block_rows:
                for cols in pieces:
                    piece = backend.wrap(transforms.array[: len(cols)])
                    read(*self._place(row, cols), piece)
                    write(*self._place(row, cols), piece)
            backend.synchronize()

    def block_row(self, row: int) -> np.ndarray[Any, Any]:
        """Return this rank's part of a block row of F, as a (nm, Nt) float64 host array; see `blocks`."""
        values = np.empty((self._layout.nm, self._layout.Nt))
        for _, cols, blocks in self.blocks(range(row, row + 1)):
            values[cols] = self._backend.download(blocks[0])
        return values

    def blocks(self, rows: range, response: Any = None) -> Iterator[tuple[slice, slice, Any]]:
        """Yield this rank's part of block rows of F, in pieces that bound the memory.

        Parameters
        ----------
        rows : range
            Global indices of block rows of this rank.
        response : array, optional
            The transform of a causal filter, ``rfft(h, 2 Nt)``, by which the spectrum is multiplied: the blocks are
            then those of F after the filter. Its shape is (frequencies,) or (nm, frequencies); an array of the
            backend's library.

        Yields
        ------
        rows, cols : slice
            The piece's place among this rank's rows and columns.
        array
            The (rows, cols, Nt) float64 values that the stored spectrum represents: the loaded values up to the
            rounding of the format. An array of the backend's library.
        """
        backend, layout = self._backend, self._layout
        first_row, first_col = layout.block_rows.start, layout.block_cols.start
        fft, options = backend.arrays.fft, backend.arrays.fft_options
        pieces = column_pieces(layout)
        together = rows_together(layout)
        for start in range(rows.start, rows.stop, together):
            some = range(start, min(start + together, rows.stop))
            for cols in pieces:
                mine = slice(cols.start - first_col, cols.stop - first_col)
                with backend.active(), np.errstate(invalid="ignore"):  # the matrix may have infinities
                    transforms = self._transforms(some, cols)
                    if response is not None:
                        transforms = transforms * (response if response.ndim == 1 else response[mine])
                    inverse = fft.irfft(transforms, layout.padded_size, axis=-1, norm="forward", **options)
                yield slice(some.start - first_row, some.stop - first_row), mine, inverse[..., : layout.Nt]

    def _transforms(self, rows: range, cols: range) -> Any:
        """Return the transforms of some blocks, a (rows, cols, frequencies) complex array; it may be a view."""
        start, mine = self._place(rows.start, cols)
        return self._store.transforms(slice(start, start + len(rows)), mine)
