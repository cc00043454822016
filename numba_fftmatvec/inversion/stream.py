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
import scipy.linalg

from ..arguments import real_array
from ..backends.base import DOUBLE
from ..comm.exclusive import collective
from ..errors import ArgumentError, ChecksumError, NonFiniteError, ShapeError
from ..io import FilePath, file_path
from ..vector import Vector
from .cholesky import solve_upper
from .data import check_alike
from .factor import Factor, gathered
from .files import STREAM, read_arrays, save_arrays
from .forecast import Forecast

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
        self.comm = comm = factor.comm
        index = factor.index
        #: Number of time steps that have arrived.
        self.step = 0
        #: Number of observed data.
        self.observed = 0
        self._log_determinant = 0.0
        self._unknowns = 0
        with comm.agreement("starting a stream"):
            backend = comm.backend
            self._whitened = backend.zeros((index.size, 1), DOUBLE).array  # a, and the columns of B
            self._products = backend.zeros((1, 1), DOUBLE).array  # (a, B)* (a, B)
            self._sums: dict[int, Any] = {}  # W (a, B), by panels of the quantities
            if factor.forecast is not None:
                for panel, weights in factor.forecast.weights.panels.items():
                    self._sums[panel] = backend.zeros((len(weights), 1), DOUBLE).array

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
            values, missing = _observations(data, index.blocks)
        check_alike(comm, values, "data")
        values = np.where(missing, 0.0, values - self._data_mean[self.step])
        self._take(values, missing)
        seen = ~missing
        self._log_determinant += float(self._factor.log_diagonal[self.step, seen].sum())
        self.observed += int(seen.sum())
        self.step += 1

    def _take(self, values: Floats, missing: npt.NDArray[np.bool_]) -> None:
        """Extend the whitened data by those of one step, and update the sums."""
        factor, comm, backend = self._factor, self._factor.comm, self._factor.comm.backend
        numpy, phase = backend.arrays.numpy, "assimilating a time step"
        lower, blocks, first = factor.lower, factor.index.blocks, self.step * factor.index.blocks
        added = int(missing.sum())
        if added:
            with comm.agreement(phase), backend.active():
                self._widen(added)
        width = 1 + self._unknowns

        def whiten(_: int) -> Any:
            row = lower.block_row(self.step)
            with backend.active():
                right = -(row[:, :first] @ self._whitened[:first])
                right[:, 0] += numpy.asarray(values)
                triangle = row[:, first : first + blocks]
                if not added:
                    return backend.arrays.solve_triangular(triangle, right)
                seen, lost = np.flatnonzero(~missing), np.flatnonzero(missing)
                found = numpy.zeros((blocks, width))
                found[lost, np.arange(width - added, width)] = 1.0
                if seen.size:
                    right = right[seen] - triangle[np.ix_(seen, lost)] @ found[lost]
                    found[seen] = backend.arrays.solve_triangular(triangle[np.ix_(seen, seen)], right)
                return found

        new = lower.broadcast(factor.index.panel_of(self.step), whiten, phase)
        with comm.agreement(phase), backend.active():
            rows = slice(first, first + blocks)
            self._whitened[rows] = new
            self._products += new.T @ new
            if factor.forecast is not None:
                for panel, weights in factor.forecast.weights.panels.items():
                    self._sums[panel] += weights[:, rows] @ new

    def _widen(self, added: int) -> None:
        """Add columns of zeros for unknowns."""
        numpy = self._factor.comm.backend.arrays.numpy

        def wider(array: Any, rows: int) -> Any:
            return numpy.pad(array, ((0, rows), (0, added)))

        self._whitened = wider(self._whitened, 0)
        self._products = wider(self._products, added)
        self._sums = {panel: wider(sums, 0) for panel, sums in self._sums.items()}
        self._unknowns += added

    def _unknown(self) -> tuple[Floats, Floats, float, float]:
        """Return the mean and a root of the covariance of u, |a|^2 less what u explains, and the log determinant."""
        products = self._factor.comm.backend.download(self._products)
        if not self._unknowns:
            return np.empty(0), np.empty((0, 0)), float(products[0, 0]), 0.0
        triangle = scipy.linalg.cholesky(products[1:, 1:], lower=True)
        half = scipy.linalg.solve_triangular(triangle, products[1:, 0], lower=True)
        mean = -scipy.linalg.solve_triangular(triangle, half, lower=True, trans=1)
        root = scipy.linalg.solve_triangular(triangle, np.eye(self._unknowns), lower=True, trans=1)
        misfit = float(products[0, 0] - half @ half)
        return mean, root, misfit, 2.0 * float(np.log(np.diagonal(triangle)).sum())

    @property
    @collective("computing a misfit")
    def misfit(self) -> float:
        """The observed data's squared deviation from their prior mean, weighted by their inverse covariance.

        If the model is right it has a chi-squared distribution of `observed` degrees of freedom.
        """
        return self._unknown()[2]

    @property
    @collective("computing the evidence")
    def log_evidence(self) -> float:
        """The log probability density of the data so far."""
        _, _, misfit, log_determinant = self._unknown()
        return -0.5 * (misfit + log_determinant + self.observed * math.log(2 * math.pi)) - self._log_determinant

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
            mean, root, _, _ = self._unknown()
            means, variances, spreads = {}, {}, {}
            with backend.active():
                numpy = backend.arrays.numpy
                for panel, sums in self._sums.items():
                    means[panel] = sums[:, 0]
                    variances[panel] = parts.variances[panel][:, self.step]
                    if not self._unknowns:
                        continue
                    means[panel] = means[panel] + sums[:, 1:] @ numpy.asarray(mean)
                    spreads[panel] = sums[:, 1:] @ numpy.asarray(root)
                    variances[panel] = variances[panel] + (spreads[panel] ** 2).sum(axis=1)
        variance = np.maximum(gathered(parts.weights, variances), 0.0)
        covariance = partial(parts.covariance, self.step, self._unknowns, spreads)
        return Forecast(self._forecast_mean + gathered(parts.weights, means), variance, covariance)

    @collective("writing the state of a stream")
    def save(self, path: FilePath) -> None:
        """Write the state to one HDF5 file with SHA-256 digests; `RealTimeInversion.resume` reads it.

        Raises
        ------
        FileError
            The file cannot be written; an existing file is then unchanged.
        """
        comm, index, width = self._factor.comm, self._factor.index, 1 + self._unknowns
        rows = self.step * index.blocks
        with comm.agreement("writing the state of a stream"):
            arrays = {
                "log_diagonal": self._factor.log_diagonal[: self.step],
                "log_determinant": np.array([self._log_determinant]),
                "whitened": comm.backend.download(self._whitened[:rows]),
                "products": comm.backend.download(self._products),
            }
        if (forecast := self._factor.forecast) is not None:
            for panel in range(len(forecast.index.panels)):
                part = forecast.weights.broadcast(panel, self._sums.__getitem__, "writing the state of a stream")
                arrays[f"sums.{panel}"] = comm.backend.download(part)
        content = {"step": self.step, "observed": self.observed, "unknowns": self._unknowns, "width": width}
        shapes = {name: array.shape for name, array in arrays.items()}
        named = [(name, partial(np.asarray, array)) for name, array in arrays.items()]
        save_arrays(comm, path, STREAM, shapes, content, named)

    @collective("reading the state of a stream")
    def load(self, path: FilePath) -> None:
        """Replace the state by that of a file; see `RealTimeInversion.resume`."""
        factor, comm, backend = self._factor, self._factor.comm, self._factor.comm.backend
        with read_arrays(comm, path, STREAM) as archive:
            where = file_path(path)
            found, step = archive.description, int(archive.description["step"])
            diagonal = archive.read("log_diagonal")
            expected = factor.log_diagonal[: len(diagonal)]
            if diagonal.shape != expected.shape or not np.allclose(diagonal, expected, rtol=1e-6, atol=1e-6):
                raise ChecksumError(
                    f"{where}: expected the state of a stream of this factor, found that of another one"
                )
            forecast = factor.forecast
            names = [name for name in archive.shapes if name.startswith("sums.")]
            if len(names) != (0 if forecast is None else len(forecast.index.panels)):
                raise ChecksumError(f"{where}: expected the state of a stream with this forecast, found another one")
            self._widen(int(found["unknowns"]) - self._unknowns)
            self._whitened[...] = 0.0
            backend.upload(self._whitened[: step * factor.index.blocks], archive.read("whitened"))
            backend.upload(self._products, archive.read("products"))
            for panel, sums in self._sums.items():
                backend.upload(sums, archive.read(f"sums.{panel}"))
            self.step, self.observed = step, int(found["observed"])
            self._log_determinant = float(archive.read("log_determinant")[0])

    @collective("inferring a source")
    def infer(self) -> Vector:
        """Return the posterior mean of the source given the data so far, in a new vector."""
        return self._source_of(self._weights())

    def _weights(self) -> Any:
        """Return ``K^-1 d`` of the data so far in time-major order, zero afterwards: an array of the backend."""
        factor, backend = self._factor, self._factor.comm.backend
        with factor.comm.agreement("inverting"), backend.active():
            rows = self.step * factor.index.blocks
            mean = backend.arrays.numpy.asarray(np.concatenate([[1.0], self._unknown()[0]]))
            whitened = (self._whitened[:rows] @ mean).reshape(-1, 1)
            found = backend.zeros((factor.index.size,), DOUBLE).array
        if rows:
            solved = solve_upper(factor.lower, whitened)
            with backend.active():
                found[:rows] = solved[:, 0]
        return found


def _observations(data: npt.ArrayLike, sensors: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return the data of one step, and which of them are missing."""
    missing = np.ma.getmaskarray(data).copy() if isinstance(data, np.ma.MaskedArray) else np.zeros(np.shape(data), bool)
    values = np.array(real_array(np.ma.getdata(data) if missing.any() else data, "data"), np.float64)
    if values.shape != (sensors,):
        raise ShapeError(f"data: expected shape ({sensors},), the sensors of one time step, found {values.shape}")
    values[missing] = 0.0
    if not (finite := np.isfinite(values)).all():
        sensor = int(np.argmin(finite))
        raise NonFiniteError(
            f"data: expected finite values, found {values[sensor]} of sensor {sensor}; "
            "a masked array (numpy.ma) marks missing sensors"
        )
    return values, missing
