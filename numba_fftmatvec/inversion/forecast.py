"""Forecasts of quantities of interest: the mean and the covariance of a Gaussian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Half the width of a band that contains 95 % of a Gaussian, in deviations.
BAND_95 = 1.959963984540054


@dataclass(frozen=True)
class Forecast:
    """The posterior distribution of the quantities q = G m. All arrays are on the host of every rank.

    Parameters
    ----------
    mean : (Nq, Nt) array
        The expected quantities.
    variance : (Nq, Nt) array
        Their variances.
    of_covariance : callable
        Returns the covariance, an (Nq, Nt, Nq, Nt) array.
    """

    mean: Floats
    variance: Floats
    of_covariance: Callable[[], Floats] = field(repr=False, compare=False)

    @cached_property
    def covariance(self) -> Floats:
        """The covariance of quantity q at step t and quantity p at step s, ``covariance[q, t, p, s]``.

        The first access computes it, on the GPU if there is one. Collective.
        """
        return self.of_covariance()

    @property
    def deviation(self) -> Floats:
        """The standard deviations, an (Nq, Nt) array."""
        return np.sqrt(self.variance)

    def band(self, deviations: float = BAND_95) -> tuple[Floats, Floats]:
        """Return the lower and the upper edge of a band around the mean, by default that of 95 %."""
        return self.mean - deviations * self.deviation, self.mean + deviations * self.deviation
