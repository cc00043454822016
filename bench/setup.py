"""Time the set-up of matrices from a host array, and their peak memory through set-up and products.

``python bench/setup.py --json bench/results/h100/setup.json [--shape NM ND NT --precision CODE]``. It uses
one rank and one device. ``seconds`` is the median time of `Matrix.from_array`, from the call until the matrix is ready
for products. ``peak_over_stored`` is the peak memory divided by the bytes of the stored spectrum and of one vector of
each space. On the CPU the peak is that of the process's resident set, which includes the host array.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from pathlib import Path

import numpy as np

import numba_fftmatvec as fm
from numba_fftmatvec.cli.results import write_results

# (Nm, Nd, Nt) and the precision code.
CASES = [((5000, 100, 1000), "ddddd"), ((5000, 100, 1000), "ddhdd"), ((20000, 10, 1000), "ddddd")]
SMALL_CASES = [((500, 50, 200), "ddddd"), ((500, 50, 200), "ddhdd")]


def host_array(shape: tuple[int, int, int]) -> np.ndarray:
    """Return (Nd, Nm, Nt) values: multiples of one random block row."""
    nm, nd, nt = shape
    row = np.random.default_rng(0).random((nm, nt))
    blocks = np.empty((nd, nm, nt))
    for d in range(nd):
        np.multiply(row, d + 1, out=blocks[d])
    return blocks


def measure(backend: str, shape: tuple[int, int, int], code: str, repetitions: int) -> tuple[dict, str]:
    """Return the record of one case, and the device's name."""
    config = fm.MatvecPrecisionConfig.from_code(code)
    blocks = host_array(shape)
    with fm.Comm(backend=backend) as comm:
        fm.Matrix.from_array(comm, blocks[:2, :2], config).close()  # compiles and loads the kernels
        gc.collect()
        comm.backend.trim()
        seconds = []
        for _ in range(repetitions):
            start = time.perf_counter()
            matrix = fm.Matrix.from_array(comm, blocks, config)
            comm.synchronize()
            seconds.append(time.perf_counter() - start)
            x, y = matrix.get_vec("input"), matrix.get_vec("output")
            x.init_vec_ones()
            matrix.matvec(x, y)
            matrix.transpose_matvec(y, x)
            comm.synchronize()
            spectrum_bytes, vector_bytes = matrix.nbytes, x.array.nbytes + y.array.nbytes
            usage = matrix.memory_usage()
            for each in (x, y, matrix):
                each.close()
            del matrix, x, y, each
            gc.collect()
            comm.backend.trim()
        peak = comm.backend.peak_bytes()
        device = comm.backend.device_name()
    record = {
        "benchmark": "setup",
        "shape": list(shape),
        "precision": code,
        "seconds": statistics.median(seconds),
        "min_seconds": min(seconds),
        "gb_per_s": blocks.nbytes / statistics.median(seconds) / 1e9,
        "peak_bytes": peak,
        "spectrum_bytes": spectrum_bytes,
        "vector_bytes": vector_bytes,
        "workspace_bytes": usage.workspace,
        "plan_bytes": usage.plans,
        "peak_over_stored": peak / (spectrum_bytes + vector_bytes),
    }
    return record, device


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--shape", type=int, nargs=3, metavar=("NM", "ND", "NT"), help="one shape instead of the usual")
    parser.add_argument("--precision", default="ddddd", help="the code for --shape")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    with fm.Comm(backend=options.backend) as comm:
        cases = CASES if comm.backend.name == "cuda" else SMALL_CASES
    if options.shape:
        cases = [(tuple(options.shape), options.precision)]
    records = []
    for shape, code in cases:
        record, device = measure(options.backend, shape, code, options.repetitions)
        records.append(record)
        print("{shape} {precision}: {seconds:.3f} s, peak {peak_over_stored:.3f} of what is stored".format(**record))
    write_results(options.json, records, device)


if __name__ == "__main__":
    main()
