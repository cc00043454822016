"""Gaussian priors of the source, noise of the data, and the inversion of data for the source."""

from .filters import AR1, ImpulseResponse, IntegratedWhiteNoise, TimeFilter
from .matern import MaternPrior
from .noise import CorrelatedNoise, Noise, SensorNoise, SensorTimeNoise, WhiteNoise
from .prior import BoundPrior, DiagonalPrior, Prior, WhitePrior

__all__ = [
    "AR1",
    "BoundPrior",
    "CorrelatedNoise",
    "DiagonalPrior",
    "ImpulseResponse",
    "IntegratedWhiteNoise",
    "MaternPrior",
    "Noise",
    "Prior",
    "SensorNoise",
    "SensorTimeNoise",
    "TimeFilter",
    "WhiteNoise",
    "WhitePrior",
]
