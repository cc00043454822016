"""The arrays of a stored spectrum: runs of frequencies on a GPU, tiles of them on the CPU (see `kernels.formats`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backends import Backend, Buffer
from ..backends.base import DOUBLE
from ..kernels.encoding import decode_launcher, encode_launcher
from ..kernels.formats import Format, StoredArrays, aligned
from ..kernels.tiling import tile_launcher
from ..layout import MatrixLayout

# ``write(row, cols, transforms)`` and ``read(row, cols, transforms)`` of some columns of a block row, both as places
# among this rank's, and their (n, 2 width) parts.
Copy = Callable[[int, slice, Buffer], None]


class RunStore:
    """A spectrum in runs of frequencies.

    Parameters
    ----------
    backend : Backend
        The backend that holds the arrays.
    layout : MatrixLayout
        Sizes of the matrix.
    format : Format
        Format of the arrays.
    """

    def __init__(self, backend: Backend, layout: MatrixLayout, format: Format) -> None:
        self._backend, self._layout, self._format = backend, layout, format
        values, scales = self._shapes(layout.nd, layout.nm, layout.frequencies)
        self.values: Buffer = self._allocate(values)
        self.scales: Buffer = backend.zeros(scales, DOUBLE)

    def _shapes(self, *sizes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self._format.shapes(*sizes)

    def _allocate(self, shape: tuple[int, ...]) -> Buffer:
        return self._backend.zeros(shape, self._format.part)

    @property
    def views(self) -> StoredArrays:
        """The arrays, as arguments of kernels."""
        return StoredArrays(self.values.view, self.scales.view)

    @property
    def bounds(self) -> Any:
        """An array (nd, groups, nm, width) of whose magnitudes each block's are multiples: its scales or its values."""
        return self._grouped(self.scales.array if self._format.is_fixed else self.values.array)

    def encoder(self, scale: float, largest: int) -> Copy:
        """Return the function that stores the transforms of at most `largest` columns, multiplied by a factor."""
        encode = encode_launcher(self._backend.target, self._format, scale)

        def write(row: int, cols: slice, transforms: Buffer) -> None:
            encode(self._view(self.values, row, cols), self._scales(row, cols), transforms.view)

        return write

    def decoder(self, largest: int) -> Copy:
        """Return the function that reads the transforms of at most `largest` columns."""
        decode = decode_launcher(self._backend.target, self._format)

        def read(row: int, cols: slice, transforms: Buffer) -> None:
            decode(transforms.view, self._view(self.values, row, cols), self._scales(row, cols))

        return read

    def transforms(self, rows: slice, cols: slice) -> Any:
        """Return the (rows, cols, frequencies) values of some blocks as complex128; it may be a view."""
        layout = self._layout
        if self._format.is_fixed:
            parts = self._decoded(rows, cols)
        else:
            parts = self.values.array[rows, cols].astype(DOUBLE, copy=False)
        return parts.view(np.complex128)[..., : layout.frequencies]

    def _decoded(self, rows: slice, cols: slice) -> Any:
        places, count = range(rows.start, rows.stop), cols.stop - cols.start
        pitch = self._format.pitch(self._layout.frequencies)
        parts = self._backend.zeros((len(places), count, 2 * pitch), DOUBLE).array
        read = self.decoder(count)
        for row, values in zip(places, parts, strict=True):
            read(row, cols, self._backend.wrap(values))
        return parts

    def _grouped(self, array: Any) -> Any:
        return array[:, None]

    def _view(self, buffer: Buffer, row: int, cols: slice) -> Any:
        return self._backend.wrap(buffer.array[row, cols]).view

    def _scales(self, row: int, cols: slice) -> Any:
        """Return the scales of some columns of a block row, None if the format has no scales."""
        return self._view(self.scales, row, cols) if self._format.is_fixed else None


class TileStore(RunStore):
    """A spectrum in tiles of frequencies. The encoder and the decoder of runs work on a piece of memory between."""

    def _shapes(self, *sizes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self._format.tiled(*sizes)

    def _allocate(self, shape: tuple[int, ...]) -> Buffer:
        return self._backend.wrap(aligned(lambda *about: self._backend.zeros(*about).array, shape, self._format.part))

    def encoder(self, scale: float, largest: int) -> Copy:
        """Return the function that stores the transforms of at most `largest` columns, multiplied by a factor."""
        target, format = self._backend.target, self._format
        encode, copy = encode_launcher(target, format, scale), tile_launcher(target, "to", format, format.part)
        runs, scales = self._runs(largest)

        def write(row: int, cols: slice, transforms: Buffer) -> None:
            count = cols.stop - cols.start
            encode(runs[:count], scales[:count] if format.is_fixed else None, transforms.view)
            copy(self.values.array[row], cols.start, runs[:count])
            if format.is_fixed:
                self.scales.array[row, :, cols] = scales[:count].T

        return write

    def decoder(self, largest: int) -> Copy:
        """Return the function that reads the transforms of at most `largest` columns."""
        target, format = self._backend.target, self._format
        if not format.is_fixed:
            copy = tile_launcher(target, "from", format, DOUBLE)
            return lambda row, cols, transforms: copy(self.values.array[row], cols.start, transforms.view)
        decode, copy = decode_launcher(target, format), tile_launcher(target, "from", format, format.part)
        runs, scales = self._runs(largest)

        def read(row: int, cols: slice, transforms: Buffer) -> None:
            count = cols.stop - cols.start
            copy(self.values.array[row], cols.start, runs[:count])
            scales[:count] = self.scales.array[row, :, cols].T
            decode(transforms.view, runs[:count], scales[:count])

        return read

    def transforms(self, rows: slice, cols: slice) -> Any:
        """Return the (rows, cols, frequencies) values of some blocks as complex128."""
        return self._decoded(rows, cols).view(np.complex128)[..., : self._layout.frequencies]

    def _runs(self, largest: int) -> tuple[Any, Any]:
        frequencies = self._layout.frequencies
        runs = np.zeros((largest, 2 * self._format.pitch(frequencies)), self._format.part)
        return runs, np.zeros((largest, self._format.scales(frequencies)))

    def _grouped(self, array: Any) -> Any:
        return array[..., None] if array.ndim == 3 else array


STORES: dict[str, type[RunStore]] = {"cpu": TileStore, "cuda": RunStore}
