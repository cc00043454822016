"""Checks of arguments that several modules share: integers, shapes and arrays of numbers."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ArgumentError, ArgumentTypeError, ShapeError

_HOST = 1  # kDLCPU, as DLPack numbers the kinds of memory

LARGEST_INTEGER = 2**63 - 1  # of a 64-bit HDF5 attribute and of a file offset


def integer(value: object, what: str) -> int:
    """Return `value` as an int; raise an ArgumentTypeError that names `what` if it is not an integer (or is a bool)."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ArgumentTypeError(f"{what}: expected an integer, found {value!r}")
    return int(value)


def positive_int(value: object, what: str) -> int:
    """Return `value` as an int; raise a ShapeError that names `what` unless it is a positive integer and no bool."""
    number = _index(value)
    if number < 1:
        raise ShapeError(f"{what}: expected a positive integer, found {value!r}")
    return number


def bounded_int(value: object, most: int, what: str, bound: str) -> int:
    """Return `value` as an int; raise an ArgumentError that names `what` unless it is an integer of 1 .. `most`.

    `bound` names the fact behind `most`.
    """
    number = _index(value)
    if not 1 <= number <= most:
        raise ArgumentError(f"{what}: expected an integer of 1 .. {most} ({bound}), found {value!r}")
    return number


def natural_int(value: object, what: str) -> int:
    """Return `value` as an int; raise an ArgumentError that names `what` unless it is a non-negative integer."""
    number = _index(value)
    if number < 0:
        raise ArgumentError(f"{what}: expected an integer that is not negative, found {value!r}")
    return number


def positive_number(value: object, what: str) -> float:
    """Return `value` as a float; raise an ArgumentError that names `what` unless it is a positive number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not float(value) > 0:
        raise ArgumentError(f"{what}: expected a positive number, found {value!r}")
    return float(value)


def checksum_number(value: object, what: str) -> int:
    """Return `value` as an int; raise an ArgumentError that names `what` unless it is an integer of 0 .. 2^63 - 1."""
    number = _index(value)
    if not 0 <= number <= LARGEST_INTEGER:
        raise ArgumentError(f"{what}: expected an integer of 0 .. 2^63 - 1, found {value!r}")
    return number


def real_array(value: npt.ArrayLike, what: str) -> npt.NDArray[Any]:
    """Return `value` as a NumPy array; an ArgumentTypeError names `what` unless it has real numbers and no mask."""
    check_unmasked(value, what)
    if getattr(value, "__dlpack_device__", _host)()[0] != _HOST:
        raise ArgumentTypeError(f"{what}: expected values on the host, found {type(value).__name__} on a device")
    values = np.asarray(value)
    if values.dtype.kind not in "buif":
        raise ArgumentTypeError(f"{what}: expected real numbers, found dtype {values.dtype}")
    return values


def check_unmasked(value: object, what: str) -> None:
    """Raise an ArgumentTypeError that names `what` if `value` is an array whose mask hides a value."""
    if isinstance(value, np.ma.MaskedArray) and (hidden := int(np.ma.getmaskarray(value).sum())):
        raise ArgumentTypeError(f"{what}: expected values without a mask, found {hidden} of {value.size} masked")


def check_shape(found: Sequence[int], expected: Sequence[int], what: str) -> None:
    """Raise a ShapeError that names `what` unless the two shapes are equal."""
    if tuple(found) != tuple(expected):
        raise ShapeError(f"{what}: expected shape {tuple(expected)}, found {tuple(found)}")


def check_contiguous(array: npt.NDArray[Any], what: str = "array") -> None:
    """Raise an ArgumentError that names `what` unless an array is in C order: its memory is sent as it is."""
    if not array.flags.c_contiguous:
        raise ArgumentError(f"{what}: expected an array in C order, found strides {array.strides}")


def _host() -> tuple[int, int]:
    return _HOST, 0


def _index(value: object) -> int:
    """Return `value` as an int, or -1 if it is not an integer."""
    try:
        return -1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return -1
