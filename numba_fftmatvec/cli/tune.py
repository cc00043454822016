"""The command ``fftmatvec tune``: the precision config of a matrix that is the best within a tolerance."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..matrix import Matrix
from ..products import PRODUCTS
from ..tuning import Candidate, TuningResult, tune
from . import grid
from .arguments import not_negative, one_of, positive
from .parser import Parser
from .tables import megabytes, print_json, print_table, table


def _tolerance(text: str) -> float:
    """Return the positive number of a text."""
    if (value := not_negative(text)) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive number, found {text!r}")
    return value


def build_parser() -> Parser:
    """Return the parser of the command."""
    description = (
        "Measure time and error of the products of a matrix in the precision configs, and print the fastest config "
        "whose error is within the tolerance. Of configs with the same time it is the most accurate."
    )
    parser = Parser("tune", description)
    flag = parser.add_argument
    flag("directory", type=Path, metavar="DIR", help="a matrix directory")
    flag("--tol", type=_tolerance, required=True, metavar="X", help="largest relative error of a product in the 2-norm")
    names = f"the product to measure, repeatable (default F and F*): {', '.join(PRODUCTS)}"
    flag("--product", dest="products", action="append", type=one_of(*PRODUCTS), metavar="NAME", help=names)
    flag("--aux", type=Path, metavar="DIR", help="the directory of the auxiliary matrix G, for its products")
    flag("--repetitions", type=positive, default=20, metavar="N", help="timed runs of a product (default 20)")
    flag("--num-vecs", type=positive, default=1, metavar="R", help="right-hand sides of a product (default 1)")
    flag("--json", action="store_true", help="print JSON")
    grid.add(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command, on as many ranks as ``-n`` has."""
    options = build_parser().values(arguments)
    on_grid = grid.grid_options(options)
    grid.start_ranks(on_grid, "tune", arguments)
    with (
        grid.process_grid(on_grid) as comm,
        Matrix(comm, options["directory"], aux_path=options["aux"] or "") as matrix,
    ):
        products = options["products"] or ("F", "F*")
        measure = {name: options[name] for name in ("repetitions", "num_vecs")}
        result = tune(matrix, options["tol"], products=products, **measure)
        if comm.world_rank == 0:
            _print(result, options["tol"], matrix, options["json"])
    return 0


def _print(result: TuningResult, tolerance: float, matrix: Matrix, as_json: bool) -> None:
    if as_json:
        print_json(_record(result, tolerance))
        return
    layout, comm = matrix.layout, matrix.comm
    title = (
        f"Nd {layout.Nd}, Nm {layout.Nm}, Nt {layout.Nt}, {comm.proc_rows} x {comm.proc_cols} ranks, "
        f"{comm.backend.device_name()}, tolerance {tolerance:.1e}"
    )
    headings = ("code", "", "time [ms]", "relative error", "spectrum per rank [MB]")
    ordered = sorted(result.candidates, key=lambda candidate: candidate.seconds)
    rows = [
        (
            candidate.code,
            _remark(result, candidate, tolerance),
            f"{1e3 * candidate.seconds:.4f}",
            f"{candidate.error:.1e}",
            megabytes(candidate.spectrum_bytes),
        )
        for candidate in ordered
    ]
    print_table(table(title, headings, rows, left=2))
    if result.skipped:
        print(f"{len(result.skipped)} configs were not measured; --json has the reasons")
    print(f"{result.best.code}: {_reason(result)}")


def _remark(result: TuningResult, candidate: Candidate, tolerance: float) -> str:
    if candidate == result.best:
        return "chosen"
    if candidate in result.ties:
        return "as fast"
    return "" if candidate.error <= tolerance else "above the tolerance"


def _reason(result: TuningResult) -> str:
    """Return why the best config is chosen."""
    others = [candidate.code for candidate in result.ties if candidate != result.best]
    if not others:
        return "the fastest within the tolerance"
    return f"the most accurate of {len(others) + 1} configs within the tolerance that are equally fast to measurement"


def _record(result: TuningResult, tolerance: float) -> dict[str, Any]:
    return {
        "tolerance": tolerance,
        "best": result.best.code,
        "reason": _reason(result),
        "ties": [candidate.code for candidate in result.ties],
        "front": [candidate.code for candidate in result.front],
        "candidates": [vars(candidate) for candidate in result.candidates],
        "skipped": dict(result.skipped),
    }
