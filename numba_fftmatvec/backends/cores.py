"""The cores of a node, shared by its ranks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from fractions import Fraction


def usable_cores() -> frozenset[int]:
    """Return the numbers of the cores that the calling thread may use."""
    return frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def available_cores() -> int:
    """Return the number of cores that the calling thread may use."""
    return len(usable_cores())


def to_mask(cores: AbstractSet[int]) -> bytes:
    """Return the bytes of a mask in which each core sets the bit of its number."""
    mask = sum(1 << core for core in cores)
    return mask.to_bytes(mask.bit_length() // 8 + 1, "little")


def from_mask(mask: bytes) -> frozenset[int]:
    """Return the cores of a mask."""
    bits = int.from_bytes(mask, "little")
    return frozenset(core for core in range(bits.bit_length()) if bits >> core & 1)


@dataclass(frozen=True)
class Place:
    """A rank's place in its node.

    Parameters
    ----------
    rank, size : int
        The rank's index among the ranks of its node, and their number.
    share : Fraction
        The rank's part of the node's cores.
    """

    rank: int
    size: int
    share: Fraction

    @classmethod
    def of(cls, cores: Sequence[AbstractSet[int]], rank: int) -> Place:
        """Return the place of a rank, by the cores that each rank of the node may use.

        The ranks that may use a core have equal parts of it.
        """
        share = sum((Fraction(1, sum(core in other for other in cores)) for core in cores[rank]), Fraction())
        return cls(rank, len(cores), share)

    @classmethod
    def alone(cls) -> Place:
        """Return the place of a process that is the only rank of its node."""
        return cls.of([usable_cores()], 0)

    @property
    def has_core(self) -> bool:
        """Whether the rank's part is at least a whole core."""
        return self.share >= 1

    @property
    def cores(self) -> int:
        """The whole cores of the rank's part, at least 1."""
        return max(1, int(self.share))
