"""Choose the cheapest precision within a tolerance, and see what the error means for an inverted source.

`fft.tune` measures time and error of products in several precisions. The left picture shows both, with the tolerance as
a dashed line and the choice in a circle. The right one shows that the source inverted with the chosen precision differs
from the double one by far less than both differ from the truth.
"""

import matplotlib.pyplot as plt
import numpy as np

import numba_fftmatvec as fft
from numba_fftmatvec import solvers

Nm, Nd, Nt, TOLERANCE = 600, 30, 100, 1e-5

# Diffusion in a channel: a puff of tracer drifts past sensors and spreads.
place, sensor = np.linspace(0, 10, Nm), np.linspace(2, 12, Nd)[:, None]
time = 0.1 * (np.arange(Nt) + 1)
blocks = np.exp(-((sensor - place - time[:, None, None]) ** 2) / (0.4 + 0.4 * time[:, None, None]))
blocks = np.moveaxis(blocks / np.sqrt(time)[:, None, None], 0, -1)

comm = fft.Comm()
F = fft.Matrix.from_array(comm, blocks)
result = fft.tune(F, tol=TOLERANCE, codes=["ddddd", "ddidd", "ddsdd", "ddhdd"], repetitions=5)
best = result.best
assert best.error <= TOLERANCE

truth = np.exp(-((place[:, None] - 4) ** 2)) * np.exp(-((np.arange(Nt) - 30) ** 2) / 100)
source = F.get_vec("input")
source.scatter(truth)
data = F @ source
recorded = data.gather()
recorded += 0.01 * recorded.std() * np.random.default_rng(0).standard_normal(recorded.shape)
data.scatter(recorded)
found = {"ddddd": solvers.cgls(F, data, damping=10.0, tolerance=1e-6).x.gather()}
with F.with_precision(best.config) as cheap:
    found[best.code] = solvers.cgls(cheap, data, damping=10.0, tolerance=1e-6).x.gather()
difference = np.linalg.norm(found[best.code] - found["ddddd"]) / np.linalg.norm(truth)
error = np.linalg.norm(found["ddddd"] - truth) / np.linalg.norm(truth)
assert difference < 0.1 * error, f"expected less than a tenth of the error {error:.2e}, found {difference:.2e}"

figure, (front, profile) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for candidate in result.candidates:
    accuracy = max(candidate.error, 1e-17)  # that of double is 0
    front.semilogy(1e3 * candidate.seconds, accuracy, "o", color="#0072B2")
    front.annotate(candidate.code, (1e3 * candidate.seconds, accuracy), (7, -4), textcoords="offset points")
front.plot(1e3 * best.seconds, max(best.error, 1e-17), "o", markersize=16, markerfacecolor="none", color="#D55E00")
front.axhline(TOLERANCE, color="#D55E00", linestyle="--", label="tolerance")
front.set(xlabel="time of F and F* [ms]", ylabel="relative error", title="Precisions (error 0 is drawn at 1e-17)")
front.set_xlim(0, 1.4e3 * max(candidate.seconds for candidate in result.candidates))
front.legend(loc="center left")
profile.plot(place, truth[:, 30], "k:", linewidth=2, label="truth")
for (code, values), style in zip(found.items(), ("-", "--"), strict=False):
    profile.plot(place, values[:, 30], style, label=f"inverted with {code}")
profile.set(xlabel="place [m]", ylabel="source", title=f"Source at step 30; difference {difference:.0e}")
profile.legend()
figure.savefig("choosing_precision.png")
