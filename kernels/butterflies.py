"""Discrete Fourier transforms of a few complex numbers in registers, of a CUDA thread or of SIMD vectors.

A transform of length n is written once, on numbers that add and multiply. A kernel's compiler gets it as a sequence of
instructions without loops. In the simulator it computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numba import config, types

Pair = tuple[Any, Any] | None  # real and imaginary part; None is zero

QUARTERS = np.array([1, 1j, -1, -1j])


def roots(numerators: Any, denominators: Any) -> Any:
    """Return ``exp(2 pi i k / n)`` for arrays of k and n; the angles are reduced to an eighth of a turn at most."""
    k, n = np.asarray(numerators), np.asarray(denominators)
    quarters = (8 * k + n) // (2 * n)
    angles = math.pi / 2 * ((4 * k - quarters * n) / n)
    return QUARTERS[quarters % 4] * (np.cos(angles) + 1j * np.sin(angles))


def transform(values: Sequence[Pair], sign: int) -> list[Any]:
    """Return the unnormalised transform, with ``exp(sign 2 pi i j k / n)``, of as many numbers as there are."""
    n = len(values)
    factor = next((p for p in range(2, n) if n % p == 0), n)
    if n == 1:
        return list(values)
    if n == 2:
        return [_add(*values), _subtract(*values)]
    if factor == n:
        return _prime(values, sign)
    power = factor
    while n % (power * factor) == 0:
        power *= factor
    if power < n:
        return _coprime(values, power, n // power, sign)
    root = math.isqrt(n)
    return _composite(values, root if root**2 == n else factor, sign)


def _prime(values: Sequence[Pair], sign: int) -> list[Pair]:
    n, half = len(values), len(values) // 2
    sums = [_add(values[j], values[n - j]) for j in range(1, half + 1)]
    differences = [_subtract(values[j], values[n - j]) for j in range(1, half + 1)]
    result = [values[0]] * n
    for each in sums:
        result[0] = _add(result[0], each)
    for k in range(1, half + 1):
        even, odd = values[0], None
        for j in range(1, half + 1):
            root = roots(j * k % n, n)
            even = _add(even, _scale(sums[j - 1], float(root.real)))
            odd = _add(odd, _scale(differences[j - 1], sign * float(root.imag)))
        odd = _turn(odd, 1, 4)
        result[k], result[n - k] = _add(even, odd), _subtract(even, odd)
    return result


def _coprime(values: Sequence[Pair], a: int, b: int, sign: int) -> list[Pair]:
    """Transform a times b numbers, a and b coprime, without factors in between (the prime-factor algorithm)."""
    n = a * b
    columns = [transform([values[(b * i + a * j) % n] for i in range(a)], sign) for j in range(b)]
    result: list[Pair] = [None] * n
    for k in range(a):
        row = transform([column[k] for column in columns], sign)
        for m in range(b):
            result[(k * b * pow(b, -1, a) + m * a * pow(a, -1, b)) % n] = row[m]
    return result


def _composite(values: Sequence[Pair], a: int, sign: int) -> list[Pair]:
    """Transform a times b numbers (Cooley and Tukey)."""
    n = len(values)
    b = n // a
    columns = [transform(values[j::b], sign) for j in range(b)]
    result: list[Pair] = [None] * n
    for k in range(a):
        result[k::a] = transform([_turn(columns[j][k], sign * j * k, n) for j in range(b)], sign)
    return result


def _add(x: Pair, y: Pair) -> Pair:
    if x is None or y is None:
        return y if x is None else x
    return x[0] + y[0], x[1] + y[1]


def _subtract(x: Pair, y: Pair) -> Pair:
    if y is None:
        return x
    return (-y[0], -y[1]) if x is None else (x[0] - y[0], x[1] - y[1])


def _scale(x: Pair, factor: float) -> Pair:
    return None if x is None else (x[0] * factor, x[1] * factor)


def _turn(x: Pair, k: int, n: int) -> Pair:
    """Return ``x exp(2 pi i k / n)``."""
    if x is None:
        return None
    real, imag = x
    if 4 * k % n == 0:
        return ((real, imag), (-imag, real), (-real, -imag), (imag, -real))[4 * k // n % 4]
    root = roots(k, n)
    cosine, sine = float(root.real), float(root.imag)
    return real * cosine - imag * sine, real * sine + imag * cosine


class _Number:
    """A number in a register, whose arithmetic emits instructions."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def __add__(self, other: _Number) -> _Number:
        return _Number(self.builder, self.builder.fadd(self.value, other.value))

    def __sub__(self, other: _Number) -> _Number:
        return _Number(self.builder, self.builder.fsub(self.value, other.value))

    def __mul__(self, factor: float) -> _Number:
        return _Number(self.builder, self.builder.fmul(self.value, self.value.type(factor)))

    def __neg__(self) -> _Number:
        return _Number(self.builder, self.builder.fsub(self.value.type(-0.0), self.value))


@cache
def butterflies(radix: int, count: int, sign: int, inputs: int) -> Callable[[Any], Any]:
    """Return ``transform(values)``, which transforms the numbers in a thread's flat local array in place.

    Parameters
    ----------
    radix : int
        Length of a transform.
    count : int
        Number of transforms, one after another in the array.
    sign : {-1, 1}
        Sign of the exponent.
    inputs : int
        The number of first inputs of each transform; the others are zero and not read.
    """
    places = [[(2 * (radix * k + i), 2 * (radix * k + i) + 1) for i in range(radix)] for k in range(count)]
    zeros: list[Pair] = [None] * (radix - inputs)
    if config.ENABLE_CUDASIM:

        def simulated(values: Any) -> None:
            for place in places:
                read: list[Any] = [(values[real], values[imag]) for real, imag in place[:inputs]]
                for (real, imag), result in zip(place, transform(read + zeros, sign), strict=True):
                    values[real], values[imag] = result

        return simulated
    from llvmlite import ir
    from numba.cuda.extending import intrinsic

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        base = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        at = [[[builder.gep(base, [ir.IntType(64)(i)]) for i in pair] for pair in place] for place in places]
        for place in at:
            read: list[Any] = [tuple(_Number(builder, builder.load(part)) for part in pair) for pair in place[:inputs]]
            for pair, result in zip(place, transform(read + zeros, sign), strict=True):
                for part, number in zip(pair, result, strict=True):
                    builder.store(number.value, part)
        return context.get_dummy_value()

    @intrinsic
    def transform_values(context, values):
        return types.void(values), codegen

    return transform_values  # type: ignore[no-any-return]


@cache
def divide() -> Callable[..., Any]:
    """Return ``divide(number, divisor)``: quotient and remainder of two numbers below 2^31, computed in 32 bits."""
    if config.ENABLE_CUDASIM:
        return divmod
    from llvmlite import ir
    from numba.cuda.extending import intrinsic

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        narrow, wide = ir.IntType(32), ir.IntType(64)
        a, b = (builder.trunc(each, narrow) for each in arguments)
        # The assembly hides the range of the results. NVVM would otherwise compute sums with constants in 32 bits, and
        # an address for each, where one address and constant offsets do.
        widen = ir.InlineAsm(ir.FunctionType(wide, [narrow]), "cvt.u64.u32 $0, $1;", "=l,r")
        parts = [builder.call(widen, [operation(a, b)]) for operation in (builder.udiv, builder.urem)]
        return context.make_tuple(builder, signature.return_type, parts)

    @intrinsic
    def narrow_divide(context, number, divisor):
        return types.UniTuple(types.int64, 2)(types.int64, types.int64), codegen

    return narrow_divide  # type: ignore[no-any-return]
