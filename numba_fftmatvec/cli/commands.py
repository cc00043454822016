"""The commands of ``fftmatvec``: one table, which the command line and its help share.

The module of a command has two functions: ``build_parser()`` returns its `Parser`, and ``main(arguments)`` runs it and
returns its exit status. It raises an error of this package instead of printing it.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from ..errors import ArgumentError


class Module(Protocol):
    """The module of a command."""

    def build_parser(self) -> argparse.ArgumentParser:
        """Return the parser of the command."""

    def main(self, arguments: Sequence[str]) -> int:
        """Run the command with the arguments after its name; return its exit status."""


@dataclass(frozen=True)
class Command:
    """A command.

    Parameters
    ----------
    name : str
        The name, which is also that of the module in this folder.
    help : str
        The work of the command, in one line.
    collective : bool
        Whether all ranks run the command. Otherwise the first rank does.
    """

    name: str
    help: str
    collective: bool = False

    def load(self) -> Module:
        """Import and return the command's module."""
        return cast(Module, import_module(f".{self.name}", __package__))


COMMANDS = {
    command.name: command
    for command in (
        Command("run", "apply, check and time F and F* on a process grid", collective=True),
        Command("info", "print the sizes of a matrix directory and the memory that the matrix needs"),
        Command("check", "check files, explain damage, and repair a manifest"),
        Command("convert", "convert blocks between matrix directories and NumPy, NetCDF-4 or Zarr"),
        Command("doctor", "look at the GPU, MPI, caches, locks and packages: their state, and what to do"),
        Command("tune", "find the precisions of a matrix that are the best within a tolerance", collective=True),
        Command("invert", "infer the source of data, with a forecast, by exact Bayesian inversion", collective=True),
        Command("bench", "time products beside the copy bandwidth of this machine and NumPy"),
    )
}
DEFAULT = COMMANDS["run"]  # flags without a command are those of the runner


def select(arguments: Sequence[str]) -> tuple[Command, Sequence[str]]:
    """Return the command of a command line and the arguments for it.

    Raises
    ------
    ArgumentError
        The first argument is neither a flag nor a command.
    """
    if not arguments or arguments[0].startswith("-"):
        return DEFAULT, arguments
    name = arguments[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        advice = f"perhaps {near[0]} is meant" if near else "'fftmatvec -h' lists the commands"
        raise ArgumentError(f"expected a command ({', '.join(COMMANDS)}), found {name!r}; {advice}")
    return COMMANDS[name], arguments[1:]


def overview() -> str:
    """Return the help of ``fftmatvec``: the commands with a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {command.name:{width}}  {command.help}" for command in COMMANDS.values()]
    return "\n".join(
        [
            "usage: fftmatvec COMMAND ...",
            "",
            "Commands:",
            *lines,
            "",
            f"'fftmatvec COMMAND -h' lists a command's arguments. Flags without a command are those of {DEFAULT.name}.",
            "'fftmatvec --version' prints the version.",
            "",
        ]
    )
