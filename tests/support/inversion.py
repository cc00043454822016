"""Small inverse problems, their dense float64 solution by NumPy alone, and the library's solution on a grid."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import numba_fftmatvec as fm
from numba_fftmatvec import inversion
from numba_fftmatvec.comm.mpi import MpiCollectives
from numba_fftmatvec.inversion.cholesky import factorise, solve_lower, solve_upper
from numba_fftmatvec.inversion.panels import PanelMatrix, TimeMajor

from .harness import run_ranks

Array = NDArray[Any]

ND, NM, NQ, NT = 4, 12, 3, 7
PANEL_ROWS = 9  # a few panels even of these matrices
GRIDS = [(1, 1), (1, 2), (2, 1), (2, 2), (1, 3)]
SECONDS = 120


class Problem(NamedTuple):
    """A map to data and one to quantities, (rows, Nm, Nt), a prior, a noise, and data, (Nd, Nt)."""

    F: Array
    G: Array
    prior: inversion.Prior
    noise: inversion.Noise
    data: Array


def decaying(rows: int, rng: np.random.Generator) -> Array:
    """Return the blocks of a decaying, oscillating causal map."""
    phases = rng.uniform(0, 6, (rows, NM, 1))
    return rng.standard_normal((rows, NM, 1)) * np.exp(-0.1 * np.arange(NT)) * np.sin(0.5 * np.arange(NT) + phases)


def spd(size: int, rng: np.random.Generator) -> Array:
    """Return a symmetric positive definite matrix."""
    root = rng.standard_normal((size, size))
    return 0.02 * (root @ root.T + size * np.eye(size))


def problem(name: str) -> Problem:
    """Return the problem of a name."""
    rng = np.random.default_rng(3)
    F, G = decaying(ND, rng), decaying(NQ, rng)
    deviations = rng.uniform(0.5, 2.0, NM)
    mean = rng.standard_normal((NM, NT))
    field = inversion.MaternPrior((4, 3), deviation=0.8, correlation_length=2.0, time=inversion.AR1(0.7), mean=mean)
    path = inversion.ImpulseResponse(rng.uniform(0.5, 1.0, (NM, NT)))
    models: dict[str, tuple[inversion.Prior, inversion.Noise]] = {
        "diagonal": (inversion.DiagonalPrior(deviations), inversion.WhiteNoise(0.3)),
        "field": (field, inversion.CorrelatedNoise(spd(ND, rng))),
        "path": (
            inversion.DiagonalPrior(deviations, time=path, active_steps=3),
            inversion.SensorTimeNoise(rng.uniform(0.2, 0.5, (ND, NT))),
        ),
    }
    return Problem(F, G, *models[name], rng.standard_normal((ND, NT)))


NAMES = ["diagonal", "field", "path"]


class Dense(NamedTuple):
    """The maps, the covariance of the source and that of the noise in time-major order, and the source's mean."""

    F: Array
    G: Array
    covariance: Array
    noise: Array
    mean: Array
    data: Array

    @property
    def hessian(self) -> Array:
        """The data-space Hessian."""
        return self.F @ self.covariance @ self.F.T + self.noise

    def given(self, kept: Array) -> dict[str, Any]:
        """Return the posterior given the data at some places, and their evidence."""
        F, residual = self.F[kept], (self.data - self.F @ self.mean)[kept]
        hessian = F @ self.covariance @ F.T + self.noise[np.ix_(kept, kept)]
        gain = np.linalg.solve(hessian, F @ self.covariance).T
        source, spread = self.mean + gain @ residual, self.covariance - gain @ F @ self.covariance
        misfit = float(residual @ np.linalg.solve(hessian, residual))
        log_determinant = np.linalg.slogdet(hessian)[1]
        return {
            "source": source.reshape(NT, NM).T,
            "source variance": np.diag(spread).reshape(NT, NM).T,
            "source covariance": spread,
            "mean": (self.G @ source).reshape(NT, NQ).T,
            "variance": np.diag(self.G @ spread @ self.G.T).reshape(NT, NQ).T,
            "covariance": (self.G @ spread @ self.G.T).reshape(NT, NQ, NT, NQ).transpose(1, 0, 3, 2),
            "chi2": misfit,
            "evidence": -0.5 * (misfit + log_determinant + len(kept) * np.log(2 * np.pi)),
        }


