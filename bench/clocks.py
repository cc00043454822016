"""Measure the clock of the multiprocessors during each of many products on a GPU, beside the product's time.

``python bench/clocks.py --json bench/results/h100/clocks.json``. A kernel before a product and one after it read the
clocks of all multiprocessors and the time. Cycles over time is the mean clock during the product. With "waited" the
host waits for each product before it launches the next, otherwise products are queued. A record is the product at a
quantile of the times. nvidia-smi reports the power and its limit while products are queued.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cupy
import numpy as np

import numba_fftmatvec as fm
from numba_fftmatvec.cli.results import write_results

SHAPE = (5000, 100, 1000)  # Nm, Nd, Nt
CODES = ("ddddd", "ddhdd")
ROUNDS, PRODUCTS = 4, 400
WARM_UP, POWER_PRODUCTS = 300, 3000
QUANTILES = (0.02, 0.25, 0.5, 0.75, 0.98)
THREADS = 1024  # of a block, so that blocks spread over the multiprocessors

SOURCE = r"""
extern "C" __global__ void read_clocks(long long *found) {
    if (threadIdx.x) return;
    unsigned int multiprocessor;
    long long cycles, nanoseconds;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(multiprocessor));
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(cycles));
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(nanoseconds));
    found[2 * multiprocessor] = cycles;
    found[2 * multiprocessor + 1] = nanoseconds;
}
"""


def clocked(comm: fm.Comm, run: Callable[[], object], waited: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the microseconds and the mean clocks in MHz of products, in the order of their times."""
    count = cupy.cuda.Device().attributes["MultiProcessorCount"]
    read_clocks = cupy.RawKernel(SOURCE, "read_clocks")
    found = cupy.zeros((PRODUCTS, 2, count, 2), np.int64)
    for moments in found:
        if waited:
            comm.synchronize()
        read_clocks((count,), (THREADS,), (moments[0],))
        run()
        read_clocks((count,), (THREADS,), (moments[1],))
    comm.synchronize()
    before, after = np.moveaxis(found.get(), 1, 0)
    seen = (before[..., 1] > 0) & (after[..., 1] > 0)  # multiprocessors that had a block both times
    cycles, nanoseconds = (np.ma.median(np.ma.array(x, mask=~seen), axis=1) for x in np.moveaxis(after - before, 2, 0))
    order = np.argsort(nanoseconds)
    return nanoseconds[order] / 1e3, (cycles / nanoseconds)[order] * 1e3


def power(comm: fm.Comm, run: Callable[[], object]) -> dict[str, Any]:
    """Return the watts while products are queued, their limit, and whether the limit holds the clocks down."""
    for _ in range(POWER_PRODUCTS):
        run()
    fields = "power.draw,power.limit,clocks_event_reasons.sw_power_cap"
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", f"--id={comm.backend.unique_id()}"]
    drawn, limit, capped = subprocess.run(query, check=True, capture_output=True, text=True).stdout.split(", ")
    comm.synchronize()
    return {"watts": float(drawn), "limit_watts": float(limit), "power_capped": capped.strip() == "Active"}


def records(comm: fm.Comm) -> Iterator[dict[str, Any]]:
    """Yield the records of F and F* for every precision code."""
    for code in CODES:
        config = fm.MatvecPrecisionConfig.from_code(code)
        with fm.Matrix(comm, *SHAPE, global_sizes=True, p_config=config) as F:
            F.init_mat_doubles()
            x, y = F.get_vec("input"), F.get_vec("output")
            x.init_vec_doubles()
            for op, run in (("F", partial(F.matvec, x, y)), ("F*", partial(F.transpose_matvec, y, x))):
                about = {"benchmark": "clocks", "op": op, "shape": list(SHAPE), "precision": code}
                for _ in range(WARM_UP):
                    run()
                for number, waited in itertools.product(range(ROUNDS), (True, False)):
                    times, clocks = clocked(comm, run, waited)
                    for quantile in QUANTILES:
                        i = round(quantile * (PRODUCTS - 1))
                        found = {"quantile": quantile, "us": float(times[i]), "mhz": float(clocks[i])}
                        yield about | {"round": number, "waited": waited} | found
                yield about | power(comm, run)
        cupy.get_default_memory_pool().free_all_blocks()


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    comm = fm.Comm(backend="cuda")
    found = []
    with comm.backend.active():
        for record in records(comm):
            print(record, flush=True)
            found.append(record)
    write_results(options.json, found, comm.backend.device_name())


if __name__ == "__main__":
    main()
