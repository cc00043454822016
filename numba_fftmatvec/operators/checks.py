"""Checks of the parts and operands of linear operators."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import Any

from ..comm import Comm
from ..errors import ArgumentError, ArgumentTypeError, NonFiniteError, ShapeError, SpaceError
from ..layout import VectorLayout
from ..vector import Vector
from .interface import ARRAYS, OperatorInterface


def sizes(operators: Iterable[object]) -> dict[str, object]:
    """Return the global sizes of operators by name, for the comparison of a call's arguments on all ranks."""
    found = [operator for operator in operators if isinstance(operator, OperatorInterface)]
    return {
        f"{end} {i}": getattr(operator, end).description
        for i, operator in enumerate(found)
        for end in ("domain", "range")
    }


def check_part(operator: object, comm: Comm, sign: str) -> None:
    """Raise an error unless `operator` is a linear operator on the Comm."""
    if not isinstance(operator, OperatorInterface):
        raise wrong_type(sign, "a LinearOperator", operator)
    if operator.comm is not comm:
        raise ArgumentError(
            f"{sign}: expected operators on one Comm, {comm!r}, found one on another Comm, {operator.comm!r}"
        )


def check_layout(found: VectorLayout, expected: VectorLayout, what: str) -> None:
    """Raise an error that names `what` unless two layouts are the same."""
    if found.space != expected.space:
        raise SpaceError(f"{what}: expected the space {expected.space!r}, found {found.space!r}")
    if found != expected:
        raise ShapeError(
            f"{what}: expected {expected} with this rank's blocks {expected.blocks}, found {found} with {found.blocks}"
        )


def finite_factor(value: object, *, divide: bool) -> float:
    """Return the number by which an operator is multiplied."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise wrong_type("/" if divide else "*", "a real number", value)
    try:
        factor = float(value)
    except OverflowError:  # an integer beyond the largest float64
        factor = math.inf
    finite(factor, "factor of an operator")
    if not divide:
        return factor
    if factor == 0.0:
        raise ArgumentError("divisor of an operator: expected a number that is not 0, found 0")
    return finite(1.0 / factor, "reciprocal of the divisor")


def finite(value: float, what: str) -> float:
    """Return the number; raise a NonFiniteError that names `what` unless it is finite."""
    if not math.isfinite(value):
        raise NonFiniteError(f"{what}: expected a finite number, found {value}")
    return value


def wrong_type(sign: str, expected: str, found: object) -> ArgumentTypeError:
    """Return the error about an operand of a sign; for arrays it names `as_linear_operator`."""
    return ArgumentTypeError(f"operator {sign}: expected {expected}, found {type(found).__name__}{remedy(found)}")


def remedy(found: object) -> str:
    """Return the end of a message about an object that is given as a vector: for arrays, `as_linear_operator`."""
    is_array = hasattr(found, "__array__") or hasattr(found, "__cuda_array_interface__")
    return f"; {ARRAYS}" if is_array and not isinstance(found, Vector) else ""


def overlap(first: Any, second: Any) -> bool:
    """Return whether two contiguous arrays share memory; None stands for no memory."""
    if first is None or second is None:
        return False
    starts = [_address(array) for array in (first, second)]
    return bool(starts[0] < starts[1] + second.nbytes and starts[1] < starts[0] + first.nbytes)


def _address(array: Any) -> int:
    interface = getattr(array, "__array_interface__", None) or array.__cuda_array_interface__
    return int(interface["data"][0])
