"""Train a torch model through F: a neural field, whose values at all places and times are the source.

A small network maps place and time to a source that is not negative. Its loss is the misfit of F applied to the field,
so that gradients flow back through F* into the network. In the picture the loss falls to the noise, and the field
resembles the true source more than damped least squares does, which has values below zero and blurs.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import numba_fftmatvec as fft
from numba_fftmatvec import plotting, solvers
from numba_fftmatvec.torch import LinearMap

Nm, Nd, Nt, STEPS = 40, 6, 40, 1000
torch.manual_seed(0)

# Damped waves on a line, as a few sensors record them.
place, sensor, time = np.arange(Nm), np.linspace(3, Nm - 4, Nd)[:, None], np.arange(Nt)
delay = time - np.abs(sensor - place)[:, :, None] / 2.0
blocks = np.exp(-((delay - 3) ** 2) / 3) * np.exp(-0.05 * delay)

comm = fft.Comm()
F = fft.Matrix.from_array(comm, blocks)
forward = LinearMap(F)
bumps = ((12, 8, 1.0), (26, 16, 0.7))
truth = sum(size * np.exp(-(((place[:, None] - x) / 3) ** 2) - ((time - t) / 4) ** 2) for x, t, size in bumps)
clean = forward(torch.tensor(truth))
noise = 0.05 * float(clean.std())
data = clean + noise * torch.tensor(np.random.default_rng(0).standard_normal(clean.shape))

# The network takes sines and cosines of place and time.
grid = torch.stack(torch.meshgrid(torch.linspace(0, 1, Nm), torch.linspace(0, 1, Nt), indexing="ij"), dim=-1).double()
waves = torch.cat([f(np.pi * k * grid) for k in (1, 2, 4) for f in (torch.sin, torch.cos)], dim=-1)
network = torch.nn.Sequential(
    torch.nn.Linear(waves.shape[-1], 48), torch.nn.Tanh(),
    torch.nn.Linear(48, 48), torch.nn.Tanh(),
    torch.nn.Linear(48, 1), torch.nn.Softplus(beta=5.0),
).double()  # fmt: skip
optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
losses = []
for _ in range(STEPS):
    field = network(waves)[..., 0]
    loss = ((forward(field) - data) ** 2).mean() / noise**2
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    schedule.step()
    losses.append(loss.item())
field = network(waves)[..., 0].detach().numpy()

d = F.get_vec("output")
d.scatter(data.numpy())
candidates = [solvers.cgls(F, d, damping=a, tolerance=1e-5).x.gather() for a in (0.3, 1.0, 3.0)]
error = lambda values: np.linalg.norm(values - truth) / np.linalg.norm(truth)  # noqa: E731
squares = min(candidates, key=error)  # with the damping that is best for this truth
print(f"relative errors: least squares {error(squares):.2f}, neural field {error(field):.2f}; loss {losses[-1]:.2f}")
assert losses[-1] < 2.0, f"expected a misfit of the noise, 1, found {losses[-1]:.2f}"
assert error(field) < 0.8 * error(squares), f"found errors {error(field):.2f} and {error(squares):.2f}"

figure, axes = plt.subplots(1, 4, figsize=(16, 3.6), layout="constrained")
axes[0].semilogy(losses, color="#0072B2")
axes[0].axhline(1.0, color="#D55E00", linestyle="--", label="noise")
axes[0].set(xlabel="step of the training", ylabel="misfit / noise variance", title="Training through F")
axes[0].legend()
titles = "True source", f"Least squares, error {error(squares):.2f}", f"Neural field, error {error(field):.2f}"
for axis, title, values in zip(axes[1:], titles, (truth, squares, field), strict=True):
    plotting.plot_source(values, axes=axis)
    axis.collections[0].set_clim(-1, 1)
    axis.set(title=title, xlabel="place", ylabel="time step")
figure.savefig("torch_training.png")
