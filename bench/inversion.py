"""Exact inversion in real time: the data-space Hessian, its factor, and the online steps.

``python bench/inversion.py --backend cuda --json bench/results/h100/inversion.json``. ``hessian`` is F Gamma F* from
the blocks, with the spectrum's inverse transforms (``blocks_ms``) apart; ``by_columns_ms`` is the same matrix column by
column through `matmat` of 16, of which a few products are timed. The online steps wait for their results.

A small problem runs first, which compiles and loads everything. With ``--repetitions 1`` the offline parts then run
once each; otherwise a run that is not timed precedes the others. Rank 0 reports each part on the error output.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
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
START = time.perf_counter()

Record = dict[str, Any]


def decaying(backend: Any, rows: int, cols: int, steps: int, seed: int) -> Callable[[int], Any]:
    """Return a function that makes the blocks of a row of a decaying, oscillating causal map.

    The blocks are ``a exp(-t / 20) sin(0.3 t + p)`` with random a and p. The values of a row are the product of a
    (cols, 2) and a (2, steps) matrix, so that a GPU makes them itself, and a host takes no sine of each. The work is on
    the backend's stream, which also reads the values.

    Parameters
    ----------
    backend : Backend
        The backend that makes the values.
    rows, cols, steps, seed : int
        The sizes of the map, and the seed of its random numbers.
    """
    numpy, t = backend.arrays.numpy, np.arange(steps)
    with backend.active():
        waves = numpy.asarray(np.exp(-0.05 * t) * np.stack([np.sin(0.3 * t), np.cos(0.3 * t)]))

    def row(d: int) -> Any:
        if not 0 <= d < rows:
            raise IndexError(f"row: expected one of {rows}, found {d}")
        rng = np.random.default_rng([seed, d])
        amplitudes, phases = rng.standard_normal((cols, 1)), rng.uniform(0, 6, (cols, 1))
        weights = amplitudes * np.hstack([np.cos(phases), np.sin(phases)])
        with backend.active():
            return numpy.asarray(weights) @ waves

    return row


def report(comm: fm.Comm, text: str) -> None:
    """Print on rank 0 the seconds since the start and a text, at once."""
    if comm.world_rank == 0:
        print(f"{time.perf_counter() - START:7.1f} s  {text}", file=sys.stderr, flush=True)


def elapsed(comm: fm.Comm, run: Callable[[], Any]) -> tuple[float, Any]:
    """Return the time of a run in ms, with its end on the device, and its result."""
    comm.synchronize()
    start = time.perf_counter()
    result = run()
    comm.synchronize()
    return 1e3 * (time.perf_counter() - start), result


def milliseconds(comm: fm.Comm, run: Callable[[], Any], repetitions: int, *, warmed: bool = False) -> float:
    """Return the median time of a run, after one that is not timed unless the work is warmed up."""
    times = [elapsed(comm, run)[0] for _ in range(repetitions + (not warmed))]
    return statistics.median(times[-repetitions:])


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


def offline(
    F: fm.Matrix, prior: inversion.Prior, noise: inversion.Noise, repetitions: int, *, columns: bool
) -> Iterator[Record]:
    """Yield the records of the data-space Hessian and of its factor. Each Hessian that is formed is factorised."""
    comm, runs = F.comm, repetitions + (repetitions > 1)
    times: dict[str, list[float]] = {"blocks": [], "hessian": [], "cholesky": []}
    for _ in range(runs):
        spent, blocks = elapsed(comm, lambda: RootBlocks(SourceMap(F), prior))
        times["blocks"].append(spent)
        spent, hessian = elapsed(comm, lambda blocks=blocks: block_covariance(blocks))
        times["hessian"].append(spent)
        report(comm, f"the Hessian took {spent:.0f} ms")
        add_noise(hessian, noise)
        spent, _ = elapsed(comm, lambda hessian=hessian: factorise(hessian))
        times["cholesky"].append(spent)
        report(comm, f"its factor took {spent:.0f} ms")
        nbytes = hessian.nbytes
        del blocks, hessian  # before the next ones take as much memory
    medians = {name: statistics.median(found[-repetitions:]) for name, found in times.items()}
    formed: Record = {"benchmark": "hessian", "median_ms": medians["hessian"], "blocks_ms": medians["blocks"]}
    if columns:
        columns_ms = by_columns(F, prior, repetitions)
        ratio = columns_ms / (medians["blocks"] + medians["hessian"])
        formed |= {"by_columns_ms": columns_ms, "by_columns_over_blocks": ratio}
        report(comm, f"the Hessian by columns takes {columns_ms:.0f} ms")
    yield formed
    yield {"benchmark": "cholesky", "median_ms": medians["cholesky"], "bytes": nbytes}


def streamed(inverse: inversion.RealTimeInversion, data: np.ndarray) -> list[Record]:
    """Return the records of the steps of a stream, with a forecast after each."""
    stream = inverse.stream()
    times: dict[str, list[float]] = {"assimilate": [], "stream forecast": []}
    for values in data.T:
        steps = (lambda values=values: stream.assimilate(values)), (lambda: stream.forecast)
        for found, step in zip(times.values(), steps, strict=True):
            found.append(elapsed(inverse.comm, step)[0])
    return [
        {"benchmark": name, "median_ms": statistics.median(found), "last_ms": found[-1], "max_ms": max(found)}
        for name, found in times.items()
    ]


def online(inverse: inversion.RealTimeInversion, repetitions: int) -> Iterator[Record]:
    """Yield the records of a whole factorisation, and of the online steps."""
    comm, layout = inverse.comm, inverse.F.layout
    offline_ms = milliseconds(comm, inverse.factorise, 1, warmed=repetitions == 1)
    yield {"benchmark": "offline", "median_ms": offline_ms, "quantities": QUANTITIES}
    data = np.random.default_rng(3).standard_normal((layout.Nd, layout.Nt))
    yield {"benchmark": "infer", "median_ms": milliseconds(comm, lambda: inverse.infer(data), repetitions)}
    forecast_ms = milliseconds(comm, lambda: inverse.forecast(data), repetitions)
    yield {"benchmark": "forecast", "median_ms": forecast_ms, "quantities": QUANTITIES}
    streamed(inverse, data)  # warms up
    report(comm, "a stream is warmed up")
    yield from streamed(inverse, data)


def measured(comm: fm.Comm, shape: tuple[int, int, int], repetitions: int, *, columns: bool) -> Iterator[Record]:
    """Yield the records of one shape."""
    Nm, Nd, Nt = shape
    common = {"shape": list(shape), "ranks": comm.world_size, "backend": comm.backend.name}
    matrices = []
    for seed, rows in enumerate((Nd, QUANTITIES)):
        matrix = fm.Matrix(comm, Nm, rows, Nt, global_sizes=True)
        matrix.init_mat_from_array(decaying(comm.backend, rows, Nm, Nt, seed))
        matrices.append(matrix)
        comm.synchronize()
        report(comm, f"{rows} x {Nm} blocks of {Nt} steps are set up")
    F, G = matrices
    prior = inversion.DiagonalPrior(np.random.default_rng(2).uniform(0.5, 2.0, Nm))
    noise = inversion.WhiteNoise(0.3)
    for record in offline(F, prior, noise, repetitions, columns=columns):
        yield record | common
    for record in online(inversion.RealTimeInversion(F, prior, noise, G), repetitions):
        report(comm, f"{record['benchmark']} took {record['median_ms']:.3g} ms")
        yield record | common


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--shape", type=int, nargs=3, action="append", metavar=("Nm", "Nd", "Nt"))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--no-columns", action="store_true", help="do not time the Hessian column by column")
    parser.add_argument("--json", type=Path, help="the file of the results")
    options = parser.parse_args()
    columns = not options.no_columns
    with fm.Comm(backend=options.backend) as comm:
        report(comm, f"{comm.world_size} ranks on {comm.backend.device_name()}")
        records, small = [], (max(64, comm.world_size), 8, 16)
        for _ in measured(comm, small, 1, columns=columns):
            pass
        for shape in options.shape or SHAPES[comm.backend.name]:
            for record in measured(comm, tuple(shape), options.repetitions, columns=columns):
                records.append(record)
                if comm.world_rank == 0:
                    print(record, flush=True)
        if comm.world_rank == 0 and options.json is not None:
            write_results(options.json, records, comm.backend.device_name())


if __name__ == "__main__":
    main()
