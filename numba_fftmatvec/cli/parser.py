"""The parser of a command: it raises errors instead of printing them, and prints help on one rank."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any, NoReturn

from ..errors import ArgumentError
from . import launcher

_REQUIRED = "the following arguments are required: "


class HelpPrinted(Exception):
    """The command line contains ``-h``: the help is printed, and nothing is left to do."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are ArgumentErrors, which one rank prints as one line.

    Parameters
    ----------
    command : str
        The name of the command.
    description : str
        The work of the command, for its help.
    """

    def __init__(self, command: str, description: str) -> None:
        self._command = f"fftmatvec {command}"
        super().__init__(prog=self._command, description=description, allow_abbrev=False, add_help=False)
        self.add_argument("-h", "--help", action=_Help, help="print this and exit")

    def values(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Return the values of a command line by name.

        Raises
        ------
        ArgumentError
            An argument is unknown, missing, or outside its domain.
        HelpPrinted
            The command line contains ``-h``.
        """
        namespace, unknown = self.parse_known_args(arguments)
        if unknown:
            self.error(f"expected the arguments that -h lists, found {' '.join(unknown)}")
        return vars(namespace)

    def error(self, message: str) -> NoReturn:
        """Raise an ArgumentError with a message of argparse."""
        text = message.removeprefix("argument ")
        if text.startswith(_REQUIRED):
            text = f"expected {text.removeprefix(_REQUIRED)}, found nothing in its place"
        elif text.endswith(": expected one argument"):
            text = f"{text}, found none"
        raise ArgumentError(f"{text}; '{self._command} -h' lists the arguments")


class _Help(argparse.Action):
    """Prints the help on the first rank."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        if launcher.launched_rank(os.environ) == 0:
            print(parser.format_help(), end="")
        raise HelpPrinted
