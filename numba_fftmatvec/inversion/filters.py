"""Correlation in time: causal filters of white noise, each given by its impulse response."""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..arguments import positive_int
from ..errors import ArgumentError, NonFiniteError, NotPositiveDefiniteError, ShapeError
from .checks import frozen

Host = npt.NDArray[np.float64]


class TimeFilter(ABC):
    """A causal filter in time, ``m[t] = sum_{s <= t} h[t - s] w[s]``, with w zero before the first step.

    The filter is the same at all times: its matrix is lower-triangular Toeplitz, so ``F o filter`` is block-triangular
    Toeplitz, with the blocks of F convolved with h. The first value h[0] is not zero. Otherwise the filter would be
    singular: the source would have no variance at the first step, and its prior no precision. A delay between source
    and data is a property of F.
    """

    @property
    def sources(self) -> int | None:
        """Number of sources if each has its impulse response; None if one serves all of them."""
        return None

    @abstractmethod
    def impulse_response(self, Nt: int) -> Host:
        """Return h, of shape (Nt,) or (sources, Nt), on the host."""

    def check(self, Nt: int) -> None:
        """Raise a ShapeError unless the filter is defined for Nt time steps."""
        positive_int(Nt, "time steps")

    def inverse_response(self, Nt: int) -> Host:
        """Return the impulse response g of the inverse filter, which is causal too: ``g * h`` is a unit impulse.

        It is found by forward substitution, ``g[t] = -sum_{s >= 1} h[s] g[t - s] / h[0]``.

        Raises
        ------
        NonFiniteError
            The inverse overflows: its response grows, as it does if h has a zero outside the unit circle.
        """
        response = self.impulse_response(Nt)
        inverse = np.zeros_like(response)
        inverse[..., 0] = 1 / response[..., 0]
        with np.errstate(over="ignore", invalid="ignore"):
            for t in range(1, Nt):
                earlier = (response[..., 1 : t + 1] * inverse[..., t - 1 :: -1]).sum(axis=-1)
                inverse[..., t] = -earlier / response[..., 0]
        if not np.isfinite(inverse).all():
            raise NonFiniteError(
                f"inverse of a time filter: expected finite numbers in {Nt} steps, found an impulse response that grows"
            )
        return inverse


@dataclass(frozen=True)
class AR1(TimeFilter):
    """The autoregression of order 1, ``m[t] = coefficient m[t - 1] + w[t]``, from ``m[-1] = 0``.

    Its impulse response is ``coefficient ** t``. The variance grows from that of w at the first step to ``1 / (1 -
    coefficient^2)`` times as much. A stationary start would scale the first step alone, and no Toeplitz filter does so.

    Parameters
    ----------
    coefficient : float
        The correlation of successive steps far from the start, in -1 < coefficient < 1. ``exp(-step / time)`` gives an
        exponential correlation with that time.
    normalised : bool
        Whether w is scaled by ``sqrt(1 - coefficient^2)``, so that the variance tends to that of the spatial
        covariance. It is smaller before.

    Raises
    ------
    ArgumentError
        The coefficient is not a number between -1 and 1.

    Examples
    --------
    >>> from numba_fftmatvec.inversion import AR1
    >>> AR1(0.5).impulse_response(4)
    array([1.   , 0.5  , 0.25 , 0.125])
    """

    coefficient: float
    normalised: bool = False

    def __post_init__(self) -> None:
        """Check the coefficient."""
        value = self.coefficient
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not -1 < float(value) < 1:
            raise ArgumentError(
                f"AR1: coefficient: expected a number between -1 and 1, found {value!r}; "
                "IntegratedWhiteNoise is the filter of coefficient 1"
            )
        object.__setattr__(self, "coefficient", float(value))
        object.__setattr__(self, "normalised", bool(self.normalised))

    def impulse_response(self, Nt: int) -> Host:
        """Return the powers of the coefficient."""
        self.check(Nt)
        # (1 - c)(1 + c) has no cancellation for c near 1.
        gain = math.sqrt((1 - self.coefficient) * (1 + self.coefficient)) if self.normalised else 1.0
        return gain * self.coefficient ** np.arange(Nt, dtype=np.float64)


@dataclass(frozen=True)
class IntegratedWhiteNoise(TimeFilter):
    """The running sum ``m[t] = m[t - 1] + w[t]``: a random walk, of which the variance grows with the steps.

    Examples
    --------
    >>> from numba_fftmatvec.inversion import IntegratedWhiteNoise
    >>> IntegratedWhiteNoise().impulse_response(3)
    array([1., 1., 1.])
    """

    def impulse_response(self, Nt: int) -> Host:
        """Return ones."""
        self.check(Nt)
        return np.ones(Nt)


@dataclass(frozen=True, eq=False)
class ImpulseResponse(TimeFilter):
    """The filter of a given impulse response.

    Parameters
    ----------
    values : array_like
        h, of shape (Nt,) for all sources or (Nm, Nt) for each. It may have more steps than a problem: a causal filter
        does not use them.

    Raises
    ------
    ShapeError, ArgumentTypeError, NonFiniteError
        The values have another shape, are not real, or are not finite.
    NotPositiveDefiniteError
        A first value is zero: the filter is singular.
    """

    values: npt.ArrayLike

    def __post_init__(self) -> None:
        """Check the values."""
        values = frozen(self.values, "impulse response")
        if values.ndim not in (1, 2) or not values.size:
            raise ShapeError(f"impulse response: expected shape (Nt,) or (Nm, Nt), found {values.shape}")
        first = np.atleast_1d(values[..., 0])
        if not first.all():
            where = f" of source {int(np.argmin(first != 0))}" if values.ndim == 2 else ""
            raise NotPositiveDefiniteError(
                f"impulse response: expected a first value that is not zero, found 0.0{where}; "
                "a delay of the data belongs to the matrix"
            )
        object.__setattr__(self, "values", values)

    @property
    def sources(self) -> int | None:
        """Number of impulse responses; None if one serves all sources."""
        values = np.asarray(self.values)
        return len(values) if values.ndim == 2 else None

    def check(self, Nt: int) -> None:
        """Raise a ShapeError unless there are Nt values."""
        steps = np.asarray(self.values).shape[-1]
        if steps < positive_int(Nt, "time steps"):
            raise ShapeError(f"impulse response: expected at least {Nt} time steps, found {steps}")

    def impulse_response(self, Nt: int) -> Host:
        """Return the first Nt values."""
        self.check(Nt)
        return np.array(np.asarray(self.values)[..., :Nt])
