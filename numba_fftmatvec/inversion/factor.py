"""The offline part of an inversion: the factor of the data-space Hessian, and the matrices that forecasts need."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backends.base import DOUBLE
from ..comm import Comm
from ..comm.exclusive import collective
from ..errors import CapacityError
from ..matrix import Matrix
from .cholesky import factorise, solve_upper
from .forecast import Forecast
from .hessian import RootBlocks, add_noise, block_covariance
from .noise import Noise
from .panels import PanelMatrix, TimeMajor
from .prior import Prior
from .source import SourceMap

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ForecastFactor:
    """The matrices of a forecast q = G m of the data d, in time-major order.

    Parameters
    ----------
    weights : PanelMatrix
        ``W = G Gamma F* L^-*``: the forecast is W z for the whitened data ``z = L^-1 d``.
    gain : PanelMatrix
        ``W L^-1``: the forecast of data of all time steps.
    prior : PanelMatrix
        The lower triangle of the prior covariance ``G Gamma G*``.
    variance : (Nq, Nt) array
        The posterior variances given the data of all time steps, on the host.
    """

    weights: PanelMatrix
    gain: PanelMatrix
    prior: PanelMatrix
    variance: Floats

    @classmethod
    def of(cls, factor: PanelMatrix, weights: PanelMatrix, prior: PanelMatrix) -> ForecastFactor:
        """Return the matrices of a factor L, the weights W and the prior covariance. Collective."""
        comm = factor.comm
        with comm.agreement("computing variances"), comm.backend.active():
            found = {panel: values[:, -1] for panel, values in _variances(weights, prior).items()}
        variance = np.maximum(gathered(weights, found), 0.0)
        return cls(weights, _gain(factor, weights), prior, variance)

    @property
    def index(self) -> TimeMajor:
        """The index of the quantities."""
        return self.weights.rows

    def posterior(self, prior_mean: Floats, means: dict[int, Any]) -> Forecast:
        """Return the forecast given all data, of the means in the form that `gathered` takes. Collective."""
        covariance = partial(self.covariance, self.weights.cols.steps, 0, {})
        return Forecast(prior_mean + gathered(self.weights, means), self.variance, covariance)

    @cached_property
    def variances(self) -> dict[int, Any]:
        """The variances given the data of 0, 1, ... Nt time steps, (rows, 1 + Nt), for each of this rank's panels."""
        with self.prior.comm.backend.active():
            return _variances(self.weights, self.prior)

    @property
    def comm(self) -> Comm:
        """The ranks."""
        return self.weights.comm

    @collective("computing the covariance of a forecast")
    def covariance(self, steps: int, missing: int, spreads: dict[int, Any]) -> Floats:
        """Return the posterior covariance of all quantities, an (Nq, Nt, Nq, Nt) host array. Collective.

        Parameters
        ----------
        steps : int
            Number of time steps whose data are given.
        missing : int
            Number of missing data among them.
        spreads : dict
            For each of this rank's panels, a root of the covariance that missing data add, (rows, missing).
        """
        comm, index, weights = self.weights.comm, self.index, self.weights
        phase = "computing the covariance of a forecast"
        posterior = PanelMatrix(comm, index, index, lower=True)
        roots = PanelMatrix(comm, index, index, lower=False)
        seen = slice(0, steps * weights.cols.blocks)
        with comm.agreement(phase, {"steps": steps, "missing data": missing}), comm.backend.active():
            posterior.panels.update({panel: values.copy() for panel, values in self.prior.panels.items()})
            roots.panels.update(spreads)
        terms = [(weights, seen, -1.0)] + ([(roots, slice(None), 1.0)] if missing else [])
        for panel, rows in enumerate(index.panels):
            cols = index.rows(rows)
            for root, used, sign in terms:
                row = root.broadcast(panel, partial(_columns, root, used), phase)
                with comm.agreement(phase), comm.backend.active():
                    for other, values in posterior.panels.items():
                        if other >= panel:
                            values[:, cols] += sign * (root.panels[other][:, used] @ row.T)
        whole = posterior.gather().reshape(index.steps, index.blocks, index.steps, index.blocks)
        return np.ascontiguousarray(whole.transpose(1, 0, 3, 2))


def gathered(matrix: PanelMatrix, parts: dict[int, Any]) -> Floats:
    """Return values for each row of a matrix, as a (blocks, steps) host array on every rank. Collective.

    Parameters
    ----------
    matrix : PanelMatrix
        The matrix.
    parts : dict
        The values of each of this rank's panels, arrays of the backend of one dimension.
    """
    index, found = matrix.rows, np.empty(matrix.rows.size)
    for panel, steps in enumerate(index.panels):
        part = matrix.broadcast(panel, lambda i: parts[i].reshape(-1, 1), "gathering values")
        found[index.rows(steps)] = matrix.comm.backend.download(part)[:, 0]
    return np.ascontiguousarray(found.reshape(index.steps, index.blocks).T)


def _variances(weights: PanelMatrix, prior: PanelMatrix) -> dict[int, Any]:
    """Return the variances of `ForecastFactor.variances`: those of the prior less the sums of squared weights."""
    numpy, index, found = weights.comm.backend.arrays.numpy, weights.cols, {}
    diagonals = _diagonal_of(prior)
    for panel, values in weights.panels.items():
        squares = (values * values).reshape(len(values), index.steps, index.blocks).sum(axis=2)
        explained = numpy.cumsum(squares, axis=1)
        found[panel] = numpy.concatenate([diagonals[panel][:, None], diagonals[panel][:, None] - explained], axis=1)
    return found


