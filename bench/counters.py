"""Collect Nsight Compute's counters of the SBGEMV kernels: memory throughput, use of the units, occupancy.

``python bench/counters.py --json bench/results/h100/counters.json``. ncu profiles a process that applies F and F* for
each precision code. The process launches a marker kernel before each product, so that every profiled kernel belongs to
the product of the last marker before it. ncu does not change the clocks.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numba_fftmatvec as fm
from numba_fftmatvec.cli.results import write_results

SHAPE = (5000, 100, 1000)
CODES = ("ddddd", "dssdd", "ddidd", "ddhdd")
NUM_VECS = (1, 16)
LAUNCHES = 3  # of each product; the median of each counter is kept
NCU_SECONDS = 500

MARKER = "product_marker"
# Mangled names contain the names of module and kernel; this matches all kernels in modules named sbgemv...
KERNELS = f"sbgemv|{MARKER}"

# Metrics that ncu must deliver, by their names in our records.
ESSENTIAL = {
    "dram_percent": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "dram_bytes_read": "dram__bytes_read.sum",
    "dram_bytes_written": "dram__bytes_write.sum",
    "duration_ns": "gpu__time_duration.sum",
    "occupancy_percent": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "registers_per_thread": "launch__registers_per_thread",
}
# All metrics, including those that only some devices count.
METRICS = ESSENTIAL | {
    "l2_percent": "lts__throughput.avg.pct_of_peak_sustained_elapsed",
    "l1_percent": "l1tex__throughput.avg.pct_of_peak_sustained_active",
    "issue_percent": "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "fp64_pipe_percent": "sm__pipe_fp64_cycles_active.avg.pct_of_peak_sustained_active",
    "fp64_instructions_percent": "sm__inst_executed_pipe_fp64.avg.pct_of_peak_sustained_active",
    "fma_instructions_percent": "sm__inst_executed_pipe_fma.avg.pct_of_peak_sustained_active",
    "alu_instructions_percent": "sm__inst_executed_pipe_alu.avg.pct_of_peak_sustained_active",
    "xu_instructions_percent": "sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active",
    "local_loads": "smsp__inst_executed_op_local_ld.sum",
}


@dataclass
class Launch:
    """One profiled kernel: its name as ncu prints it, and its metrics that have a value, by ncu's names."""

    kernel: str
    metrics: dict[str, float] = field(default_factory=dict)


def parse_csv(text: str) -> list[Launch]:
    """Return the profiled launches in the output of ``ncu --csv --print-units base``, in order.

    Each line is one metric of one launch, which its ID identifies. ncu's messages (``==PROF==``) may come before, after
    and between these lines.
    """
    lines = [line for line in text.splitlines() if line.startswith('"')]
    launches: dict[str, Launch] = {}
    for row in csv.DictReader(lines):
        if row["ID"] == "ID":  # ncu prints the header once for each process
            continue
        launch = launches.setdefault(row["ID"], Launch(row["Kernel Name"]))
        try:
            launch.metrics[row["Metric Name"]] = float(row["Metric Value"].replace(",", ""))
        except ValueError:  # such as "n/a": this device does not have the counter
            continue
    return list(launches.values())


def split_products(launches: Iterable[Launch]) -> list[list[Launch]]:
    """Return the launches of each product: those after one marker and before the next."""
    products: list[list[Launch]] = []
    for launch in launches:
        if MARKER in launch.kernel:
            products.append([])
        elif products:
            products[-1].append(launch)
    return products


def short_name(kernel: str) -> str:
    """Return the name of the kernel's function in a mangled name, which has the length before the name."""
    found = re.search(r"(?<=\d)_\w+", kernel)
    length = re.search(r"(\d+)_", kernel)
    return kernel if found is None or length is None else found[0][: int(length[1])]


def summarise(products: list[list[Launch]]) -> Iterator[dict[str, Any]]:
    """Yield one record for each kernel of the equal products: the median of each metric over its launches."""
    for name in dict.fromkeys(launch.kernel for product in products for launch in product):
        launches = [launch for product in products for launch in product if launch.kernel == name]
        values = {
            key: [launch.metrics[of] for launch in launches if of in launch.metrics] for key, of in METRICS.items()
        }
        medians = {key: statistics.median(found) for key, found in values.items() if found}
        yield {"kernel": short_name(name), "launches": len(launches), **medians}


def cases() -> list[tuple[str, int, str]]:
    """Return the profiled products in order: precision code, number of right-hand sides, op."""
    return list(itertools.product(CODES, NUM_VECS, ("F", "F*")))


