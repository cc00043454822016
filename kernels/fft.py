"""Transforms of pairs of rows on CUDA in one kernel: rows to padded spectra, and spectra back to the rows' heads.

A block transforms a few pairs, each by a few threads, in passes (Stockham's algorithm). In a pass of radix R a thread
transforms R numbers at a time in its registers; between two passes the numbers change threads through shared memory.
Before every pass but the first they are multiplied by roots of unity, which come from a table. A forward transform's
first pass reads the rows, joins them in pairs (see `pairs`) and takes the padding as zeros. The last pass of an inverse
transform stores the rows' heads only.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from .butterflies import butterflies, divide
from .jit import (
    CudaNest,
    Free,
    Kernel,
    Target,
    cached_kernel,
    ceil_div,
    check,
    cuda,
    pointer,
    pointer_type,
    scalar_type,
)
from .memory import load, load_shared, store_shared, store_two
from .overlap import follow as follow_kernel
from .padding import FORMULAS
from .radices import PASSES_MAX, Plan
from .radices import plan as plan

# Plans of forward transforms by their number of passes, for `CASES`.
REPRESENTATIVES = {
    1: Plan((6,), 1, 64, 8),
    2: Plan((10, 10), 10, 6, 8),
    3: Plan((10, 10, 20), 100, 1, 4),
    4: Plan((14, 7, 7, 7), 343, 1, 1),
}
# The specialisations: a number of passes, the dtypes of rows and pairs, and whether values are rounded.
CASES: tuple[tuple[int, str, str, bool], ...] = (
    *((passes, "d", "D", False) for passes in REPRESENTATIVES),
    (3, "f", "F", False),
    (3, "d", "F", False),
    (3, "f", "D", False),
    (3, "d", "D", True),
)

Transforming = Callable[..., None]

RADICES, COUNTS, BEFORE, OFFSETS = Free("RADICES"), Free("COUNTS"), Free("BEFORE"), Free("OFFSETS")
PASSES, LENGTH, LANES, SLOTS, SLOT = Free("PASSES"), Free("LENGTH"), Free("LANES"), Free("SLOTS"), Free("SLOT")
PERIOD, VALUES, ONE, ZERO = Free("PERIOD"), Free("VALUES"), Free("ONE"), Free("ZERO")
REAL, NUMBER = Free("REAL"), Free("NUMBER")
formula, split = Free("formula"), Free("split")
transform_0, transform_1 = Free("transform_0"), Free("transform_1")
transform_2, transform_3 = Free("transform_2"), Free("transform_3")
load_one, load_number, load_shared_number = Free("load_one"), Free("load_number"), Free("load_shared_number")
store, store_number, first_row = Free("store"), Free("store_number"), Free("first_row")
follow, load_root = Free("follow"), Free("load_root")
run_passes, write_shared, read_shared = Free("run_passes"), Free("write_shared"), Free("read_shared")


def _first_row(pair, stride):
    return 2 * pair if stride == 1 else pair + pair // stride * stride


def _write_shared(values, shared, own, lane, radix, count, before, period):
    """Write a pass's results to the places from which the next pass reads its inputs."""
    for k in range(count):
        j = lane + k * LANES
        if (k + 1) * LANES <= LENGTH // radix or j < LENGTH // radix:
            group, member = split(j, before)
            start = group * (before * radix) + member
            if period > 0:
                start += split(j * radix, period)[0]
            for i in range(radix):
                real, imag = values[2 * (k * radix + i)], values[2 * (k * radix + i) + 1]
                store_number(shared, own + 2 * (start + i * before), real, imag)


def _read_shared(values, shared, own, table, lane, radix, count, before, offset, period):
    """Read a pass's inputs and multiply them by roots of unity."""
    for k in range(count):
        j = lane + k * LANES
        if (k + 1) * LANES <= LENGTH // radix or j < LENGTH // radix:
            start, step = j, LENGTH // radix
            if period > 0:
                start += split(j, period)[0]
                step += step // period
            root_at = 2 * (offset + split(j, before)[1])
            for i in range(radix):
                real, imag = load_shared_number(shared, own + 2 * (start + i * step))
                if i > 0:
                    cosine, sine = load_root(table, root_at + 2 * (i - 1) * before)
                    real, imag = real * cosine - imag * sine, real * sine + imag * cosine
                values[2 * (k * radix + i)] = real
                values[2 * (k * radix + i) + 1] = imag


def _run_passes(values, shared, own, table, lane):
    transform_0(values)
    if PASSES > 1:
        write_shared(values, shared, own, lane, RADICES[0], COUNTS[0], 1, PERIOD)
        cuda.syncthreads()
        read_shared(values, shared, own, table, lane, RADICES[1], COUNTS[1], BEFORE[1], OFFSETS[1], PERIOD)
        transform_1(values)
    if PASSES > 2:
        cuda.syncthreads()
        write_shared(values, shared, own, lane, RADICES[1], COUNTS[1], BEFORE[1], 0)
        cuda.syncthreads()
        read_shared(values, shared, own, table, lane, RADICES[2], COUNTS[2], BEFORE[2], OFFSETS[2], 0)
        transform_2(values)
    if PASSES > 3:
        cuda.syncthreads()
        write_shared(values, shared, own, lane, RADICES[2], COUNTS[2], BEFORE[2], 0)
        cuda.syncthreads()
        read_shared(values, shared, own, table, lane, RADICES[3], COUNTS[3], BEFORE[3], OFFSETS[3], 0)
        transform_3(values)


