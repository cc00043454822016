"""Gaussian priors of the source, noise of the data, and the inversion of data for the source."""

from .callable_prior import CallablePrior
from .filters import AR1, ImpulseResponse, IntegratedWhiteNoise, TimeFilter
from .matern import MaternPrior
from .noise import CorrelatedNoise, Noise, SensorNoise, SensorTimeNoise, WhiteNoise
from .prior import BoundPrior, DiagonalPrior, Prior, WhitePrior
from .sparse_prior import SparsePrecisionPrior

__all__ = [
    "AR1",
    "BoundPrior",
    "CallablePrior",
    "CorrelatedNoise",
    "DiagonalPrior",
    "ImpulseResponse",
    "IntegratedWhiteNoise",
    "MaternPrior",
    "Noise",
    "Prior",
    "SensorNoise",
    "SensorTimeNoise",
    "SparsePrecisionPrior",
    "TimeFilter",
    "WhiteNoise",
    "WhitePrior",
]