def _diagonal_of(lower: PanelMatrix) -> dict[int, Any]:
    """Return the diagonal of each of this rank's panels of a lower triangle."""
    numpy, index = lower.comm.backend.arrays.numpy, lower.rows
    return {
        panel: numpy.diagonal(values[:, index.rows(index.panels[panel])]).copy()
        for panel, values in lower.panels.items()
    }


def _columns(matrix: PanelMatrix, cols: slice, panel: int) -> Any:
    return matrix.panels[panel][:, cols]


@dataclass(frozen=True)
class Factor:
    """The Cholesky factor L of the data-space Hessian, ``F Gamma F* + N = L L*``, in time-major order.

    Parameters
    ----------
    lower : PanelMatrix
        The factor L.
    forecast : ForecastFactor or None
        The matrices of a forecast.
    log_diagonal : (Nt, Nd) array
        Logarithms of the diagonal of L, on the host of every rank.
    """

    lower: PanelMatrix
    forecast: ForecastFactor | None
    log_diagonal: Floats

    @classmethod
    def of(cls, lower: PanelMatrix, forecast: ForecastFactor | None = None) -> Factor:
        """Return the factor with the logarithms of its diagonal. Collective."""
        with lower.comm.agreement("computing log determinants"), lower.comm.backend.active():
            parts = _diagonal_of(lower)
        return cls(lower, forecast, np.ascontiguousarray(np.log(gathered(lower, parts)).T))

    @property
    def comm(self) -> Comm:
        """The ranks."""
        return self.lower.comm

    @property
    def index(self) -> TimeMajor:
        """The index of the data."""
        return self.lower.rows

    @cached_property
    def inverses(self) -> dict[int, Any]:
        """The inverses of the diagonal blocks of L for the steps of each of this rank's panels, (steps, Nd, Nd)."""
        backend, blocks, found = self.comm.backend, self.index.blocks, {}
        with backend.active():
            one = backend.arrays.numpy.eye(blocks)
            for panel in self.lower.panels:
                steps = self.index.panels[panel]
                found[panel] = inverses = backend.empty((len(steps), blocks, blocks), DOUBLE).array
                for inverse, step in zip(inverses, steps, strict=True):
                    triangle = self.lower.block_row(step)[:, self.index.rows(range(step, step + 1))]
                    inverse[...] = backend.arrays.solve_triangular(triangle, one)
        return found


def make_factor(F: Matrix, prior: Prior, noise: Noise, forecast: SourceMap | None) -> Factor:
    """Compute and factorise the data-space Hessian. Collective.

    Raises
    ------
    NotPositiveDefiniteError
        The data-space Hessian is not positive definite.
    CapacityError
        The matrices do not fit in memory.
    """
    comm = F.comm
    with comm.agreement("factorising the data-space Hessian"):
        check_capacity(F, forecast)
    blocks = RootBlocks(SourceMap(F), prior)
    hessian = block_covariance(blocks)
    with comm.agreement("adding the noise"):
        add_noise(hessian, noise)
    if forecast is None:
        factorise(hessian)
        return Factor.of(hessian)
    others = RootBlocks(forecast, prior)
    weights, covariance = block_covariance(others, blocks), block_covariance(others)
    factorise(hessian, [weights])
    return Factor.of(hessian, ForecastFactor.of(hessian, weights, covariance))


def _gain(factor: PanelMatrix, weights: PanelMatrix) -> PanelMatrix:
    """Return ``W L^-1``. Collective."""
    comm, gain = factor.comm, PanelMatrix(factor.comm, weights.rows, weights.cols, lower=False)
    for panel in range(len(weights.rows.panels)):
        rows = weights.broadcast(panel, weights.panels.__getitem__, "computing the gain")
        solved = solve_upper(factor, rows.T)
        with comm.agreement("computing the gain of a forecast"), comm.backend.active():
            if gain.owns(panel):
                gain.panels[panel] = comm.backend.arrays.numpy.ascontiguousarray(solved.T)
    return gain


def check_capacity(F: Matrix, forecast: SourceMap | None) -> None:
    """Raise a CapacityError unless the matrices of an inversion fit in this rank's free memory.

    A rank needs its part of the triangle and of the inverses of its diagonal blocks, its blocks before and after the
    root of the prior, those of one panel, and its part of the forecast's matrices.
    """
    comm, layout = F.comm, F.layout
    free = comm.backend.free_bytes()
    if free is None:
        return
    ranks, panel = comm.world_size, comm.backend.arrays.panel_rows

    def need(Nd: int) -> int:
        data = Nd * layout.Nt
        quantities = 0 if forecast is None else forecast.matrix.layout.Nd * layout.Nt
        triangle = data * (data + panel) // 2
        maps = 2 * (data + quantities) * layout.Nm
        inverses = data * Nd
        dense = triangle + inverses + maps + 2 * quantities * data + quantities * (quantities + panel) // 2
        return 8 * (dense // ranks + 3 * panel * (data // ranks + layout.Nm))

    if (bytes_needed := need(layout.Nd)) > free:
        fits = next((Nd for Nd in range(layout.Nd - 1, 0, -1) if need(Nd) <= free), 0)
        raise CapacityError(
            f"data-space Hessian of {layout.Nd} sensors x {layout.Nt} time steps: expected {bytes_needed} bytes on "
            f"each of {ranks} ranks, found {free} free; {fits} sensors would fit, and more ranks share the matrix"
        )
