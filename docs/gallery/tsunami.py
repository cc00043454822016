"""Tsunami early warning in miniature: from sensors on the sea floor to a forecast at the coast, in real time.

An earthquake lifts the sea floor off a coast. Pressure sensors measure the waves above them, and a warning centre needs
the heights of the waves at the coast before they arrive. The shallow-water equations are linear. So the sensors and the
coast see the uplift through two block-triangular Toeplitz maps, F and G, and one adjoint solve gives a block row of
them. The expensive work is done before the earthquake: adjoint solves, the data-space Hessian, its Cholesky factor.

Run it with ``python tsunami.py``, or on four ranks with ``mpiexec -n 4 python -m mpi4py tsunami.py``. ``--size 128`` is
for a GPU. It draws tsunami.png, and with ``--animate`` tsunami.gif. In tsunami.png the inferred uplift resembles the
true one, and the bands of the forecasts shrink long before the waves arrive. tsunami_ocean.py has the equations, and
tsunami_pictures.py draws.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import tsunami_pictures
from tsunami_ocean import ACTIVE, LENGTH, Ocean, rupture

import numba_fftmatvec as fft
from numba_fftmatvec import inversion


def prior_of(ocean: Ocean) -> inversion.MaternPrior:
    """Return the prior of the uplift rate: smooth in space, larger in the fault zone, correlated until it ends."""

    def zone(part: np.ndarray, low: float, high: float, width: float) -> np.ndarray:
        return 1 / (1 + np.exp(-(part - low) / width)) / (1 + np.exp((part - high) / width))

    fault = zone(ocean.east / LENGTH, 0.22, 0.56, 0.02) * zone(ocean.north / LENGTH, 0.15, 0.85, 0.03)
    return inversion.MaternPrior(
        (ocean.size, ocean.size),
        deviation=0.004 * (0.02 + fault),
        correlation_length=28e3,
        spacing=LENGTH / ocean.size,
        time=inversion.AR1(np.exp(-1 / 3), normalised=True),
        active_steps=ACTIVE,
    )


def map_to(comm: fft.Comm, ocean: Ocean, cells: list[int], steps: int, path: Path) -> fft.Matrix:
    """Return the map from uplift to the elevation at some cells: computed, written, and read back."""
    with fft.Matrix(comm, ocean.cells, len(cells), steps, global_sizes=True) as made:
        made.init_mat_from_array(lambda row: ocean.block_row(cells[row], steps))  # each rank solves for its sensors
        made.save(path)
    return fft.Matrix(comm, path)


def uplift_deviations(ocean: Ocean, model: inversion.RealTimeInversion, data: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the prior and the posterior deviation of the whole uplift, the latter from samples."""
    steps, samples = model.F.block_size, model.sample(data, 100).gather()
    totals = np.cumsum(model.prior.time.impulse_response(steps))[::-1][:ACTIVE]  # of unit innovations at each step
    prior = np.sqrt(model.prior.bind(model.comm.backend).variances() * (totals**2).sum())
    return ocean.step * np.asarray(prior), ocean.step * samples.sum(axis=-1).std(axis=0)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=48, help="cells of a side")
    parser.add_argument("--steps", type=int, default=80, help="output steps")
    parser.add_argument("--folder", type=Path, default=Path("tsunami"), help="for the maps")
    parser.add_argument("--animate", action="store_true", help="draw the animation too")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run the example; return its figures."""
    options = parse(arguments)
    steps, seconds = options.steps, {}
    with fft.Comm() as world:
        ranks = world.world_size
    comm = fft.Comm(proc_rows=2 if ranks % 2 == 0 else 1)

    # Offline, before any earthquake.
    start = time.perf_counter()
    ocean = Ocean(options.size)
    sensors = [ocean.cell(east, north) for east in np.linspace(0.2, 0.6, 6) for north in np.linspace(0.1, 0.9, 8)]
    coast = [ocean.cell(1 - 2 / ocean.size, north) for north in np.linspace(0.15, 0.85, 6)]
    F = map_to(comm, ocean, sensors, steps, options.folder / "F")
    G = map_to(comm, ocean, coast, steps, options.folder / "G")
    seconds["maps"] = time.perf_counter() - start
    truth = rupture(ocean, steps)
    waves = ocean.run(truth)
    deviation = 0.05 * np.sqrt(np.mean(waves[:, sensors] ** 2))
    model = inversion.RealTimeInversion(F, prior_of(ocean), inversion.WhiteNoise(deviation), forecast=G)
    start = time.perf_counter()
    model.factorise()
    seconds["factorisation"] = time.perf_counter() - start
    selection = model.select_sensors(12)

    # The earthquake: data arrive step by step, and the forecast sharpens.
    data = waves[:, sensors].T + deviation * np.random.default_rng(0).standard_normal((len(sensors), steps))
    stream, forecasts, start = model.stream(), [], time.perf_counter()
    for step in range(steps):
        stream.assimilate(data[:, step])
        forecasts.append(stream.forecast)
    seconds["assimilation of a step"] = (time.perf_counter() - start) / steps
    start = time.perf_counter()
    source = stream.infer().gather()
    seconds["inference of the source"] = time.perf_counter() - start

    uplift, inferred = ocean.step * truth.sum(axis=1), ocean.step * source.sum(axis=1)
    deviations = uplift_deviations(ocean, model, data)
    heights = waves[:, coast].T
    figures = summary(uplift, inferred, heights, forecasts) | {"chi2 per datum": model.chi2(data) / data.size}
    if comm.world_rank == 0:
        print("\n".join(f"{name}: {value:.3g}" for name, value in figures.items()))
        print("\n".join(f"{name}: {1e3 * value:.3g} ms" for name, value in seconds.items()))
        pictures = tsunami_pictures.Pictures(ocean, sensors, coast, forecasts, heights)
        pictures.draw("tsunami.png", uplift, inferred, deviations, selection)
        if options.animate:
            pictures.animate("tsunami.gif", waves)
    return figures


def summary(uplift: np.ndarray, inferred: np.ndarray, heights: np.ndarray, forecasts: list) -> dict[str, float]:
    """Return the errors of the inversion and the share of the coast's heights in their bands."""
    early, last = forecasts[min(2 * ACTIVE, len(forecasts) - 1)], forecasts[-1]
    low, high = last.band()
    return {
        "largest uplift [m]": uplift.max(),
        "relative error of the uplift": np.linalg.norm(inferred - uplift) / np.linalg.norm(uplift),
        "relative error of the forecast": np.linalg.norm(last.mean - heights) / np.linalg.norm(heights),
        "relative error of the early forecast": np.linalg.norm(early.mean - heights) / np.linalg.norm(heights),
        "heights within the 95 % band": np.mean((low <= heights) & (heights <= high)),
    }


if __name__ == "__main__":
    main()
