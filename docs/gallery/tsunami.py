"""Tsunami early warning in miniature: from sensors on the sea floor to a forecast at the coast, in real time.

An earthquake lifts the sea floor off a coast. Pressure sensors measure the waves above them, and a warning centre needs
the heights of the waves at the coast before they arrive. The shallow-water equations are linear. So the sensors and the
coast see the uplift through two block-triangular Toeplitz maps, F and G, and one adjoint solve gives a block row of
them. The expensive work is done before the earthquake: adjoint solves, the data-space Hessian, its Cholesky factor.

Run it with ``python tsunami.py``, or on four ranks with ``mpiexec -n 4 python -m mpi4py tsunami.py``. ``--size 128`` is
for a GPU. It draws tsunami.png, and with ``--animate`` tsunami.gif.
"""

import argparse
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sparse
from matplotlib.animation import FuncAnimation, PillowWriter

import numba_fftmatvec as fft
from numba_fftmatvec import inversion, plotting

LENGTH, GRAVITY = 200e3, 9.81  # of the square basin in m, and in m/s^2
ACTIVE = 16  # output steps until the rupture ends


class Ocean:
    """Linear shallow water over a sloping sea floor: a wall at the coast in the east, sponges at the other sides.

    The state has the surface elevation of each cell and the velocities at the faces between cells. A substep updates
    the velocities and then the elevation: ``u += -dt g grad eta``, ``eta += -dt div(H u)``. Output steps have several
    substeps, during which the uplift rate is constant.
    """

    def __init__(self, size: int) -> None:
        self.size, self.cells = size, size * size
        width = LENGTH / size
        centre = (np.arange(size) + 0.5) * width
        self.east, self.north = np.meshgrid(centre, centre, indexing="ij")
        slope = np.clip((LENGTH - self.east) / LENGTH * 1.25 - 0.1, 0, 1)
        depth = (200 + 3800 * slope) * (1 + 0.15 * np.sin(2 * np.pi * self.north / LENGTH))
        self.substep = 0.4 * width / np.sqrt(2 * GRAVITY * depth.max())  # below the limit of stability
        self.substeps = 4
        self.step = self.substeps * self.substep

        difference = sparse.diags_array([-1.0, 1.0], offsets=[0, 1], shape=(size - 1, size)) / width
        average = abs(difference) * width / 2
        identity = sparse.eye_array(size)
        gradient = sparse.vstack([sparse.kron(difference, identity), sparse.kron(identity, difference)])
        to_faces = sparse.vstack([sparse.kron(average, identity), sparse.kron(identity, average)])
        border = np.minimum.reduce([self.east, self.north, LENGTH - self.north]) / LENGTH
        sponge = np.where(border < 0.1, 0.15 * (1 - border / 0.1) ** 2, 0).ravel()
        damp, damp_faces = (sparse.diags_array(np.exp(-values)) for values in (sponge, to_faces @ sponge))

        elevation = sparse.eye_array(self.cells, self.cells + gradient.shape[0])
        velocities = sparse.eye_array(gradient.shape[0], self.cells + gradient.shape[0], k=self.cells)
        updated = damp_faces @ (velocities - self.substep * GRAVITY * gradient @ elevation)
        flux = sparse.diags_array(to_faces @ depth.ravel()) @ updated  # minus the adjoint of the gradient is div
        self.forward = sparse.vstack([damp @ (elevation + self.substep * gradient.T @ flux), updated]).tocsr()
        self.adjoint = self.forward.T.tocsr()

    def cell(self, east: float, north: float) -> int:
        """Return the index of the cell at a place, in parts of the basin's length."""
        return int(east * self.size) * self.size + int(north * self.size)

    def block_row(self, cell: int, steps: int) -> np.ndarray:
        """Return the (cells, steps) response of the elevation at a cell to uplift anywhere: one adjoint solve."""
        state, found = np.zeros(self.adjoint.shape[0]), np.empty((self.cells, steps))
        state[cell] = 1.0
        for step in range(steps):
            total = np.zeros(self.cells)
            for _ in range(self.substeps):
                total += state[: self.cells]
                state = self.adjoint @ state
            found[:, step] = self.substep * total
        return found

    def run(self, rate: np.ndarray) -> np.ndarray:
        """Return the (steps, cells) elevation after each output step, for an uplift rate (cells, steps) in m/s."""
        state, found = np.zeros(self.forward.shape[0]), []
        for step in range(rate.shape[1]):
            for _ in range(self.substeps):
                state = self.forward @ state
                state[: self.cells] += self.substep * rate[:, step]
            found.append(state[: self.cells].copy())
        return np.array(found)


