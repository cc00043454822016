"""Image two sound sources in the plane, from microphones around it.

The wave equation in homogeneous air maps sources to microphones: each block of F is a pulse that arrives after the
travel time and decays with the distance. Delay-and-sum, which is F*, blurs the sources. Inversions whose prior has the
deviations that the one before found focus on them: in the last picture the bright spots lie in the circles, which mark
the true places (FOCUSS, Gorodnitsky and Rao 1997).
"""

import matplotlib.pyplot as plt
import numpy as np

import numba_fftmatvec as fft
from numba_fftmatvec import inversion

SIZE, Nt, SPEED, STEP = 20, 110, 343.0, 0.25e-3  # cells of a side, time steps, m/s, s
TRUE = [(5, 6), (13, 12)]  # cells with a source

# A plane of 4 m x 4 m, and 24 microphones on a circle around it.
centres = (np.arange(SIZE) + 0.5) * 4.0 / SIZE
x, y = (part.ravel() for part in np.meshgrid(centres, centres, indexing="ij"))
angle = 2 * np.pi * np.arange(24) / 24
microphones = 2 + 4.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
distance = np.hypot(microphones[:, :1] - x, microphones[:, 1:] - y)

# One block for each microphone and cell: a pulse of 1 kHz bandwidth, delayed by distance / SPEED.
delay = np.arange(Nt) * STEP - distance[:, :, None] / SPEED - 1e-3
blocks = np.exp(-((delay / 0.4e-3) ** 2)) * np.cos(2 * np.pi * 600 * delay) / (4 * np.pi * distance[:, :, None])

comm = fft.Comm()
F = fft.Matrix.from_array(comm, blocks)
time = np.arange(Nt) * STEP
truth = np.zeros((SIZE * SIZE, Nt))
for (i, j), onset in zip(TRUE, (2e-3, 5e-3), strict=True):
    truth[i * SIZE + j] = np.exp(-(((time - onset) / 0.5e-3) ** 2))
source = F.get_vec("input")
source.scatter(truth)
clean = (F @ source).gather()
deviation = 0.05 * np.sqrt(np.mean(clean**2))
data = clean + deviation * np.random.default_rng(1).standard_normal(clean.shape)

measured = F.get_vec("output")
measured.scatter(data)
images = {"Delay and sum, F* d": np.linalg.norm((F.T @ measured).gather(), axis=1)}
deviations = np.full(SIZE * SIZE, 0.1)  # of the prior; each inversion gives those of the next, and so focuses
for name in ("Posterior mean", "second", "third", "Focused, inversion 4"):
    model = inversion.RealTimeInversion(F, inversion.DiagonalPrior(deviations), inversion.WhiteNoise(deviation))
    model.factorise()
    images[name] = np.linalg.norm(model.infer(data).gather(), axis=1)
    deviations = 1e-4 + images[name] / np.sqrt(Nt)
energy = {name: found.reshape(SIZE, SIZE) for name, found in images.items() if name[0].isupper()}

# The two largest local maxima of the inversion are the sources.
image = np.pad(energy["Focused, inversion 4"], 1)
around = [np.roll(image, shift, (0, 1)) for shift in [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]]
peaks = np.where(image >= np.max(around, axis=0), image, 0)[1:-1, 1:-1]
found = sorted(zip(*np.unravel_index(np.argsort(peaks, axis=None)[-2:], peaks.shape), strict=True))
assert np.abs(np.array(found) - TRUE).max() <= 1, f"expected sources near {TRUE}, found {found}"

figure, axes = plt.subplots(1, 3, figsize=(14, 4.6), layout="constrained")
for axis, (name, values) in zip(axes, energy.items(), strict=True):
    shown = axis.imshow(values.T / values.max(), origin="lower", extent=(0, 4, 0, 4), cmap="cividis", vmin=0)
    axis.plot(*microphones.T, "^", color="#D55E00", label="microphone")
    places = (np.array(TRUE) + 0.5) * 4.0 / SIZE
    axis.plot(*places.T, "o", markersize=13, markerfacecolor="none", markeredgecolor="white", label="true source")
    axis.set(title=name, xlabel="x [m]", ylabel="y [m]", xlim=(-2.3, 6.3), ylim=(-2.3, 6.3), facecolor="0.75")
    figure.colorbar(shown, ax=axis, label="amplitude / largest", shrink=0.8)
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, facecolor="0.75")
figure.savefig("acoustic_imaging.png")