def _forward_cuda(packed, rows, table, pairs, total, stride):
    follow()
    slot, lane = split(np.int64(cuda.threadIdx.x), LANES)
    # Places past the last pair transform it again, and write the same values.
    pair = min(np.int64(cuda.blockIdx.x) * SLOTS + slot, pairs - 1)
    row = first_row(pair, stride)
    shared = cuda.shared.array(0, NUMBER)
    values = cuda.local.array(VALUES, NUMBER)
    upper, lower = row * (LENGTH // 2), min(row + stride, total - 1) * (LENGTH // 2)
    alone = row + stride >= total
    for k in range(COUNTS[0]):
        j = lane + k * LANES
        if (k + 1) * LANES <= LENGTH // RADICES[0] or j < LENGTH // RADICES[0]:
            for i in range(RADICES[0] // 2):
                at = j + i * (LENGTH // RADICES[0])
                real = formula(load_one(rows, upper + at)[0], ONE)
                imag = formula(load_one(rows, lower + at)[0], ONE)
                values[2 * (k * RADICES[0] + i)] = REAL(real)
                values[2 * (k * RADICES[0] + i) + 1] = ZERO if alone else REAL(imag)
    run_passes(values, shared, slot * SLOT, table, lane)
    radix, count = RADICES[PASSES - 1], COUNTS[PASSES - 1]
    for k in range(count):
        j = lane + k * LANES
        if (k + 1) * LANES <= LENGTH // radix or j < LENGTH // radix:
            to = 2 * (pair * LENGTH + j)
            for i in range(radix):
                real, imag = values[2 * (k * radix + i)], values[2 * (k * radix + i) + 1]
                store(packed, to + 2 * i * (LENGTH // radix), real, imag)


def _inverse_cuda(packed, rows, table, pairs, total, stride):
    follow()
    slot, lane = split(np.int64(cuda.threadIdx.x), LANES)
    pair = min(np.int64(cuda.blockIdx.x) * SLOTS + slot, pairs - 1)  # as in _forward_cuda
    row = first_row(pair, stride)
    shared = cuda.shared.array(0, NUMBER)
    values = cuda.local.array(VALUES, NUMBER)
    for k in range(COUNTS[0]):
        j = lane + k * LANES
        if (k + 1) * LANES <= LENGTH // RADICES[0] or j < LENGTH // RADICES[0]:
            at = 2 * (pair * LENGTH + j)
            for i in range(RADICES[0]):
                real, imag = load_number(packed, at + 2 * i * (LENGTH // RADICES[0]))
                values[2 * (k * RADICES[0] + i)] = real
                values[2 * (k * RADICES[0] + i) + 1] = imag
    run_passes(values, shared, slot * SLOT, table, lane)
    radix, count = RADICES[PASSES - 1], COUNTS[PASSES - 1]
    upper, lower = row * (LENGTH // 2), (row + stride) * (LENGTH // 2)
    paired = row + stride < total
    for k in range(count):
        j = lane + k * LANES
        if (k + 1) * LANES <= LENGTH // radix or j < LENGTH // radix:
            for i in range(radix // 2):
                at = j + i * (LENGTH // radix)
                rows[upper + at] = formula(values[2 * (k * radix + i)], ONE)
                if paired:
                    rows[lower + at] = formula(values[2 * (k * radix + i) + 1], ONE)


def _launch(shaped, plan, packed, rows, table, real, stride, overlaps):
    count, total = packed.shape[0], rows.shape[0]
    pointers = pointer(packed, real), pointer(rows), pointer(table, real)
    sizes = map(np.int64, (count, total, stride))
    shape = (ceil_div(count, plan.slots),), plan.threads * plan.slots, plan.shared(packed.dtype.itemsize)
    shaped(*shape, overlaps)((*pointers, *sizes))


@cached_kernel
def _kernel(inverse: bool, plan: Plan, rounds: bool, rows: Any, packed: Any) -> Kernel:
    rows, packed = np.dtype(rows), np.dtype(packed)
    real = packed.type(0).real.dtype
    radices, passes = plan.radices, len(plan.radices)
    fill = [1] * (PASSES_MAX - passes)
    formula = "round" if rounds else "convert"
    bindings: dict[str, Any] = {
        "ONE": (real if inverse else rows).type(1),
        "NUMBER": scalar_type(real),
        "formula": FORMULAS[formula],
        "first_row": _first_row,
        "split": divide(),
        "LENGTH": plan.length,
        "LANES": plan.threads,
        "SLOTS": plan.slots,
        "SLOT": 2 * plan.slot(packed.itemsize),
        "VALUES": 2 * plan.values,
        "PASSES": passes,
        "PERIOD": plan.period(packed.itemsize),
        "RADICES": (*radices, *fill),
        "COUNTS": (*plan.counts, *fill),
        "BEFORE": (*plan.before, *fill),
        "OFFSETS": (*plan.offsets, *fill),
        "load_root": load(2),
        "follow": follow_kernel(),
        "load_shared_number": load_shared(2),
        "store_number": store_shared(),
        "run_passes": _run_passes,
        "write_shared": _write_shared,
        "read_shared": _read_shared,
    }
    if not inverse:
        bindings |= {"ZERO": real.type(0), "REAL": real.type, "load_one": load(1, constant=False), "store": store_two()}
    else:
        bindings["load_number"] = load(2, constant=False)
    for i in range(PASSES_MAX):
        if i < passes:
            inputs = radices[i] // (1 if inverse or i else 2)
            bindings[f"transform_{i}"] = butterflies(radices[i], plan.counts[i], 1 if inverse else -1, inputs)
        else:
            bindings[f"transform_{i}"] = butterflies(1, 1, 1, 1)
    signature = pointer_type(real), pointer_type(rows), pointer_type(real), *[scalar_type(np.int64)] * 3
    bounds = plan.threads * plan.slots, plan.resident
    nests = {"cuda": CudaNest(_inverse_cuda if inverse else _forward_cuda, signature, launch=_launch, bounds=bounds)}
    return Kernel(f"{formula}_{rows.char}{packed.char}_{plan.length}", nests, bindings)


def _launcher(
    inverse: bool, target: Target, plan: Plan, rows: Any, rounding: Any, packed: Any, overlaps: bool
) -> Transforming:
    rows, packed = np.dtype(rows), np.dtype(packed)
    narrow, real = np.dtype(np.float32), packed.type(0).real.dtype
    if plan.radices[-1 if inverse else 0] % 2:
        raise ValueError(f"radices: expected an even {'last' if inverse else 'first'} one, found {plan.radices}")
    rounds = np.dtype(rounding) == narrow and narrow not in (rows, real)
    run = _kernel(inverse, plan, rounds, rows, packed).launcher(target)
    length, entries = plan.length, plan.entries

    def launch(pairs: Any, values: Any, table: Any, stride: int = 1) -> None:
        check(values, rows, (None, length // 2), "rows")
        total = values.shape[0]
        if total % stride:
            raise ValueError(f"rows: expected a multiple of the stride {stride}, found {total}")
        check(pairs, packed, (ceil_div(total, 2 * stride) * stride, length), "pairs of rows")
        check(table, packed, (entries,), "roots of unity")
        run(plan, pairs, values, table, real, stride, overlaps)

    return launch


def forward_launcher(
    target: Target, plan: Plan, rows: Any, rounding: Any, packed: Any, overlaps: bool = False
) -> Transforming:
    """Compile the kernel that joins rows in pairs, pads and transforms them, and return its launcher.

    Parameters
    ----------
    target : Target
        A CUDA device or the simulator.
    plan : Plan
        The plan of a forward transform whose length is twice that of a row.
    rows : dtype
        float32 or float64, the dtype of the rows.
    rounding : dtype
        float32 or float64; values are rounded to it.
    packed : dtype
        complex64 or complex128, the dtype of the spectra.
    overlaps : bool
        Whether it may start while the kernel before it ends (see `overlap`).

    Returns
    -------
    callable
        ``launch(pairs, rows, table, stride=1)`` writes the spectra of all pairs of rows; `table` holds
        ``plan.roots(False)`` in the dtype of the spectra. The partner of a row is `stride` rows further, as in
        `pairs.pack_launcher`. The number of rows is a multiple of `stride`. A row without a partner is paired with
        zeros.
    """
    return _launcher(False, target, plan, rows, rounding, packed, overlaps)


def inverse_launcher(
    target: Target, plan: Plan, rows: Any, rounding: Any, packed: Any, overlaps: bool = False
) -> Transforming:
    """Compile the kernel that transforms spectra back and separates the rows' heads, and return its launcher.

    The parameters are those of `forward_launcher`, with the plan of an inverse transform. The launcher's arguments are
    the same as well; `table` holds ``plan.roots(True)``. Rows are the heads of the unnormalised transforms, whose tails
    are not stored.
    """
    return _launcher(True, target, plan, rows, rounding, packed, overlaps)


def specialisations() -> dict[str, Kernel]:
    """Return representatives of the kernels that this module can launch, by name: both directions of `CASES`."""
    kernels = {}
    for (passes, rows, packed, rounds), inverse in product(CASES, (False, True)):
        forward = REPRESENTATIVES[passes]
        name = f"{'inverse' if inverse else 'forward'}_{'round_' if rounds else ''}{passes}_pass_{rows}{packed}"
        kernels[name] = _kernel(inverse, forward.turned() if inverse else forward, rounds, rows, packed)
    return kernels
