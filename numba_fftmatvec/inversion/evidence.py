"""The evidence of data for a prior scale and a noise level: its gradient, and its maximum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.optimize

from ..errors import ConvergenceError, NotPositiveDefiniteError
from .cholesky import factorise, solve_lower, solve_upper
from .factor import Factor
from .hessian import RootBlocks, add_noise, block_covariance
from .noise import Noise

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """The log evidence of data, and its derivatives in the logarithms of two scales.

    With a prior of deviations s times the given ones and a noise of q times, the data have the covariance
    ``s^2 F Gamma F* + q^2 N``. The derivatives are those at s = 1 and q = 1.

    Parameters
    ----------
    value : float
        The log probability density of the data.
    prior_scale : float
        Its derivative in log s, ``a* F Gamma F* a - tr(K^-1 F Gamma F*)`` with ``a = K^-1 (d - F m0)``.
    noise_scale : float
        Its derivative in log q, ``a* N a - tr(K^-1 N)`` (Rasmussen & Williams, Gaussian Processes, 2006, eq. 5.9).
    """

    value: float
    prior_scale: float
    noise_scale: float


def evidence(factor: Factor, noise: Noise, residual: Floats) -> Evidence:
    """Return the evidence of a residual ``d - F m0`` in time-major order, the same on every rank. Collective.

    Parameters
    ----------
    factor : Factor
        The factor of the data-space Hessian with this noise.
    noise : Noise
        The noise.
    residual : (Nt Nd,) array
        The residual, on the host.
    """
    comm, index, backend = factor.comm, factor.index, factor.comm.backend
    with comm.agreement("computing the evidence"), backend.active():
        right = backend.arrays.numpy.asarray(residual.reshape(-1, 1))
    whitened = solve_lower(factor.lower, right)
    weights = backend.download(solve_upper(factor.lower, whitened))[:, 0]
    misfit = float(residual @ weights)
    value = -0.5 * (misfit + index.size * math.log(2 * math.pi)) - float(factor.log_diagonal.sum())
    by_sensor = np.ascontiguousarray(weights.reshape(index.steps, index.blocks).T)
    explained = float((by_sensor * noise.apply(by_sensor)).sum())
    trace = _noise_trace(factor, noise)
    return Evidence(value, misfit - explained - index.size + trace, explained - trace)


def _noise_trace(factor: Factor, noise: Noise) -> float:
    """Return ``tr(K^-1 N) = |L^-1 N^(1/2)|^2``, by the columns of one panel after another. Collective."""
    index, backend, total = factor.index, factor.comm.backend, 0.0
    variances = noise.variances(index.blocks, index.steps)
    constant = None if variances is not None else scipy.linalg.cholesky(noise.covariance(index.blocks), lower=True)
    for panel, steps in enumerate(index.panels):
        rows = index.rows(steps)
        with factor.comm.agreement("computing the evidence"), backend.active():
            roots = [np.diag(np.sqrt(variances[t])) if variances is not None else constant for t in steps]
            columns = backend.zeros((index.size, rows.stop - rows.start), np.float64).array
            columns[rows] = backend.arrays.numpy.asarray(scipy.linalg.block_diag(*roots))
        solved = solve_lower(factor.lower, columns, first=panel)
        with backend.active():
            total += float((solved * solved).sum())
    return total


@dataclass(frozen=True)
class Fit:
    """The scales of prior and noise that maximise the evidence of data.

    Parameters
    ----------
    prior_scale, noise_scale : float
        The factors of the deviations.
    log_evidence : float
        The log evidence at the maximum.
    evaluations : int
        Number of factorisations.
    at_bound : bool
        Whether the maximum is at a bound of the scales.
    """

    prior_scale: float
    noise_scale: float
    log_evidence: float
    evaluations: int
    at_bound: bool


def maximise(blocks: RootBlocks, noise: Noise, residual: Floats, bounds: tuple[float, float], tolerance: float) -> Fit:
    """Return the scales that maximise the evidence, by L-BFGS-B in their logarithms. Collective.

    Each evaluation forms and factorises ``s^2 F Gamma F* + q^2 N`` anew, in the memory of one Hessian.

    Parameters
    ----------
    blocks : RootBlocks
        The blocks of F.
    noise : Noise
        The noise at q = 1.
    residual : (Nt Nd,) array
        The data less those of the prior's mean, in time-major order, the same on every rank.
    bounds : (float, float)
        The smallest and the largest scale.
    tolerance : float
        The largest derivative of the log evidence, divided by the number of data, at the maximum.
    """
    limits = [tuple(math.log(bound) for bound in bounds)] * 2

    def cost(logarithms: Any) -> tuple[float, Floats]:
        scale, level = (math.exp(value) for value in logarithms)
        try:
            found = _evidence_at(blocks, noise.scaled(level), residual, scale)
        except NotPositiveDefiniteError:  # raised on every rank: singular to rounding, where the evidence is tiny
            return math.inf, np.zeros(2)
        gradient = np.array([found.prior_scale, found.noise_scale])
        return -found.value / len(residual), -gradient / len(residual)

    options = {"gtol": tolerance, "ftol": 0.0}
    result = scipy.optimize.minimize(cost, np.zeros(2), jac=True, method="L-BFGS-B", bounds=limits, options=options)
    if not math.isfinite(result.fun):
        raise NotPositiveDefiniteError(
            f"fit: expected scales with a regular data-space Hessian, found none in {result.nfev} factorisations; more "
            "noise or a smaller prior deviation makes it regular"
        )
    at_bound = np.isclose(result.x, limits[0][0]) | np.isclose(result.x, limits[0][1])
    free = np.abs(np.where(at_bound, 0.0, result.jac)).max()
    if not free <= tolerance:
        raise ConvergenceError(
            f"fit: expected derivatives of at most {tolerance:.1e} for each datum, found {free:.1e} after "
            f"{result.nfev} factorisations ({result.message}); a larger tolerance or other deviations may help"
        )
    scale, level = (float(value) for value in np.exp(result.x))
    return Fit(scale, level, -float(result.fun) * len(residual), int(result.nfev), bool(at_bound.any()))


def _evidence_at(blocks: RootBlocks, noise: Noise, residual: Floats, scale: float) -> Evidence:
    hessian = block_covariance(blocks)
    with blocks.comm.agreement("adding the noise"), blocks.comm.backend.active():
        for values in hessian.panels.values():
            values *= scale**2
        add_noise(hessian, noise)
    factorise(hessian)
    return evidence(Factor.of(hessian), noise, residual)
