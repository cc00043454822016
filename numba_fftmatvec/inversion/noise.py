"""Gaussian noise of the data, independent between time steps."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..arguments import positive_int, real_array
from ..backends.cpu.arrays import CpuArrays
from ..comm import Comm
from ..errors import NotPositiveDefiniteError, ShapeError
from ..layout import Space, VectorLayout
from ..operators import LinearOperator
from ..vector.data import checked_layout
from .checks import check_symmetric, fingerprint, frozen, positive, positive_factor
from .spatial import SpatialOperator, diagonal_operator

Host = npt.NDArray[np.float64]


class Noise(ABC):
    """Gaussian noise of zero mean, with the covariance N of data of shape (Nd, Nt), independent between time steps.

    Noise is a value: it depends on no process grid and on no device. Its methods take host arrays of shape (.., Nd,
    Nt), with any leading axes, and return new ones. Exactly one of `variances` and `covariance` returns an array.
    """

    @property
    @abstractmethod
    def sizes(self) -> tuple[int | None, int | None]:
        """Numbers of sensors and of time steps that the noise is given for; None if it fits any number."""

    def check(self, Nd: int, Nt: int) -> None:
        """Raise a ShapeError unless the noise fits data of shape (Nd, Nt)."""
        for size, given, what in zip((Nd, Nt), self.sizes, ("sensors", "time steps"), strict=True):
            if given not in (None, positive_int(size, f"noise: {what}")):
                raise ShapeError(f"noise: expected {size} {what}, as the data have, found {given}")

    def fingerprint(self) -> str:
        """Return a digest of the noise: equal noise has equal ones."""
        return fingerprint(self)

    def variances(self, Nd: int, Nt: int) -> Host | None:
        """Return the variances in time-major order, of shape (Nt, Nd); None if sensors are correlated."""
        self.check(Nd, Nt)
        return None

    def covariance(self, Nd: int) -> Host | None:
        """Return the covariance of the sensors at each time step, of shape (Nd, Nd); None if it is diagonal."""
        self.check(Nd, self.sizes[1] or 1)
        return None

    def apply(self, values: npt.ArrayLike) -> Host:
        """Return ``N values``."""
        return self._apply(self._data(values, "noise apply"))

    def solve(self, values: npt.ArrayLike) -> Host:
        """Return ``N^-1 values``."""
        return self._solve(self._data(values, "noise solve"))

    def whiten(self, values: npt.ArrayLike) -> Host:
        """Return ``L^-1 values`` with the lower Cholesky factor L of N: white noise of variance 1 if values are N's."""
        return self._whiten(self._data(values, "noise whiten"))

    def sample(self, rng: np.random.Generator | int, shape: tuple[int, ...]) -> Host:
        """Return samples of N(0, N) as an array of the shape (.., Nd, Nt): ``L`` times white noise."""
        sizes = [positive_int(size, "noise sample: shape") for size in shape]
        return self._color(self._data(np.random.default_rng(rng).standard_normal(sizes), "noise sample"))

    @abstractmethod
    def log_determinant(self, Nd: int, Nt: int) -> float:
        """Return the logarithm of the determinant of N."""

    @abstractmethod
    def scaled(self, factor: float) -> Self:
        """Return the noise with all deviations multiplied by a positive factor."""

    def covariance_operator(self, comm: Comm, Nd: int, Nt: int) -> LinearOperator:
        """Return N as an operator on ``"row"`` vectors. Collective.

        Parameters
        ----------
        comm : Comm
            The process grid of the vectors.
        Nd, Nt : int
            Numbers of sensors and of time steps.

        Raises
        ------
        ShapeError, GridError
            The noise does not fit the data, or there are fewer sensors than ranks to own them.
        AgreementError
            The ranks have different noise.
        """
        with comm.agreement("creating a noise covariance", {"noise": self.fingerprint(), "Nd": Nd, "Nt": Nt}):
            return self._operator(comm, self._layout(comm, Nd, Nt), inverse=False)

    def precision_operator(self, comm: Comm, Nd: int, Nt: int) -> LinearOperator:
        """Return the inverse of N as an operator on ``"row"`` vectors. Collective; see `covariance_operator`."""
        with comm.agreement("creating a noise precision", {"noise": self.fingerprint(), "Nd": Nd, "Nt": Nt}):
            return self._operator(comm, self._layout(comm, Nd, Nt), inverse=True)

    def _layout(self, comm: Comm, Nd: int, Nt: int) -> VectorLayout:
        """Return the layout of the data on a process grid."""
        self.check(Nd, Nt)
        return checked_layout(comm, Nd, Nt, Space.ROW, True, True, 1)

    @abstractmethod
    def _operator(self, comm: Comm, layout: VectorLayout, *, inverse: bool) -> LinearOperator:
        """Return N or its inverse on vectors of a layout that was checked."""

    def _data(self, values: npt.ArrayLike, what: str) -> Host:
        """Return values as doubles of a shape (.., Nd, Nt) that the noise fits."""
        data = real_array(values, what).astype(np.float64, copy=False)
        if data.ndim < 2:
            raise ShapeError(f"{what}: expected values of shape (.., Nd, Nt), found {data.shape}")
        self.check(*data.shape[-2:])
        return data

    @abstractmethod
    def _apply(self, data: Host) -> Host:
        """Return ``N data``."""

    @abstractmethod
    def _solve(self, data: Host) -> Host:
        """Return ``N^-1 data``."""

    @abstractmethod
    def _whiten(self, data: Host) -> Host:
        """Return ``L^-1 data``."""

    @abstractmethod
    def _color(self, data: Host) -> Host:
        """Return ``L data``."""


