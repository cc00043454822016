"""The command ``fftmatvec convert``: blocks of other programs become a matrix directory, and the reverse."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, FileError
from ..io.meta import meta_path
from ..io.sources import AXES, open_blocks
from ..io.targets import SUFFIXES, write_directory, write_file
from ..progress import show_steps
from .parser import Parser


def build_parser() -> Parser:
    """Return the parser of the command."""
    description = (
        f"Convert blocks F[d, m, t] from {', '.join(SUFFIXES)} or a Zarr directory into a matrix directory, or a "
        f"matrix directory into {', '.join(SUFFIXES)}. Values are read and written some block rows at a time."
    )
    parser = Parser("convert", description)
    flag = parser.add_argument
    flag("source", type=Path, metavar="SOURCE", help="the blocks")
    flag("target", type=Path, metavar="TARGET", help="a matrix directory, or a file whose suffix is its format")
    order = "the order of the axes in the other program's file: d block rows, m block columns, t time (default dmt)"
    flag("--order", default=AXES, metavar="ORDER", help=order)
    variable = "the variable or key in the other program's file (default: the one with three axes; F in a new file)"
    flag("--variable", metavar="NAME", help=variable)
    flag("--qoi", action="store_true", help="the rows are quantities of interest, as those of an auxiliary matrix")
    flag("--overwrite", action="store_true", help="replace a target that exists")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; a failure leaves the target as it was."""
    options = build_parser().values(arguments)
    source, target = options["source"], options["target"]
    to_file = target.suffix.lower() in SUFFIXES
    _check_source(source, to_file, options)
    _check_target(target, to_file, options["overwrite"])
    if source.resolve() == target.resolve():
        raise ArgumentError(f"{target}: expected another path than the source, found the same")
    layout = {} if to_file else {"variable": options["variable"], "order": options["order"]}
    with open_blocks(source, **layout) as blocks:
        sizes = "Nd {}, Nm {}, Nt {}".format(*blocks.shape)
        with show_steps(blocks.shape[0], enabled=True) as progress:

            def show(done: int) -> None:
                progress(done, f"Converting {source}")

            if to_file:
                write_file(target, blocks, options["order"], options["variable"], show)
            else:
                write_directory(target, blocks, qoi=options["qoi"], show=show)
    print(f"{target}: written from {source}, {sizes}")
    return 0


def _check_source(source: Path, to_file: bool, options: dict[str, Any]) -> None:
    """Raise an error unless the source is of the kind that the target's kind requires."""
    if not os.path.lexists(source):
        raise FileError(f"{source}: expected the file or directory to convert, found none")
    is_matrix = os.path.lexists(meta_path(source))
    if to_file and not is_matrix:
        raise ArgumentError(
            f"{source}: expected a matrix directory, since the target is a file, found another source; convert it "
            f"into a directory first"
        )
    if not to_file and is_matrix:
        found = options["target"].name
        raise ArgumentError(f"TARGET: expected a name that ends in {', '.join(SUFFIXES)}, found {found!r}")
    if to_file and options["qoi"]:
        raise ArgumentError("--qoi: expected with a matrix directory as the target, found a file")


def _check_target(target: Path, to_file: bool, overwrite: bool) -> None:
    """Raise an error unless the target may be written."""
    parent = target.absolute().parent
    if not parent.is_dir():
        raise FileError(f"{target}: expected a folder that exists for the target, found none at {parent}")
    if not os.path.lexists(target):
        return
    if target.is_dir() == to_file:
        expected, found = ("a file", "a directory") if to_file else ("a directory", "a file")
        raise FileError(f"{target}: expected {expected} or nothing in its place, found {found}")
    empty = target.is_dir() and not any(target.iterdir())
    if not overwrite and not empty:
        raise FileError(f"{target}: expected no such target, found one; --overwrite replaces it")
