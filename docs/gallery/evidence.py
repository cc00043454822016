"""Find the deviations of prior and noise from the data alone, by maximising their evidence.

The model was set up with deviations that are wrong by factors. The picture maps the log evidence of the data over both
factors: its maximum, which `fit` finds by derivatives in a few evaluations, lies near the true factors. Contours show
where the log evidence is 3, 10 and 50 below its maximum.
"""

import matplotlib.pyplot as plt
import numpy as np

import numba_fftmatvec as fft
from numba_fftmatvec import inversion

Nm, Nd, Nt = 40, 16, 30
TRUE_PRIOR, TRUE_NOISE = 2.5, 0.4  # factors of the deviations of the model

# A source on a line, which sensors see through a kernel that spreads and fades.
place, sensor = np.arange(Nm), np.linspace(2, Nm - 3, Nd)[:, None]
time = np.arange(Nt)[:, None, None]
blocks = np.moveaxis(np.exp(-((sensor - place) ** 2) / (20 + 4 * time) - 0.1 * time), 0, -1)

comm = fft.Comm()
F = fft.Matrix.from_array(comm, blocks)
prior = inversion.MaternPrior((Nm,), deviation=0.2, correlation_length=20.0)
noise = inversion.WhiteNoise(0.5)

# Data of the true model: its prior and noise are multiples of the assumed ones.
rng = np.random.default_rng(3)
drawn = prior.scaled(TRUE_PRIOR).bind(comm.backend).sample(rng, Nt)
source = F.get_vec("input")
source.scatter(np.ascontiguousarray(comm.backend.download(drawn).T))
data = (F @ source).gather() + noise.scaled(TRUE_NOISE).sample(rng, (Nd, Nt))

fit = inversion.RealTimeInversion(F, prior, noise).fit(data)
print(f"factor of the prior {fit.prior_scale:.2f}, of the noise {fit.noise_scale:.2f}, {fit.evaluations} evaluations")
assert abs(np.log(fit.prior_scale / TRUE_PRIOR)) < 0.2
assert abs(np.log(fit.noise_scale / TRUE_NOISE)) < 0.2


def log_evidence(prior_scale: float, noise_scale: float) -> float:
    """Return the log evidence of the data for two factors."""
    model = inversion.RealTimeInversion(F, prior.scaled(prior_scale), noise.scaled(noise_scale))
    model.factorise()
    return model.log_evidence(data)


prior_scales, noise_scales = np.geomspace(0.8, 6, 15), np.geomspace(0.2, 1.2, 15)
values = np.array([[log_evidence(s, q) for s in prior_scales] for q in noise_scales]) - fit.log_evidence
assert values.max() <= 1e-6, f"expected no factors better than those of fit, found {values.max():.2g} more"

figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
shown = axes.pcolormesh(prior_scales, noise_scales, values, cmap="cividis", vmin=-200, vmax=0, shading="gouraud")
axes.contour(prior_scales, noise_scales, values, levels=[-50, -10, -3], colors="white", linewidths=1)
axes.plot(1, 1, "s", color="#D55E00", markersize=11, label="assumed")
axes.plot(TRUE_PRIOR, TRUE_NOISE, "*", color="white", markeredgecolor="black", markersize=18, label="true")
axes.plot(fit.prior_scale, fit.noise_scale, "X", color="#E69F00", markeredgecolor="black", markersize=11, label="fit")
figure.colorbar(shown, ax=axes, label="log evidence less its maximum", extend="min")
axes.set(xscale="log", yscale="log", xlabel="factor of the prior's deviation", ylabel="factor of the noise's deviation")
for axis, ticks in ((axes.xaxis, [1, 2, 3, 4, 6]), (axes.yaxis, [0.2, 0.4, 0.6, 0.8, 1.2])):
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_ticks([], minor=True)
axes.set_title("Evidence of the data")
axes.legend(loc="lower left")
figure.savefig("evidence.png")
