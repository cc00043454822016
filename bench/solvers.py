"""Conjugate gradients in mixed precision against double, and block CG against single solves.

``python bench/solvers.py --backend cuda --json bench/results/h100/solvers.json``. The operator is F* F + a I, with a
such that its condition number is `CONDITION`. A record of ``mixed precision`` has the time of `refine` with cheap
products, and its ratio to that of `cg` in double, which runs before and after it. Its ``difference`` is that of the
answers, relative to the double one. A record of ``block`` compares `block_cg` with as many single solves by `cg`; the
ratio of throughputs is ``speedup``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import numba_fftmatvec as fm
from numba_fftmatvec.cli.results import write_results
from numba_fftmatvec.solvers import Solution, block_cg, cg, randomised_eigenvalues, refine
from numba_fftmatvec.vector import fill_normal

SHAPES = {"cpu": (200, 20, 100), "cuda": (5000, 100, 1000)}  # Nm, Nd, Nt
CODES = ("dssdd", "sssss", "ddidd", "ddhdd")
CONDITION = 1e3
TOLERANCE = 1e-8
RIGHT_HAND_SIDES = 16
Record = dict[str, Any]


def oscillating(cols: int, steps: int) -> Callable[[int], np.ndarray]:
    """Return a function that makes the blocks of a row of a decaying, oscillating causal map."""

    def row(d: int) -> np.ndarray:
        rng, t = np.random.default_rng([1, d]), np.arange(steps)
        return rng.standard_normal((cols, 1)) * np.exp(-0.05 * t) * np.sin(0.3 * t + rng.uniform(0, 6, (cols, 1)))

    return row


def normal_operator(F: fm.Matrix, damping: float) -> fm.LinearOperator:
    """Return F* F + damping I."""
    return F.T @ F + damping * fm.Identity(F.comm, F.domain)


def timed(comm: fm.Comm, run: Callable[[], Solution], repetitions: int) -> tuple[float, Solution]:
    """Return the smallest time of a run after one that is not timed, and its result."""
    run()
    times = []
    for _ in range(repetitions):
        comm.synchronize()
        start = time.perf_counter()
        found = run()
        comm.synchronize()
        times.append(time.perf_counter() - start)
    return min(times), found


def mixed(F: fm.Matrix, damping: float, repetitions: int) -> list[Record]:
    """Return the records of CG in double and in mixed precision."""
    comm, A = F.comm, normal_operator(F, damping)
    b = F.get_vec("input")
    fill_normal(b, 1)
    records = []
    for code in CODES:
        cheap = normal_operator(F.with_precision(fm.MatvecPrecisionConfig.from_code(code)), damping)
        before, double = timed(comm, lambda: cg(A, b, tolerance=TOLERANCE), repetitions)
        seconds, found = timed(comm, lambda cheap=cheap: refine(cheap, A, b, tolerance=TOLERANCE), repetitions)
        after = timed(comm, lambda: cg(A, b, tolerance=TOLERANCE), repetitions)[0]
        reference = min(before, after)
        records.append(
            {
                "benchmark": "mixed precision",
                "precision": code,
                "double_ms": 1e3 * reference,
                "double_iterations": double.iterations,
                "mixed_ms": 1e3 * seconds,
                "mixed_iterations": found.iterations,
                "ratio": seconds / reference,
                "difference": (found.x - double.x).norm() / double.x.norm(),
            }
        )
        print(records[-1], flush=True)
    return records


def block(F: fm.Matrix, damping: float, repetitions: int) -> Record:
    """Return the record of block CG and of single solves, of which two are timed."""
    comm, A = F.comm, normal_operator(F, damping)
    B = F.get_vec("input", num_vecs=RIGHT_HAND_SIDES)
    fill_normal(B, 2)
    together, several = timed(comm, lambda: block_cg(A, B, tolerance=TOLERANCE), repetitions)
    ends = [B.get_vector(i) for i in (0, RIGHT_HAND_SIDES - 1)]
    singles = [timed(comm, lambda b=b: cg(A, b, tolerance=TOLERANCE), repetitions) for b in ends]
    single = sum(seconds for seconds, _ in singles) / len(singles)
    record = {
        "benchmark": "block",
        "num_vecs": RIGHT_HAND_SIDES,
        "block_ms": 1e3 * together,
        "block_iterations": several.iterations,
        "single_ms": 1e3 * single,
        "single_iterations": [found.iterations for _, found in singles],
        "speedup": RIGHT_HAND_SIDES * single / together,
    }
    print(record, flush=True)
    return record


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--shape", type=int, nargs=3, metavar=("NM", "ND", "NT"))
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    with fm.Comm(backend=options.backend) as comm:
        nm, nd, nt = options.shape or SHAPES[comm.backend.name]
        F = fm.Matrix(comm, nm, nd, nt, global_sizes=True)
        F.init_mat_from_array(oscillating(nm, nt))
        largest = randomised_eigenvalues(F.T @ F, 1, max_iterations=3).values[0]
        damping = largest / CONDITION
        records = [*mixed(F, damping, options.repetitions), block(F, damping, options.repetitions)]
        shared = {"shape": [nm, nd, nt], "condition": CONDITION, "tolerance": TOLERANCE}
        write_results(options.json, [shared | record for record in records], comm.backend.device_name())


if __name__ == "__main__":
    main()
