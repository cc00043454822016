r"""Measure the strong and weak scaling of F and F* on every process grid, write a results file, and draw it.

On one host with 4 GPUs (a few minutes; with 2 GPUs: ``--ranks 1 2`` and h100x2)::

    python bench/scaling.py --backend cuda --ranks 1 2 4 --json bench/results/h100x4/scaling.json \
        --svg docs/scaling-h100x4.svg

and then ``make bench-report``. Without GPUs: ``--backend cpu --ranks 1 2``, at a small shape. A results file is drawn
again by ``python bench/scaling.py --draw bench/results/h100x4/scaling.json --svg docs/scaling-h100x4.svg``.

Each grid runs in a job of its own: the runner, under mpiexec on this machine, with one GPU or one thread for each rank.
Strong scaling splits the matrix of one rank; weak scaling gives each rank a matrix of that size. The results are
written after each job. A job that fails or takes too long leaves a record of its error, and the others go on.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib.chart import draw
from numba_fftmatvec import MatvecPrecisionConfig
from numba_fftmatvec.cli.results import read_results, write_results
from numba_fftmatvec.comm.grids import Machine, grids_of, predict_seconds

ROOT = Path(__file__).resolve().parents[1]
SHAPES = {"cuda": (5000, 100, 1000), "cpu": (1000, 40, 200)}  # (Nm, Nd, Nt) on one rank
GRACE_SECONDS = 5.0

Shape = tuple[int, int, int]


def cases(ranks: list[int], shape: Shape) -> Iterator[tuple[str, tuple[int, int], Shape]]:
    """Yield each kind of scaling with its grids and global shapes, those of few ranks first."""
    nm, nd, nt = shape
    for count in sorted(set(ranks)):
        for rows, cols in grids_of(count):
            if count == 1:
                yield "single", (1, 1), shape
            else:
                yield "strong", (rows, cols), shape
                yield "weak", (rows, cols), (nm * cols, nd * rows, nt)


def run_job(command: list[str], seconds: float) -> str:
    """Run a command in a session of its own; return the last line that it printed if it failed, else an empty string.

    After `seconds` the launcher is ended by SIGTERM, so that it ends its ranks, and then the whole process group.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        job = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = job.wait(seconds)
        except subprocess.TimeoutExpired:
            job.terminate()
            status = None
        try:
            job.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()
        output.seek(0)
        printed = [line.strip() for line in output if line.strip()]
    if status is None:
        return f"not finished after {seconds:g} s"
    return "" if status == 0 else f"exit status {status}: {' '.join(printed[-1:])}"


def measure(
    options: argparse.Namespace, code: str, kind: str, grid: tuple[int, int], shape: Shape
) -> tuple[list[dict[str, Any]], str | None]:
    """Return the records of one job, and the device's name; an error is a record without times."""
    nm, nd, nt = shape
    ranks = grid[0] * grid[1]
    about = {"benchmark": "scaling", "scaling": kind, "ranks": ranks, "grid": list(grid)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        numbers = {"-n": ranks, "-pr": grid[0], "-pc": grid[1], "-Nm": nm, "-Nd": nd, "-Nt": nt}
        numbers |= {"-N": options.repetitions}
        command = [sys.executable, "-m", "numba_fftmatvec", "-g", "-t", "-prec", code]
        command += [word for flag, number in numbers.items() for word in (flag, str(number))]
        command += ["--backend", options.backend, "--collectives", options.collectives, "--json", str(path)]
        if error := run_job(command, options.seconds):
            return [about | {"shape": list(shape), "precision": code, "error": error}], None
        results = read_results(path)
    machine, config = Machine.of(results["device"], options.backend), MatvecPrecisionConfig.from_code(code)
    records = []
    for record in results["records"]:
        predicted = predict_seconds(grid, (nd, nm, nt), record["op"], config, machine)
        records.append(record | about | {"predicted_ms": 1e3 * predicted})
    return records, results["device"]


def line(record: dict[str, Any]) -> str:
    """Return a record as a line of text."""
    place = "{scaling:>6} {grid[0]} x {grid[1]} {shape} {precision}".format(**record)
    times = "{op:>3} median {median_ms:.4f} ms, min {min_ms:.4f}, predicted {predicted_ms:.4f}"
    return f"{place} failed: {record['error']}" if "error" in record else f"{place} {times.format(**record)}"


def measure_all(options: argparse.Namespace) -> bool:
    """Measure every grid, print and write; return whether all grids have times."""
    options.json.parent.mkdir(parents=True, exist_ok=True)
    shape = tuple(options.shape) if options.shape else SHAPES[options.backend]
    records: list[dict[str, Any]] = []
    device = None
    for code in options.precision:
        for case in cases(options.ranks, shape):
            found, name = measure(options, code, *case)
            device = device or name
            records += found
            print("\n".join(map(line, found)), flush=True)
            write_results(options.json, records, device)
    return not any("error" in record for record in records)


def main() -> None:
    """Measure and write, or draw a results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("cpu", "cuda"))
    parser.add_argument("--collectives", default="auto", choices=("auto", "mpi", "nccl"))
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], help="at most the host's GPUs or cores")
    parser.add_argument("--shape", type=int, nargs=3, metavar=("NM", "ND", "NT"), help="the matrix of one rank")
    parser.add_argument("--precision", nargs="+", default=["ddddd"], metavar="CODE")
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=240.0, help="the longest time of one job")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--json", type=Path, help="measure, and write the results here")
    target.add_argument("--draw", type=Path, help="draw the results in this file")
    parser.add_argument("--svg", type=Path, help="write the chart here")
    options = parser.parse_args()
    if options.json and not options.backend:
        parser.error("--backend: expected cpu or cuda with --json, found none")
    if options.draw and not options.svg:
        parser.error("--svg: expected a file with --draw, found none")
    complete = not options.json or measure_all(options)
    if options.svg:
        results = read_results(options.draw or options.json)
        options.svg.write_text(draw(results["records"], results["device"]), encoding="utf-8")
    if not complete:
        sys.exit("expected the times of every grid, found errors")


if __name__ == "__main__":
    main()
