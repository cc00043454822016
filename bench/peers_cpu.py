"""Compare F and F* with other ways to write them on a CPU, in one run on one machine.

``python bench/peers_cpu.py --json bench/results/cpu/peers.json``. NumPy and SciPy transform with scipy.fft on all cores
and multiply all frequencies by one np.matmul. They store the spectrum in matmul's best layout, ``[k][d][m]``, and a
second, transposed one for F*. Their vectors are in our order, ``[block, t]``, or in their best one, ``[t, block]``.
PyLops' multi-dimensional convolution does the same within operators, with vectors ``[t, block]``.

The programs alternate, and each result is compared with ours before the timing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import numba_fftmatvec as fm
from lib.host import Effort, alternate, checked_run, failure, milliseconds, peers, spectrum_of
from numba_fftmatvec.cli.results import write_results

# (Nm, Nd, Nt) of matrices: a usual, a square, a wide and a long one, and four of growing size.
SHAPES = ((500, 50, 200), (100, 100, 256), (2000, 10, 200), (200, 20, 1000))
SHAPES += ((10, 2, 20), (30, 4, 50), (100, 10, 100), (1000, 50, 500))
NUM_VECS = (1, 4, 16)
OURS = "numba-fftmatvec"
PRECISION = "ddddd"
EFFORT = Effort(rounds=10, warm_up=0.2, seconds=0.1)


def compare(matrix: fm.Matrix, forward: np.ndarray, op: str, num_vecs: int) -> Iterator[dict[str, Any]]:
    """Yield the records of one product, ours and the peers'."""
    spaces = ("input", "output") if op == "F" else ("output", "input")
    x, y = (matrix.get_vec(space, num_vecs=num_vecs) for space in spaces)
    x.init_vec_doubles()
    run = partial(matrix.matmat if op == "F" else matrix.transpose_matmat, x, y)
    run()
    shape, nt = [matrix.get_glob_num_cols(), matrix.get_glob_num_rows()], matrix.get_block_size()
    about = {"benchmark": "peers", "op": op, "shape": [*shape, nt], "precision": PRECISION, "num_vecs": num_vecs}
    operand, expected = (vector.gather().reshape(num_vecs, -1, nt) for vector in (x, y))
    programs: dict[str, Callable[[], object]] = {OURS: run}
    for peer in peers(forward, op, num_vecs):
        try:
            programs[peer.name] = checked_run(peer, operand, expected)
        except Exception as error:  # one peer's failure is recorded; the others are compared
            yield about | {"program": peer.name} | failure(error)
    times = {name: milliseconds(seconds) for name, seconds in alternate(programs, EFFORT).items()}
    for name, found in times.items():
        yield about | {"program": name, **found, "time_over_ours": found["median_ms"] / times[OURS]["median_ms"]}


def main() -> None:
    """Measure, print ratios, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", type=int, nargs="+", choices=range(len(SHAPES)), default=range(len(SHAPES)))
    parser.add_argument("--num-vecs", type=int, nargs="+", default=NUM_VECS)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    comm = fm.Comm(backend="cpu")
    records = []
    for nm, nd, nt in (SHAPES[index] for index in options.shapes):
        blocks = fm.generate_double(np.arange(nd * nm * nt)).reshape(nd, nm, nt)
        forward = spectrum_of(blocks)
        with fm.Matrix.from_array(comm, blocks) as matrix:
            for num_vecs in options.num_vecs:
                for op in ("F", "F*"):
                    for record in compare(matrix, forward, op, num_vecs):
                        outcome = record.get("error") or "{:.2f} x our time".format(record["time_over_ours"])
                        print(f"{op:>3} {record['shape']} R={num_vecs} {record['program']}: {outcome}", flush=True)
                        records.append(record)
    write_results(options.json, records)


if __name__ == "__main__":
    main()
