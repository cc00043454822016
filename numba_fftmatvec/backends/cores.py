"""The cores of a node, shared by its ranks, and the number of a rank's threads."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from fractions import Fraction
from operator import attrgetter, itemgetter
from typing import NamedTuple

from ..arguments import bounded_int
from ..kernels.threads import accessors, pool_size

ENVIRONMENT_VARIABLE = "NUMBA_FFTMATVEC_THREADS"


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


def requested_threads(threads: object) -> int | None:
    """Return the argument `threads`; by default the value of the environment variable, or None if it is not set.

    Raises
    ------
    ArgumentError
        The value is not an integer, is less than 1, or is more than the cores or than numba's threads.
    """
    what = "threads"
    if threads is None:
        what, threads = ENVIRONMENT_VARIABLE, os.environ.get(ENVIRONMENT_VARIABLE)
        if threads is None:
            return None
        if re.fullmatch(r"[+-]?\d{1,18}", threads, re.ASCII):
            threads = int(threads)
    cores = available_cores(), "the cores that this process may use"
    pool = pool_size(), "numba's threads, set by NUMBA_NUM_THREADS"
    most, bound = min(cores, pool, key=itemgetter(0))
    return bounded_int(threads, most, what, bound)


class Threads(NamedTuple):
    """A number of threads, and its origin in words: a variable, or the share of the cores."""

    number: int
    origin: str


def default_threads(place: Place, backend: str) -> Threads:
    """Return the number of threads of a rank without a request: the smallest limit, and of equal ones the first.

    The limits are the cores of the rank's share and OMP_NUM_THREADS; on the backend ``"cpu"``, which runs kernels on
    numba's threads, also the size of their pool and the calling thread's number in numba.
    """
    limits = [Threads(place.cores, "the rank's share of the cores")]
    if openmp := re.match(r"\s*0*([1-9]\d{0,8})\s*(,|$)", os.environ.get("OMP_NUM_THREADS", "")):
        limits.append(Threads(int(openmp[1]), "OMP_NUM_THREADS"))
    if backend == "cpu":
        get_threads, _ = accessors()
        limits += [Threads(pool_size(), "NUMBA_NUM_THREADS"), Threads(get_threads(), "numba.set_num_threads")]
    return min(limits, key=attrgetter("number"))


def present_threads(backend: str) -> Threads:
    """Return the number of threads that a Comm of one rank, without the argument `threads`, would have now.

    Raises
    ------
    ArgumentError
        The environment variable has no valid number.
    """
    requested = requested_threads(None)
    if requested is not None:
        return Threads(requested, ENVIRONMENT_VARIABLE)
    return default_threads(Place.alone(), backend)
