"""Pictures of forecasts against time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arguments import check_shape
from ..errors import ArgumentTypeError, ShapeError
from .checks import Floats, axis_points, check_index, deviations, float_array
from .style import Palette, axes_or_new, labelled

BAND = 1.96  # deviations of a normal distribution's central 95 %


def plot_forecast(
    times: Any,
    mean: Any,
    variance: Any = None,
    quantity: int = 0,
    truth: Any = None,
    *,
    label: str = "forecast",
    unit: str = "",
    time_unit: str = "",
    axes: Any = None,
) -> Any:
    """Draw a forecast against time, with its 95 % band.

    Parameters
    ----------
    times : (Nt,) array or None
        The times of the steps; None for their indices.
    mean : (Nq, Nt) or (Nt,) array, or an object with `mean` and `variance`
        The expected quantities, or a `Forecast` instead of both arrays.
    variance : array of the same shape
        Their variances.
    quantity : int
        The quantity to draw.
    truth : array of the same shape, or (Nt,), optional
        The true quantities.
    label, unit, time_unit : str
        The name of the quantity, its unit and the unit of the times.
    axes : matplotlib.axes.Axes, optional
        The axes to draw into; those of a new figure by default.

    Raises
    ------
    ShapeError, VectorIndexError
        The shapes of the arrays do not fit together, or there is no such quantity.
    ArgumentTypeError, ArgumentError
        An array has no real numbers, or a variance is negative.
    BackendError
        matplotlib is not installed.
    """
    expected, deviation = _forecast("plot_forecast", mean, variance, quantity)
    steps = axis_points(times, len(expected), "plot_forecast: times")
    exact = _truth(truth, quantity, len(expected), "plot_forecast: truth")
    axes = axes_or_new(axes)
    _band(axes, steps, expected, deviation, Palette.of(axes).main, "mean and 95 % band")
    return _decorate(axes, steps, exact, labelled(label, unit), time_unit)


def plot_forecasts(
    times: Any,
    forecasts: Sequence[Any],
    moments: Sequence[float],
    quantity: int = 0,
    truth: Any = None,
    *,
    label: str = "forecast",
    unit: str = "",
    time_unit: str = "",
    axes: Any = None,
) -> Any:
    """Draw forecasts of the same quantity, made at several moments while data arrive, with their 95 % bands.

    Parameters
    ----------
    times : (Nt,) array or None
        The times of the steps; None for their indices.
    forecasts : sequence
        For each moment a `Forecast`, or a pair of mean and variance as for `plot_forecast`.
    moments : sequence of float
        The times of the last data of each forecast. A dashed line marks each.
    quantity, truth, label, unit, time_unit, axes
        As for `plot_forecast`.

    Raises
    ------
    ShapeError, VectorIndexError, ArgumentTypeError, ArgumentError, BackendError
        As for `plot_forecast`, or the numbers of forecasts and moments differ.
    """
    when = float_array(moments, "plot_forecasts: moments", (1,))
    if len(forecasts) != len(when) or not len(when):
        raise ShapeError(f"plot_forecasts: expected a forecast for each of {len(when)} moments, found {len(forecasts)}")
    pairs = [_pair(found, "plot_forecasts") for found in forecasts]
    bands = [_forecast("plot_forecasts", mean, variance, quantity) for mean, variance in pairs]
    count = len(bands[0][0])
    steps = axis_points(times, count, "plot_forecasts: times")
    for expected, _ in bands:
        check_shape(expected.shape, (count,), "plot_forecasts: forecasts")
    exact = _truth(truth, quantity, count, "plot_forecasts: truth")
    axes = axes_or_new(axes)
    for (expected, deviation), moment, colour in zip(bands, when, Palette.of(axes).sequence(len(when)), strict=True):
        _band(axes, steps, expected, deviation, colour, f"data until {moment:.3g}{f' {time_unit}' * bool(time_unit)}")
        axes.axvline(moment, color=colour, linestyle="--", linewidth=1.0)
    return _decorate(axes, steps, exact, labelled(label, unit), time_unit)


def _forecast(what: str, mean: Any, variance: Any, quantity: int) -> tuple[Floats, Floats]:
    """Return the mean and the deviation of one quantity at every time step."""
    if variance is None:
        mean, variance = _pair(mean, what)
    expected = float_array(mean, f"{what}: mean", (1, 2))
    spread = float_array(variance, f"{what}: variance", (1, 2))
    check_shape(spread.shape, expected.shape, f"{what}: variance")
    deviation = deviations(spread, f"{what}: variance")
    check_index(quantity, len(np.atleast_2d(expected)), f"{what}: quantity")
    return np.atleast_2d(expected)[quantity], np.atleast_2d(deviation)[quantity]


def _pair(forecast: Any, what: str) -> tuple[Any, Any]:
    """Return the mean and the variance of a forecast, which is an object or a pair."""
    if isinstance(forecast, tuple | list) and len(forecast) == 2:
        return forecast[0], forecast[1]
    if not hasattr(forecast, "variance"):
        found = type(forecast).__name__
        raise ArgumentTypeError(f"{what}: expected a mean and a variance, or an object with both, found {found}")
    return forecast.mean, forecast.variance


def _truth(truth: Any, quantity: int, count: int, what: str) -> Floats | None:
    """Return the true values of one quantity."""
    if truth is None:
        return None
    exact = float_array(truth, what, (1, 2))
    if exact.ndim == 2:
        check_index(quantity, len(exact), what)
        exact = exact[quantity]
    check_shape(exact.shape, (count,), what)
    return exact


def _band(axes: Any, times: Floats, mean: Floats, deviation: Floats, colour: Any, label: str) -> None:
    """Draw a mean and its 95 % band."""
    axes.fill_between(times, mean - BAND * deviation, mean + BAND * deviation, color=colour, alpha=0.3, linewidth=0)
    axes.plot(times, mean, color=colour, linewidth=2.0, label=label)


def _decorate(axes: Any, times: Floats, truth: Floats | None, label: str, time_unit: str) -> Any:
    """Draw the truth, and set the labels of a forecast."""
    if truth is not None:
        axes.plot(times, truth, color=axes.xaxis.label.get_color(), linestyle=":", linewidth=2.0, label="truth")
    axes.set(xlabel=labelled("time", time_unit), ylabel=label)
    axes.grid(alpha=0.3)
    axes.legend()
    return axes
