"""Measure time and error of every precision config for F and F*, and draw the Pareto front.

``python bench/pareto.py --backend cuda --shape 5000 100 1000 --json bench/results/h100/pareto.json`` measures, and
``python bench/pareto.py --draw bench/results/h100/pareto.json --png docs/pareto-h100.png`` draws, which needs
matplotlib (extra `plot`); with both ``--json`` and ``--png`` it does both. The impulse responses are standard normal
random values that decay in time. Errors are distances from the result with double everywhere.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import numba_fftmatvec as fm
from numba_fftmatvec.cli.results import read_results, write_results
from numba_fftmatvec.precision import Precision
from numba_fftmatvec.tuning import Candidate, candidate_codes, tune

OPS = ("F", "F*")
SHAPE = (5000, 100, 1000)
# Decay over all time steps: a response ends at e^-5 of its start.
DECAY = 5.0
# The error at which exact results are drawn on the logarithmic axis: the unit roundoff of double.
LEAST_ERROR = 2.0**-53
FORMATS = {"d": "complex128 (d)", "i": "FIXED32 (i)", "s": "complex64 (s)", "h": "FIXED16 (h)"}


def responses(shape: tuple[int, int, int], seed: int = 0) -> Callable[[int], np.ndarray]:
    """Return the function that makes a block row (Nm, Nt) of decaying random impulse responses."""
    nm, _, nt = shape
    envelope = np.exp(-DECAY * np.arange(nt) / nt)
    return lambda row: np.random.default_rng([seed, row]).standard_normal((nm, nt)) * envelope


def measure(comm: fm.Comm, shape: tuple[int, int, int], tol: float, repetitions: int) -> Iterator[dict[str, Any]]:
    """Yield the records of all configs, of one product after the other."""
    nm, nd, nt = shape
    matrix = fm.Matrix(comm, nm, nd, nt, global_sizes=True)
    matrix.init_mat_from_array(responses(shape))
    for op in OPS:
        result = tune(matrix, tol, products=(op,), codes=candidate_codes(Precision.DOUBLE), repetitions=repetitions)
        if comm.world_rank == 0:
            print(f"{op}: {result.best.code} is the fastest within {tol:g}: {1e3 * result.best.seconds:.4f} ms")
        about = {"benchmark": "pareto", "op": op, "shape": list(shape), "ranks": comm.world_size}
        for candidate in result.candidates:
            yield about | record(candidate, on_front=candidate in result.front)
        for code, reason in result.skipped.items():
            yield about | {"precision": code, "error": reason}


def record(candidate: Candidate, *, on_front: bool) -> dict[str, Any]:
    """Return the record of a candidate."""
    return {
        "precision": candidate.code,
        "median_ms": 1e3 * candidate.seconds,
        "rel_error": candidate.error,
        "spectrum_bytes": candidate.spectrum_bytes,
        "on_front": on_front,
    }


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw the records of a results file: one panel for each product, the front as a line with its codes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = [found for found in results["records"] if found["benchmark"] == "pareto" and "error" not in found]
    ops = list(dict.fromkeys(found["op"] for found in records))
    figure, axes = pyplot.subplots(
        1, len(ops), figsize=(6.5 * len(ops), 5.5), sharey=True, squeeze=False, layout="constrained"
    )
    for op, axis in zip(ops, axes[0], strict=True):
        mine = [found for found in records if found["op"] == op]
        draw_panel(axis, sorted(mine, key=lambda found: found["median_ms"]))
        axis.set_title(f"{op}, Nm x Nd x Nt = {' x '.join(map(str, mine[0]['shape']))}")
    axes[0, 0].set_ylabel("relative error")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(FORMATS) + 1)
    figure.suptitle(f"Precision configs on {results['device']}")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def close(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Return whether the labels of two points (ms, error) would overlap."""
    return other[0] < 1.06 * one[0] and one[1] < 20 * other[1]


def draw_panel(axis: Any, records: list[dict[str, Any]]) -> None:
    """Draw the records of one product, sorted by time."""
    point = {found["precision"]: (found["median_ms"], max(found["rel_error"], LEAST_ERROR)) for found in records}
    front = [found["precision"] for found in records if found["on_front"]]
    axis.plot(*zip(*(point[code] for code in front), strict=True), color="0.6", zorder=1, label="Pareto front")
    for letter, name in FORMATS.items():
        chosen = [point[code] for code in point if code[2] == letter]
        if chosen:
            axis.scatter(*zip(*chosen, strict=True), s=24, label=name, zorder=2)
    for code in front:
        # Among overlapping labels on the front only the last is drawn, which is the most accurate.
        following = front[front.index(code) + 1 :]
        if not any(close(point[code], point[other]) for other in following):
            style = {"textcoords": "offset points", "fontsize": 8, "family": "monospace", "rotation": 45}
            axis.annotate(code, point[code], xytext=(3, 3), **style)
    axis.set(xscale="log", yscale="log", xlabel="median ms")
    axis.margins(x=0.08, y=0.12)
    axis.grid(alpha=0.3)


def main() -> None:
    """Measure and write, draw, or both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE, metavar=("NM", "ND", "NT"))
    parser.add_argument("--tol", type=float, default=1e-6, help="largest error of the config printed as the fastest")
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="draw this file's records instead of measuring")
    parser.add_argument("--png", type=Path, help="file of the picture")
    options = parser.parse_args()
    if (options.draw is None) == (options.json is None) or (options.draw is not None and options.png is None):
        parser.error("expected --json FILE to measure, or --draw FILE with --png FILE")
    if options.json is not None and not run(options):
        return
    if options.png is not None:
        draw(read_results(options.draw or options.json), options.png)


def run(options: argparse.Namespace) -> bool:
    """Measure and write; return whether this rank wrote the file."""
    with fm.Comm(backend=options.backend) as comm:
        records = list(measure(comm, tuple(options.shape), options.tol, options.repetitions))
        if comm.world_rank == 0:
            write_results(options.json, records, comm.backend.device_name())
        return comm.world_rank == 0


if __name__ == "__main__":
    main()
