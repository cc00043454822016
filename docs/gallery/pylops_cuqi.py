"""Use PyLops and CUQIpy on this library's operator, for the same noisy data.

PyLops minimises the misfit with a penalty on second differences in space and first ones in time. CUQIpy samples the
posterior of a Gaussian prior. The picture shows a smooth source from PyLops, and from CUQIpy a mean and a 95 % band
that covers the truth.
"""

import cuqi
import matplotlib.pyplot as plt
import numpy as np
import pylops

import numba_fftmatvec as fft
from numba_fftmatvec import plotting

Nm, Nd, Nt, NOISE = 28, 10, 28, 0.02  # CUQIpy's random field has as many places as steps
np.random.seed(0)  # noqa: NPY002 - CUQIpy draws from NumPy's global generator

# Diffusion on a line.
place, sensor, time = np.arange(Nm), np.linspace(1, Nm - 2, Nd)[:, None], np.arange(Nt) + 1.0
spread = 2.0 + 0.6 * time
blocks = np.exp(-((sensor - place)[:, :, None] ** 2) / (2 * spread)) / np.sqrt(2 * np.pi * spread)

comm = fft.Comm()
F = fft.Matrix.from_array(comm, blocks)
truth = np.exp(-(((place[:, None] - 11) / 4) ** 2) - ((time - 9) / 4) ** 2)
source = F.get_vec("input")
source.scatter(truth)
data = (F @ source).gather()
data += NOISE * np.random.default_rng(0).standard_normal(data.shape)

# PyLops: regularised least squares.
A = F.as_linear_operator("pylops")
bends = pylops.SecondDerivative((Nm, Nt), axis=0), pylops.FirstDerivative((Nm, Nt), axis=1)
smooth = pylops.optimization.leastsquares.regularized_inversion(
    A, data.ravel(), list(bends), epsRs=[0.4, 0.4], iter_lim=200
)[0].reshape(Nm, Nt)

# CUQIpy: samples of the posterior with a Gaussian Markov random field as the prior in space and time.
geometry = cuqi.geometry.Continuous2D((Nm, Nt))
model = F.as_linear_operator("cuqi", domain_geometry=geometry)
x = cuqi.distribution.GMRF(np.zeros(Nm * Nt), prec=100.0, geometry=geometry)
y = cuqi.distribution.Gaussian(model(x), NOISE**2)
samples = cuqi.problem.BayesianProblem(y, x).set_data(y=data.ravel()).sample_posterior(100).samples
mean, deviation = (values.reshape(Nm, Nt) for values in (samples.mean(axis=1), samples.std(axis=1)))

errors = {name: np.linalg.norm(found - truth) / np.linalg.norm(truth) for name, found in (("P", smooth), ("C", mean))}
inside = np.mean(np.abs(mean - truth) < 1.96 * deviation)
print(f"errors of PyLops {errors['P']:.2f}, of CUQIpy {errors['C']:.2f}; {100 * inside:.0f} % of the truth in the band")
assert max(errors.values()) < 0.2, f"expected relative errors below 0.2, found {errors}"
assert inside > 0.9, f"expected 95 % of the truth in the band, found {100 * inside:.0f} %"

figure, axes = plt.subplots(1, 4, figsize=(17, 3.8), layout="constrained")
titles = "True source", f"PyLops, error {errors['P']:.2f}", f"CUQIpy's mean, error {errors['C']:.2f}"
for axis, title, values in zip(axes, titles, (truth, smooth, mean), strict=False):
    plotting.plot_source(values, axes=axis)
    axis.collections[0].set_clim(-1, 1)
    axis.set(title=title, xlabel="place", ylabel="time step")
band = np.stack([mean[11], deviation[11] ** 2])
plotting.plot_forecast(None, band[0], band[1], truth=truth[11], label="source", axes=axes[3])
axes[3].set(title="CUQIpy at place 11", xlabel="time step", ylim=(-0.2, 1.5))
figure.savefig("pylops_cuqi.png")
