"""Plans of transforms: the radices of a length, and the threads that take them.

A transform whose length is the product of some radices runs in passes, one for each radix. The rules and limits below
come from measurements of many plans on an H100.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .butterflies import roots
from .jit import ceil_div, shared_memory

RADIX_MAX = 32  # a thread keeps as many complex numbers in registers
PASSES_MAX = 4
LENGTHS = 16, 128  # up to which one pass is enough, and two
WARP = 32
WARPS = 4  # blocks take registers for a multiple of these
THREADS_LEAST = 96  # a multiprocessor gains nothing from smaller blocks
THREADS_MOST = 1024
SLOTS_THREADS = 64  # of blocks that transform several short pairs
REGISTERS = 65536  # of a multiprocessor
THREAD_REGISTERS = 255
SPARE = 28  # registers that a thread takes beside its numbers
# Registers of a thread by the bytes of a number: with at most so many numbers in them, and with more.
FEW = 22
BOUNDS = {16: (128, THREAD_REGISTERS), 8: (96, 128)}
BANKS = 128  # bytes that shared memory reads or writes at a time


@dataclass(frozen=True)
class Plan:
    """How a length is transformed.

    Parameters
    ----------
    radices : tuple of int
        The passes' radices, whose product is the length. The first of a forward transform and the last of an inverse
        one are even.
    threads : int
        Threads of a pair of rows.
    slots : int
        Pairs that a block transforms at a time.
    resident : int
        Blocks that a multiprocessor holds at a time, which bounds a thread's registers.
    """

    radices: tuple[int, ...]
    threads: int
    slots: int = 1
    resident: int = 1

    @property
    def length(self) -> int:
        """The length of a transform."""
        return math.prod(self.radices)

    @property
    def before(self) -> tuple[int, ...]:
        """The product of the radices before each pass."""
        return tuple(math.prod(self.radices[:i]) for i in range(len(self.radices)))

    @property
    def counts(self) -> tuple[int, ...]:
        """Transforms of each pass that a thread computes."""
        return tuple(ceil_div(self.length // radix, self.threads) for radix in self.radices)

    @property
    def values(self) -> int:
        """Complex numbers that a thread keeps in registers."""
        return max(map(int.__mul__, self.radices, self.counts))

    @property
    def offsets(self) -> tuple[int, ...]:
        """The place in the table at which each pass's roots begin."""
        sizes = [0, *(before * (radix - 1) for before, radix in self._later())]
        return tuple(sum(sizes[: i + 1]) for i in range(-1, len(sizes) - 1))

    @property
    def entries(self) -> int:
        """The length of the table of roots, at least one."""
        return max(1, sum(before * (radix - 1) for before, radix in self._later()))

    def turned(self) -> Plan:
        """Return the plan with the radices in reverse order, which transforms in the other direction."""
        return replace(self, radices=self.radices[::-1])

    def period(self, itemsize: int) -> int:
        """Return the distance of the gaps in shared memory after the first pass, which separate banks; 0 for none."""
        if len(self.radices) == 1:
            return 0
        numbers = BANKS // itemsize  # that one access reads or writes
        radix, common = self.radices[0], math.gcd(self.radices[0], numbers)
        if common == 1:
            return 0
        distinct = numbers // common
        return radix * (distinct if math.prod(self.radices[2:]) % distinct == 0 else 1)

    def slot(self, itemsize: int) -> int:
        """Return the length of a pair in shared memory, gaps included."""
        period = self.period(itemsize)
        return self.length + (self.length // period if period else 0)

    def shared(self, itemsize: int) -> int:
        """Return the bytes of a block's shared memory."""
        return self.slots * self.slot(itemsize) * itemsize if len(self.radices) > 1 else 0

    def roots(self, inverse: bool) -> Any:
        """Return the table of roots of unity in complex128, which the launchers take in the dtype of the spectra."""
        tables = [
            roots(np.outer(np.arange(1, radix) * (1 if inverse else -1), np.arange(before)), before * radix).reshape(-1)
            for before, radix in self._later()
        ]
        return np.concatenate(tables or [np.ones(1, np.complex128)])

    def _later(self) -> list[tuple[int, int]]:
        """Return the passes after the first, whose inputs are multiplied by roots: the product before, the radix."""
        return list(zip(self.before, self.radices, strict=True))[1:]


def plan(length: int, dtype: Any, inverse: bool = False, shared: int | None = None) -> Plan | None:
    """Return the plan of a transform.

    Parameters
    ----------
    length : int
        Length of the transform, twice that of a row.
    dtype : dtype
        complex64 or complex128, the dtype of the spectra.
    inverse : bool
        Whether spectra become rows.
    shared : int, optional
        Bytes of shared memory that a block may have; by default as many as the current device lets it have. 227 KiB
        (compute capability 9.0) hold lengths up to 12288 in complex128, 99 KiB (8.6) up to 6160, 64 KiB (7.5) up to
        4032; longer ones in complex64.

    Returns
    -------
    Plan or None
        None for lengths without a plan: odd ones, those with a prime factor above 31, and those that exceed a block's
        shared memory or registers.
    """
    itemsize = np.dtype(dtype).itemsize
    limit = shared_memory() if shared is None else shared
    if length < 2 or length % 2 or length * itemsize > max(limit, RADIX_MAX * itemsize):
        return None
    wanted = 1 + sum(length > each for each in LENGTHS)

    def cost(radices: tuple[int, ...]) -> tuple[float, ...]:
        return max(len(radices), wanted), max(radices), len(radices), max(radices) / min(radices)

    for radices in sorted(factorings(length), key=cost):
        found = _arranged(radices, itemsize)
        found = found.turned() if found and inverse else found
        if found and found.shared(itemsize) <= limit:
            return found
    return None


def factorings(length: int, passes: int = PASSES_MAX, least: int = 2) -> Iterator[tuple[int, ...]]:
    """Yield the ascending products of at most `passes` radices, none below `least`."""
    if least <= length <= RADIX_MAX:
        yield (length,)
    if passes > 1:
        for radix in range(least, min(RADIX_MAX, math.isqrt(length)) + 1):
            if length % radix == 0:
                yield from ((radix, *rest) for rest in factorings(length // radix, passes - 1, radix))


def _arranged(radices: tuple[int, ...], itemsize: int) -> Plan | None:
    """Return the forward plan of ascending radices, None if a thread's registers cannot hold its numbers.

    The smallest even radix comes first, as half of a row's inputs are zero.
    """
    even = next(radix for radix in radices if radix % 2 == 0)
    rest = list(radices)
    rest.remove(even)
    ordered = (even, *rest)
    length = math.prod(radices)
    sums = max(map(_largest_prime, radices)) // 2  # a prime's transform keeps sums of its inputs too
    found = []
    for radix in radices:
        plan = Plan(ordered, min(length // radix, THREADS_MOST))
        slots = max(1, SLOTS_THREADS // plan.threads)
        threads = _multiple(plan.threads * slots, WARP)
        numbers = plan.values + sums
        room = min(THREAD_REGISTERS, REGISTERS // _multiple(threads, WARP * WARPS))
        if numbers * itemsize // 4 + SPARE > room:
            continue
        resident = max(1, REGISTERS // (threads * BOUNDS[itemsize][numbers > FEW]))
        steps = sum(map(int.__mul__, plan.radices, plan.counts))  # that a thread takes one after another
        cost = steps * max(_multiple(plan.threads, WARP), THREADS_LEAST)
        # Fewer threads run where each takes more registers.
        found.append((cost * (5 if numbers > FEW else 4), replace(plan, slots=slots, resident=resident)))
    return min(found, key=lambda each: each[0])[1] if found else None


def _multiple(number: int, unit: int) -> int:
    """Return the next multiple of a unit."""
    return ceil_div(number, unit) * unit


def _largest_prime(radix: int) -> int:
    """Return the largest prime factor of a radix."""
    return next(p for p in range(radix, 1, -1) if radix % p == 0 and all(p % q for q in range(2, p)))
