"""Exact inversion in real time: the data-space Hessian, its factor, and the online steps.

``python bench/inversion.py --backend cuda --json bench/results/h100/inversion.json``. ``hessian`` is F Gamma F* from
the blocks, with the spectrum's inverse transforms (``blocks_ms``) apart; ``by_columns_ms`` is the same matrix column by
column through `matmat` of 16, of which a few products are timed. The online steps wait for their results.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import numba_fftmatvec as fm
from numba_fftmatvec import inversion
from numba_fftmatvec.cli.results import write_results
from numba_fftmatvec.inversion.cholesky import factorise
from numba_fftmatvec.inversion.hessian import RootBlocks, add_noise, block_covariance
from numba_fftmatvec.inversion.source import SourceMap

SHAPES = {"cpu": [(2500, 50, 100)], "cuda": [(5000, 100, 100)]}  # Nm, Nd, Nt
QUANTITIES = 10
RIGHT_HAND_SIDES = 16


def decaying(rows: int, cols: int, steps: int, seed: int) -> Any:
    """Return a function that makes the blocks of a row of a decaying, oscillating causal map."""

    def row(d: int) -> np.ndarray:
        rng, t = np.random.default_rng([seed, d]), np.arange(steps)
        return rng.standard_normal((cols, 1)) * np.exp(-0.05 * t) * np.sin(0.3 * t + rng.uniform(0, 6, (cols, 1)))

    return row


def milliseconds(comm: fm.Comm, run: Callable[[], Any], repetitions: int) -> float:
    """Return the median time of a run, with its end on the device, after one that is not timed."""
    times = []
    for _ in range(1 + repetitions):
        comm.synchronize()
        start = time.perf_counter()
        run()
        comm.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[1:])


def by_columns(F: fm.Matrix, prior: inversion.Prior, repetitions: int) -> float:
    """Return the time of F Gamma F* by `matmat`, from that of one product of several columns."""
    Gamma = prior.covariance_operator(F.comm, F.layout.Nt)
    y, x, z = (F.get_vec(which, num_vecs=RIGHT_HAND_SIDES) for which in ("output", "input", "output"))
    y.init_vec_doubles()
    weighted = F.get_vec("input", num_vecs=RIGHT_HAND_SIDES)

    def columns() -> None:
        F.transpose_matmat(y, x)
        Gamma.apply(x, weighted)
        F.matmat(weighted, z)

    return milliseconds(F.comm, columns, repetitions) * F.layout.Nd * F.layout.Nt / RIGHT_HAND_SIDES


Record = dict[str, Any]


def offline(
    F: fm.Matrix, prior: inversion.Prior, noise: inversion.Noise, repetitions: int, *, columns: bool
) -> list[Record]:
    """Return the records of the data-space Hessian and of its factor."""
    comm = F.comm
    blocks_ms = milliseconds(comm, lambda: RootBlocks(SourceMap(F), prior), repetitions)
    blocks = RootBlocks(SourceMap(F), prior)
    hessian_ms = milliseconds(comm, lambda: block_covariance(blocks), repetitions)
    formed: Record = {"benchmark": "hessian", "median_ms": hessian_ms, "blocks_ms": blocks_ms}
    if columns:
        columns_ms = by_columns(F, prior, repetitions)
        formed |= {"by_columns_ms": columns_ms, "by_columns_over_blocks": columns_ms / (blocks_ms + hessian_ms)}
    times = []
    for _ in range(1 + repetitions):
        hessian = block_covariance(blocks)
        add_noise(hessian, noise)
        comm.synchronize()
        start = time.perf_counter()
        factorise(hessian)
        comm.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return [formed, {"benchmark": "cholesky", "median_ms": statistics.median(times[1:]), "bytes": hessian.nbytes}]


def streamed(inverse: inversion.RealTimeInversion, data: np.ndarray) -> list[Record]:
    """Return the records of the steps of a stream, with a forecast after each."""
    stream = inverse.stream()

    def forecast(_: np.ndarray) -> Any:
        return stream.forecast

    times: dict[str, list[float]] = {"assimilate": [], "stream forecast": []}
    for values in data.T:
        for found, step in zip(times.values(), (stream.assimilate, forecast), strict=True):
            inverse.comm.synchronize()
            start = time.perf_counter()
            step(values)
            inverse.comm.synchronize()
            found.append(1e3 * (time.perf_counter() - start))
    return [
        {"benchmark": name, "median_ms": statistics.median(found), "last_ms": found[-1], "max_ms": max(found)}
        for name, found in times.items()
    ]


def online(inverse: inversion.RealTimeInversion, repetitions: int) -> list[Record]:
    """Return the records of a whole factorisation, and of the online steps."""
    comm, layout = inverse.comm, inverse.F.layout
    offline_ms = milliseconds(comm, inverse.factorise, 1)
    data = np.random.default_rng(3).standard_normal((layout.Nd, layout.Nt))
    infer_ms = milliseconds(comm, lambda: inverse.infer(data), repetitions)
    forecast_ms = milliseconds(comm, lambda: inverse.forecast(data), repetitions)
    streamed(inverse, data)  # warms up
    return [
        {"benchmark": "offline", "median_ms": offline_ms, "quantities": QUANTITIES},
        {"benchmark": "infer", "median_ms": infer_ms},
        {"benchmark": "forecast", "median_ms": forecast_ms, "quantities": QUANTITIES},
        *streamed(inverse, data),
    ]


def measured(comm: fm.Comm, shape: tuple[int, int, int], repetitions: int, *, columns: bool) -> list[Record]:
    """Return the records of one shape."""
    Nm, Nd, Nt = shape
    F, G = (fm.Matrix(comm, Nm, rows, Nt, global_sizes=True) for rows in (Nd, QUANTITIES))
    F.init_mat_from_array(decaying(Nd, Nm, Nt, 0))
    G.init_mat_from_array(decaying(QUANTITIES, Nm, Nt, 1))
    prior = inversion.DiagonalPrior(np.random.default_rng(2).uniform(0.5, 2.0, Nm))
    noise = inversion.WhiteNoise(0.3)
    found = offline(F, prior, noise, repetitions, columns=columns)
    found += online(inversion.RealTimeInversion(F, prior, noise, G), repetitions)
    common = {"shape": list(shape), "ranks": comm.world_size, "backend": comm.backend.name}
    for record in found:
        record |= common
        print(record, flush=True)
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--shape", type=int, nargs=3, action="append", metavar=("Nm", "Nd", "Nt"))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--no-columns", action="store_true", help="do not time the Hessian column by column")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    with fm.Comm(backend=options.backend) as comm:
        records = []
        for shape in options.shape or SHAPES[comm.backend.name]:
            records += measured(comm, tuple(shape), options.repetitions, columns=not options.no_columns)
        if comm.world_rank == 0:
            write_results(options.json, records, comm.backend.device_name())


if __name__ == "__main__":
    main()
