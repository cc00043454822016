"""The command ``fftmatvec``: its exit statuses, and its handling of errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from ..errors import FFTMatvecError, RemoteError, VerificationError
from . import check, launcher, run
from .parser import build_parser, parse
from .run import Options

__all__ = ["BAD_ARGUMENTS", "CHECK_FAILED", "Options", "build_parser", "main", "parse"]

# Exit statuses besides 0.
CHECK_FAILED = 1
BAD_ARGUMENTS = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, CHECK_FAILED or BAD_ARGUMENTS.

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
        if list(arguments[:1]) == [check.NAME]:
            return 0 if not prints or check.run(arguments[1:]) else CHECK_FAILED
        options = parse(arguments)
        if options is None:
            print(build_parser().format_help() if prints else "", end="")
            return 0
        if options.ranks is not None and not launcher.is_launched(os.environ):
            launcher.relaunch(options.ranks, arguments)
        run.run(options)
    except RemoteError:
        raise
    except FFTMatvecError as error:
        if prints and sys.stderr is not None:
            with suppress(OSError, ValueError):  # a closed error output does not change the status
                print(f"fftmatvec: error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return CHECK_FAILED if isinstance(error, VerificationError) else BAD_ARGUMENTS
    return 0
