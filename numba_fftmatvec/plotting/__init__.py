"""Pictures of an inversion, by matplotlib (extra `plot`).

They show a source, its posterior deviation, forecasts, residuals, the gain of sensors and singular values.

Every function takes NumPy arrays of global values, draws into `axes`, or into those of a new figure, and returns them.
It is local: on several ranks, one rank calls it. A `Vector` on one rank counts as an array; ``gather()`` returns the
values of any other. Colours can be told apart by colour-blind readers. Text and lines take the colours of matplotlib's
settings, so that dark styles work; no setting is changed.

Examples
--------
>>> import matplotlib
>>> matplotlib.use("Agg")
>>> import numpy as np
>>> from numba_fftmatvec.plotting import plot_forecast
>>> axes = plot_forecast(np.arange(3.0), mean=[0.0, 1.0, 2.0], variance=[0.0, 1.0, 4.0], label="height", unit="m")
>>> axes.get_ylabel()
'height [m]'
>>> [line.get_ydata() for line in axes.lines]
[array([0., 1., 2.])]
"""

from __future__ import annotations

from .diagnostics import plot_gain, plot_residuals, plot_singular_values
from .fields import plot_deviation, plot_source
from .forecasts import plot_forecast, plot_forecasts

__all__ = [
    "plot_source",
    "plot_deviation",
    "plot_forecast",
    "plot_forecasts",
    "plot_residuals",
    "plot_gain",
    "plot_singular_values",
]
