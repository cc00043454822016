"""Where was a rod heated? The picture shows the inferred heat, its deviation, and forecasts that sharpen with data."""

import matplotlib.pyplot as plt
import numpy as np

import numba_fftmatvec as fft
from numba_fftmatvec import inversion, plotting

Nm, Nt = 60, 80  # points of the rod, time steps
sensors, quantities = [5, 16, 28, 40, 52], [22, 34]  # thermometers, and points without one
# The explicit heat equation u[t + 1] = A u[t] + A m[t] with insulated ends, and one adjoint solve for each point.
A = 0.2 * np.eye(Nm) + 0.4 * (np.eye(Nm, k=1) + np.eye(Nm, k=-1))
A[0, 0] = A[-1, -1] = 0.6
responses = np.stack([np.linalg.matrix_power(A, t + 1) for t in range(Nt)], axis=-1)  # of all points to all points

comm = fft.Comm()
F, G = (fft.Matrix.from_array(comm, responses[points]) for points in (sensors, quantities))
prior = inversion.MaternPrior((Nm,), deviation=0.1, correlation_length=20.0, time=inversion.AR1(0.9))
model = inversion.RealTimeInversion(F, prior, inversion.WhiteNoise(0.05), forecast=G)
model.factorise()

place, time = np.arange(Nm)[:, None], np.arange(Nt)[None, :]
truth = np.exp(-(((place - 25) / 6.0) ** 2)) * ((time > 15) & (time < 45)) * 0.5
source = F.get_vec("input")
source.scatter(truth)
data = (F @ source).gather() + 0.05 * np.random.default_rng(1).standard_normal((len(sensors), Nt))
stream, forecasts = model.stream(), []
for step in range(Nt):
    stream.assimilate(data[:, step])
    forecasts += [stream.forecast] if step in (25, 40, Nt - 1) else []
inferred = stream.infer().gather()
error = np.linalg.norm(inferred - truth) / np.linalg.norm(truth)
assert error < 0.5, f"expected a relative error of the source below 0.5, found {error:.2f}"
figure, axes = plt.subplots(1, 3, figsize=(15, 4), layout="constrained")
plotting.plot_source(inferred, label="inferred heat", axes=axes[0])
plotting.plot_deviation(model.posterior_variance().gather(), axes=axes[1])
plotting.plot_forecasts(None, forecasts, (25, 40, Nt - 1), truth=(G @ source).gather(), label="warmth", axes=axes[2])
figure.savefig("heat_source.png")
