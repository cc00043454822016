"""The operations on vectors, as data: each call, NumPy's equivalent, and the allowed difference.

The calls are spelled as pyFFTMatvec's document spells them. An operator is one function for both: `x * 2.0` means the
same for a Vector and for an array.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

ND, NM, NT = 5, 7, 4
BLOCKS = {"col": NM, "row": ND}
EPS = 2.0**-52
CHECKSUM = 42
LONG, SHORT = NT + 5, NT - 2


@dataclass(frozen=True)
class Operation:
    """One call on the vectors x, y, z.

    Parameters
    ----------
    call : callable
        The call.
    expected : callable, optional
        The same for arrays; by default `call` itself.
    slack : callable, optional
        Largest difference of a value from NumPy's; by default the bits must be equal.
    """

    call: Callable[[Any, Any, Any], Any]
    expected: Callable[[Array, Array, Array], Array] | None = None
    slack: Callable[[Array, Array, Array], Array] | None = None


def sums(*terms: Callable[[Array, Array, Array], Array]) -> Callable[[Array, Array, Array], Array]:
    """Return the slack of a sum of rounded terms that one side may contract: 2 ulp of the terms' magnitudes.

    Each side is off by a rounding, EPS / 2, of every term and of the sum, which is no larger than the terms together.
    """
    return lambda x, y, z: 2 * EPS * sum(abs(term(x, y, z)) for term in terms)


def power(exponent: float) -> Callable[[Array, Array, Array], Array]:
    """Return C's pow; NumPy's ``**`` takes square and root for the exponents 2 and 0.5, which differ at infinity."""
    return lambda x, y, z: np.power(x, np.full_like(x, exponent))


def power_slack(exponent: float) -> Callable[[Array, Array, Array], Array]:
    """Return 4 ulp of the result: pow is off by less than 1 on the CPU and 2 on a GPU."""
    return lambda x, y, z: 4 * EPS * abs(power(exponent)(x, y, z))


# Correctly rounded, one operation each.
OPERATORS = {
    "x * 2.0": lambda x, y, z: x * 2.0,
    "x + 1.0": lambda x, y, z: x + 1.0,
    "x - 0.5": lambda x, y, z: x - 0.5,
    "x / 3.0": lambda x, y, z: x / 3.0,
    "1.0 / x": lambda x, y, z: 1.0 / x,
    "2.0 * x": lambda x, y, z: 2.0 * x,
    "1.0 + x": lambda x, y, z: 1.0 + x,
    "0.5 - x": lambda x, y, z: 0.5 - x,
    "x * 3, an int": lambda x, y, z: x * 3,
    "x * float32": lambda x, y, z: x * np.float32(0.1),
    "float64 * x": lambda x, y, z: np.float64(0.1) * x,
    "float64 - x": lambda x, y, z: np.float64(0.1) - x,
    "x + y": lambda x, y, z: x + y,
    "x - y": lambda x, y, z: x - y,
    "x * y": lambda x, y, z: x * y,
    "x / y": lambda x, y, z: x / y,
    "x + x": lambda x, y, z: x + x,
    "-x": lambda x, y, z: -x,
    "+x": lambda x, y, z: +x,
    "abs(x)": lambda x, y, z: abs(x),
}
ASSIGNMENTS = {
    "x *= 2.0": lambda x, y, z: operator.imul(x, 2.0),
    "x += 1.0": lambda x, y, z: operator.iadd(x, 1.0),
    "x -= 0.5": lambda x, y, z: operator.isub(x, 0.5),
    "x /= 3.0": lambda x, y, z: operator.itruediv(x, 3.0),
    "x += y": lambda x, y, z: operator.iadd(x, y),
    "x -= y": lambda x, y, z: operator.isub(x, y),
    "x *= y": lambda x, y, z: operator.imul(x, y),
    "x /= y": lambda x, y, z: operator.itruediv(x, y),
    "x += x": lambda x, y, z: operator.iadd(x, x),
    "x *= x": lambda x, y, z: operator.imul(x, x),
}
POWERS = {
    "x ** 2.0": Operation(lambda x, y, z: x**2.0, power(2.0), power_slack(2.0)),
    "x ** -1.5": Operation(lambda x, y, z: x**-1.5, power(-1.5), power_slack(-1.5)),
    "pow(0.5)": Operation(lambda x, y, z: x.pow(0.5), power(0.5), power_slack(0.5)),
    "pow(3)": Operation(lambda x, y, z: x.pow(3), power(3.0), power_slack(3.0)),
}
# Results in a new vector.
NEW = {
    **{name: Operation(call) for name, call in OPERATORS.items()},
    **POWERS,
    "wscale": Operation(lambda x, y, z: x.wscale(-2.5), lambda x, y, z: -2.5 * x),
    "waxpy": Operation(
        lambda x, y, z: x.waxpy(0.3, y), lambda x, y, z: x + 0.3 * y, sums(lambda x, y, z: x, lambda x, y, z: 0.3 * y)
    ),
    "waxpby": Operation(
        lambda x, y, z: x.waxpby(0.3, -1.7, y),
        lambda x, y, z: 0.3 * x - 1.7 * y,
        sums(lambda x, y, z: 0.3 * x, lambda x, y, z: 1.7 * y),
    ),
    "elementwise_multiply": Operation(lambda x, y, z: x.elementwise_multiply(y), lambda x, y, z: x * y),
    "elementwise_divide": Operation(lambda x, y, z: x.elementwise_divide(y), lambda x, y, z: x / y),
    "elementwise_inverse": Operation(lambda x, y, z: x.elementwise_inverse(), lambda x, y, z: 1.0 / x),
    "elementwise_multiply_add": Operation(
        lambda x, y, z: x.elementwise_multiply_add(y, z),
        lambda x, y, z: x * y + z,
        sums(lambda x, y, z: x * y, lambda x, y, z: z),
    ),
    "add_scalar": Operation(lambda x, y, z: x.add_scalar(1.0), lambda x, y, z: x + 1.0),
    "copy": Operation(lambda x, y, z: x.copy(), lambda x, y, z: x),
}
# Results in x.
STATEMENTS = {
    **{name: Operation(call) for name, call in ASSIGNMENTS.items()},
    "x **= 2.0": Operation(lambda x, y, z: operator.ipow(x, 2.0), power(2.0), power_slack(2.0)),
}
IN_PLACE = {
    "scale": Operation(lambda x, y, z: x.scale(2.0), lambda x, y, z: 2.0 * x),
    "axpy": Operation(
        lambda x, y, z: x.axpy(0.3, y), lambda x, y, z: x + 0.3 * y, sums(lambda x, y, z: x, lambda x, y, z: 0.3 * y)
    ),
    "axpy of itself": Operation(lambda x, y, z: x.axpy(2.0, x), lambda x, y, z: x + 2.0 * x),
    "axpby": Operation(
        lambda x, y, z: x.axpby(0.3, -1.7, y),
        lambda x, y, z: 0.3 * x - 1.7 * y,
        sums(lambda x, y, z: 0.3 * x, lambda x, y, z: 1.7 * y),
    ),
    "elementwise_multiply_inplace": Operation(lambda x, y, z: x.elementwise_multiply_inplace(y), lambda x, y, z: x * y),
    "elementwise_divide_inplace": Operation(lambda x, y, z: x.elementwise_divide_inplace(y), lambda x, y, z: x / y),
    "elementwise_inverse_inplace": Operation(lambda x, y, z: x.elementwise_inverse_inplace(), lambda x, y, z: 1.0 / x),
    "elementwise_multiply_add_inplace": Operation(
        lambda x, y, z: x.elementwise_multiply_add_inplace(y, z),
        lambda x, y, z: x * y + z,
        sums(lambda x, y, z: x * y, lambda x, y, z: z),
    ),
    "pow_inplace": Operation(lambda x, y, z: x.pow_inplace(0.5), power(0.5), power_slack(0.5)),
    "add_scalar_inplace": Operation(lambda x, y, z: x.add_scalar_inplace(1.0), lambda x, y, z: x + 1.0),
}
GROUPS = {"new": NEW, "statement": STATEMENTS, "in place": IN_PLACE}
CALLS = [(group, name) for group, operations in GROUPS.items() for name in operations]
# Of infinities, NaN and zeros; a contracted sum may differ from NumPy's there, so these are single operations.
SPECIAL_CALLS = [("new", name) for name in (*OPERATORS, *POWERS)] + [("statement", name) for name in STATEMENTS]


def operands(space: str) -> tuple[Array, Array, Array]:
    """Return the global values of x, which are positive, and of y and z."""
    random = np.random.default_rng((ND, NM, NT, len(space), BLOCKS[space]))
    shape = BLOCKS[space], NT
    return random.uniform(0.1, 3.0, shape), random.standard_normal(shape), random.standard_normal(shape)


def special_operands(space: str) -> tuple[Array, Array, Array]:
    """Return arrays in which infinities, NaN, zeros of both signs and subnormals meet."""
    values = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e308, -2.5, 5e-324, 1.0, -3.0]
    pairs = np.array(list(itertools.product(values, values)))
    chosen = np.random.default_rng(7).permutation(pairs)[: BLOCKS[space] * NT]
    x, y = chosen.T.reshape(2, BLOCKS[space], NT)
    return x, y, np.ones_like(x)


def vectors(comm: Any, space: str, *values: Array) -> list[Any]:
    """Return a vector for each global array, with `num_vecs` if it has three axes."""
    import numba_fftmatvec as pyFFTMatvec

    made = []
    for array in values:
        blocks, size = array.shape[-2:]
        several = {"num_vecs": array.shape[0]} if array.ndim > 2 else {}
        vector = pyFFTMatvec.Vector(comm, blocks, size, space, global_sizes=True, **several)
        vector.scatter(array)
        made.append(vector)
    return made


def address(vector: Any) -> int | None:
    """Return the address of a vector's memory, None on ranks without values."""
    array = vector.array
    if array is None:
        return None
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)
