"""Sizes of a matrix and of this rank's share of it."""

from __future__ import annotations

from dataclasses import dataclass

from .partition import block_range


@dataclass(frozen=True)
class Layout:
    """A matrix of `num_rows` x `num_cols` blocks of `block_size` steps on a process grid, seen from one of its ranks.

    Parameters
    ----------
    num_rows, num_cols, block_size : int
        Nd, Nm and Nt.
    rows, cols : range
        Global indices of the block rows and block columns that this rank holds.
    """

    num_rows: int
    num_cols: int
    block_size: int
    rows: range
    cols: range

    @classmethod
    def of(cls, sizes: tuple[int, int, int], grid: tuple[int, int], place: tuple[int, int]) -> Layout:
        """Return the layout of a matrix of the sizes (Nd, Nm, Nt) on a grid, at the place (row, column) in it."""
        rows, cols = (block_range(n, p, i) for n, p, i in zip(sizes[:2], grid, place, strict=True))
        return cls(*sizes, rows, cols)

    @property
    def padded_size(self) -> int:
        """Length of the transforms: twice the block size, so that the circular convolution does not wrap."""
        return 2 * self.block_size

    @property
    def frequencies(self) -> int:
        """Number of frequencies of a real transform of the padded size."""
        return self.padded_size // 2 + 1

    def local_blocks(self, space: str) -> int:
        """Return this rank's number of blocks of a ``"col"`` or ``"row"`` vector."""
        return len(self.cols if space == "col" else self.rows)
