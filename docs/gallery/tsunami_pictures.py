"""The pictures of tsunami.py."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from tsunami_ocean import ACTIVE, LENGTH, Ocean

from numba_fftmatvec import inversion, plotting

ORANGE, BLUE = "#E69F00", "#0072B2"  # of the palette of Okabe and Ito
UNITS = {"label": "wave height", "unit": "m", "time_unit": "min"}


@dataclass
class Pictures:
    """The ocean, the cells of the sensors and of the places at the coast, and the forecasts and true heights there."""

    ocean: Ocean
    sensors: list[int]
    coast: list[int]
    forecasts: list[inversion.Forecast]
    heights: np.ndarray

    @property
    def minutes(self) -> np.ndarray:
        """The times of the output steps."""
        return (np.arange(len(self.forecasts)) + 1) * self.ocean.step / 60

    def place(self, cells: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the coordinates east and north of some cells in km."""
        east, north = np.divmod(cells, self.ocean.size)
        return tuple((part + 0.5) * LENGTH / self.ocean.size / 1e3 for part in (east, north))

    def map(self, axes, values, title: str, label: str, colours: str, limits: tuple[float, float]):
        """Draw values of all cells as a map with a colour bar, and return the image."""
        extent = (0, LENGTH / 1e3, 0, LENGTH / 1e3)
        field = np.reshape(values, (self.ocean.size, self.ocean.size)).T
        image = axes.imshow(field, origin="lower", extent=extent, cmap=colours, vmin=limits[0], vmax=limits[1])
        axes.figure.colorbar(image, ax=axes, label=label, shrink=0.9)
        axes.set(title=title, xlabel="east [km]", ylabel="north [km]")
        axes.locator_params(nbins=5)
        return image

    def places(self, axes, legend: bool) -> None:
        """Mark the sensors and the places at the coast on a map."""
        axes.plot(*self.place(self.sensors), "k.", markersize=4, label="sensor")
        axes.plot(*self.place(self.coast), "s", color=ORANGE, markeredgecolor="k", markersize=6, label="forecast")
        if legend:
            axes.legend(loc="lower left", fontsize="small", ncols=2)

    def draw(self, path: str, uplift, inferred, deviations, selection: inversion.SensorSelection) -> None:
        """Draw the uplift, its uncertainty, forecasts at three moments, and the gain of sensors."""
        figure, axes = plt.subplots(2, 3, figsize=(15, 8.5), layout="constrained")
        limit = np.abs(uplift).max()
        for column, field, title in ((0, uplift, "True uplift"), (1, inferred, "Inferred uplift")):
            self.map(axes[0, column], field, title, "uplift [m]", "RdBu_r", (-limit, limit))
            self.places(axes[0, column], legend=column == 0)
        prior, posterior = deviations
        fault = prior > 0.2 * prior.max()
        ratio = np.where(fault, posterior / prior, np.nan)
        label = "posterior / prior deviation"
        self.map(axes[0, 2], ratio, "Uncertainty in the fault zone", label, "cividis", (0, 1))
        self.places(axes[0, 2], legend=False)
        chosen = [self.sensors[sensor] for sensor in selection.sensors]
        box = {"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": "black"}
        for number, (east, north) in enumerate(zip(*self.place(chosen), strict=True), start=1):
            axes[0, 2].text(east, north, str(number), ha="center", va="center", fontsize=7, bbox=box)
        for column, place in ((0, 1), (1, 4)):
            self.moments(axes[1, column], place)
        plotting.plot_gain(selection.gains, axes=axes[1, 2])
        axes[1, 2].set_title("Gain of the numbered sensors")
        figure.savefig(path, dpi=80)
        plt.close(figure)

    def moments(self, axes, place: int) -> None:
        """Draw the forecasts at one place that are made at three moments."""
        steps = [moment for moment in (ACTIVE // 2, ACTIVE, 2 * ACTIVE) if moment <= len(self.forecasts)]
        forecasts, when = [self.forecasts[step - 1] for step in steps], [self.minutes[step - 1] for step in steps]
        plotting.plot_forecasts(self.minutes, forecasts, when, place, self.heights, axes=axes, **UNITS)
        axes.legend(loc="upper left", fontsize="small")
        axes.set_title(f"Forecast at the coast, {self.place([self.coast[place]])[1][0]:.0f} km north")

    def animate(self, path: str, waves: np.ndarray) -> None:
        """Draw the wave beside the band of the forecast at one place, which shrinks before the wave arrives."""
        place, height = 3, 2 * np.abs(self.heights[3]).max()
        figure, (sea, band) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
        limit = np.abs(waves).max() / 2
        image = self.map(sea, waves[0], " ", "surface elevation [m]", "RdBu_r", (-limit, limit))
        sea.plot(*self.place([self.coast[place]]), "s", color=ORANGE, markeredgecolor="k", clip_on=False)

        def frame(step: int) -> list:
            image.set_data(waves[step].reshape(self.ocean.size, self.ocean.size).T)
            sea.set_title(f"Wave after {self.minutes[step]:.1f} min")
            band.clear()
            plotting.plot_forecast(self.minutes, self.forecasts[step], None, place, self.heights, axes=band, **UNITS)
            band.axvline(self.minutes[step], color=ORANGE, linewidth=2)
            band.set(ylim=(-height, height), title="Forecast at the square")
            band.legend(loc="lower left")
            return [image]

        frame(0)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the layout of the first frame serves all of them
        FuncAnimation(figure, frame, frames=range(0, len(waves), 3)).save(path, writer=PillowWriter(fps=4), dpi=60)
        plt.close(figure)