def toeplitz(blocks: Array) -> Array:
    """Return the whole matrix of a first block column in time-major order."""
    rows, cols, steps = blocks.shape
    whole = np.zeros((steps, rows, steps, cols))
    for t in range(steps):
        for s in range(t + 1):
            whole[t, :, s] = blocks[:, :, t - s]
    return whole.reshape(steps * rows, steps * cols)


def dense(given: Problem) -> Dense:
    """Return the matrices of a problem."""
    prior, noise = given.prior, given.noise
    spatial = prior.bind(fm.Comm(backend="cpu").backend).covariance(np.eye(NM))
    filtered = np.eye(NM * NT)
    if prior.time is not None:
        responses = np.broadcast_to(prior.time.impulse_response(NT), (NM, NT))
        blocks = np.zeros((NM, NM, NT))
        blocks[np.arange(NM), np.arange(NM)] = responses
        filtered = toeplitz(blocks)
    variances = noise.variances(ND, NT)
    noises = np.kron(np.eye(NT), noise.covariance(ND)) if variances is None else np.diag(variances.reshape(-1))
    active = np.diag((np.arange(NT) < (prior.active_steps or NT)).astype(float))
    return Dense(
        toeplitz(given.F),
        toeplitz(given.G),
        filtered @ np.kron(active, spatial) @ filtered.T,
        noises,
        prior.source_mean(NT).T.reshape(-1),
        given.data.T.reshape(-1),
    )


def inverse(comm: fm.Comm, given: Problem, *, auxiliary: bool = False) -> inversion.RealTimeInversion:
    """Return the inversion of a problem, not factorised."""
    comm.backend.arrays.panel_rows = PANEL_ROWS
    F = fm.Matrix.from_array(comm, given.F)
    if not auxiliary:
        return inversion.RealTimeInversion(F, given.prior, given.noise, fm.Matrix.from_array(comm, given.G))
    # The auxiliary matrix has the sizes of F: further quantities are zero.
    F.init_mat_from_array(np.concatenate([given.G, np.zeros((ND - NQ, NM, NT))]), aux_mat=True)
    return inversion.RealTimeInversion(F, given.prior, given.noise, "G")


def missing_sensors() -> NDArray[np.bool_]:
    """Return which data are missing, (Nt, Nd): some, one whole step, and none in the first step."""
    missing = np.random.default_rng(8).random((NT, ND)) < 0.25
    missing[0], missing[3] = False, True
    return missing


def streamed(inverse: inversion.RealTimeInversion, data: Array, missing: Array) -> list[dict[str, Any]]:
    """Return the state after each step of a stream."""
    stream, found = inverse.stream(), []
    for step, lost in enumerate(missing):
        stream.assimilate(np.ma.masked_array(data[:, step], lost) if lost.any() else data[:, step])
        forecast = stream.forecast
        found.append(
            {
                "mean": forecast.mean,
                "variance": forecast.variance,
                "covariance": forecast.covariance,
                "evidence": stream.log_evidence,
                "chi2": stream.misfit,
                "source": stream.infer().gather(),
            }
        )
    return found


