"""The long tests of faults: files, threads, interrupts, failures on one rank, and killed ranks.

``python -m tests.faults.soak`` in the checkout takes some 30 minutes on two cores; ``--scale 0.1`` a tenth of it. It
prints the counts and writes them with ``--json``. The exit status is 1 if a promise of docs/reliability.md is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]  # for `support`, and the checkout

import numpy as np  # noqa: E402

from faults.mutants import try_mutants  # noqa: E402
from faults.saves import read_beside_a_writer  # noqa: E402
from faults.test_injection import every_failure  # noqa: E402
from faults.test_interrupts import all_interrupts  # noqa: E402
from numba_fftmatvec import Comm  # noqa: E402
from numba_fftmatvec.cli.results import write_results  # noqa: E402
from numba_fftmatvec.io import MatrixMeta, read_block_row, write_block_row  # noqa: E402
from unit.comm.test_threads import WORK, filled, wrong_results  # noqa: E402
from unit.comm.test_watchdog import test_a_killed_rank_ends_the_others  # noqa: E402

Record = dict[str, Any]
GRIDS = ((1, 1), (1, 2), (2, 1))
FAILURE_STEPS = 10  # of a full run; fewer inject every second, third, ... failure
SIZES = MatrixMeta(2, 2000, 1000)  # of the block rows for the cost of digests: 16 MB each


def kills(count: int) -> Iterator[Record]:
    for call in ("Vector.save", "Matrix.save"):
        found = subprocess.run(
            [sys.executable, "-m", "faults.saves", "kill", call, str(-(-count // 2)), "1"],
            cwd=TESTS,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path[:2]), "NUMBA_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        yield {"call": call, **json.loads(found.stdout.splitlines()[-1])}


def mutants(count: int) -> Iterator[Record]:
    yield try_mutants(count)


def readers(count: int) -> Iterator[Record]:
    for grid in GRIDS:
        counts = read_beside_a_writer(-(-count // len(GRIDS)), grid)
        yield {"grid": list(grid), "ranks": grid[0] * grid[1], **counts}


def digest_cost(repetitions: int) -> Iterator[Record]:
    """Read block rows with digests and without, in four parts as the columns of a 1x4 grid do."""
    values, out = np.random.default_rng(1).standard_normal((SIZES.Nm, SIZES.Nt)), np.empty((SIZES.Nm // 4, SIZES.Nt))
    parts = [range(first, first + len(out)) for first in range(0, SIZES.Nm, len(out))]

    def seconds(directory: str) -> tuple[float, float]:
        """Return the elapsed time and the processor time of a reading."""
        start, used = time.perf_counter(), time.process_time()
        for row in range(SIZES.Nd):
            for cols in parts:
                read_block_row(directory, SIZES, row, cols, out)
        return time.perf_counter() - start, time.process_time() - used

    with tempfile.TemporaryDirectory(prefix="digests") as with_digests, tempfile.TemporaryDirectory() as without:
        for row in range(SIZES.Nd):
            write_block_row(with_digests, SIZES, row, values)
            write_plain(SIZES.block_row_path(without, row), values)
        times = [(*seconds(with_digests), *seconds(without)) for _ in range(repetitions)]
    size = SIZES.Nd * values.nbytes / 1e9
    verified, verified_cpu, plain, plain_cpu = (min(column) / size for column in zip(*times, strict=True))
    yield {
        "verified_s_per_gb": verified,
        "verified_cpu_s_per_gb": verified_cpu,
        "plain_s_per_gb": plain,
        "plain_cpu_s_per_gb": plain_cpu,
        "threads": min(8, len(os.sched_getaffinity(0))),
    }


def write_plain(path: Path, values: np.ndarray) -> None:
    """Write a block row as a program without digests does."""
    import h5py

    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        sizes = {"reindex": 1, "n_param": values.shape[0], "param_steps": values.shape[1]}
        file.create_dataset("vec", data=values.reshape(-1)).attrs.update(sizes)


def interrupts(count: int) -> Iterator[Record]:
    """Interrupt calls in a process of its own, since a Comm starts MPI."""
    yield dict(all_interrupts("cpu", count))


def threads(count: int) -> Iterator[Record]:
    """Run as many products and sums in each number of threads."""
    with Comm(backend="cpu") as comm:
        F = filled(comm)
        for number in (2, 4):
            runs, wrong = wrong_results(F, number, -(-count // (2 * len(WORK))))
            yield {"threads": number, "runs": runs, "wrong": len(wrong)}


def failures(count: int) -> Iterator[Record]:
    """Inject every failure of every kind on every grid, or every n-th for a smaller count."""
    with tempfile.TemporaryDirectory(prefix="failures") as folder:
        for case, injected in every_failure(Path(folder), step=max(1, round(FAILURE_STEPS / count))):
            yield {"case": case, "injected": injected}


def killed_ranks(count: int) -> Iterator[Record]:
    start = time.monotonic()
    for _ in range(count):
        test_a_killed_rank_ends_the_others()
    yield {"killed": count, "seconds each": (time.monotonic() - start) / count}


# Each part: its name, the function, its count, and the counts that must be zero.
PARTS: tuple[tuple[str, Callable[[int], Iterator[Record]], int, tuple[str, ...]], ...] = (
    ("file_mutants", mutants, 100_000, ("wrong", "unnamed", "crashes", "hangs")),
    ("killed_saves", kills, 300, ("neither", "left over")),
    ("readers_beside_a_writer", readers, 10_000, ("mixtures",)),
    ("interrupts", interrupts, 1500, ("wrong",)),
    ("threads", threads, 1000, ("wrong",)),
    ("failures_on_one_rank", failures, FAILURE_STEPS, ()),
    ("killed_ranks", killed_ranks, 20, ()),
    ("digests", digest_cost, 30, ()),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies all counts")
    parser.add_argument("--json", type=Path, help="write the counts as results")
    parser.add_argument("--only", choices=[part[0] for part in PARTS], help="run one part")
    options = parser.parse_args()
    records, broken = [], False
    for name, run, count, zeros in PARTS:
        if options.only not in (None, name):
            continue
        start = time.monotonic()
        try:
            for found in run(max(1, round(count * options.scale))):
                record = {"benchmark": name, "seconds": round(time.monotonic() - start, 1), **found}
                broken |= any(record[zero] for zero in zeros)
                print(json.dumps(record), flush=True)
                records.append(record)
        except Exception:  # the other parts run, and their counts are written
            broken = True
            traceback.print_exc()
    if options.json is not None:
        write_results(options.json, records)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
