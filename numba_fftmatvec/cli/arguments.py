"""The types of arguments on the command line: each converts a text to a value, or raises an error."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from ..errors import ArgumentError
from ..precision import MatvecPrecisionConfig


def positive(text: str) -> int:
    """Return the positive integer of a text."""
    with suppress(ValueError):
        if (value := int(text)) > 0:
            return value
    raise argparse.ArgumentTypeError(f"expected a positive integer, found {text!r}")


def positive_or_auto(text: str) -> int | Literal["auto"]:
    """Return the positive integer of a text, or ``"auto"``."""
    if text == "auto":
        return "auto"
    with suppress(argparse.ArgumentTypeError):
        return positive(text)
    raise argparse.ArgumentTypeError(f"expected a positive integer or auto, found {text!r}")


def not_negative(text: str) -> float:
    """Return the finite, non-negative number of a text."""
    with suppress(ValueError):
        if 0 <= (value := float(text)) < float("inf"):
            return value
    raise argparse.ArgumentTypeError(f"expected a number that is not negative, found {text!r}")


def precision(text: str) -> MatvecPrecisionConfig:
    """Return the precision config of a five-letter code."""
    try:
        return MatvecPrecisionConfig.from_code(text)
    except ArgumentError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def one_of(*names: str) -> Callable[[str], str]:
    """Return the type of an argument that is one of several names."""

    def check(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(names)}, found {text!r}")
        return text

    return check
