"""Follow a moving source through a blurred, noisy record, by deconvolution with sparsity.

A pulse runs along a line and emits for one step at each place, so the source is zero at nearly all places and times.
PyLops-MPI's FISTA minimises |d - F m|^2 / 2 + eps |m|_1 with this library's products. In the picture FISTA finds the
path of the source, where least squares finds a smear.
"""

import matplotlib.pyplot as plt
import numpy as np
import pylops_mpi

import numba_fftmatvec as fft
from numba_fftmatvec import plotting, solvers

Nm, Nt = 48, 96  # places, time steps
sensors = np.arange(2, Nm, 4)

# A wave of speed 1 from each place, damped with distance, with a Ricker wavelet of 6 steps.
distance = np.abs(sensors[:, None] - np.arange(Nm))
delay = (np.arange(Nt) - distance[:, :, None] - 6) / 2.5
blocks = (1 - 2 * delay**2) * np.exp(-(delay**2)) * np.exp(-distance[:, :, None] / 15)

comm = fft.Comm()
F = fft.Matrix.from_array(comm, blocks)
truth = np.zeros((Nm, Nt))
path = [(8 + step, 6 + int(1.8 * step)) for step in range(0, 32, 2)]  # slower than its waves
for place, when in path:
    truth[place, when] = 1.0
source = F.get_vec("input")
source.scatter(truth)
clean = (F @ source).gather()
noise = 0.05 * np.sqrt(np.mean(clean**2))
data = F.get_vec("output")
data.scatter(clean + noise * np.random.default_rng(0).standard_normal(clean.shape))

squares = solvers.cgls(F, data, damping=0.5, tolerance=1e-6).x.gather()
largest = solvers.randomised_svd(F, 1, tolerance=1e-3).values[0]
operator = F.as_linear_operator("pylops_mpi")
start = F.get_vec("input")
start.scatter(np.zeros((Nm, Nt)))
found = pylops_mpi.fista(
    operator, operator.distributed(data), operator.distributed(start), niter=400, eps=0.15, alpha=0.98 / largest**2
)[0]
sparse = operator.vector(found).gather()


def error(values: np.ndarray) -> float:
    """Return the relative error of a source."""
    return np.linalg.norm(values - truth) / np.linalg.norm(truth)


active = np.argwhere(sparse > 0.3)  # each within one place and two steps of an emission
distances = np.abs(active[:, None] - np.array(path)) / (1, 2)
assert len(active) >= len(path), f"expected {len(path)} emissions, found {len(active)}"
assert distances.max(axis=-1).min(axis=1).max() <= 1, "expected emissions on the path, found others"
assert error(sparse) < 0.6 * error(squares), f"found errors {error(sparse):.2f} and {error(squares):.2f}"

figure, axes = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
named = ("True source", truth), (f"Least squares, error {error(squares):.2f}", squares)
for axis, (title, values) in zip(axes, (*named, (f"FISTA, error {error(sparse):.2f}", sparse)), strict=True):
    plotting.plot_source(values, label="source", axes=axis)
    axis.collections[0].set_clim(-1, 1)
    axis.set(title=title, xlabel="place", ylabel="time step")
figure.savefig("moving_source.png")
