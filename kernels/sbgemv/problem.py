"""Description of an SBGEMV: its sizes, its operation and its dtypes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..formats import TILE, Format, StoredArrays
from ..jit import ceil_div, check


@dataclass(frozen=True)
class Problem:
    """One SBGEMV with this rank's share of the spectrum.

    Parameters
    ----------
    nd, nm : int
        Block rows and block columns of this rank.
    length : int
        Length of the real transforms.
    adjoint : bool
        Whether to apply F* instead of F.
    format : Format
        Format of the stored spectrum.
    vector, result, accumulator : dtype
        Complex dtypes of the operand, of the result and of the sums.
    num_vecs : int
        Right-hand sides.
    """

    nd: int
    nm: int
    length: int
    adjoint: bool
    format: Format
    vector: Any
    result: Any
    accumulator: Any
    num_vecs: int = 1

    @property
    def frequencies(self) -> int:
        """Frequencies of a real transform."""
        return self.length // 2 + 1

    @property
    def results(self) -> int:
        """Rows of the result."""
        return self.nm if self.adjoint else self.nd

    @property
    def reduced(self) -> int:
        """Terms of each sum."""
        return self.nd if self.adjoint else self.nm

    @property
    def spectrum_bytes(self) -> int:
        """Bytes of the stored spectrum."""
        return self.format.nbytes(self.nd, self.nm, self.frequencies)

    def rows(self, blocks: int, *, paired: bool) -> int:
        """Return the number of rows of a vector's spectrum: blocks of all vectors, or pairs of them (see `pairs`)."""
        if not paired:
            return self.num_vecs * blocks
        return ceil_div(blocks, 2) if self.num_vecs == 1 else ceil_div(self.num_vecs, 2) * blocks

    def check(self, result: Any, spectrum: StoredArrays, vector: Any, *, paired: bool) -> None:
        """Raise TypeError or ValueError for an array that does not fit the problem."""
        least = self.length if paired else self.frequencies
        scales = self.format.scales(self.frequencies)
        stored = (self.nd, self.nm, None) if paired else (self.nd, None, self.nm, 2 * TILE)
        check(spectrum.values, self.format.part, stored, "spectrum")
        check(vector, np.dtype(self.vector), (self.rows(self.reduced, paired=paired), None), "vector's spectrum")
        check(result, np.dtype(self.result), (self.rows(self.results, paired=paired), None), "result's spectrum")
        if scales:
            check(spectrum.scales, np.float64, (self.nd, self.nm, scales), "spectrum's scales")
        for name, width, expected in (
            (
                "spectrum",
                spectrum.values.shape[2] // 2 if paired else spectrum.values.shape[1] * TILE,
                self.frequencies,
            ),
            ("vector's spectrum", vector.shape[1], least),
            ("result's spectrum", result.shape[1], least),
        ):
            if width < expected:
                raise ValueError(f"{name}: expected runs of at least {expected} frequencies, found {width}")
