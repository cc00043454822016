"""Checks files: the work of the command ``fftmatvec check``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..errors import ArgumentError
from ..io import check_path

NAME = "check"
USAGE = "fftmatvec check PATH ..."
HELP = f"""usage: {USAGE}

Checks vectors' files and matrix directories: their format, all their values, and their digests if they have any.
The exit status is 1 if a file is damaged.
"""


def run(paths: Sequence[str]) -> bool:
    """Check files, print a line for each, and return whether all are right; damaged files are named on stderr.

    Raises
    ------
    ArgumentError
        There is no path, or a flag instead of one.
    """
    if {"-h", "--help"} & set(paths):
        print(HELP, end="")
        return True
    flags = [path for path in paths if path.startswith("-")]
    if flags or not paths:
        raise ArgumentError(f"expected {USAGE}, found {' '.join(flags) or 'no path'}")
    right = True
    for path in paths:
        for finding in check_path(path):
            if finding.error is None:
                print(f"{finding.path}: {finding.text}", flush=True)
            else:
                right = False
                print(f"fftmatvec: error: {' '.join(str(finding.error).split())}", file=sys.stderr, flush=True)
    return right