def product_of(comm: fm.Comm, matrix: fm.Matrix, num_vecs: int, op: str) -> Callable[[], None]:
    """Return a function that runs a product with a timer: without it the product would run as one graph."""
    several = {} if num_vecs == 1 else {"num_vecs": num_vecs}
    sizes = {"col": matrix.get_glob_num_cols(), "row": matrix.get_glob_num_rows()}
    spaces = ("col", "row") if op == "F" else ("row", "col")
    x, y = (fm.Vector(comm, sizes[space], matrix.get_block_size(), space, True, **several) for space in spaces)
    x.init_vec_doubles()
    names = ("matvec", "transpose_matvec") if num_vecs == 1 else ("matmat", "transpose_matmat")
    product = getattr(matrix, names[op == "F*"])

    def run() -> None:
        product(x, y, timer=fm.PhaseTimer(comm))
        comm.synchronize()

    return run


def attempt(action: Callable[[], Any]) -> Any:
    """Return an action's result; print an error and return None if it fails, so that the others are profiled."""
    try:
        return action()
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return None


def apply_products(shape: tuple[int, int, int]) -> None:
    """Apply each product of `cases`, with a marker kernel before it; ncu profiles this process."""
    import cupy

    nm, nd, nt = shape
    comm = fm.Comm(backend="cuda")
    marker = cupy.RawKernel(f'extern "C" __global__ void {MARKER}() {{}}', MARKER)
    for code, group in itertools.groupby(cases(), key=lambda case: case[0]):
        config = fm.MatvecPrecisionConfig.from_code(code)
        with comm.backend.active(), fm.Matrix(comm, nm, nd, nt, global_sizes=True, p_config=config) as matrix:
            attempt(matrix.init_mat_doubles)
            for _, num_vecs, op in group:
                run = attempt(partial(product_of, comm, matrix, num_vecs, op))
                for _ in range(LAUNCHES):
                    marker((1,), (1,), ())
                    if run:
                        attempt(run)
        del run
        cupy.get_default_memory_pool().free_all_blocks()


def profile(shape: tuple[int, int, int], metrics: Iterable[str]) -> tuple[list[Launch], str]:
    """Return the launches that ncu profiled, and the last lines of the output."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "ncu.csv")
        command = ["ncu", "--csv", "--clock-control", "none", "--print-units", "base", "--log-file", str(log)]
        command += ["--kernel-name-base", "mangled", "--print-kernel-base", "mangled"]
        command += ["--kernel-name", f"regex:{KERNELS}", "--metrics", ",".join(metrics)]
        command += [sys.executable, __file__, "--products", "--shape", *map(str, shape)]
        try:
            run = subprocess.run(
                command, env=dict(os.environ), capture_output=True, text=True, timeout=NCU_SECONDS, check=False
            )
            printed = run.stdout + run.stderr
        except subprocess.TimeoutExpired:
            printed = f"not done within {NCU_SECONDS} s"
        text = log.read_text() if log.exists() else ""
    told = [line for line in text.splitlines() if line.startswith(("==ERROR==", "==WARNING=="))]
    return parse_csv(text), "\n".join([*told, *printed.splitlines()[-5:]])


def main() -> None:
    """Profile, print, write; or with ``--products`` apply the products that are profiled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE, metavar=("NM", "ND", "NT"))
    parser.add_argument("--products", action="store_true", help="apply the products that ncu profiles")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    shape = tuple(options.shape)
    if options.products:
        apply_products(shape)
        return
    if options.json is None:
        parser.error("expected --json FILE, found none")
    if shutil.which("ncu") is None:
        sys.exit("expected ncu (Nsight Compute) on the PATH, found none")
    launches: list[Launch] = []
    for metrics in (METRICS, ESSENTIAL):  # ncu profiles nothing if it rejects a metric
        launches, told = profile(shape, metrics.values())
        if any(launch.metrics for launch in launches):
            break
        print(told, file=sys.stderr)
    products = split_products(launches)
    records = []
    for number, (code, num_vecs, op) in enumerate(cases()):
        about = {"op": op, "precision": code, "shape": list(shape), "num_vecs": num_vecs}
        found = list(summarise(products[number * LAUNCHES : (number + 1) * LAUNCHES]))
        missing = [{"error": f"no kernel was profiled: {told}"}]
        records += [{"benchmark": "counters", **about, **summary} for summary in found or missing]
    for record in records:
        print(record)
    import cupy

    write_results(options.json, records, cupy.cuda.runtime.getDeviceProperties(0)["name"].decode())
    sys.exit(any("error" in record for record in records))


if __name__ == "__main__":
    main()
