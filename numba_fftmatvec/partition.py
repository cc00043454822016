"""Arithmetic of block distributions: how n blocks are split over p ranks. Pure functions, no communication.

The rule is the same everywhere: the first ``n % p`` ranks hold one block more than the others.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

from .errors import GridError, ShapeError


def block_count(total: int, parts: int, index: int) -> int:
    """Return how many of `total` blocks part `index` of `parts` holds."""
    return total // parts + (1 if index < total % parts else 0)


def block_start(total: int, parts: int, index: int) -> int:
    """Return the global index of the first block of part `index`."""
    return index * (total // parts) + min(index, total % parts)


def block_range(total: int, parts: int, index: int) -> range:
    """Return the global indices of the blocks of part `index`.

    >>> [block_range(7, 3, i) for i in range(3)]
    [range(0, 3), range(3, 5), range(5, 7)]
    """
    start = block_start(total, parts, index)
    return range(start, start + block_count(total, parts, index))


def block_counts(total: int, parts: int) -> list[int]:
    """Return the number of blocks of every part, in order.

    >>> block_counts(7, 3)
    [3, 2, 2]
    """
    return [block_count(total, parts, i) for i in range(parts)]


def global_blocks(blocks: int, parts: int, *, global_sizes: bool, what: str) -> int:
    """Return the global number of blocks of a dimension, checked against its distribution.

    Parameters
    ----------
    blocks : int
        The size that the caller gave: global, or local to each rank.
    parts : int
        Number of ranks that the dimension is split over.
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
    blocks = positive_int(blocks, what)
    total = blocks if global_sizes else blocks * parts
    if total < parts:
        raise GridError(f"{what}: expected at least one block for each of {parts} ranks, found {total} blocks")
    return total


def positive_int(value: object, what: str) -> int:
    """Return `value` as an int; a ShapeError names `what` unless it is a positive integer (bools are not)."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = 0
    if number < 1:
        raise ShapeError(f"{what}: expected a positive integer, found {value!r}")
    return number


def check_shape(found: Sequence[int], expected: Sequence[int], what: str) -> None:
    """Raise a ShapeError that names `what` unless the two shapes are equal."""
    if tuple(found) != tuple(expected):
        raise ShapeError(f"{what}: expected shape {tuple(expected)}, found {tuple(found)}")
