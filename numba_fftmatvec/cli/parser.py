"""The parser of the command line: from arguments to checked options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from ..errors import ArgumentError
from . import check, run


class _Parser(argparse.ArgumentParser):
    """A parser that raises its errors instead of printing them, so that only one rank prints them."""

    def error(self, message: str) -> NoReturn:
        raise ArgumentError(message.removeprefix("argument "))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    description = (
        "The runner applies, checks and times F and F* on a process grid. It is installed as the command ``fftmatvec``."
        f" ``{check.USAGE}`` checks files instead."
    )
    parser = _Parser(prog="fftmatvec", description=description, allow_abbrev=False, add_help=False)
    parser.add_argument("-h", "--help", action="store_true", help="print this and exit")
    run.add(parser)
    return parser


def parse(argv: Sequence[str]) -> run.Options | None:
    """Return the options of a command line, or None if it contains ``-h``.

    Raises
    ------
    ArgumentError
        A flag is unknown, out of place, or has a value outside its domain.
    """
    namespace, unknown = build_parser().parse_known_args(argv)
    given = vars(namespace)
    if given.pop("help"):
        return None
    if unknown:
        raise ArgumentError(f"expected the arguments that -h lists, found {' '.join(unknown)}")
    return run.Options.of(given)
