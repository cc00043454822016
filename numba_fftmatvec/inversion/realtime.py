"""Exact Bayesian inversion in real time, by the Cholesky factor of the data-space Hessian."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arguments import integer, positive_int
from ..comm.exclusive import collective
from ..errors import ArgumentError, ArgumentTypeError, UninitializedError
from ..io import FilePath
from ..layout import Space
from ..matrix import Matrix
from ..vector import Vector
from .cholesky import solve_lower, solve_upper
from .data import as_vector, check_alike, product, time_major
from .evidence import Evidence, Fit, evidence, maximise
from .factor import Factor, make_factor
from .files import load_factor, save_factor
from .forecast import Forecast
from .hessian import RootBlocks, check_model
from .noise import Noise
from .posterior import generator, posterior_variance, prior_samples
from .prior import Prior
from .sensors import SensorBlocks, SensorSelection, information_gain, select_sensors
from .source import SourceMap, forecast_map
from .stream import Stream

Floats = npt.NDArray[np.float64]

# The largest relative difference of the products of one model in two runs, in unit roundoffs of its arithmetic.
PROBE_TOLERANCE = 1e4


class RealTimeInversion:
    """The posterior of a source m given data ``d = F m + e``, with a Gaussian prior and Gaussian noise, exactly.

    `factorise` computes the data-space Hessian ``K = F Gamma F* + N`` and its Cholesky factor, offline. Afterwards
    posterior means, forecasts and the evidence of data need triangular solves and a few products. Time-major order
    makes the factor of the first k steps a leading part of the whole factor, so `stream` inverts data while they
    arrive. All calls are collective, and results on the host are the same on every rank.

    Parameters
    ----------
    F : Matrix
        The map from the source, (Nm, Nt), to the data, (Nd, Nt). It must be open, and its values unchanged.
    prior : Prior
        The prior of the source.
    noise : Noise
        The noise of the data.
    forecast : Matrix or "G", optional
        The map G from the source to quantities of interest, (Nq, Nt): a matrix on the same Comm with as many block
        columns and time steps; or ``"G"``, the auxiliary matrix of F.

    Raises
    ------
    ArgumentTypeError, ArgumentError, ShapeError, UninitializedError
        An argument has another type, the sizes differ, the matrices are on different Comms, or one has no values.

    Examples
    --------
    >>> import numba_fftmatvec as fft
    >>> from numba_fftmatvec import inversion
    >>> comm = fft.Comm(backend="cpu")
    >>> F = fft.Matrix.from_array(comm, [[[1.0, 0.5]]])
    >>> inverse = inversion.RealTimeInversion(F, inversion.WhitePrior(1, 1.0), inversion.WhiteNoise(0.1))
    >>> inverse.factorise()
    >>> inverse.infer([[1.0, 0.5]]).gather().round(3)
    array([[0.99 , 0.005]])
    """

    def __init__(self, F: Matrix, prior: Prior, noise: Noise, forecast: Matrix | str | None = None) -> None:
        if not isinstance(F, Matrix):
            raise ArgumentTypeError(f"F: expected a Matrix, found {type(F).__name__}")
        self.comm = F.comm
        with self.comm.agreement("creating an inversion"):
            check_model(F, prior, noise)
            self.F = F
            self.prior = prior
            self.noise = noise
            self._forecast = forecast_map(F, forecast)
            self._data = F.layout.vector(Space.ROW)
            self._covariance = prior.covariance_operator(self.comm, F.layout.Nt)
            self._factor: Factor | None = None
            self._versions: list[int] = []
            self._data_mean, self._forecast_mean = self._prior_means()

    def _prior_means(self) -> tuple[Floats, Floats | None]:
        """Return the data (Nt, Nd) and the quantities (Nq, Nt) of the prior's mean source."""
        layout, source = self.F.layout, self._forecast
        data = np.zeros((layout.Nt, layout.Nd))
        quantities = None if source is None else np.zeros((source.matrix.layout.Nd, layout.Nt))
        if self.prior.mean is not None:
            mean = Vector.from_layout(self.comm, layout.vector(Space.COL))
            mean.scatter(self.prior.source_mean(layout.Nt))
            data = np.ascontiguousarray(product(self.F, mean).gather().T)
            if source is not None:
                quantities = source.apply(mean).gather()
        return data, quantities

    @collective("factorising the data-space Hessian")
    def factorise(self) -> None:
        """Compute the data-space Hessian and its factor, and the matrices of the forecast. Collective.

        Raises
        ------
        NotPositiveDefiniteError
            The data-space Hessian is singular to rounding.
        CapacityError
            The matrices do not fit in memory; the message has the sizes that would.
        """
        self._factor = None
        factor = make_factor(self.F, self.prior, self.noise, self._forecast)
        self._factor, self._versions = factor, self._present_versions()

    @property
    def is_factorised(self) -> bool:
        """Whether `factorise` was called."""
        return self._factor is not None

    @property
    def factor(self) -> Factor:
        """The factor of the data-space Hessian.

        Raises
        ------
        UninitializedError
            `factorise` was not called, or a matrix has lost its values.
        ArgumentError
            A matrix has new values.
        """
        if self._factor is None:
            raise UninitializedError("inversion: expected a call of factorise() or load() before, found none")
        self._check_versions()
        return self._factor

    def _present_versions(self) -> list[int]:
        return [found.version for found in (SourceMap(self.F), self._forecast) if found is not None]

    def _check_versions(self) -> None:
        """Raise an error if a matrix has other values than those of the factor."""
        if self._present_versions() != self._versions:
            raise ArgumentError(
                "inversion: expected the values of F and G with which factorise() or load() was called, found others; "
                "call it again"
            )

    # Batch

    def _whitened(self, data: Any) -> Any:
        """Return ``L^-1 (d - F m0)`` in time-major order, an (Nt Nd, 1) array of the backend on every rank."""
        factor, backend = self.factor, self.comm.backend
        values = time_major(self.comm, self._data, data) - self._data_mean.reshape(-1)
        with self.comm.agreement("taking data"), backend.active():
            right = backend.arrays.numpy.asarray(values.reshape(-1, 1))
        return solve_lower(factor.lower, right)

    @collective("inferring a source")
    def infer(self, data: Any) -> Vector:
        """Return the posterior mean of the source, ``m0 + Gamma F* K^-1 (d - F m0)``.

        Parameters
        ----------
        data : Vector or array_like
            The data: a vector in data space, or the global values of shape (Nd, Nt) on every rank.

        Returns
        -------
        Vector
            A new vector in parameter space.

        Raises
        ------
        UninitializedError
            `factorise` was not called, or a vector has no values.
        ShapeError, SpaceError, ArgumentError, ArgumentTypeError, NonFiniteError
            The data do not fit, or are not finite real numbers.
        """
        return self.source_of(solve_upper(self.factor.lower, self._whitened(data)))

    def source_of(self, weights: Any) -> Vector:
        """Return ``m0 + Gamma F* a`` of weights a in time-major order, an array of the backend on every rank."""
        self._check_versions()
        source = product(self._covariance, product(self.F.T, as_vector(self.comm, self._data, weights)))
        if self.prior.mean is not None:
            mean = Vector.from_layout(self.comm, source.layout)
            mean.scatter(self.prior.source_mean(self.F.layout.Nt))
            source.axpy(1.0, mean)
        return source

    @collective("forecasting")
    def forecast(self, data: Any) -> Forecast:
        """Return the posterior distribution of the quantities of interest; the parameters are those of `infer`.

        Raises
        ------
        ArgumentError
            The inversion has no map to quantities of interest.
        """
        factor, comm, backend = self.factor, self.comm, self.comm.backend
        values = time_major(comm, self._data, data) - self._data_mean.reshape(-1)
        with comm.agreement("forecasting"), backend.active():
            if factor.forecast is None or self._forecast_mean is None:
                raise ArgumentError("forecast: expected an inversion with a map to quantities, found none")
            given = backend.arrays.numpy.asarray(values)
            means = {panel: gain @ given for panel, gain in factor.forecast.gain.panels.items()}
        return factor.forecast.posterior(self._forecast_mean, means)

    @collective("computing the evidence")
    def log_evidence(self, data: Any) -> float:
        """Return the log density of the data, ``log N(d; F m0, K)``; the parameters are those of `infer`."""
        factor, misfit = self.factor, self.chi2(data)
        log_determinant = 2.0 * float(factor.log_diagonal.sum())
        return -0.5 * (misfit + log_determinant + factor.index.size * math.log(2 * math.pi))

    @collective("computing a misfit")
    def chi2(self, data: Any) -> float:
        """Return ``(d - F m0)* K^-1 (d - F m0)``; the parameters are those of `infer`.

        If the model is right, it has a chi-squared distribution of Nd Nt degrees of freedom.
        """
        whitened = self.comm.backend.download(self._whitened(data))
        return float(whitened[:, 0] @ whitened[:, 0])

    @collective("computing residuals")
    def standardised_residuals(self, data: Any) -> Floats:
        """Return the whitened data ``L^-1 (d - F m0)``, an (Nd, Nt) host array; the parameters are those of `infer`.

        Each is the difference of a datum and its prediction from earlier data, in deviations of that prediction. If the
        model is right, they are independent and N(0, 1).
        """
        index = self.factor.index
        whitened = self.comm.backend.download(self._whitened(data))
        return np.ascontiguousarray(whitened.reshape(index.steps, index.blocks).T)

    # Posterior

    @collective("computing posterior variances")
    def posterior_variance(self) -> Vector:
        """Return the posterior variances of the source given data of all time steps, in a new vector.

        The work is that of triangular solves with Nm Nt right-hand sides, some at a time.
        """
        return posterior_variance(self.F, self.prior, self.factor)

    @collective("sampling the posterior")
    def sample(self, data: Any, count: int = 1, seed: int | np.random.Generator = 0) -> Vector:
        """Return samples of the posterior of the source.

        By Matheron's rule a sample is ``m + Gamma F* K^-1 (d - F m - e)`` with samples m of the prior and e of the
        noise (Journel & Huijbregts, Mining Geostatistics, 1978).

        Parameters
        ----------
        data : Vector or array_like
            As for `infer`.
        count : int
            Number of samples.
        seed : int or numpy.random.Generator
            The source of random numbers, the same on every rank. Samples do not depend on the grid.

        Returns
        -------
        Vector
            `count` vectors in one, in parameter space.
        """
        comm, factor, backend = self.comm, self.factor, self.comm.backend
        values = time_major(comm, self._data, data)
        with comm.agreement("sampling the posterior", {"count": count}):
            count = positive_int(integer(count, "sample: count"), "sample: count")
            rng = generator(seed)
            layout = self.F.layout
            noise = self.noise.sample(rng, (count, layout.Nd, layout.Nt)).reshape(count, layout.Nd, layout.Nt)
        check_alike(comm, noise, "noise of the samples")
        samples = prior_samples(self.F, self.prior, rng, count)
        observed = product(self.F, samples).gather().reshape(noise.shape) + noise
        with comm.agreement("sampling the posterior"), backend.active():
            residuals = values[:, None] - observed.transpose(2, 1, 0).reshape(len(values), count)
            right = backend.arrays.numpy.asarray(np.ascontiguousarray(residuals))
        weights = solve_upper(factor.lower, solve_lower(factor.lower, right))
        samples.axpy(1.0, product(self._covariance, product(self.F.T, as_vector(comm, self._data, weights))))
        return samples

    # The model

    @collective("computing the evidence")
    def evidence(self, data: Any) -> Evidence:
        """Return the log evidence of data and its derivatives in the scales of prior and noise; see `Evidence`."""
        residual = time_major(self.comm, self._data, data) - self._data_mean.reshape(-1)
        return evidence(self.factor, self.noise, residual)

    @collective("fitting scales")
    def fit(self, data: Any, bounds: tuple[float, float] = (1e-3, 1e3), tolerance: float = 1e-6) -> Fit:
        """Return the factors of the prior's and the noise's deviations that maximise the evidence of data.

        ``prior.scaled(fit.prior_scale)`` and ``noise.scaled(fit.noise_scale)`` are then the model. This inversion
        stays as it is, and need not be factorised.

        Parameters
        ----------
        data : Vector or array_like
            As for `infer`.
        bounds : (float, float)
            The smallest and the largest factor.
        tolerance : float
            The largest derivative of the log evidence, divided by the number of data, at the maximum.

        Raises
        ------
        ConvergenceError
            The optimiser stopped before the derivatives were small enough.
        NotPositiveDefiniteError
            The data-space Hessian is singular to rounding at the scales that were tried.
        """
        residual = time_major(self.comm, self._data, data) - self._data_mean.reshape(-1)
        with self.comm.agreement("fitting scales", {"bounds": bounds, "tolerance": tolerance}):
            low, high = bounds
            if not 0 < low <= 1 <= high < math.inf:
                raise ArgumentError(f"bounds: expected 0 < low <= 1 <= high, found {bounds}")
            if not tolerance > 0:
                raise ArgumentError(f"tolerance: expected a positive number, found {tolerance}")
        return maximise(RootBlocks(SourceMap(self.F), self.prior), self.noise, residual, (low, high), tolerance)

    @collective("computing information gains")
    def information_gain(self, sensors: Sequence[int], about: str = "source") -> float:
        """Return the information in nats that the data of some sensors give; it needs no factor.

        Parameters
        ----------
        sensors : sequence of int
            Block rows of F.
        about : {"source", "forecast"}
            About the source, or about the quantities of interest.
        """
        return information_gain(self._sensor_blocks(about), sensors)

    @collective("choosing sensors")
    def select_sensors(self, count: int, about: str = "source") -> SensorSelection:
        """Choose sensors greedily, each with the largest additional information; it needs no factor.

        Parameters
        ----------
        count : int
            Number of sensors.
        about : {"source", "forecast"}
            About the source, or about the quantities of interest.
        """
        return select_sensors(self._sensor_blocks(about), count)

    def _sensor_blocks(self, about: str) -> SensorBlocks:
        with self.comm.agreement("computing information gains", {"about": about}):
            if about not in ("source", "forecast"):
                raise ArgumentError(f"about: expected 'source' or 'forecast', found {about!r}")
            if about == "forecast" and self._forecast is None:
                raise ArgumentError("about: expected 'source' without a map to quantities, found 'forecast'")
        given = self._forecast if about == "forecast" else None
        quantities = None if given is None else RootBlocks(given, self.prior)
        return SensorBlocks(RootBlocks(SourceMap(self.F), self.prior), self.noise, quantities)

    # Streaming

    @collective("starting a stream")
    def stream(self) -> Stream:
        """Return the state of a new inversion while data arrive."""
        return Stream(self.factor, self._data_mean, self._forecast_mean, self.source_of)

    @collective("resuming a stream")
    def resume(self, path: FilePath) -> Stream:
        """Return the state of an inversion that `Stream.save` wrote; it goes on with the same bits.

        Raises
        ------
        FileError, FileFormatError, ChecksumError
            The file cannot be read or is damaged, or its state belongs to another factor.
        """
        stream = self.stream()
        stream.load(path)
        return stream

    # Files

    @collective("writing a factor")
    def save(self, path: FilePath) -> None:
        """Write the factor and the matrices of the forecast to one HDF5 file with SHA-256 digests.

        The file does not contain F, prior and noise, but probes of them: `load` refuses the factor of another model.

        Raises
        ------
        FileError
            The file cannot be written; an existing file is then unchanged.
        """
        save_factor(path, self.factor, self._probes()[0])

    @collective("reading a factor")
    def load(self, path: FilePath) -> None:
        """Read what `save` wrote, in place of `factorise`, on any number of ranks.

        Raises
        ------
        FileError, FileFormatError, ChecksumError
            The file cannot be read or is damaged, or it was made for another matrix, prior or noise.
        CapacityError
            The factor does not fit in memory.
        """
        self._factor = None
        factor = load_factor(self.comm, path, *self._probes())
        self._factor, self._versions = factor, self._present_versions()

    def _probes(self) -> tuple[dict[str, Floats], dict[str, float]]:
        """Return products that identify the model, and the relative tolerances for their comparison."""
        data = Vector.from_layout(self.comm, self._data)
        data.init_vec_doubles()
        source = product(self._covariance, product(self.F.T, data))
        rounding = PROBE_TOLERANCE * self.F.unit_roundoff
        probes = {"probe.data": product(self.F, source).gather(), "probe.noise": self.noise.apply(data.gather())}
        tolerances = {"probe.data": rounding, "probe.noise": 1e-12}
        if self._forecast is not None:
            probes["probe.forecast"] = self._forecast.apply(source).gather()
            tolerances["probe.forecast"] = PROBE_TOLERANCE * max(
                self.F.unit_roundoff, self._forecast.matrix.unit_roundoff
            )
        if self.prior.mean is not None:
            probes["probe.mean"] = self._data_mean
            tolerances["probe.mean"] = rounding
        return probes, tolerances
