"""Exact inversion while data arrive: one time step after another, with missing sensors.

With the whitened data ``z = L^-1 d`` of the Cholesky factor L of the data-space Hessian, the posterior given the first
k steps needs the first k steps of z alone. A missing datum leaves its entry of z unknown, with the prior N(0, 1), and
the later entries depend on it linearly: ``z = a + B u`` with the unknowns u. The posterior of u given the observed data
is N(-(B* B)^-1 B* a, (B* B)^-1), because the density of z is that of independent unit Gaussians.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arguments import real_array
from ..backends.base import DOUBLE
from ..comm.exclusive import collective
from ..errors import ArgumentError, NonFiniteError, ShapeError
from ..io import FilePath, file_path
from ..vector import Vector
from .cholesky import solve_upper
from .data import check_alike
from .factor import Factor, gathered
from .files import STREAM, read_arrays, save_arrays
from .forecast import Forecast
from .state import Indices, State

Floats = npt.NDArray[np.float64]


class Stream:
    """The state of an inversion while data arrive; `RealTimeInversion.stream` returns it.

    Its calls are collective. The state depends on the data and their order alone, so that the same data give the same
    bits in every run with as many ranks.

    Parameters
    ----------
    factor : Factor
        The factor of the inversion.
    data_mean : (Nt, Nd) array
        The data of the prior's mean source.
    forecast_mean : (Nq, Nt) array or None
        The quantities of the prior's mean source.
    source_of : callable
        Returns the source of weights of the data; see `RealTimeInversion.source_of`.
    """

    def __init__(
        self,
        factor: Factor,
        data_mean: Floats,
        forecast_mean: Floats | None,
        source_of: Callable[[Any], Vector],
    ) -> None:
        self._factor = factor
        self._data_mean = data_mean
        self._forecast_mean = forecast_mean
        self._source_of = source_of
        self.comm = factor.comm
        with self.comm.agreement("starting a stream"):
            self._state = State.empty(factor).prepared()

    @property
    def step(self) -> int:
        """Number of time steps that have arrived."""
        return self._state.step

    @property
    def observed(self) -> int:
        """Number of observed data."""
        return self._state.observed

    @collective("assimilating a time step")
    def assimilate(self, data: npt.ArrayLike, step: int | None = None) -> None:
        """Take the data of the next time step.

        Parameters
        ----------
        data : array_like
            The values of the Nd sensors, the same on every rank. A masked entry of a masked array (numpy.ma) is a
            sensor without a datum.
        step : int, optional
            The time step of the data, to be checked: the next one.

        Raises
        ------
        ShapeError, ArgumentTypeError
            The data are not Nd real numbers.
        NonFiniteError
            A datum that is not masked is NaN or infinite.
        ArgumentError
            `step` is not the next one, or all time steps have arrived.
        """
        comm, index = self._factor.comm, self._factor.index
        with comm.agreement("assimilating a time step", {"step": step, "next step": self.step}):
            if self.step == index.steps:
                raise ArgumentError(f"assimilate: expected at most {index.steps} time steps, found one more")
            if step is not None and step != self.step:
                raise ArgumentError(f"assimilate: expected time step {self.step}, the next one, found step {step}")
            values, lost = _observations(data, index.blocks)
        check_alike(comm, values, "data")
        values = values - self._data_mean[self.step]
        values[lost] = 0.0
        self._state = self._state.after(values, lost)  # in one step: an interrupt leaves the state before

    @property
    @collective("computing a misfit")
    def misfit(self) -> float:
        """The observed data's squared deviation from their prior mean, weighted by their inverse covariance.

        If the model is right it has a chi-squared distribution of `observed` degrees of freedom.
        """
        return self._state.unknown().misfit

    @property
    @collective("computing the evidence")
    def log_evidence(self) -> float:
        """The log probability density of the data so far."""
        state, unknown = self._state, self._state.unknown()
        size = state.observed * math.log(2 * math.pi)
        return -0.5 * (unknown.misfit + unknown.log_determinant + size) - state.log_determinant

    @property
    @collective("forecasting")
    def forecast(self) -> Forecast:
        """The forecast given the data so far.

        Raises
        ------
        ArgumentError
            The inversion has no map to quantities of interest.
        """
        parts, backend = self._factor.forecast, self._factor.comm.backend
        with self._factor.comm.agreement("forecasting"):
            if parts is None or self._forecast_mean is None:
                raise ArgumentError("forecast: expected an inversion with a map to quantities, found none")
            state = self._state = self._state.summed()
            unknown = state.unknown() if state.unknowns else None
            means, variances, spreads = {}, {}, {}
            with backend.active():
                numpy = backend.arrays.numpy
                for panel, sums in state.sums.items():
                    means[panel] = sums[:, 0]
                    variances[panel] = parts.variances[panel][:, state.step]
                    if unknown is None:
                        continue
                    means[panel] = means[panel] + sums[:, 1:] @ numpy.asarray(unknown.mean)
                    spreads[panel] = sums[:, 1:] @ numpy.asarray(unknown.root)
                    variances[panel] = variances[panel] + (spreads[panel] ** 2).sum(axis=1)
        variance = np.maximum(gathered(parts.weights, variances), 0.0)
        covariance = partial(parts.covariance, state.step, state.unknowns, spreads)
        return Forecast(self._forecast_mean + gathered(parts.weights, means), variance, covariance)

    @collective("writing the state of a stream")
    def save(self, path: FilePath) -> None:
        """Write the state to one HDF5 file with SHA-256 digests; `RealTimeInversion.resume` reads it.

        Raises
        ------
        FileError
            The file cannot be written; an existing file is then unchanged.
        """
        self._state = self._state.summed()
        arrays = dict(self._state.arrays())
        shapes = {name: array.shape for name, array in arrays.items()}
        named = [(name, partial(np.asarray, array)) for name, array in arrays.items()]
        save_arrays(self.comm, path, STREAM, shapes, self._state.description(), named)

    @collective("reading the state of a stream")
    def load(self, path: FilePath) -> None:
        """Replace the state by that of a file; see `RealTimeInversion.resume`."""
        with read_arrays(self.comm, path, STREAM) as archive:
            found = State.read(self._factor, archive, file_path(path)).prepared()
        self._state = found

    @collective("inferring a source")
    def infer(self) -> Vector:
        """Return the posterior mean of the source given the data so far, in a new vector."""
        return self._source_of(self._weights())

    def _weights(self) -> Any:
        """Return ``K^-1 d`` of the data so far in time-major order, zero afterwards: an array of the backend."""
        factor, backend = self._factor, self._factor.comm.backend
        with factor.comm.agreement("inverting"), backend.active():
            state = self._state
            mean = backend.arrays.numpy.asarray(np.concatenate([[1.0], state.unknown().mean]))
            whitened = (state.whitened[: state.rows] @ mean).reshape(-1, 1)
            found = backend.zeros((factor.index.size,), DOUBLE).array
        if state.rows:
            solved = solve_upper(factor.lower, whitened)
            with backend.active():
                found[: state.rows] = solved[:, 0]
        return found


def _observations(data: npt.ArrayLike, sensors: int) -> tuple[Floats, Indices]:
    """Return the data of one step, and the indices of those that are missing."""
    lost = np.empty(0, np.intp)
    if isinstance(data, np.ma.MaskedArray):
        lost, data = np.flatnonzero(np.ma.getmaskarray(data)), np.ma.getdata(data)
    values = np.array(real_array(data, "data"), np.float64)
    if values.shape != (sensors,):
        raise ShapeError(f"data: expected shape ({sensors},), the sensors of one time step, found {values.shape}")
    values[lost] = 0.0
    if not (finite := np.isfinite(values)).all():
        sensor = int(np.argmin(finite))
        raise NonFiniteError(
            f"data: expected finite values, found {values[sensor]} of sensor {sensor}; "
            "a masked array (numpy.ma) marks missing sensors"
        )
    return values, lost