class DiagonalNoise(Noise):
    """Independent noise of all values."""

    @property
    @abstractmethod
    def field(self) -> Host:
        """The deviations, of a shape that broadcasts to (Nd, Nt)."""

    def variances(self, Nd: int, Nt: int) -> Host:
        """Return the variances in time-major order, of shape (Nt, Nd)."""
        self.check(Nd, Nt)
        return np.ascontiguousarray(np.broadcast_to(np.square(self.field), (Nd, Nt)).T)

    def log_determinant(self, Nd: int, Nt: int) -> float:
        """Return the sum of the logarithms of the variances."""
        self.check(Nd, Nt)
        logarithms = np.log(self.field)
        return 2 * math.fsum(logarithms.ravel()) * (Nd * Nt // logarithms.size)

    def _operator(self, comm: Comm, layout: VectorLayout, *, inverse: bool) -> LinearOperator:
        """Return a diagonal operator, which needs no messages."""
        variances = np.square(self.field)
        return diagonal_operator(comm, layout, 1 / variances if inverse else variances)

    def _apply(self, data: Host) -> Host:
        return data * np.square(self.field)

    def _solve(self, data: Host) -> Host:
        return data / np.square(self.field)

    def _whiten(self, data: Host) -> Host:
        return data / self.field

    def _color(self, data: Host) -> Host:
        return data * self.field


@dataclass(frozen=True)
class WhiteNoise(DiagonalNoise):
    """Noise of one deviation.

    Parameters
    ----------
    deviation : float
        The standard deviation of every value.

    Raises
    ------
    NotPositiveDefiniteError, NonFiniteError, ShapeError, ArgumentTypeError
        The deviation is not a positive, finite number.

    Examples
    --------
    >>> from numba_fftmatvec.inversion import WhiteNoise
    >>> WhiteNoise(0.5).variances(Nd=2, Nt=3)
    array([[0.25, 0.25],
           [0.25, 0.25],
           [0.25, 0.25]])
    """

    deviation: float

    def __post_init__(self) -> None:
        """Check the deviation."""
        object.__setattr__(self, "deviation", float(positive(self.deviation, "noise: deviation", [0])))

    @property
    def sizes(self) -> tuple[None, None]:
        """Any numbers of sensors and time steps."""
        return None, None

    @property
    def field(self) -> Host:
        """The deviation, of shape (1, 1)."""
        return np.full((1, 1), self.deviation)

    def scaled(self, factor: float) -> Self:
        """Return the noise with another deviation."""
        return replace(self, deviation=self.deviation * positive_factor(factor, "noise: factor"))


@dataclass(frozen=True, eq=False)
class SensorNoise(DiagonalNoise):
    """Noise of one deviation for each sensor, the same at all time steps.

    Parameters
    ----------
    deviations : array_like
        The standard deviations, of shape (Nd,).

    Raises
    ------
    NotPositiveDefiniteError, NonFiniteError, ShapeError, ArgumentTypeError
        A deviation is not a positive, finite number; the message has the index of the first such sensor.
    """

    deviations: npt.ArrayLike

    def __post_init__(self) -> None:
        """Check the deviations."""
        object.__setattr__(self, "deviations", positive(self.deviations, "noise: deviations", [1]))

    @property
    def sizes(self) -> tuple[int, None]:
        """The number of sensors, and any number of time steps."""
        return len(np.asarray(self.deviations)), None

    @property
    def field(self) -> Host:
        """The deviations, of shape (Nd, 1)."""
        return np.asarray(self.deviations)[:, None]

    def scaled(self, factor: float) -> Self:
        """Return the noise with other deviations."""
        return replace(self, deviations=np.asarray(self.deviations) * positive_factor(factor, "noise: factor"))


@dataclass(frozen=True, eq=False)
class SensorTimeNoise(DiagonalNoise):
    """Noise of one deviation for each sensor and time step.

    Parameters
    ----------
    deviations : array_like
        The standard deviations, of shape (Nd, Nt).

    Raises
    ------
    NotPositiveDefiniteError, NonFiniteError, ShapeError, ArgumentTypeError
        A deviation is not a positive, finite number; the message has the index of the first such value.
    """

    deviations: npt.ArrayLike

    def __post_init__(self) -> None:
        """Check the deviations."""
        object.__setattr__(self, "deviations", positive(self.deviations, "noise: deviations", [2]))

    @property
    def sizes(self) -> tuple[int, int]:
        """The numbers of sensors and of time steps."""
        sensors, steps = np.shape(self.deviations)
        return sensors, steps

    @property
    def field(self) -> Host:
        """The deviations."""
        return np.asarray(self.deviations)

    def scaled(self, factor: float) -> Self:
        """Return the noise with other deviations."""
        return replace(self, deviations=np.asarray(self.deviations) * positive_factor(factor, "noise: factor"))


@dataclass(frozen=True, eq=False)
class CorrelatedNoise(Noise):
    """Noise that is correlated between sensors, with one covariance at all time steps.

    Parameters
    ----------
    matrix : array_like
        The covariance of the sensors, of shape (Nd, Nd), symmetric and positive definite.

    Raises
    ------
    ShapeError, ArgumentTypeError, NonFiniteError
        The matrix is not square, not of real numbers, or not finite.
    NotPositiveDefiniteError
        The matrix is not symmetric, or its Cholesky factorisation fails; the error's `row` is the row of the failure.

    Examples
    --------
    >>> from numba_fftmatvec.inversion import CorrelatedNoise
    >>> CorrelatedNoise([[4.0, 2.0], [2.0, 5.0]]).whiten([[2.0], [5.0]])
    array([[1.],
           [2.]])
    >>> CorrelatedNoise([[1.0, 2.0], [2.0, 1.0]])
    Traceback (most recent call last):
    ...
    numba_fftmatvec.errors.NotPositiveDefiniteError: noise: covariance: expected a positive definite matrix, found a
    pivot at row 1 that is not
    """

    matrix: npt.ArrayLike
    factor: Host = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the matrix and factorise it."""
        matrix = frozen(self.matrix, "noise: covariance")
        if matrix.ndim != 2 or not matrix.size:
            raise ShapeError(f"noise: covariance: expected shape (Nd, Nd), found {matrix.shape}")
        check_symmetric(matrix, "noise: covariance")
        try:
            factor = CpuArrays().cholesky(matrix)
        except NotPositiveDefiniteError as error:
            raise error.named("noise: covariance") from None
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "factor", factor)

    @property
    def sizes(self) -> tuple[int, None]:
        """The number of sensors, and any number of time steps."""
        return len(self.factor), None

    def covariance(self, Nd: int) -> Host:
        """Return the covariance of the sensors, of shape (Nd, Nd)."""
        self.check(Nd, 1)
        return np.array(self.matrix)

    def log_determinant(self, Nd: int, Nt: int) -> float:
        """Return the logarithm of the determinant, from the Cholesky factor."""
        self.check(Nd, Nt)
        return 2 * math.fsum(np.log(np.diag(self.factor))) * Nt

    def scaled(self, factor: float) -> Self:
        """Return the noise with another covariance."""
        return replace(self, matrix=np.asarray(self.matrix) * positive_factor(factor, "noise: factor") ** 2)

    def _operator(self, comm: Comm, layout: VectorLayout, *, inverse: bool) -> LinearOperator:
        """Return an operator between the sensors of each time step."""
        arrays = comm.backend.arrays
        with comm.backend.calling_thread, comm.backend.active():
            matrix, factor = arrays.numpy.asarray(self.matrix), arrays.numpy.asarray(self.factor)

        def solve(rows: Any) -> Any:
            half = arrays.solve_triangular(factor, rows.T)
            return arrays.solve_triangular(factor, half, transposed=True).T

        if inverse:
            return SpatialOperator(comm, layout, solve, "noise precision")
        return SpatialOperator(comm, layout, lambda rows: rows @ matrix, "noise covariance")

    def _apply(self, data: Host) -> Host:
        return np.asarray(self.matrix) @ data

    def _solve(self, data: Host) -> Host:
        return _solve_columns(self.factor, _solve_columns(self.factor, data), transposed=True)

    def _whiten(self, data: Host) -> Host:
        return _solve_columns(self.factor, data)

    def _color(self, data: Host) -> Host:
        return self.factor @ data


def _solve_columns(factor: Host, data: Host, *, transposed: bool = False) -> Host:
    """Solve with a triangular factor on the last axis but one."""
    rows = np.moveaxis(data, -2, 0)
    solved: Host = CpuArrays().solve_triangular(factor, rows.reshape(len(factor), -1), transposed=transposed)
    return np.moveaxis(solved.reshape(rows.shape), 0, -2)
