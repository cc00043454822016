"""The command ``fftmatvec doctor``: the state of the installation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import FileError
from ..progress import show_steps
from . import probes
from .parser import Parser
from .tables import print_json, print_table, table

_HEADINGS = ("part", "state", "found", "meaning", "remedy")


def build_parser() -> Parser:
    """Return the parser of the command."""
    description = (
        "Look at each part of the installation: packages, cores, caches, locks, MPI and the GPU. The exit status is 1 "
        "if a part that products on the CPU need does not work."
    )
    parser = Parser("doctor", description)
    folder = "the folder whose file system is tried for locks (default: the present one)"
    parser.add_argument("--dir", type=Path, default=Path(), metavar="DIR", help=folder)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; the status is 1 if a part that the CPU needs does not work."""
    options = build_parser().values(arguments)
    if not options["dir"].is_dir():
        raise FileError(f"--dir: expected a folder that exists, found {options['dir']}")
    found = []
    parts = probes.probes(options["dir"])
    with show_steps(len(parts), enabled=True) as show:
        for done, probe in enumerate(parts):
            show(done, f"Looking at {probe.name}")
            found.append((probe, probe.run()))
    works = all(state.state == probes.OK for probe, state in found if probe.needed)
    if options["json"]:
        print_json({"works": works, "parts": [{"part": probe.name, **vars(state)} for probe, state in found]})
    else:
        rows = [(probe.name, state.state, state.found, state.meaning, state.advice) for probe, state in found]
        print_table(table("Parts of the installation", _HEADINGS, rows, left=len(_HEADINGS)))
        print(f"Products on the CPU {'have all that they need' if works else 'do not work: see the remedies above'}.")
    return 0 if works else 1
