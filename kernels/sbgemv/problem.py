"""Description of an SBGEMV: its sizes, its operation and its dtypes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..formats import Format, StoredArrays
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

    def rows(self, blocks: int) -> int:
        """Return the number of rows of a vector's spectrum on CUDA: pairs of blocks, or of vectors (see `pairs`)."""
        return ceil_div(blocks, 2) if self.num_vecs == 1 else ceil_div(self.num_vecs, 2) * blocks

    def check(self, result: Any, spectrum: StoredArrays, vector: Any) -> None:
        """Raise TypeError or ValueError for an array on CUDA that does not fit the problem."""
        runs = self.format.scales(self.frequencies)
        self.check_spectrum(spectrum, (self.nd, self.nm, None), (self.nd, self.nm, runs))
        check_runs("spectrum", spectrum.values.shape[2] // 2, self.frequencies)
        for array, dtype, blocks, what in (
            (vector, self.vector, self.reduced, "vector's spectrum"),
            (result, self.result, self.results, "result's spectrum"),
        ):
            check(array, np.dtype(dtype), (self.rows(blocks), None), what)
            check_runs(what, array.shape[1], self.length)

    def check_spectrum(
        self, spectrum: StoredArrays, values: tuple[int | None, ...], scales: tuple[int | None, ...]
    ) -> None:
        """Raise TypeError or ValueError for a stored spectrum of another dtype or of other shapes."""
        check(spectrum.values, self.format.part, values, "spectrum")
        if self.format.is_fixed:
            check(spectrum.scales, np.float64, scales, "spectrum's scales")


def check_runs(what: str, found: int, least: int) -> None:
    """Raise ValueError for runs with fewer frequencies than `least`."""
    if found < least:
        raise ValueError(f"{what}: expected runs of at least {least} frequencies, found {found}")
