"""The memory that a spectrum and its set-up need, and the check that it is available."""

from __future__ import annotations

import gc
from dataclasses import dataclass

from ..backends import Backend
from ..errors import CapacityError
from ..kernels import ceil_div
from ..kernels.formats import COMPLEX128
from ..layout import MatrixLayout, block_ranges
from ..precision import Precision

# Limit of the set-up's memory, in addition to the spectrum. A piece of this size hides the cost of its launches.
SETUP_BYTES = 128 << 20


def column_bytes(layout: MatrixLayout) -> int:
    """Return the set-up bytes of one column: two slots of values, padded values, transforms, cuFFT's work area."""
    values, transforms = 8 * layout.Nt, 16 * COMPLEX128.pitch(layout.frequencies)
    return 2 * values + 2 * values + 3 * transforms


def column_pieces(layout: MatrixLayout) -> list[range]:
    """Return the pieces of columns that are set up together, as ranges of global indices, the largest first."""
    first, total = layout.block_cols.start, layout.nm
    count = ceil_div(total, max(1, SETUP_BYTES // column_bytes(layout)))
    return [range(first + piece.start, first + piece.stop) for piece in block_ranges(total, count)]


def rows_together(layout: MatrixLayout) -> int:
    """Return the number of block rows whose transforms have at most the memory of the set-up."""
    return max(1, SETUP_BYTES // (column_bytes(layout) * max(1, layout.nm)))


@dataclass(frozen=True)
class Need:
    """Bytes that a rank needs for a spectrum and its set-up.

    Parameters
    ----------
    layout : MatrixLayout
        Sizes of the matrix.
    precision : Precision
        Precision of the stored spectrum.
    setup : int
        Bytes of the set-up.
    in_place : bool
        Whether the spectrum already exists, so that only its set-up needs memory.
    """

    layout: MatrixLayout
    precision: Precision
    setup: int
    in_place: bool = False

    @classmethod
    def of(cls, layout: MatrixLayout, precision: Precision, *, in_place: bool = False) -> Need:
        """Return the need of a spectrum of a matrix."""
        return cls(layout, precision, len(column_pieces(layout)[0]) * column_bytes(layout), in_place)

    def spectrum(self, precision: Precision) -> int:
        """Return the bytes of the spectrum in a precision."""
        return precision.format.nbytes(self.layout.nd, self.layout.nm, self.layout.frequencies)

    @property
    def total(self) -> int:
        """Number of bytes that must be free."""
        return self.setup + (0 if self.in_place else self.spectrum(self.precision))

    def remedies(self, free: int) -> list[str]:
        """Describe the precisions and the number of ranks with which the spectrum would fit in `free` bytes."""
        found = [
            f"{precision.name} ({self.spectrum(precision) + self.setup} bytes)"
            for precision in Precision
            if self.spectrum(precision) + self.setup <= free
        ]
        blocks = (free - self.setup) // self.precision.format.nbytes(1, 1, self.layout.frequencies)
        if blocks > 0:
            ranks = ceil_div(self.layout.Nd * self.layout.Nm, blocks)
            found.append(f"at least {ranks} ranks with as much memory each")
        return found

    def check(self, free: int, what: str) -> None:
        """Raise a CapacityError that names `what` unless `free` bytes are enough."""
        if self.total <= free:
            return
        raise CapacityError(
            f"{what}: expected at most the {free} bytes of memory that are available to this rank, found a need of "
            f"{self.total} ({self.spectrum(self.precision)} for the spectrum as {self.precision.name}, {self.setup} "
            f"for its set-up); alternatives that fit: {' or '.join(self.remedies(free)) or 'none'}"
        )


def check_capacity(
    backend: Backend, layout: MatrixLayout, precision: Precision, what: str, *, in_place: bool = False
) -> None:
    """Raise a CapacityError unless the free memory of a backend holds a spectrum and its set-up.

    Parameters
    ----------
    backend : Backend
        The backend that will hold the spectrum. The check is skipped if it cannot report free memory.
    layout : MatrixLayout
        Sizes of the matrix.
    precision : Precision
        Precision of the stored spectrum.
    what : str
        The work that needs the memory, for the message.
    in_place : bool
        Whether the spectrum already exists, so that only its set-up needs memory.
    """
    need = Need.of(layout, precision, in_place=in_place)
    free = backend.free_bytes()
    if free is not None and free < need.total:
        gc.collect()  # a deleted matrix may still hold memory through a reference cycle
        free = backend.free_bytes()
    if free is not None:
        need.check(free, what)