def everything(payload: tuple[str, tuple[int, int], str]) -> dict[str, Any]:
    """Return what the library finds for a problem on a grid; runs on every rank."""
    name, grid, backend = payload
    given = problem(name)
    with fm.Comm(None, *grid, backend=backend) as comm:
        inverse_ = inverse(comm, given)
        found: dict[str, Any] = {
            "hessian": inversion.data_space_hessian(inverse_.F, given.prior, given.noise).gather(),
            "gain of some": inverse_.information_gain([2, 0]),
            "gain about the forecast": inverse_.information_gain([1, 3], "forecast"),
            "sensors": inverse_.select_sensors(3),
            "sensors for the forecast": inverse_.select_sensors(2, "forecast"),
        }
        inverse_.factorise()
        forecast, evidence = inverse_.forecast(given.data), inverse_.evidence(given.data)
        found |= {
            "factor": np.tril(inverse_.factor.lower.gather()),
            "source": inverse_.infer(given.data).gather(),
            "source variance": inverse_.posterior_variance().gather(),
            "mean": forecast.mean,
            "variance": forecast.variance,
            "covariance": forecast.covariance,
            "chi2": inverse_.chi2(given.data),
            "evidence": inverse_.log_evidence(given.data),
            "gradient": (evidence.value, evidence.prior_scale, evidence.noise_scale),
            "residuals": inverse_.standardised_residuals(given.data),
            "stream": streamed(inverse_, given.data, np.zeros((NT, ND), bool)),
            "stream with gaps": streamed(inverse_, given.data, missing_sensors()),
            "samples": inverse_.sample(given.data, 3, seed=5).gather(),
            "from a vector": inverse_.infer(data_vector(inverse_, given.data)).gather(),
        }
        with tempfile.TemporaryDirectory() as folder:
            found |= from_files(inverse_, given, comm.bcast(folder))
            comm.barrier()
        found["of the auxiliary matrix"] = of_auxiliary(comm, given)
    return found


def data_vector(inverse: inversion.RealTimeInversion, data: Array) -> fm.Vector:
    """Return data as a vector."""
    vector = inverse.F.get_vec("output")
    vector.scatter(data)
    return vector


def of_auxiliary(comm: fm.Comm, given: Problem) -> Array:
    """Return the mean forecast of an auxiliary matrix."""
    other = inverse(comm, given, auxiliary=True)
    other.factorise()
    mean: Array = other.forecast(given.data).mean
    return mean


def from_files(before: inversion.RealTimeInversion, given: Problem, folder: str) -> dict[str, Any]:
    """Return the forecast of a saved and loaded factor, and whether a resumed stream goes on with the same bits."""
    missing = missing_sensors()
    before.save(Path(folder) / "factor.h5")
    after = inverse(before.comm, given)
    after.load(Path(folder) / "factor.h5")
    stream = before.stream()
    for step in range(4):
        stream.assimilate(np.ma.masked_array(given.data[:, step], missing[step]))
    stream.save(Path(folder) / "stream.h5")
    resumed = after.resume(Path(folder) / "stream.h5")
    for step in range(4, NT):
        for each in (stream, resumed):
            each.assimilate(np.ma.masked_array(given.data[:, step], missing[step]), step)
    first, second = stream.forecast, resumed.forecast
    return {
        "loaded mean": after.forecast(given.data).mean,
        "same bits": (
            np.array_equal(first.mean, second.mean),
            np.array_equal(first.variance, second.variance),
            stream.log_evidence == resumed.log_evidence,
        ),
    }


def solves(given: tuple[Array, Array, TimeMajor, bool]) -> tuple[Array, Array]:
    """Return the solutions, with the Cholesky factor of a matrix and with the factor's adjoint, of a right-hand side.

    With the last value, panels travel as they do with NCCL, but through MPI's collectives of the same methods.
    """
    values, right, index, device = given
    with fm.Comm(backend="cpu") as comm:
        if device:
            found = MpiCollectives(comm.global_comm, comm._meeting, comm.backend)
            comm.device_collectives = lambda: found  # type: ignore[method-assign]
        matrix = PanelMatrix(comm, index, index, lower=True)
        matrix.allocate()
        for panel, part in matrix.panels.items():
            part[...] = values[index.rows(index.panels[panel]), : part.shape[1]]
        factorise(matrix)
        return solve_lower(matrix, right), solve_upper(matrix, right)


def on_grid(name: str, grid: tuple[int, int], backend: str) -> list[dict[str, Any]]:
    """Return what every rank of a grid finds."""
    return run_ranks(grid[0] * grid[1], "support.inversion:everything", (name, grid, backend), timeout=SECONDS)
