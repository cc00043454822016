"""Gaussian priors of the source, noise of the data, and the exact inversion of data for the source."""

from .callable_prior import CallablePrior
from .evidence import Evidence, Fit
from .filters import AR1, ImpulseResponse, IntegratedWhiteNoise, TimeFilter
from .forecast import Forecast
from .hessian import data_space_hessian
from .matern import MaternPrior
from .noise import CorrelatedNoise, Noise, SensorNoise, SensorTimeNoise, WhiteNoise
from .panels import PanelMatrix
from .prior import BoundPrior, DiagonalPrior, Prior, WhitePrior
from .realtime import RealTimeInversion
from .sensors import SensorSelection
from .sparse_prior import SparsePrecisionPrior
from .stream import Stream

__all__ = [
    "AR1",
    "BoundPrior",
    "CallablePrior",
    "CorrelatedNoise",
    "DiagonalPrior",
    "Evidence",
    "Fit",
    "Forecast",
    "ImpulseResponse",
    "IntegratedWhiteNoise",
    "MaternPrior",
    "Noise",
    "PanelMatrix",
    "Prior",
    "RealTimeInversion",
    "SensorNoise",
    "SensorSelection",
    "SensorTimeNoise",
    "SparsePrecisionPrior",
    "Stream",
    "TimeFilter",
    "WhiteNoise",
    "WhitePrior",
    "data_space_hessian",
]
