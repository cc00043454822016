"""Real transforms between rows and tiles of frequencies on the CPU, a row in each lane of SIMD vectors.

A thread takes as many rows as a vector has lanes. It copies their heads to workspace as complex numbers of two time
steps each. Passes transform these (Stockham's algorithm), one for each radix of the length. The real transform has
twice that length. Its frequencies come from two of the complex ones each, on the way to the tiles. Back it goes in
reverse order, with the same passes. The padding's zeros are neither stored nor added, and only heads are transformed
back. One kernel serves all lengths.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import get_num_threads, prange

from .butterflies import roots
from .formats import TILE, aligned, vector_tiles
from .jit import Called, CpuNest, Free, Kernel, Target, array_type, cached_kernel, ceil_div, scalar_type
from .lanes import vector_width
from .radices import factorings
from .rowvectors import Pass, copy_values, join_frequencies, load_tile, store_tile, transform_pass

# The relative time that a pass of each radix takes for a number. They were fitted with AVX2: of 22 lengths up to 2000,
# the plan that they choose takes at most 2 % more time than the fastest one.
WEIGHTS = {2: 1.3, 3: 1.5, 4: 1.4, 5: 2.0, 6: 1.7, 7: 2.9, 8: 2.1, 10: 2.7, 11: 4.1, 13: 4.7}
RADICES = tuple(WEIGHTS)
# Bytes of a thread's workspace: of 262,143 time steps with AVX-512. For longer rows NumPy needs less.
LARGEST = 64 << 20
# Bytes of rows and tiles from which a second thread takes less time to wake up than it saves.
PARALLEL_BYTES = 1 << 19

first_pass, next_pass, last_pass = Free("first_pass"), Free("next_pass"), Free("last_pass")
copy_steps, copy_step, join = Free("copy_steps"), Free("copy_step"), Free("join")
load, store, store_last = Free("load"), Free("store"), Free("store_last")
group_of, LANES = Free("group_of"), Free("LANES")


@dataclass(frozen=True)
class RowPlan:
    """How a length is transformed.

    Parameters
    ----------
    radices : tuple of int
        The passes' radices, whose product is the length.
    """

    radices: tuple[int, ...]

    @property
    def length(self) -> int:
        """The length of the complex transforms, half of that of the real ones."""
        return math.prod(self.radices)

    def tables(self, kind: str) -> tuple[Any, Any]:
        """Return the passes and the table of roots of unity.

        A pass is its radix, the product of those before, and the place of its roots in the table. The table begins with
        the factors that join frequencies of the complex transform to those of the real one.
        """
        forward = kind == "rfft"
        quarters = 2 * np.arange(self.length + 1) + self.length
        parts = [roots(-quarters, 4 * self.length) / 2 if forward else roots(quarters, 4 * self.length)]
        passes, before = [], 1
        for radix in self.radices:
            passes.append((radix, before, 2 * sum(map(len, parts))))
            if before > 1:
                turns = -np.outer(np.arange(before), np.arange(1, radix))
                parts.append(roots(turns, before * radix).reshape(-1))
            before *= radix
        return np.array(passes), np.concatenate(parts).view(np.float64)


@cache
def row_plan(length: int, real: np.dtype[Any]) -> RowPlan | None:
    """Return the plan of complex transforms; None for length 1, with prime factors above 13, and for long ones."""
    if math.prod(workspace(length, real)) * real.itemsize > LARGEST:
        return None
    found = [each for each in factorings(length, length.bit_length()) if all(radix in WEIGHTS for radix in each)]
    best = min(found, key=lambda radices: sum(WEIGHTS[radix] for radix in radices), default=None)
    # The first pass multiplies by no roots, and of its inputs half are the padding's zeros: it has the largest radix.
    return RowPlan(best[::-1]) if best else None


def lanes_of(real: np.dtype[Any]) -> int:
    """Return the number of rows that a vector holds."""
    return vector_width() * 8 // real.itemsize


def workspace(length: int, real: np.dtype[Any]) -> tuple[int, int]:
    """Return the shape of a thread's workspace: two buffers, since a pass does not run in place."""
    return 2, 2 * lanes_of(real) * TILE * vector_tiles(1, length + 1, 1)[1]


