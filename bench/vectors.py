"""Vector arithmetic on a GPU beside a device copy and CuPy's fused kernels, and the host time of small operations.

``python bench/vectors.py --json bench/results/h100/vectors.json``. Times are medians between events on the stream;
the bandwidth counts each operand read once and each result written once. ``host_us`` is the time that the calling
thread spends on one in-place operation of a small vector, measured over many, without waiting for the device.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cupy

import numba_fftmatvec as fm
from lib.timing import median_seconds
from numba_fftmatvec.cli.results import write_results
from numba_fftmatvec.kernels.reductions import PARTIALS, reduce_launcher

BLOCKS, BLOCK_SIZE = 1024, 131072  # 2^27 values
SMALL = (10, 100)
CUPY = {
    "scale": ("float64 x, float64 a", "a * x"),
    "add": ("float64 x, float64 y", "x + y"),
    "axpby": ("float64 x, float64 y, float64 a", "a * x + a * y"),
    "multiply_add": ("float64 x, float64 y, float64 z", "x * y + z"),
    "power": ("float64 x, float64 a", "pow(x, a)"),
}


def host_microseconds(comm: fm.Comm, run: Callable[[], object], repetitions: int = 2000) -> float:
    """Return the calling thread's median microseconds to queue one operation, in batches that the queue can hold."""
    means, batch = [], 100
    for _ in range(repetitions // batch):
        start = time.perf_counter()
        for _ in range(batch):
            run()
        means.append((time.perf_counter() - start) / batch)
        comm.synchronize()
    return 1e6 * statistics.median(means)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    comm = fm.Comm(backend="cuda")
    backend = comm.backend
    x, y, z = (fm.Vector(comm, BLOCKS, BLOCK_SIZE, "col", global_sizes=True) for _ in range(3))
    for vector in (x, y, z):
        vector.init_vec_doubles()
    size = 8 * BLOCKS * BLOCK_SIZE
    measure = partial(median_seconds, backend, repetitions=options.repetitions)
    with backend.active():
        copy = 2 * size / measure(lambda: cupy.copyto(y.array, x.array))
        runs = {
            "scale": (2, lambda: x.scale(1.0), (x.array, 1.0)),
            "add": (3, lambda: x.__iadd__(y), (x.array, y.array)),
            "axpby": (3, lambda: x.axpby(0.5, 0.5, y), (x.array, y.array, 0.5)),
            "multiply_add": (4, lambda: z.elementwise_multiply_add_inplace(x, y), (z.array, x.array, y.array)),
            "power": (2, lambda: x.pow_inplace(1.0), (x.array, 1.0)),
        }
        records = [{"benchmark": "vectors", "op": "copy", "gb_per_s": copy / 1e9}]
        for name, (passes, run, arguments) in runs.items():
            seconds = measure(run)
            kernel = cupy.ElementwiseKernel(CUPY[name][0], "float64 out", f"out = {CUPY[name][1]}", f"peer_{name}")
            peer = measure(lambda kernel=kernel, arguments=arguments: kernel(*arguments, arguments[0]))
            records.append(record(name, passes * size / seconds, copy, seconds, peer))
        workspace = backend.empty((PARTIALS + 1,), "float64")
        peers = {
            "dot": lambda: cupy.dot(x.array.ravel(), y.array.ravel()),
            "sum_magnitude": None,
            "sum_square": None,
            "max_magnitude": None,
        }
        for name, peer_run in peers.items():
            second = y if name == "dot" else x
            launch = reduce_launcher(backend.target, name)
            views = [backend.wrap(vector.array.reshape(-1)).view for vector in (x, second)]
            seconds = measure(lambda launch=launch, views=views: launch(workspace.view, *views))
            peer = measure(peer_run) if peer_run else None
            records.append(record(name, (2 if name == "dot" else 1) * size / seconds, copy, seconds, peer))
    a, b = (fm.Vector(comm, *SMALL, "col", global_sizes=True) for _ in range(2))
    a.init_vec_ones()
    b.init_vec_zeros()
    for name, run in {
        "axpy": lambda: a.axpy(0.5, b),
        "scale": lambda: a.scale(1.0),
        "+=": lambda: a.__iadd__(b),
    }.items():
        run()
        records.append({"benchmark": "host overhead", "op": name, "host_us": host_microseconds(comm, run)})
    for line in records:
        print(line)
    for line in records:  # in the schema `op` is the name of a product
        line["operation"] = line.pop("op")
    write_results(options.json, records, backend.device_name())


def record(name: str, rate: float, copy: float, seconds: float, peer: float | None) -> dict[str, object]:
    """Return one record of a bandwidth measurement."""
    return {
        "benchmark": "vectors",
        "op": name,
        "median_ms": 1e3 * seconds,
        "gb_per_s": rate / 1e9,
        "of_copy": rate / copy,
        "cupy_time_over_ours": None if peer is None else peer / seconds,
    }


if __name__ == "__main__":
    main()
