"""The command ``fftmatvec check``: checks files."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..io import check_path
from .parser import Parser


def build_parser() -> Parser:
    """Return the parser of the command."""
    description = (
        "Check vectors' files and matrix directories: their format, all their values, and their digests if they have "
        "any. The exit status is 1 if a file is damaged."
    )
    parser = Parser("check", description)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a vector's file or a matrix directory")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Check files, print a line for each, and name damaged files on the error output; return the exit status."""
    status = 0
    for path in build_parser().values(arguments)["paths"]:
        for finding in check_path(path):
            if finding.error is None:
                print(f"{finding.path}: {finding.text}", flush=True)
            else:
                status = 1
                print(f"fftmatvec: error: {' '.join(str(finding.error).split())}", file=sys.stderr, flush=True)
    return status
