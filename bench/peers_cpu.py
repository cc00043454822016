"""F and F* beside the way to write them with NumPy and SciPy, in one run on one machine.

``python bench/peers_cpu.py --json bench/results/peers-cpu.json``. The peer transforms with scipy.fft on all cores and
multiplies all frequencies by one np.matmul. It stores the spectrum as matmul likes it, ``[k][d][m]``, and a second,
transposed one for F*. Its vectors are either in our order, ``[block, t]``, or in the one it likes best, ``[t, block]``.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.fft

import numba_fftmatvec as fm
from numba_fftmatvec.report import write_results
from numba_fftmatvec.timing import time_runs

SHAPE = (500, 50, 200)
ROUNDS = 10


def peer_products(blocks: np.ndarray) -> dict[tuple[str, str], Callable[[np.ndarray], np.ndarray]]:
    """Return the peer's products by op and order of the vectors."""
    nt = blocks.shape[2]
    cores = len(os.sched_getaffinity(0))
    forward = np.ascontiguousarray(scipy.fft.rfft(blocks, 2 * nt, axis=2).transpose(2, 0, 1))
    adjoint = np.ascontiguousarray(forward.conj().transpose(0, 2, 1))

    def time_first(spectrum: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        def product(x: np.ndarray) -> np.ndarray:
            x_hat = scipy.fft.rfft(x, 2 * nt, axis=0, workers=cores)
            y_hat = np.matmul(spectrum, x_hat[:, :, None])[:, :, 0]
            return scipy.fft.irfft(y_hat, 2 * nt, axis=0, workers=cores)[:nt]

        return product

    def block_first(spectrum: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        def product(x: np.ndarray) -> np.ndarray:
            x_hat = scipy.fft.rfft(x, 2 * nt, axis=1, workers=cores)
            y_hat = np.matmul(spectrum, np.ascontiguousarray(x_hat.T)[:, :, None])[:, :, 0]
            return scipy.fft.irfft(np.ascontiguousarray(y_hat.T), 2 * nt, axis=1, workers=cores)[:, :nt]

        return product

    spectra = {"F": forward, "F*": adjoint}
    orders = {"[t, block]": time_first, "[block, t]": block_first}
    return {(op, order): make(spectra[op]) for op in spectra for order, make in orders.items()}


def main() -> None:
    """Measure, print ratios, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    nm, nd, nt = SHAPE
    comm = fm.Comm(backend="cpu")
    blocks = fm.generate_double(np.arange(nd * nm * nt)).reshape(nd, nm, nt)
    matrix = fm.Matrix.from_array(comm, blocks)
    peers = peer_products(blocks)
    records = []
    for op, product, spaces in (
        ("F", matrix.matvec, ("input", "output")),
        ("F*", matrix.transpose_matvec, ("output", "input")),
    ):
        x, y = map(matrix.get_vec, spaces)
        x.init_vec_doubles()
        operand = x.gather()
        programs = {"numba-fftmatvec": lambda run=product, x=x, y=y: run(x, y)}
        for (peer_op, order), peer in peers.items():
            if peer_op == op:
                values = np.ascontiguousarray(operand.T) if order == "[t, block]" else operand
                programs[f"NumPy and SciPy, {order}"] = lambda run=peer, values=values: run(values)
                result = peer(values)
                product(x, y)
                difference = (result.T if order == "[t, block]" else result) - y.gather()
                assert np.linalg.norm(difference) <= 1e-13 * np.linalg.norm(y.gather())
        seconds: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(ROUNDS):  # alternating, so that what disturbs the machine disturbs all of them
            for name, run in programs.items():
                time_runs(comm, run, 5)  # until the previous program's idle threads have gone to sleep
                seconds[name] += time_runs(comm, run, options.repetitions // ROUNDS)
        medians = {name: 1e3 * statistics.median(values) for name, values in seconds.items()}
        for name, median in medians.items():
            ratio = median / medians["numba-fftmatvec"]
            records.append(
                {
                    "benchmark": "peers",
                    "program": name,
                    "op": op,
                    "shape": list(SHAPE),
                    "median_ms": median,
                    "min_ms": 1e3 * min(seconds[name]),
                    "time_over_ours": ratio,
                }
            )
            print(f"{op:>3} {name}: {ratio:.2f} x our time")
    write_results(options.json, records)


if __name__ == "__main__":
    main()
