"""The time of one small product on a GPU: the host's call, and the wait for the device, apart.

``python bench/latency.py --json bench/results/h100/latency.json``. A host can have several speeds within one process,
for example if its clock changes. A launch of the recorded graph alone shows the present one, so compare figures whose
launches take the same time. The records of h100/folders-latency.json are of this loop, before it was committed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba_fftmatvec as fm
from numba_fftmatvec.cli.results import write_results

SHAPES = ((100, 10, 100), (500, 20, 200))  # Nm, Nd, Nt
REPETITIONS = 20_000


def microseconds(comm: fm.Comm, run: Callable[[], object], repetitions: int) -> dict[str, float]:
    """Return the median times of a call, of the wait after it, and of both."""
    times = []
    for _ in range(repetitions):
        comm.synchronize()
        start = time.perf_counter()
        run()
        called = time.perf_counter()
        comm.synchronize()
        times.append((called - start, time.perf_counter() - called, time.perf_counter() - start))
    names = ("call_us", "wait_us", "both_us")
    return {name: 1e6 * statistics.median(column) for name, column in zip(names, zip(*times, strict=True), strict=True)}


def measure(comm: fm.Comm, shape: tuple[int, int, int], repetitions: int) -> list[dict[str, Any]]:
    """Return the records of a product and of its graph alone, in turns."""
    with fm.Matrix(comm, *shape, global_sizes=True) as F:
        F.init_mat_doubles()
        x, y = F.get_vec("input"), F.get_vec("output")
        x.init_vec_doubles()
        for _ in range(3000):
            F.matvec(x, y)
        graph = next(graph for graph in F.plan("F")._untimed._graphs.values() if graph is not None)
        runs = {"matvec": lambda: F.matvec(x, y), "launch": lambda: graph.launch(stream=comm.stream)}
        return [
            {"benchmark": "latency", "run": run, "shape": list(shape), **microseconds(comm, runs[run], repetitions)}
            for run in ("matvec", "launch", "matvec", "launch")
        ]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    with fm.Comm(backend="cuda") as comm:
        records = [record for shape in SHAPES for record in measure(comm, shape, options.repetitions)]
        for record in records:
            print(record)
        write_results(options.json, records, comm.backend.device_name())


if __name__ == "__main__":
    main()