def rupture(ocean: Ocean, steps: int) -> np.ndarray:
    """Return the true uplift rate: a front that runs north, with subsidence on its landward side."""
    rate = np.zeros((steps, ocean.size, ocean.size))
    for step in range(min(ACTIVE, steps)):
        north = 0.28 * LENGTH + 260.0 * step * ocean.step
        for east, height, width in ((0.34, 1.0, 0.06), (0.47, -0.45, 0.055)):
            across, along = (ocean.east - east * LENGTH) / (width * LENGTH), (ocean.north - north) / (0.07 * LENGTH)
            rise = 0.011 * height * np.sin(np.pi * (step + 0.5) / ACTIVE)
            rate[step] += rise * np.exp(-(across**2) - along**2)
    return rate.reshape(steps, -1).T


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
    made = fft.Matrix(comm, ocean.cells, len(cells), steps, global_sizes=True)
    made.init_mat_from_array(lambda row: ocean.block_row(cells[row], steps))  # each rank solves for its sensors
    made.save(path)
    made.close()
    return fft.Matrix(comm, path)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run the example; return its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=48, help="cells of a side")
    parser.add_argument("--steps", type=int, default=80, help="output steps")
    parser.add_argument("--folder", type=Path, default=Path("tsunami"), help="for the maps")
    parser.add_argument("--animate", action="store_true")
    options = parser.parse_args(arguments)
    steps = options.steps
    with fft.Comm() as world:
        ranks = world.world_size
    comm = fft.Comm(proc_rows=2 if ranks % 2 == 0 else 1)
    first = comm.world_rank == 0

    # Offline, before any earthquake.
    start = time.perf_counter()
    ocean = Ocean(options.size)
    sensors = [ocean.cell(east, north) for east in np.linspace(0.2, 0.6, 6) for north in np.linspace(0.1, 0.9, 8)]
    coast = [ocean.cell(1 - 2 / ocean.size, north) for north in np.linspace(0.15, 0.85, 6)]
    F = map_to(comm, ocean, sensors, steps, options.folder / "F")
    G = map_to(comm, ocean, coast, steps, options.folder / "G")
    maps = time.perf_counter() - start
    truth = rupture(ocean, steps)
    waves = ocean.run(truth)
    deviation = 0.05 * np.sqrt(np.mean(waves[:, sensors] ** 2))
    model = inversion.RealTimeInversion(F, prior_of(ocean), inversion.WhiteNoise(deviation), forecast=G)
    start = time.perf_counter()
    model.factorise()
    factorisation = time.perf_counter() - start
    selection = model.select_sensors(12)

    # The earthquake: data arrive step by step, and the forecast sharpens.
    data = waves[:, sensors].T + deviation * np.random.default_rng(0).standard_normal((len(sensors), steps))
    stream, forecasts, seconds = model.stream(), [], []
    for step in range(steps):
        start = time.perf_counter()
        stream.assimilate(data[:, step])
        seconds.append(time.perf_counter() - start)
        forecasts.append(stream.forecast)
    start = time.perf_counter()
    source = stream.infer().gather()
    inference = time.perf_counter() - start
    samples = ocean.step * model.sample(data, 60).gather().sum(axis=-1)
    prior_samples = ocean.step * inversion.posterior.prior_samples(F, model.prior, np.random.default_rng(1), 60)
    figures = summary(ocean, model, truth, source, waves[:, coast].T, data, forecasts[-1])
    figures |= {"maps [s]": maps, "factorisation [s]": factorisation, "assimilation [ms]": 1e3 * np.median(seconds)}
    figures |= {"inference [ms]": 1e3 * inference}
    spread = samples.std(axis=0) / prior_samples.gather().sum(axis=-1).std(axis=0)
    if first:
        print("\n".join(f"{name}: {value:.3g}" for name, value in figures.items()))
        places = sensors, coast, [sensors[i] for i in selection.sensors]
        draw(ocean, truth, source, spread, forecasts, waves[:, coast].T, places, selection.gains)
        if options.animate:
            animate(ocean, waves, forecasts, waves[:, coast].T)
    return figures


