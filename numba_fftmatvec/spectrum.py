"""From the first block column to the stored spectrum, piece by piece, and back."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from weakref import WeakSet

import numpy as np

from .backends import Backend, Buffer
from .errors import CapacityError, NonFiniteError
from .kernels import ceil_div
from .kernels.padding import copy_rows
from .kernels.reductions import PARTIALS, reduction
from .kernels.storage import COMPLEX128, FORMATS, Format, Stored, decode, decoder, encoder
from .layout import Layout
from .partition import block_range
from .sources import BlockRowSource

DOUBLE = np.dtype(np.float64)

# Memory of the set-up beside the spectrum. Pieces of this size hide what it costs to start one.
SETUP_BYTES = 128 << 20


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

    Attributes
    ----------
    owners : WeakSet
        The matrices that use it: values may be loaded over it only while there is no other one.
    """

    def __init__(self, backend: Backend, layout: Layout, stored: Format) -> None:
        self._backend = backend
        self._layout = layout
        self.stored = stored
        self.owners: WeakSet[Any] = WeakSet()
        shapes = stored.shapes(len(layout.rows), len(layout.cols), layout.frequencies)
        self._values: Buffer = backend.zeros(shapes.values, stored.part)
        self._scales: Buffer = backend.zeros(shapes.scales, DOUBLE)

    @property
    def views(self) -> Stored:
        """The stored arrays, as kernels take them."""
        return Stored(self._values.view, self._scales.view)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored values and scales."""
        layout = self._layout
        return self.stored.nbytes(len(layout.rows), len(layout.cols), layout.frequencies)

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
        with backend.active(), backend.intake((largest, layout.block_size)) as intake:
            transform = self._transform(largest)
            encode = encoder(backend.target, self.stored, 1.0 / layout.padded_size)
            for row in progress(layout.rows):
                for cols in pieces:
                    transforms = transform(source(row, cols, intake))
                    encode(*self._part(row, cols), transforms.view)
            backend.synchronize()

    def _transform(self, rows: int) -> Callable[[Buffer], Buffer]:
        """Return the function that pads and transforms (n, Nt) values, n <= rows, to (n, 2 width) parts."""
        backend, length = self._backend, self._layout.padded_size
        padded = backend.zeros((rows, length), DOUBLE)
        # What lies beyond the frequencies is stored as well: zeros, which no scale notices.
        room = backend.zeros((rows, COMPLEX128.pitch(self._layout.frequencies)), np.complex128)
        run = backend.rfft(length, padded, room)
        pad = copy_rows(backend.target, DOUBLE, DOUBLE, DOUBLE)

        def transform(values: Buffer) -> Buffer:
            count = len(values.array)
            head = backend.wrap(padded.array[:count])
            pad(head.view, values.view)
            return backend.wrap(run(head).array[:count].view(DOUBLE))

        return transform

    def _part(self, row: int, cols: range) -> Stored:
        """Return some columns of a block row as kernels take them; None for the scales of formats that have none."""
        first = self._layout.cols.start
        place = row - self._layout.rows.start, slice(cols.start - first, cols.stop - first)
        scales = self._backend.wrap(self._scales.array[place]).view if self.stored.is_fixed else None
        return Stored(self._backend.wrap(self._values.array[place]).view, scales)

    def _check_finite(self) -> None:
        """Raise if an encoder met what fixed point has no number for: it left a scale that is not finite."""
        if not self.stored.is_fixed:
            return
        backend = self._backend
        with backend.active():
            scales, partials = backend.wrap(self._scales.array.reshape(-1)), backend.empty((PARTIALS + 1,), DOUBLE)
            reduction(backend.target, "max_magnitude")(partials.view, scales.view, scales.view)
        if np.isfinite(backend.download(partials.array[PARTIALS:])).all():
            return
        row, col, _ = np.argwhere(~np.isfinite(backend.download(self._scales.array)))[0]
        raise NonFiniteError(
            f"block (row {self._layout.rows[row]}, column {self._layout.cols[col]}): expected values with a finite "
            f"transform, to be stored as {self.stored.name}, found NaN or infinity"
        )

    def converted(self, stored: Format) -> Spectrum:
        """Return a new spectrum of the values that this one represents, in another format. Local.

        Raises
        ------
        CapacityError
            It does not fit the memory.
        NonFiniteError
            A block has a NaN or an infinity, and the new format has neither.
        """
        formats = {each.name: each for each in FORMATS}
        check_capacity(self._backend, self._layout, formats, stored.name, "converting a spectrum")
        result = Spectrum(self._backend, self._layout, stored)
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
            read, write = decoder(backend.target, self.stored), encoder(backend.target, result.stored, 1.0)
            for row in layout.rows:
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
        index = row - layout.rows.start
        parts = backend.download(self._values.array[index])
        scales = backend.download(self._scales.array[index if self.stored.is_fixed else 0])
        stored = decode(self.stored, parts, scales)[:, : layout.frequencies]
        values = np.fft.irfft(stored, layout.padded_size, axis=-1, norm="forward")
        return np.ascontiguousarray(values[:, : layout.block_size])


def _column_bytes(layout: Layout) -> int:
    """Return what the set-up needs for one column: two slots of values, padded, transformed, and cuFFT's work area."""
    values, transforms = 8 * layout.block_size, 16 * COMPLEX128.pitch(layout.frequencies)
    return 2 * values + 2 * values + 3 * transforms


def column_pieces(layout: Layout) -> list[range]:
    """Return the global indices of the columns that are set up at a time, the largest piece first."""
    first, total = layout.cols.start, len(layout.cols)
    count = ceil_div(total, max(1, SETUP_BYTES // _column_bytes(layout)))
    pieces = (block_range(total, count, i) for i in range(count))
    return [range(first + piece.start, first + piece.stop) for piece in pieces]


def check_capacity(
    backend: Backend, layout: Layout, formats: Mapping[str, Format], name: str, what: str, *, in_place: bool = False
) -> None:
    """Raise a CapacityError unless the memory that is free holds a spectrum and its set-up.

    Parameters
    ----------
    backend : Backend
        Where it is to live; where that cannot tell what is free there is no check.
    layout : Layout
        Sizes of the matrix.
    formats : mapping
        The formats that the spectrum could have, by the names that the message uses.
    name : str
        The one that is wanted.
    what : str
        What is being done, for the message.
    in_place : bool
        Whether a spectrum is there already, so that its set-up alone needs memory.
    """
    sizes = {key: f.nbytes(len(layout.rows), len(layout.cols), layout.frequencies) for key, f in formats.items()}
    setup = len(column_pieces(layout)[0]) * _column_bytes(layout)
    needed = setup + (0 if in_place else sizes[name])
    free = backend.free_bytes()
    if free is not None and free < needed:
        gc.collect()  # what a matrix held that is gone may be in a reference cycle
        free = backend.free_bytes()
    if free is None or needed <= free:
        return
    remedies = [f"{key} ({size + setup} bytes)" for key, size in sizes.items() if size + setup <= free]
    blocks = (free - setup) // formats[name].nbytes(1, 1, layout.frequencies)
    if blocks > 0:
        ranks = ceil_div(layout.num_rows * layout.num_cols, blocks)
        remedies.append(f"at least {ranks} ranks with as much memory each")
    raise CapacityError(
        f"{what}: expected at most the {free} bytes of memory that are available to this rank, found a need of "
        f"{needed} ({sizes[name]} for the spectrum as {name}, {setup} for its set-up); what would fit: "
        f"{' or '.join(remedies) or 'nothing of these sizes'}"
    )
