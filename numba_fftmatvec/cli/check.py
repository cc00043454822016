"""The command ``fftmatvec check``: checks files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import FFTMatvecError, FileError
from ..io import Finding, check_path, read_meta
from ..progress import show_steps
from .parser import Parser
from .paths import check_matrix_directory
from .tables import print_json


def build_parser() -> Parser:
    """Return the parser of the command."""
    description = (
        "Check vectors' files and matrix directories: their format, all their values, and their digests if they have "
        "any. The exit status is 1 if a file is damaged."
    )
    parser = Parser("check", description)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a vector's file or a matrix directory")
    repair = "write the manifest anew, after every block row was read and verified by its own digests"
    parser.add_argument("--repair-manifest", dest="repair", action="store_true", help=repair)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Check files, print a line for each, and name damaged files on the error output; return the exit status."""
    options = build_parser().values(arguments)
    for path in options["paths"]:
        _check_kind(path, options["repair"])
    records = []
    for path, finding in _findings(options["paths"], options["repair"], options["json"]):
        records.append(_record(path, finding))
        if not options["json"]:
            _print(finding)
    intact = all(record["error"] is None for record in records)
    if options["json"]:
        print_json({"intact": intact, "findings": records})
    return 0 if intact else 1


def _check_kind(path: Path, repair: bool) -> None:
    """Raise a FileError if there is nothing to check at a path."""
    if not path.is_dir():
        expected = "a matrix directory, which --repair-manifest repairs" if repair else "a file or a matrix directory"
        if repair or not os.path.lexists(path):
            raise FileError(f"{path}: expected {expected}, found {'a file' if path.exists() else 'none'}")
    else:
        check_matrix_directory(path)


def _findings(paths: Sequence[Path], repair: bool, silent: bool) -> Iterator[tuple[Path, Finding]]:
    """Yield each path with its findings; a silent check shows a progress bar."""
    with show_steps(sum(map(_count, paths)) if silent else 1, enabled=silent) as show:
        done = 0
        for path in paths:
            for finding in check_path(path, repair=repair):
                done += 1
                show(done, f"Checking {path}")
                yield path, finding


def _count(path: Path) -> int:
    """Return the number of findings of a path, for the progress bar."""
    try:
        return read_meta(path).Nd + 2 if path.is_dir() else 1
    except FFTMatvecError:
        return 1


def _record(path: Path, finding: Finding) -> dict[str, Any]:
    """Return a finding for JSON."""
    error = None if finding.error is None else " ".join(str(finding.error).split())
    return {
        "path": str(path),
        "file": str(finding.path),
        "text": finding.text or None,
        "digest": finding.digest.hex() if finding.digest is not None else None,
        "error": error,
        "advice": finding.advice or None,
    }


def _print(finding: Finding) -> None:
    """Print a finding as a line; an error goes to the error output."""
    if finding.error is None:
        print(f"{finding.path}: {finding.text}", flush=True)
    else:
        text = " ".join(f"{finding.error}; {finding.advice}".split())
        print(f"fftmatvec: error: {text}", file=sys.stderr, flush=True)
