"""Choose the best few of many possible sensors, for a source and for a forecast.

Pollution spreads in a river that flows to the right. `select_sensors` is greedy in the information gain, in nats.
In the picture the sensors for the source are spread over its possible places, and those for the forecast surround the
intake of drinking water. The greedy gains lie above those of random sets.
"""

import matplotlib.pyplot as plt
import numpy as np

import numba_fftmatvec as fft
from numba_fftmatvec import inversion

NX, NY, Nt, COUNT = 24, 10, 30, 5
INTAKE = (20.0, 3.0)  # of drinking water, in cells
cells = np.stack(np.meshgrid(np.arange(NX), np.arange(NY), indexing="ij"), axis=-1).reshape(-1, 2).astype(float)
candidates = cells[(cells[:, 0] % 3 == 1) & (cells[:, 1] % 3 == 1)]


def blocks(points: np.ndarray) -> np.ndarray:
    """Return the concentration at points, for a unit of pollution in each cell: it drifts and spreads."""
    time = np.arange(1, Nt + 1)
    offset = points[:, None, :] - cells
    spread = 1.0 + 0.5 * time
    along, across = offset[..., 0, None] - 0.6 * time, offset[..., 1, None]
    return np.exp(-(along**2 + across**2) / (2 * spread)) / (2 * np.pi * spread)


comm = fft.Comm()
F = fft.Matrix.from_array(comm, blocks(candidates))
G = fft.Matrix.from_array(comm, blocks(np.array([INTAKE])))
upstream = np.where(cells[:, 0] < 14, 1.0, 0.05)  # where pollution may start
prior = inversion.MaternPrior((NX, NY), deviation=upstream.reshape(NX, NY), correlation_length=4.0)
model = inversion.RealTimeInversion(F, prior, inversion.WhiteNoise(0.1), forecast=G)
chosen = {about: model.select_sensors(COUNT, about=about) for about in ("source", "forecast")}

rng = np.random.default_rng(0)
sets = [rng.choice(len(candidates), COUNT, replace=False).tolist() for _ in range(20)]
chance = {about: [model.information_gain(some, about=about) for some in sets] for about in chosen}
for about, selection in chosen.items():
    assert selection.gains[-1] > max(chance[about]), f"{about}: a random set is better than {selection.sensors}"
    found = model.information_gain(list(selection.sensors), about=about)
    assert np.isclose(found, selection.gains[-1]), f"expected the gain {found}, found {selection.gains[-1]}"

figure = plt.figure(figsize=(12, 5), layout="constrained")
maps, curves = figure.subplots(2, 2, width_ratios=(2, 1)).T
for (about, selection), river, curve in zip(chosen.items(), maps, curves, strict=True):
    shown = river.imshow(upstream.reshape(NX, NY).T, origin="lower", aspect="auto", cmap="cividis", vmin=0, vmax=1)
    river.plot(*candidates.T, "o", color="black", markeredgecolor="white", markersize=5, label="possible sensor")
    river.plot(*INTAKE, "s", color="#E69F00", markeredgecolor="white", markersize=11, label="intake")
    for number, sensor in enumerate(selection.sensors, start=1):
        box = {"boxstyle": "circle", "facecolor": "white"}
        river.text(*candidates[sensor], str(number), ha="center", va="center", fontsize=9, bbox=box)
    river.set(title=f"Best {COUNT} sensors for the {about}", xlabel="along the river", ylabel="across")
    figure.colorbar(shown, ax=river, label="prior deviation")
    curve.plot(range(1, COUNT + 1), selection.gains, "o-", color="#0072B2", label="greedy")
    curve.plot([COUNT] * len(sets), chance[about], "x", color="#D55E00", label="random sets")
    curve.set(xlabel="number of sensors", ylabel="gain [nats]", title=f"About the {about}")
    curve.legend(loc="lower center", fontsize="small")
figure.legend(*maps[0].get_legend_handles_labels(), loc="outside lower left", ncols=2, facecolor="0.8")
figure.savefig("choosing_sensors.png")