def summary(ocean, model, truth, source, coast, data, forecast) -> dict[str, float]:
    """Return the errors of the inversion and the share of the coast's heights in their bands."""
    uplift, inferred = ocean.step * truth.sum(axis=1), ocean.step * source.sum(axis=1)
    low, high = forecast.band()
    return {
        "largest uplift [m]": uplift.max(),
        "relative error of the uplift": np.linalg.norm(inferred - uplift) / np.linalg.norm(uplift),
        "relative error of the forecast": np.linalg.norm(forecast.mean - coast) / np.linalg.norm(coast),
        "heights within the 95 % band": np.mean((low <= coast) & (coast <= high)),
        "chi2 per datum": model.chi2(data) / data.size,
    }


def draw(ocean, truth, source, spread, forecasts, coast, places, gains) -> None:
    """Draw the uplift, its uncertainty, forecasts at three moments, and the gain of sensors."""
    figure, axes = plt.subplots(2, 3, figsize=(15, 8.5), layout="constrained")
    sensors, quantities, chosen = places
    grid, minutes = (ocean.size, ocean.size), np.arange(coast.shape[1]) * ocean.step / 60
    kilometres = (np.arange(ocean.size) + 0.5) * LENGTH / ocean.size / 1e3
    places_of = {"shape": grid, "coordinates": (kilometres, kilometres), "length_unit": "km"}
    limit = ocean.step * np.abs(truth.sum(axis=1)).max()
    for axis, rate, title in ((axes[0, 0], truth, "true uplift"), (axes[0, 1], source, "inferred uplift")):
        plotting.plot_source(ocean.step * rate.sum(axis=1), label="uplift", unit="m", axes=axis, **places_of)
        axis.images[0].set_clim(-limit, limit) if axis.images else axis.collections[0].set_clim(-limit, limit)
        axis.set_title(title)
    plotting.plot_deviation(spread**2, axes=axes[0, 2], **places_of)
    axes[0, 2].set_title("posterior over prior deviation")
    for axis in axes[0]:
        for cells, style in ((sensors, "k."), (quantities, "gs"), (chosen, "k^")):
            axis.plot(*[kilometres[part] for part in reversed(np.divmod(cells, ocean.size))], style, markersize=5)
    moments = [ACTIVE // 2, ACTIVE, 2 * ACTIVE]
    for axis, place in zip(axes[1, :2], (1, 4), strict=True):
        chosen_forecasts = [forecasts[moment] for moment in moments]
        when = [minutes[moment] for moment in moments]
        plotting.plot_forecasts(
            minutes, chosen_forecasts, when, place, coast, label="height", unit="m", time_unit="min", axes=axis
        )
        axis.set_title(f"coast, place {place}")
    plotting.plot_gain(gains, axes=axes[1, 2])
    figure.savefig("tsunami.png", dpi=80)
    plt.close(figure)


def animate(ocean, waves, forecasts, coast) -> None:
    """Draw the wave beside the band of the forecast at one place of the coast, which shrinks before it arrives."""
    minutes, place = np.arange(coast.shape[1]) * ocean.step / 60, 3
    figure, (sea, band) = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    extent, limit = (0, LENGTH / 1e3, 0, LENGTH / 1e3), np.abs(waves).max() / 2
    shape = ocean.size, ocean.size
    image = sea.imshow(waves[0].reshape(shape).T, origin="lower", extent=extent, cmap="RdBu_r", clim=(-limit, limit))
    sea.set(xlabel="east [km]", ylabel="north [km]")
    figure.colorbar(image, ax=sea, label="surface elevation [m]")

    def frame(step: int) -> list:
        image.set_data(waves[step].reshape(shape).T)
        band.clear()
        plotting.plot_forecast(
            minutes, forecasts[step].mean, forecasts[step].variance, place, coast, label="height", unit="m",
            time_unit="min", axes=band,
        )  # fmt: skip
        band.axvline(minutes[step], linestyle=":")
        band.set_ylim(-2 * np.abs(coast[place]).max(), 2 * np.abs(coast[place]).max())
        return [image]

    FuncAnimation(figure, frame, frames=range(0, len(waves), 4)).save("tsunami.gif", writer=PillowWriter(fps=4), dpi=60)
    plt.close(figure)


if __name__ == "__main__":
    main()
