"""Checks of the values that describe priors and noise: deviations, lengths, covariances."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arguments import check_shape, positive_number, real_array
from ..errors import NonFiniteError, NotPositiveDefiniteError, ShapeError

# Relative difference of a covariance or precision and its transpose that is taken for rounding.
ASYMMETRY = 1e-12


def frozen(values: npt.ArrayLike, what: str) -> npt.NDArray[np.float64]:
    """Return a read-only double copy of real, finite values; an error names `what`."""
    copy = np.array(real_array(values, what), np.float64, order="C")
    check_finite(copy, what)
    copy.flags.writeable = False
    return copy


def check_finite(values: npt.NDArray[np.float64], what: str) -> None:
    """Raise a NonFiniteError that names `what` and the first index of a NaN or an infinity."""
    if (index := _first(~np.isfinite(values))) is not None:
        raise NonFiniteError(f"{what}: expected finite numbers, found {values[index]}{_at(index)}")


def positive(values: npt.ArrayLike, what: str, dimensions: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return deviations as a read-only array: finite, positive, with squares that are finite and positive in double.

    Parameters
    ----------
    values : array_like
        The deviations.
    what : str
        The name for messages.
    dimensions : sequence of int
        The numbers of dimensions that are accepted.

    Raises
    ------
    ArgumentTypeError, ShapeError, NonFiniteError, NotPositiveDefiniteError
        The values are not real numbers, have other dimensions or none at all, are not finite, or are not positive.
    """
    checked = frozen(values, what)
    if checked.ndim not in dimensions or not checked.size:
        expected = " or ".join(str(count) for count in dimensions)
        raise ShapeError(f"{what}: expected an array of {expected} dimensions with values, found shape {checked.shape}")
    with np.errstate(over="ignore", under="ignore"):
        squares = np.square(checked)
    for wrong, expected in (
        (checked <= 0, "positive numbers"),
        (~np.isfinite(squares) | (squares < np.finfo(np.float64).tiny), "numbers of which the square is a double"),
    ):
        if (index := _first(wrong)) is not None:
            error = NotPositiveDefiniteError(f"{what}: expected {expected}, found {checked[index]}{_at(index)}")
            error.row = index[0] if index else None
            raise error
    return checked


def positive_factor(value: object, what: str) -> float:
    """Return a positive, finite number; an ArgumentError names `what` for any other value."""
    number = positive_number(value, what)
    if not math.isfinite(number):
        raise NonFiniteError(f"{what}: expected a finite number, found {value!r}")
    return number


def per_axis(value: Any, axes: int, what: str) -> tuple[float, ...]:
    """Return a positive number for each axis, of one number for all of them or of a sequence with one for each."""
    values = (value,) * axes if np.ndim(value) == 0 else tuple(value)
    if len(values) != axes:
        raise ShapeError(f"{what}: expected one number or {axes} of them, one for each axis, found {len(values)}")
    return tuple(positive_factor(number, what) for number in values)


def check_symmetric(matrix: npt.NDArray[np.float64], what: str) -> None:
    """Raise an error that names `what` unless a matrix is square and symmetric up to rounding."""
    check_shape(matrix.shape, (len(matrix), len(matrix)), what)
    difference = np.abs(matrix - matrix.T)
    index = np.unravel_index(int(np.argmax(difference)), matrix.shape)
    if difference[index] > ASYMMETRY * np.abs(matrix).max():
        raise NotPositiveDefiniteError(asymmetry(what, index, matrix[index], matrix[index[::-1]]))


def asymmetry(what: str, index: Sequence[Any], value: float, transposed: float) -> str:
    """Return the message of a matrix that is not symmetric."""
    row, column = (int(i) for i in index)
    return (
        f"{what}: expected a symmetric matrix, "
        f"found {value:.17g} at {(row, column)} and {transposed:.17g} at {(column, row)}"
    )


def fingerprint(description: Any) -> str:
    """Return a digest of the class and the fields of a dataclass: equal values have equal digests.

    Arrays, sparse matrices, numbers and dataclasses count by their values, and functions by their names alone.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in _parts(description):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    """Yield the class of a value and its contents."""
    yield type(value).__name__.encode()
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield field.name.encode()
            yield from _parts(getattr(value, field.name))
    elif isinstance(value, np.ndarray):
        yield str((value.shape, value.dtype.str)).encode()
        yield np.ascontiguousarray(value).tobytes()
    elif hasattr(value, "indptr"):
        for array in (value.indptr, value.indices, value.data):
            yield from _parts(array)
    elif callable(value):
        yield getattr(value, "__qualname__", "").encode()
    else:
        yield repr(value).encode()


def _first(wrong: npt.NDArray[np.bool_]) -> tuple[int, ...] | None:
    """Return the index of the first true value, or None."""
    if not wrong.any():
        return None
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape))


def _at(index: tuple[int, ...]) -> str:
    """Return an index in words; nothing for a single number."""
    return f" at index {index[0] if len(index) == 1 else index}" if index else ""
