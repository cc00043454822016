"""Products of small matrices in double precision on tensor cores: one instruction of a whole warp.

All 32 threads of a warp call together. Thread ``lane`` holds an element of the left matrix's row ``lane // 4``, column
``lane % 4``, an element of the right matrix's row ``lane % 4``, column ``lane // 4``, and two of the sum's row
``lane // 4``, columns ``2 (lane % 4)`` and one more. In the simulator the threads of a warp exchange their elements.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import Any

from numba import config, types

WARP = 32
COLUMNS = 8  # of the right matrix and of the sum
TERMS = 4  # columns of the left matrix that a thread's row of the right matrix belongs to
HEIGHTS = {(8, 0): 8, (9, 0): 16}  # rows of the widest instruction, by compute capability, where it outruns the others
PATIENCE = 120.0  # seconds until the simulator gives up a warp whose threads do not all call

_SHAPES = {8: "m8n8k4", 16: "m16n8k8"}


@cache
def multiply_add(height: int) -> Callable[..., Any]:
    """Return ``multiply_add(*left, *right, *sums)``, which returns the tuple of sums plus the product.

    Parameters
    ----------
    height : int
        Rows of the left matrix. With 8 rows it has 4 columns, and a thread holds one element of each matrix and two
        sums. With 16 rows it has 8 columns. A thread then holds four elements of it: those of the rows ``lane // 4``
        and 8 more in column ``lane % 4``, and the same in 4 columns more. It holds two of the right matrix, in rows
        that differ by 4, and four sums: two in each of its rows.
    """
    if config.ENABLE_CUDASIM:
        return _simulated(height)
    from llvmlite import ir
    from numba.cuda.extending import intrinsic

    counts = _counts(height)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums = counts[2]
        double = ir.DoubleType()
        result = ir.LiteralStructType([double] * sums)
        names = [f"${i}" for i in range(sum(counts) + sums)]
        groups = [names[:sums], *(names[sums:][i : i + n] for i, n in _spans(counts))]
        text = f"mma.sync.aligned.{_SHAPES[height]}.row.col.f64.f64.f64.f64 "
        text += ", ".join("{" + ", ".join(group) + "}" for group in groups) + ";"
        constraints = ",".join(["=d"] * sums + ["d"] * sum(counts))
        assembly = ir.InlineAsm(ir.FunctionType(result, [double] * sum(counts)), text, constraints)
        found = builder.call(assembly, list(arguments), attrs=("convergent",))
        return context.make_tuple(
            builder, signature.return_type, [builder.extract_value(found, i) for i in range(sums)]
        )

    if height == 8:

        @intrinsic
        def product(context, a, b, c0, c1):
            return types.UniTuple(types.float64, 2)(*[types.float64] * 4), codegen

        return product  # type: ignore[no-any-return]

    @intrinsic
    def wide_product(context, a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):
        return types.UniTuple(types.float64, 4)(*[types.float64] * 10), codegen

    return wide_product  # type: ignore[no-any-return]


def _counts(height: int) -> tuple[int, int, int]:
    """Return a thread's elements of the left matrix, the right matrix and the sums."""
    layers = height // COLUMNS
    return layers * layers, layers, 2 * layers


def _spans(counts: tuple[int, int, int]) -> list[tuple[int, int]]:
    return [(sum(counts[:i]), n) for i, n in enumerate(counts)]


def _simulated(height: int) -> Callable[..., Any]:
    left, right, _ = _counts(height)
    layers = height // COLUMNS

    def product(*elements: Any) -> tuple[Any, ...]:
        lane, all_elements = _exchange(elements)
        row, column = lane // TERMS, 2 * (lane % TERMS)
        sums = list(elements[left + right :])
        for layer in range(layers):
            for side in range(2):
                for term in range(TERMS):
                    a, b = all_elements[TERMS * row + term], all_elements[TERMS * (column + side) + term]
                    for half in range(right):
                        sums[2 * layer + side] += a[layer + layers * half] * b[left + half]
        return tuple(sums)

    return product


class _Warp:
    """The place where the simulated threads of a warp exchange elements."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(WARP)
        self.elements: list[Any] = [None] * WARP


_warps_lock = threading.Lock()


def _exchange(elements: Any) -> tuple[int, list[Any]]:
    """Return the calling thread's lane, and the elements of all threads of its warp."""
    thread: Any = threading.current_thread()
    index, lane = divmod(thread.thread_id, WARP)
    with _warps_lock:
        warp = thread._manager.__dict__.setdefault("warps", {}).setdefault(index, _Warp())
    warp.elements[lane] = elements
    warp.barrier.wait(PATIENCE)
    found = list(warp.elements)
    warp.barrier.wait(PATIENCE)
    return lane, found
