"""Checks of the pictures' arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..arguments import check_shape, integer, real_array
from ..errors import ArgumentError, ShapeError, VectorIndexError

Floats = npt.NDArray[np.float64]


def float_array(values: Any, what: str, dimensions: tuple[int, ...]) -> Floats:
    """Return an array as float64; raise a ShapeError that names `what` if it has another number of dimensions."""
    array = real_array(values, what)
    if array.ndim not in dimensions or array.size == 0:
        expected = " or ".join(map(str, dict.fromkeys(dimensions)))
        raise ShapeError(f"{what}: expected values in {expected} dimensions, found shape {array.shape}")
    return array.astype(np.float64)


def axis_points(points: Any, count: int, what: str, *, increasing: bool = False) -> Floats:
    """Return `count` points of an axis, by default their indices."""
    if points is None:
        return np.arange(float(count))
    found = float_array(points, what, (1,))
    check_shape(found.shape, (count,), what)
    if increasing and not (np.diff(found) > 0).all():
        raise ArgumentError(f"{what}: expected increasing values, found a step of {np.diff(found).min():g}")
    return found


def deviations(variance: Floats, what: str) -> Floats:
    """Return the square roots of variances; raise an ArgumentError that names `what` if one is negative."""
    check_not_negative(variance, what)
    return np.sqrt(variance)


def check_not_negative(values: Floats, what: str) -> None:
    """Raise an ArgumentError that names `what` if a value is negative."""
    if (values < 0).any():
        raise ArgumentError(f"{what}: expected values that are not negative, found {np.nanmin(values):g}")


def check_index(index: int, count: int, what: str) -> None:
    """Raise a VectorIndexError that names `what` unless an index is one of 0 .. count - 1."""
    if not 0 <= integer(index, what) < count:
        raise VectorIndexError(f"{what}: expected an index of 0 .. {count - 1}, found {index}")
