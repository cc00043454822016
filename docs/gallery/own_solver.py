"""Build F from your own PDE solver: by impulses and finite differences, and by an adjoint in torch.

The solver steps a nonlinear reaction-diffusion equation about a steady state. The difference of two runs with impulses
gives a block column of F, and one backward run by torch gives a block row. The picture shows that both agree, and that
the error of F x against the solver is that of a linearisation: of first order in the source.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import numba_fftmatvec as fft

Nm, Nt, SENSORS = 40, 30, [8, 20, 33]
AMPLITUDE = 1e-4  # of the differences: small against the steady state, large against rounding


def solve(source: torch.Tensor) -> torch.Tensor:
    """Return the state at the sensors, (Nd, Nt), for a source (Nm, Nt); u = 1 is the steady state without a source."""
    state, recorded = torch.ones(Nm, dtype=source.dtype), []
    for step in range(source.shape[1]):
        padded = torch.cat([state[:1], state, state[-1:]])
        state = state + 0.3 * (padded[2:] - 2 * state + padded[:-2]) + 0.2 * state * (1 - state) + source[:, step]
        recorded.append(state[SENSORS])
    return torch.stack(recorded, dim=1)


zero = torch.zeros(Nm, Nt, dtype=torch.float64)


def by_differences() -> np.ndarray:
    """Return the blocks (Nd, Nm, Nt) from two runs with opposite impulses for each place: block columns."""
    blocks = np.empty((len(SENSORS), Nm, Nt))
    for place in range(Nm):
        impulse = zero.clone()
        impulse[place, 0] = AMPLITUDE
        blocks[:, place] = (solve(impulse) - solve(-impulse)).numpy() / (2 * AMPLITUDE)
    return blocks


def by_adjoint() -> np.ndarray:
    """Return the blocks from one backward run for each sensor: block rows, in the reversed order of time."""
    blocks = np.empty((len(SENSORS), Nm, Nt))
    for row in range(len(SENSORS)):
        source = zero.clone().requires_grad_()
        solve(source)[row, -1].backward()  # d(last state at the sensor) / d(source at every earlier time)
        blocks[row] = source.grad.flip(1).numpy()
    return blocks


differences, adjoint = by_differences(), by_adjoint()
disagreement = np.abs(differences - adjoint).max() / np.abs(adjoint).max()
assert disagreement < 1e-6, f"expected differences and adjoint to agree, found {disagreement:.1e}"

comm = fft.Comm()
F = fft.Matrix.from_array(comm, adjoint)
fft.dot_test(F)
place, time = np.arange(Nm)[:, None], np.arange(Nt)
shape = np.exp(-(((place - 14) / 4) ** 2)) * np.sin(np.pi * time / 20) * (time < 20)
x, sizes, errors = F.get_vec("input"), np.geomspace(1e-4, 0.3, 8), []
for size in sizes:  # the error of linearisation falls with the size of the source
    x.scatter(size * shape)
    exact = solve(torch.tensor(size * shape)).numpy() - 1
    errors.append(np.linalg.norm((F @ x).gather() - exact) / np.linalg.norm(exact))
order = np.log(errors[3] / errors[0]) / np.log(sizes[3] / sizes[0])
assert errors[0] < 1e-2, f"expected a relative error below 0.01, found {errors[0]:.1e}"
assert 0.9 < order < 1.1, f"expected errors of the first order, found the order {order:.2f}"

figure, axes = plt.subplots(1, 3, figsize=(15, 4), layout="constrained")
image = axes[0].pcolormesh(np.maximum(adjoint[1].T, 1e-6), cmap="cividis", norm="log")
axes[0].set(title=f"Block row of the sensor at {SENSORS[1]}", xlabel="place of the source", ylabel="steps later")
figure.colorbar(image, ax=axes[0], label="response")
axes[1].plot(adjoint[1][12], color="#0072B2", linewidth=4, label="adjoint, 3 runs")
axes[1].plot(differences[1][12], "--", color="#E69F00", linewidth=2, label=f"differences, {2 * Nm} runs")
axes[1].set(title=f"Response at {SENSORS[1]} to place 12", xlabel="steps later", ylabel="response")
axes[1].set_ylim(0, 1.4 * adjoint[1][12].max())
axes[2].loglog(sizes, errors, "o-", color="#0072B2", label="F x against the solver")
axes[2].loglog(sizes, errors[0] * sizes / sizes[0], "k:", label="first order")
axes[2].set(title="Error of the linearisation", xlabel="size of the source", ylabel="relative error")
for axis in axes[1:]:
    axis.legend(loc="upper left")
    axis.grid(alpha=0.3)
figure.savefig("own_solver.png")
