"""Layouts: the split of blocks over ranks, and the part of a vector or a matrix that a rank holds.

Layouts are pure values. Every split follows one rule: the first ``n % p`` of p ranks hold one block more than the
others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from .arguments import positive_int
from .errors import GridError, SpaceError


class Space(StrEnum):
    """The space of a vector: parameters (``"col"``, one block per block column) or data (``"row"``, per block row)."""

    COL = "col"
    ROW = "row"

    __repr__ = str.__repr__

    @classmethod
    def of(cls, value: object) -> Space:
        """Return the space of a name; raise a SpaceError for any other value."""
        try:
            return cls(value)  # type: ignore[arg-type]
        except ValueError:
            raise SpaceError(f"row_or_col: expected 'row' or 'col', found {value!r}") from None


@dataclass(frozen=True)
class VectorLayout:
    """Sizes of a vector, or of several vectors in one object, and the blocks of one rank.

    Parameters
    ----------
    space : Space
        Parameter space or data space.
    num_blocks : int
        Global number of blocks: Nm or Nd.
    block_size : int
        Time steps of a block: Nt.
    num_vecs : int
        Number of vectors.
    blocks : range
        Global indices of the blocks of this rank's share, whether or not it owns their values.
    """

    space: Space
    num_blocks: int
    block_size: int
    num_vecs: int
    blocks: range

    def __post_init__(self) -> None:
        """Check the fields; raise a SpaceError or a ShapeError if one is invalid."""
        object.__setattr__(self, "space", Space.of(self.space))
        positive_int(self.num_blocks, "number of blocks")
        positive_int(self.block_size, "block size")
        positive_int(self.num_vecs, "number of vectors")

    @property
    def shape(self) -> tuple[int, ...]:
        """Global shape: (num_blocks, block_size), or (num_vecs, num_blocks, block_size) with several vectors."""
        return self.shape_of(self.num_blocks)

    @property
    def local_shape(self) -> tuple[int, ...]:
        """Shape of this rank's share."""
        return self.shape_of(len(self.blocks))

    @property
    def description(self) -> dict[str, object]:
        """The global sizes by name, for the comparison of a call's arguments on all ranks."""
        return {"space": self.space, "shape": self.shape}

    @property
    def rows(self) -> int:
        """Number of this rank's blocks in all vectors together."""
        return self.num_vecs * len(self.blocks)

    @property
    def size(self) -> int:
        """Global number of values."""
        return math.prod(self.shape)

    def shape_of(self, blocks: int) -> tuple[int, ...]:
        """Return the shape of a given number of blocks of every vector."""
        vectors = () if self.num_vecs == 1 else (self.num_vecs,)
        return *vectors, blocks, self.block_size

    def __str__(self) -> str:
        """Return the global sizes in words."""
        return in_words(self.shape)


@dataclass(frozen=True)
class MatrixLayout:
    """Sizes of a matrix of Nd x Nm blocks of Nt x Nt on a process grid, and the blocks of one rank.

    Parameters
    ----------
    Nd, Nm, Nt : int
        Global number of block rows and block columns, and the block size.
    block_rows, block_cols : range
        Global indices of the block rows and block columns that this rank holds.
    """

    Nd: int
    Nm: int
    Nt: int
    block_rows: range
    block_cols: range

    @classmethod
    def of(cls, sizes: tuple[int, int, int], grid: tuple[int, int], place: tuple[int, int]) -> MatrixLayout:
        """Return the layout of a matrix of the sizes (Nd, Nm, Nt) for the rank at a place (row, column) of a grid."""
        rows, cols = (block_range(n, p, i) for n, p, i in zip(sizes[:2], grid, place, strict=True))
        return cls(*sizes, rows, cols)

    @property
    def nd(self) -> int:
        """Number of this rank's block rows."""
        return len(self.block_rows)

    @property
    def nm(self) -> int:
        """Number of this rank's block columns."""
        return len(self.block_cols)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Global (Nd, Nm, Nt)."""
        return self.Nd, self.Nm, self.Nt

    @property
    def padded_size(self) -> int:
        """Length of the transforms: twice the block size, so that the circular convolution does not wrap."""
        return 2 * self.Nt

    @property
    def frequencies(self) -> int:
        """Number of frequencies of a real transform of the padded size."""
        return self.padded_size // 2 + 1

    @lru_cache(maxsize=256)  # noqa: B019 - layouts are small values
    def vector(self, space: Space, num_vecs: int = 1) -> VectorLayout:
        """Return the layout of the matrix's vectors in a space, one object for all calls.

        Products then see by the identity of the objects that a vector fits, which is faster than by their values.
        """
        blocks, mine = {Space.COL: (self.Nm, self.block_cols), Space.ROW: (self.Nd, self.block_rows)}[space]
        return VectorLayout(space, blocks, self.Nt, num_vecs, mine)


def in_words(shape: tuple[int, ...]) -> str:
    """Return the shape of vectors in words, for messages.

    >>> in_words((6, 5)), in_words((3, 6, 5))
    ('6 blocks of 5', '3 vectors of 6 blocks of 5')
    """
    *vectors, blocks, block_size = shape
    return "".join(f"{count} vectors of " for count in vectors) + f"{blocks} blocks of {block_size}"


def block_count(total: int, parts: int, index: int) -> int:
    """Return the number of blocks of part `index`, of `total` blocks in `parts` parts."""
    return total // parts + (1 if index < total % parts else 0)


def block_start(total: int, parts: int, index: int) -> int:
    """Return the global index of the first block of part `index`."""
    return index * (total // parts) + min(index, total % parts)


def block_range(total: int, parts: int, index: int) -> range:
    """Return the global indices of the blocks of part `index`."""
    start = block_start(total, parts, index)
    return range(start, start + block_count(total, parts, index))


def block_ranges(total: int, parts: int) -> list[range]:
    """Return the global indices of the blocks of every part, in order.

    >>> block_ranges(7, 3)
    [range(0, 3), range(3, 5), range(5, 7)]
    """
    return [block_range(total, parts, i) for i in range(parts)]


def global_blocks(blocks: object, parts: int, *, global_sizes: bool, what: str) -> int:
    """Return the global number of blocks of a dimension, checked against its distribution.

    Parameters
    ----------
    blocks : int
        The size that the caller gave: global, or local to each rank.
    parts : int
        Number of ranks over which the dimension is split.
    global_sizes : bool
        Whether `blocks` is the global size; a local one is multiplied by `parts`.
    what : str
        The dimension's name, for messages.

    Raises
    ------
    ShapeError
        `blocks` is not a positive integer.
    GridError
        There are fewer blocks than ranks to hold them.
    """
    count = positive_int(blocks, what)
    total = count if global_sizes else count * parts
    if total < parts:
        raise GridError(f"{what}: expected at least one block for each of {parts} ranks, found {total} blocks")
    return total
