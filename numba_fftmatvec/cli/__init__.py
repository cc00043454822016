"""The command ``fftmatvec``: its exit statuses, and its handling of errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module

from ..errors import FFTMatvecError, RemoteError, VerificationError
from . import launcher
from .commands import COMMANDS, overview, select
from .parser import HelpPrinted
from .run import Options, build_parser, parse

__all__ = ["BAD_ARGUMENTS", "CHECK_FAILED", "COMMANDS", "Options", "build_parser", "main", "parse"]

# Exit statuses besides 0.
CHECK_FAILED = 1
BAD_ARGUMENTS = 2
INTERRUPTED = 130  # as shells have it after an interrupt: 128 and the signal's number


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, CHECK_FAILED, BAD_ARGUMENTS or INTERRUPTED.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process. In that case MPI is finalized if the status is not 0. All ranks
        exit with that status, but ``python -m mpi4py`` would abort and its messages would obscure the error.
    """
    status = _main(sys.argv[1:] if argv is None else argv)
    if argv is None and status != 0:
        launcher.finalize()
    return status


def _main(arguments: Sequence[str]) -> int:
    prints = launcher.launched_rank(os.environ) == 0
    try:
        return _run(arguments, prints)
    except HelpPrinted:
        return 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the exit flushes it once more
        return CHECK_FAILED
    except KeyboardInterrupt:
        _complain("interrupted", prints)
        return INTERRUPTED
    except RemoteError:
        raise
    except FFTMatvecError as error:
        _complain(str(error), prints)
        return CHECK_FAILED if isinstance(error, VerificationError) else BAD_ARGUMENTS


def _run(arguments: Sequence[str], prints: bool) -> int:
    """Run a command line and return its exit status; its errors are raised."""
    answers: dict[tuple[str, ...], Callable[[], str]] = {
        ("-h",): overview,
        ("--help",): overview,
        ("--version",): _version,
    }
    if answer := answers.get(tuple(arguments)):
        print(answer() if prints else "", end="")
        return 0
    command, rest = select(arguments)
    return command.load().main(rest) if prints or command.collective else 0


def _version() -> str:
    return f"fftmatvec {import_module('numba_fftmatvec').__version__}\n"


def _complain(message: str, prints: bool) -> None:
    """Print an error as one line on the error output of one rank."""
    if prints and sys.stderr is not None:
        with suppress(OSError, ValueError):  # a closed error output does not change the status
            print(f"fftmatvec: error: {' '.join(message.split())}", file=sys.stderr, flush=True)