def _forward_group(tiles, rows, first, last, work, table, passes, heads, length):
    number, radix = 2 * LANES, passes[0, 0]
    source, target = work[0], work[1]
    whole = heads // LANES * LANES
    for t in range(0, whole, LANES):
        copy_steps(rows, first, last, t, source)
    for t in range(whole, heads):
        copy_step(rows, first, last, t, source)
    for i in range(heads * LANES, length // radix * ((radix + 1) // 2) * number):
        source[i] = 0.0  # the rest of what a pass reads
    first_pass(source, target, table, 0, radix, 1, length)
    for i in range(1, passes.shape[0]):
        source, target = target, source
        next_pass(source, target, table, passes[i, 2], passes[i, 0], passes[i, 1], length)
    for i in range(number):
        target[length * number + i] = target[i]
    for tile in range((length + 1) // TILE):
        store(tiles, tile, first, last, target, table, length)
    for tile in range((length + 1) // TILE, tiles.shape[1]):
        store_last(tiles, tile, first, last, target, table, length)


def _inverse_group(tiles, rows, first, last, work, table, passes, heads, length):
    number, final = 2 * LANES, passes.shape[0] - 1
    source, target = work[0], work[1]
    for tile in range(tiles.shape[1]):
        load(tiles, tile, first, last, source)
    for i in range(LANES):  # these two frequencies are real
        lowest, highest = source[i], source[length * number + i]
        source[i], source[LANES + i] = lowest - highest, lowest + highest
    for k in range(1, length // 2 + 1):
        join(source, table, k, length)
    first_pass(source, target, table, 0, passes[0, 0], 1, length)
    for i in range(1, final):
        source, target = target, source
        next_pass(source, target, table, passes[i, 2], passes[i, 0], passes[i, 1], length)
    if final > 0:
        source, target = target, source
        last_pass(source, target, table, passes[final, 2], passes[final, 0], passes[final, 1], length)
    whole = heads // LANES * LANES
    for t in range(0, whole, LANES):
        copy_steps(rows, first, last, t, target)
    for t in range(whole, heads):
        copy_step(rows, first, last, t, target)


GROUPS = {"rfft": _forward_group, "irfft": _inverse_group}


def _transform_groups(tiles, rows, work, table, passes, total, heads, length):
    shares, groups = work.shape[0], (total + LANES - 1) // LANES
    for share in prange(shares):
        for group in range(share * groups // shares, (share + 1) * groups // shares):
            group_of(tiles, rows, group * LANES, total - 1, work[share], table, passes, heads, length)


@cached_kernel
def group_kernel(kind: str, rows: Any, rounding: Any, real: Any, lanes: int) -> Kernel:
    """Return the kernel of a transform, for dtypes of the rows, of the rounding and of the transform."""
    into, dtypes = kind == "rfft", (rows, rounding, real)
    signature = (
        *(array_type(np.float64, 4), array_type(rows, 2), array_type(real, 3), array_type(real, 1)),
        *(array_type(np.int64, 2), *[scalar_type(int)] * 3),
    )

    def of(*about: bool) -> Any:
        return transform_pass(Pass(*about), RADICES, real, lanes)

    bindings = {
        "LANES": lanes,
        "group_of": Called(GROUPS[kind]),
        "copy_steps": copy_values(into, lanes, dtypes, lanes),
        "copy_step": copy_values(into, 1, dtypes, lanes),
        "first_pass": of(into, False, False),
        "next_pass": of(False, True, False),
    }
    if into:
        bindings |= {"store": store_tile(True, real, lanes), "store_last": store_tile(False, real, lanes)}
    else:
        bindings |= {"load": load_tile(real, lanes), "join": join_frequencies(real, lanes)}
        bindings |= {"last_pass": of(False, True, True)}
    nest = CpuNest(_transform_groups, signature, parallel_bytes=PARALLEL_BYTES, counted=2)
    return Kernel(f"{kind}_{rows.char}{rounding.char}{real.char}", {"cpu": nest}, bindings)


def group_launcher(
    target: Target,
    kind: str,
    plan: RowPlan,
    num_vecs: int,
    blocks: int,
    dtypes: tuple[np.dtype[Any], np.dtype[Any], np.dtype[Any]],
    allocate: Callable[..., Any],
) -> Callable[[Any, Any, int], None]:
    """Compile a transform and return ``launch(tiles, rows, heads)`` on checked arrays; see `transform_launcher`."""
    real, length = dtypes[2], plan.length
    run = group_kernel(kind, *dtypes, lanes_of(real)).launcher(target)
    passes, table = plan.tables(kind)
    table, total = table.astype(real), num_vecs * blocks
    shares = min(get_num_threads(), ceil_div(total, lanes_of(real)))
    work = aligned(allocate, (shares, *workspace(length, real)), real)

    def launch(tiles: Any, rows: Any, heads: int) -> None:
        run(tiles, rows, work, table, passes, total, heads, length)

    return launch
