"""Pictures that check a model: residuals, the gain of sensors, singular values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arguments import check_shape, integer
from ..errors import ArgumentError
from .checks import Floats, axis_points, check_index, check_not_negative, float_array
from .style import Palette, Scale, axes_or_new, draw_image, labelled


def plot_residuals(
    residuals: Any, kind: str = "histogram", *, times: Any = None, time_unit: str = "", axes: Any = None
) -> Any:
    """Draw standardised residuals, which are standard normal where the model is right.

    Parameters
    ----------
    residuals : (Nd, Nt) array
        Differences of data and model over their deviations. NaN marks missing data.
    kind : {"histogram", "image"}
        A histogram with the standard normal density, or an image over time and sensors.
    times : (Nt,) array, optional
        Increasing times of the steps of the image; their indices by default.
    time_unit : str
        The unit of the times.
    axes : matplotlib.axes.Axes, optional
        The axes to draw into; those of a new figure by default.

    Raises
    ------
    ShapeError, ArgumentTypeError, ArgumentError
        The residuals are not an (Nd, Nt) array of real numbers, all are missing, or one is infinite; or `kind` has
        another value.
    BackendError
        matplotlib is not installed.
    """
    values = float_array(residuals, "plot_residuals: residuals", (2,))
    present = values[~np.isnan(values)]
    if not len(present) or np.isinf(present).any():
        found = f"{np.isinf(present).sum()} infinite and {np.isnan(values).sum()} missing of {values.size}"
        raise ArgumentError(f"plot_residuals: residuals: expected finite values, NaN for missing data, found {found}")
    if kind == "histogram":
        return _histogram(axes_or_new(axes), present)
    if kind != "image":
        raise ArgumentError(f"plot_residuals: kind: expected 'histogram' or 'image', found {kind!r}")
    steps = axis_points(times, values.shape[1], "plot_residuals: times", increasing=True)
    sensors = np.arange(float(len(values)))
    scale = Scale.signed(values, "standardised residual", least=3.0)
    return draw_image(axes_or_new(axes), steps, sensors, values, scale, (labelled("time", time_unit), "sensor"))


def plot_gain(
    gains: Any, sensors: Sequence[Any] | None = None, *, names: Sequence[str] | None = None, axes: Any = None
) -> Any:
    """Draw the information gain against the number of sensors.

    Parameters
    ----------
    gains : (k,) array, or an object with `gains` and `sensors`
        The gain of the first 1, ..., k sensors, in nats.
    sensors : (k,) sequence of int, optional
        The chosen sensors in their order; they label the points.
    names : sequence of str, optional
        The names of all sensors, as labels in place of their numbers.
    axes : matplotlib.axes.Axes, optional
        The axes to draw into; those of a new figure by default.

    Raises
    ------
    ShapeError, VectorIndexError
        `gains` is not one-dimensional, the numbers of gains and sensors differ, or a sensor has no name.
    ArgumentTypeError
        The gains are not real numbers, or a sensor is not an integer.
    BackendError
        matplotlib is not installed.
    """
    if hasattr(gains, "gains"):
        gains, sensors = gains.gains, getattr(gains, "sensors", None) if sensors is None else sensors
    curve = float_array(gains, "plot_gain: gains", (1,))
    chosen = [] if sensors is None else [integer(sensor, "plot_gain: sensors") for sensor in sensors]
    if sensors is not None:
        check_shape((len(chosen),), curve.shape, "plot_gain: sensors")
    for sensor in chosen if names is not None else ():
        check_index(sensor, len(names or ()), "plot_gain: sensors")
    axes = axes_or_new(axes)
    numbers = np.arange(1, len(curve) + 1)
    axes.plot(numbers, curve, color=Palette.of(axes).main, marker="o")
    for number, gain, sensor in zip(numbers, curve, chosen, strict=False):
        text = str(sensor) if names is None else names[sensor]
        axes.annotate(text, (number, gain), (4, -4), textcoords="offset points", va="top", fontsize="small")
    axes.set(xlabel="number of sensors", ylabel="information gain [nats]")
    axes.locator_params("x", integer=True)
    axes.margins(x=0.08)
    axes.grid(alpha=0.3)
    return axes


def plot_singular_values(
    values: Any, noise_level: float | None = None, *, label: str = "singular value", unit: str = "", axes: Any = None
) -> Any:
    """Draw singular values, or eigenvalues, on a logarithmic scale, and the noise level that they exceed.

    Parameters
    ----------
    values : (k,) array
        The values, which are not negative; zeros are not drawn.
    noise_level : float, optional
        A positive level in the unit of the values. Values above it have another colour, and are counted.
    label, unit : str
        The name of the values, and their unit.
    axes : matplotlib.axes.Axes, optional
        The axes to draw into; those of a new figure by default.

    Raises
    ------
    ShapeError, ArgumentTypeError, ArgumentError
        `values` is not a one-dimensional array of real numbers, a value is negative, or the level is not positive.
    BackendError
        matplotlib is not installed.
    """
    found = float_array(values, "plot_singular_values: values", (1,))
    check_not_negative(found, "plot_singular_values: values")
    if noise_level is not None and not float(float_array(noise_level, "plot_singular_values: noise_level", (0,))) > 0:
        raise ArgumentError(f"plot_singular_values: noise_level: expected a positive number, found {noise_level!r}")
    axes = axes_or_new(axes)
    axes.set_yscale("log")
    palette, index = Palette.of(axes), np.arange(1, len(found) + 1)
    above = found > (0.0 if noise_level is None else noise_level)
    below = ~above & (found > 0)
    texts = [f"{chosen.sum()} {where} the noise level" for chosen, where in ((above, "above"), (below, "below"))]
    axes.plot(index[above], found[above], color=palette.main, marker="o", linestyle="none", label=texts[0])
    if noise_level is not None:
        axes.plot(index[below], found[below], color=palette.second, marker="x", linestyle="none", label=texts[1])
        axes.axhline(noise_level, color=palette.third, linestyle="--")
        axes.legend()
    axes.set(xlabel="index", ylabel=labelled(label, unit))
    axes.grid(alpha=0.3)
    return axes


def _histogram(axes: Any, values: Floats) -> Any:
    """Draw a histogram with the standard normal density."""
    palette = Palette.of(axes)
    # The rule of Freedman and Diaconis gives very many bins where there are outliers.
    bins = min(len(np.histogram_bin_edges(values, "auto")) - 1, 100)
    label = f"residuals (mean {values.mean():.2f}, deviation {values.std():.2f})"
    heights, *_ = axes.hist(values, bins=bins, density=True, color=palette.main, alpha=0.7, label=label)
    largest = max(4.0, float(np.abs(values).max()))
    grid = np.linspace(-largest, largest, 401)
    density = np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi)
    axes.plot(grid, density, color=palette.second, linewidth=2.0, label="N(0, 1)")
    axes.set(xlabel="standardised residual", ylabel="density")
    axes.set_ylim(top=1.3 * max(heights.max(), density.max()))  # room for the legend
    axes.legend(loc="upper right")
    return axes
