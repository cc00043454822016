"""Conversions of stored parts to double in CUDA kernels."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import config, types

# A double whose upper half is UPPER has a lower half of weight 1: it is 2^52 + lower.
UPPER, OFFSET, SIGN_BIT = 0x43300000, float(2**52 + 2**31), 2**31


def widening(part: np.dtype[Any]) -> Callable[..., Any]:
    """Return ``widen(value)``, which converts a part of a dtype exactly to float64.

    The unit that converts is slow, so an int32 goes around it. An int16 gained nothing from that.
    """
    return from_integer() if part == np.int32 else np.float64


@cache
def from_integer() -> Callable[[Any], Any]:
    """Return ``convert(value)`` of an int32 to float64, by integer operations and one addition.

    The integer plus 2^31 becomes the lower half of a double from 2^52 on, and 2^52 + 2^31 is subtracted exactly.
    """
    if config.ENABLE_CUDASIM:
        return np.float64
    from llvmlite import ir
    from numba.cuda.extending import intrinsic

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        i32, i64 = ir.IntType(32), ir.IntType(64)
        lower = builder.zext(builder.xor(arguments[0], i32(SIGN_BIT)), i64)
        double = builder.bitcast(builder.or_(lower, i64(UPPER << 32)), ir.DoubleType())
        return builder.fsub(double, ir.DoubleType()(OFFSET))

    @intrinsic
    def convert(context, value):
        return types.float64(types.int32), codegen

    return convert  # type: ignore[no-any-return]
