"""Compare F and F* with other ways to write them on a CPU, in one run on one machine.

``python bench/peers_cpu.py --json bench/results/cpu/peers.json``. NumPy and SciPy transform with scipy.fft on all cores
and multiply all frequencies by one np.matmul. They store the spectrum in matmul's best layout, ``[k][d][m]``, and a
second, transposed one for F*. Their vectors are in our order, ``[block, t]``, or in their best one, ``[t, block]``.
PyLops' multi-dimensional convolution does the same within operators, with vectors ``[t, block]``.

The programs alternate, and each result is compared with ours before the timing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft

import numba_fftmatvec as fm
from numba_fftmatvec.cli.results import write_results
from numba_fftmatvec.plan.timing import time_runs

# (Nm, Nd, Nt) of matrices: a usual, a square, a wide and a long one, and four of growing size.
SHAPES = ((500, 50, 200), (100, 100, 256), (2000, 10, 200), (200, 20, 1000))
SHAPES += ((10, 2, 20), (30, 4, 50), (100, 10, 100), (1000, 50, 500))
NUM_VECS = (1, 4, 16)
OURS = "numba-fftmatvec"
PRECISION = "ddddd"
TOLERANCE = 1e-13
ROUNDS = 10
WARM_UP_SECONDS = 0.2
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

Product = Callable[[np.ndarray], np.ndarray]


def time_first(spectrum: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the product with vectors (t, block, num_vecs)."""
    nt = x.shape[0]
    x_hat = scipy.fft.rfft(x, 2 * nt, axis=0, workers=CORES)
    return scipy.fft.irfft(np.matmul(spectrum, x_hat), 2 * nt, axis=0, workers=CORES)[:nt]


def block_first(spectrum: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the product with vectors (num_vecs, block, t)."""
    nt = x.shape[2]
    x_hat = np.ascontiguousarray(scipy.fft.rfft(x, 2 * nt, axis=2, workers=CORES).transpose(2, 1, 0))
    y_hat = np.ascontiguousarray(np.matmul(spectrum, x_hat).transpose(2, 1, 0))
    return scipy.fft.irfft(y_hat, 2 * nt, axis=2, workers=CORES)[:, :, :nt]


def pylops_product(spectrum: np.ndarray, op: str, nt: int, num_vecs: int) -> Product:
    """Return PyLops' product with vectors (t, block, num_vecs): F, or F* as the adjoint of F.

    The convolution has twice the time steps, so that it is causal. `spectrum` is that of F in both cases.
    """
    from pylops.waveeqprocessing import MDC

    options = {"twosided": False, "usematmul": True, "saveGt": op == "F*", "prescaled": True}
    operator = MDC(spectrum, 2 * nt, num_vecs, fftengine="scipy", workers=CORES, **options)
    apply = operator.matvec if op == "F" else operator.rmatvec

    def product(x: np.ndarray) -> np.ndarray:
        padded = np.zeros((2 * nt, *x.shape[1:]))
        padded[:nt] = x
        return apply(padded.ravel()).reshape(2 * nt, -1, num_vecs)[:nt]

    return product


def peers(forward: np.ndarray, op: str, nt: int, num_vecs: int) -> Iterator[tuple[str, str, Callable[[], Product]]]:
    """Yield each peer's name, the order of its vectors, and the function that makes its product."""
    own = forward if op == "F" else np.ascontiguousarray(forward.conj().transpose(0, 2, 1))
    yield "NumPy and SciPy, [t, block]", "[t, block]", lambda: partial(time_first, own)
    yield "NumPy and SciPy, [block, t]", "[block, t]", lambda: partial(block_first, own)
    yield "PyLops, [t, block]", "[t, block]", lambda: pylops_product(forward, op, nt, num_vecs)


def alternate(comm: fm.Comm, programs: dict[str, Callable[[], object]], repetitions: int) -> dict[str, list[float]]:
    """Return each program's seconds, in alternating rounds, so that a disturbance affects all programs."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, run in programs.items():
            end = time.perf_counter() + WARM_UP_SECONDS
            while time.perf_counter() < end:  # until the previous program's idle threads sleep
                run()
            seconds[name] += time_runs(comm, run, -(-repetitions // ROUNDS))
    return seconds


def compare(
    comm: fm.Comm, matrix: fm.Matrix, forward: np.ndarray, op: str, num_vecs: int, repetitions: int
) -> Iterator[dict[str, Any]]:
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
    for name, order, make in peers(forward, op, nt, num_vecs):
        try:
            product, time_is_first = make(), order == "[t, block]"
            values = np.ascontiguousarray(operand.transpose(2, 1, 0)) if time_is_first else operand
            found = product(values).transpose(2, 1, 0) if time_is_first else product(values)
            error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
            if not error <= TOLERANCE:
                raise ArithmeticError(f"expected a result within {TOLERANCE} of ours, found {error:.2e}")
            programs[name] = partial(product, values)
        except ImportError as error:
            yield about | {"program": name, "error": f"not installed ({error})"}
        except Exception as error:  # one peer's failure is recorded; the others are compared
            yield about | {"program": name, "error": f"{type(error).__name__}: {error}".splitlines()[0]}
    seconds = alternate(comm, programs, repetitions)
    medians = {name: 1e3 * statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        times = {"median_ms": median, "min_ms": 1e3 * min(seconds[name]), "time_over_ours": median / medians[OURS]}
        yield about | {"program": name} | times


def main() -> None:
    """Measure, print ratios, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--shapes", type=int, nargs="+", choices=range(len(SHAPES)), default=range(len(SHAPES)))
    parser.add_argument("--num-vecs", type=int, nargs="+", default=NUM_VECS)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    comm = fm.Comm(backend="cpu")
    records = []
    for nm, nd, nt in (SHAPES[index] for index in options.shapes):
        blocks = fm.generate_double(np.arange(nd * nm * nt)).reshape(nd, nm, nt)
        forward = np.ascontiguousarray(scipy.fft.rfft(blocks, 2 * nt, axis=2).transpose(2, 0, 1))
        with fm.Matrix.from_array(comm, blocks) as matrix:
            for num_vecs in options.num_vecs:
                for op in ("F", "F*"):
                    for record in compare(comm, matrix, forward, op, num_vecs, options.repetitions):
                        outcome = record.get("error") or "{:.2f} x our time".format(record["time_over_ours"])
                        print(f"{op:>3} {record['shape']} R={num_vecs} {record['program']}: {outcome}", flush=True)
                        records.append(record)
    write_results(options.json, records)


if __name__ == "__main__":
    main()
