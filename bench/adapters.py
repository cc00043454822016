"""SciPy's lsqr through the adapter, beside the products that it makes.

``OPENBLAS_NUM_THREADS=1 python bench/adapters.py --json bench/results/cpu/adapters.json``. ``lsqr_s`` is the time of a
fixed number of iterations. ``products_s`` is that of as many products with F and F* between vectors of this library; on
a GPU each with one copy of the operand to the device and one of the result back, as SciPy's arrays are on the host.
``ratio`` is the median over runs in turns of the first over the second; the times are medians too. OpenBLAS computes
SciPy's norms. Its threads compete for the cores with those of the products, so it has one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.sparse.linalg import LinearOperator, lsqr

import numba_fftmatvec as fm
from numba_fftmatvec.cli.results import write_results

SHAPE = (2500, 50, 100)  # Nm, Nd, Nt
ITERATIONS = 20


class Counted(LinearOperator):  # type: ignore[misc, unused-ignore]
    """An operator that counts the products made with another one."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(operator.dtype, operator.shape)
        self._operator = operator
        self.counts = {"F": 0, "F*": 0}

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        self.counts["F"] += 1
        return self._operator.matvec(x)

    def _rmatvec(self, y: np.ndarray) -> np.ndarray:
        self.counts["F*"] += 1
        return self._operator.rmatvec(y)


def products(F: fm.Matrix, counts: dict[str, int]) -> Callable[[], object]:
    """Return a function that makes a number of products with F and F*, with copies to and from a GPU."""
    x, y = F.get_vec("input"), F.get_vec("output")
    x.init_vec_doubles()
    y.init_vec_doubles()
    on_device = F.comm.backend.name == "cuda"
    hosts = {vector: vector.to_numpy() for vector in (x, y)} if on_device else {}

    def product(call: Callable[..., object], source: fm.Vector, target: fm.Vector) -> None:
        if on_device:
            source.from_numpy(hosts[source])
        call(source, target)
        if on_device:
            target.to_numpy()

    def run() -> None:
        for _ in range(counts["F"]):
            product(F.matvec, x, y)
        for _ in range(counts["F*"]):
            product(F.transpose_matvec, y, x)
        F.comm.synchronize()

    return run


def seconds(run: Callable[[], object]) -> float:
    """Return the wall time of a call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    with fm.Comm(backend=options.backend) as comm, fm.Matrix(comm, *SHAPE, global_sizes=True) as F:
        F.init_mat_doubles()
        adapted = F.as_linear_operator("scipy")
        data = np.random.default_rng(1).standard_normal(F.shape[0])

        def solve(operator: LinearOperator = adapted) -> object:
            return lsqr(operator, data, atol=0, btol=0, conlim=0, iter_lim=ITERATIONS)

        counted = Counted(adapted)
        solve(counted)
        run = products(F, counted.counts)
        run()
        pairs = [(seconds(solve), seconds(run)) for _ in range(options.repetitions)]
        lsqr_s, products_s = map(statistics.median, zip(*pairs, strict=True))
        record = {
            "benchmark": "adapters",
            "library": "scipy",
            "solver": "lsqr",
            "backend": comm.backend.name,
            "shape": list(SHAPE),
            "iterations": ITERATIONS,
            "products": sum(counted.counts.values()),
            "lsqr_s": lsqr_s,
            "products_s": products_s,
            "ratio": statistics.median(solver / alone for solver, alone in pairs),
            "repetitions": options.repetitions,
            "openblas_threads": os.environ.get("OPENBLAS_NUM_THREADS", "all"),
        }
        print(record)
        write_results(options.json, [record], comm.backend.device_name())


if __name__ == "__main__":
    main()
