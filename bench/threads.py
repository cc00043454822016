"""The cost of a Comm's lock, and products by several threads that share a matrix.

``python bench/threads.py --backend cuda --json bench/results/h100/threads.json``. ``lock_us`` is the additional time of
a method that takes its turn, over one that does nothing. Each product has its own thread's vectors; ``products_per_s``
counts those of all threads.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba_fftmatvec as fm
from numba_fftmatvec.cli.results import write_results
from numba_fftmatvec.comm.exclusive import exclusive

SHAPES = {"cpu": (500, 50, 200), "cuda": (500, 20, 200)}  # Nm, Nd, Nt
THREADS = (1, 2, 4)


class Methods:
    """Two methods that do nothing, of which one takes its turn."""

    def __init__(self, comm: fm.Comm) -> None:
        self.comm = comm

    def free(self) -> None:
        """Do nothing."""

    @exclusive
    def taking_turns(self) -> None:
        """Do nothing, in this thread's turn."""


def smallest_microseconds(call: Callable[[], None], batches: int = 2000, batch: int = 200) -> float:
    """Return the time of a call in the fastest of many batches, which other programs did not disturb."""
    times = []
    for _ in range(batches):
        start = time.perf_counter()
        for _ in range(batch):
            call()
        times.append(time.perf_counter() - start)
    return 1e6 * min(times) / batch


def products_per_second(F: fm.Matrix, threads: int, products: int) -> float:
    """Return the products in a second by several threads."""

    def run(pair: tuple[fm.Vector, fm.Vector]) -> None:
        for _ in range(products):
            F.matvec(*pair)

    pairs = [(F.get_vec("input"), F.get_vec("output")) for _ in range(threads)]
    for x, y in pairs:
        x.init_vec_doubles()
        for _ in range(3):
            F.matvec(x, y)
    F.comm.synchronize()
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        list(pool.map(run, pairs))
        F.comm.synchronize()
        return threads * products / (time.perf_counter() - start)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--products", type=int, default=1000, help="products of each thread")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    with fm.Comm(backend=options.backend) as comm:
        methods = Methods(comm)
        free, turns = map(smallest_microseconds, (methods.free, methods.taking_turns))
        records: list[dict[str, Any]] = [{"benchmark": "lock", "backend": comm.backend.name, "lock_us": turns - free}]
        with fm.Matrix(comm, *SHAPES[comm.backend.name], global_sizes=True) as F:
            F.init_mat_doubles()
            for threads in THREADS:
                rate = products_per_second(F, threads, options.products)
                shape = list(SHAPES[comm.backend.name])
                records.append({"benchmark": "threads", "threads": threads, "shape": shape, "products_per_s": rate})
        for record in records:
            print(record)
        write_results(options.json, records, comm.backend.device_name())


if __name__ == "__main__":
    main()
