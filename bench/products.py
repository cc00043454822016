"""Time F and F* at the project's reference shapes, and write a results file.

``python bench/products.py --backend cuda --json bench/results/h100/products.json``. It uses one rank and one
device. The relative error of a result is its distance from the all-double product of the same operands.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

import numba_fftmatvec as fm
from numba_fftmatvec.cli.results import write_results
from numba_fftmatvec.plan.timing import time_runs

# Duration of the warm-up, in which clocks rise; short products are timed for as long.
WARM_UP_SECONDS = 0.2

# (Nm, Nd, Nt) and the precision codes timed there.
SHAPES = {
    (5000, 100, 1000): ("ddddd", "dssdd", "sssss", "ddidd", "ddhdd", "dshsd"),
    (20000, 10, 1000): ("ddddd",),
    (1000, 1000, 500): ("ddddd",),
    (500, 20, 200): ("ddddd",),
    (100, 10, 100): ("ddddd",),
}
SMALL_SHAPES = {(500, 50, 200): ("ddddd", "dssdd", "ddidd", "ddhdd"), (100, 10, 100): ("ddddd",)}
# Numbers of right-hand sides timed at the first shape, in addition to one.
SEVERAL = (4, 16)


def time_queued(comm: fm.Comm, run: Callable[[], object], repetitions: int) -> float:
    """Return the mean seconds of runs that are queued one after another, with one synchronisation at the end."""
    comm.synchronize()
    start = time.perf_counter()
    for _ in range(repetitions):
        run()
    comm.synchronize()
    return (time.perf_counter() - start) / repetitions


def measure(
    comm: fm.Comm, shape: tuple[int, int, int], codes: tuple[str, ...], counts: tuple[int, ...], repetitions: int
) -> list[dict]:
    """Return the records of F and F* for every code and number of vectors; the first code is the reference."""
    nm, nd, nt = shape
    records, exact = [], {}
    for code in codes:
        config = fm.MatvecPrecisionConfig.from_code(code)
        matrix = fm.Matrix(comm, nm, nd, nt, global_sizes=True, p_config=config)
        matrix.init_mat_doubles()
        one_vector = {"F": matrix.matvec, "F*": matrix.transpose_matvec}
        for count, (op, product, spaces) in itertools.product(
            counts,
            (
                ("F", matrix.matmat, ("input", "output")),
                ("F*", matrix.transpose_matmat, ("output", "input")),
            ),
        ):
            x, y = (matrix.get_vec(space, num_vecs=count) for space in spaces)
            x.init_vec_doubles()
            run = partial(product if count > 1 else one_vector[op], x, y)
            one = min(time_runs(comm, run, 5))
            time_runs(comm, run, int(WARM_UP_SECONDS / one))
            seconds = time_runs(comm, run, max(repetitions, int(WARM_UP_SECONDS / one)))
            queued = time_queued(comm, run, len(seconds))
            result = y.gather()
            reference = exact.setdefault((op, count), result)
            records.append(
                {
                    "benchmark": "matvec",
                    "op": op,
                    "shape": list(shape),
                    "precision": code,
                    "ranks": 1,
                    "grid": [1, 1],
                    "num_vecs": count,
                    "median_ms": 1e3 * statistics.median(seconds),
                    "min_ms": 1e3 * min(seconds),
                    "queued_ms": 1e3 * queued,
                    "rel_error": float(np.linalg.norm(result - reference) / np.linalg.norm(reference)),
                    "peak_bytes": comm.backend.peak_bytes(),
                    "spectrum_bytes": matrix.nbytes,
                }
            )
            line = (
                "{op:>3} {shape} {precision} R={num_vecs}: median {median_ms:.4f} ms, min {min_ms:.4f}, {rel_error:.1e}"
            )
            print(line.format(**records[-1]), flush=True)
            x.close()
            y.close()
        matrix.close()
        comm.backend.trim()
    return records


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    comm = fm.Comm(backend=options.backend)
    shapes = SHAPES if comm.backend.name == "cuda" else SMALL_SHAPES
    records = []
    for number, (shape, codes) in enumerate(shapes.items()):
        records += measure(comm, shape, codes, (1, *SEVERAL) if number == 0 else (1,), options.repetitions)
    write_results(options.json, records, comm.backend.device_name())


if __name__ == "__main__":
    main()
