"""Pictures of fields over space, or over space and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arguments import check_shape, integer
from ..errors import ArgumentError, ShapeError
from .checks import Floats, axis_points, check_index, deviations, float_array
from .style import POSITIVE, Palette, Scale, axes_or_new, draw_image, labelled


def plot_source(
    values: Any,
    *,
    shape: Sequence[int] | None = None,
    step: int | None = None,
    coordinates: Any = None,
    times: Any = None,
    label: str = "source",
    unit: str = "",
    length_unit: str = "",
    time_unit: str = "",
    axes: Any = None,
) -> Any:
    """Draw a source in one or two dimensions: a line, an image over space and time, or an image over space.

    Parameters
    ----------
    values : (Nm,) or (Nm, Nt) array
        The field, or the field at every time step.
    shape : sequence of int, optional
        The grid of the Nm parameters, one or two sizes in C order; the second dimension is drawn to the right. One
        dimension by default.
    step : int, optional
        The time step to draw. In one dimension all steps are drawn by default; in two dimensions the default is the
        step of the largest norm.
    coordinates : array, or sequence of one array for each dimension, optional
        Increasing coordinates of the grid's points; their indices by default.
    times : (Nt,) array, optional
        Increasing times of the steps; their indices by default.
    label, unit, length_unit, time_unit : str
        The name of the field, and the units of the field, the coordinates and the times.
    axes : matplotlib.axes.Axes, optional
        The axes to draw into; those of a new figure by default.

    Raises
    ------
    ShapeError, VectorIndexError
        The shapes of the arrays do not fit together, or there is no such step.
    ArgumentTypeError, ArgumentError
        An array has no real numbers, or its coordinates or times do not increase.
    BackendError
        matplotlib is not installed.
    """
    field = float_array(values, "plot_source: values", (1, 2))
    scale = Scale.signed(field, labelled(label, unit))
    return _Field("plot_source", field, shape, step, coordinates, times, (length_unit, time_unit)).draw(axes, scale)


def plot_deviation(
    posterior_variance: Any,
    prior_variance: Any = None,
    *,
    shape: Sequence[int] | None = None,
    step: int | None = None,
    coordinates: Any = None,
    times: Any = None,
    unit: str = "",
    length_unit: str = "",
    time_unit: str = "",
    axes: Any = None,
) -> Any:
    """Draw the posterior deviation of a source, or its ratio to the prior deviation: 1 where data say nothing.

    Parameters
    ----------
    posterior_variance : (Nm,) or (Nm, Nt) array
        The variances given the data.
    prior_variance : float or array of the same shape, optional
        The variances before the data, which are positive. Without it the posterior deviation itself is drawn.
    shape, step, coordinates, times, unit, length_unit, time_unit, axes
        As for `plot_source`; `unit` is the unit of the source.

    Raises
    ------
    ShapeError, VectorIndexError, ArgumentTypeError, ArgumentError, BackendError
        As for `plot_source`, or a variance is negative.
    """
    variance = float_array(posterior_variance, "plot_deviation: posterior_variance", (1, 2))
    deviation = deviations(variance, "plot_deviation: posterior_variance")
    scale = Scale.positive(deviation, labelled("posterior deviation", unit))
    if prior_variance is not None:
        prior = float_array(prior_variance, "plot_deviation: prior_variance", (0, deviation.ndim))
        if prior.ndim:
            check_shape(prior.shape, deviation.shape, "plot_deviation: prior_variance")
        if not (prior > 0).all():
            raise ArgumentError(f"plot_deviation: prior_variance: expected positive values, found {prior.min():g}")
        deviation = deviation / np.sqrt(prior)
        scale = Scale(POSITIVE, 0.0, max(1.0, Scale.positive(deviation, "").high), "posterior / prior deviation")
    units = length_unit, time_unit
    return _Field("plot_deviation", deviation, shape, step, coordinates, times, units).draw(axes, scale)


@dataclass(frozen=True)
class _Field:
    """A field of (Nm,) or (Nm, Nt) values on a grid; the other attributes are the arguments of `plot_source`."""

    what: str
    values: Floats
    shape: Sequence[int] | None
    step: int | None
    coordinates: Any
    times: Any
    units: tuple[str, str]

    def draw(self, axes: Any, scale: Scale) -> Any:
        """Draw the field."""
        shape, what = self._checked_shape(), self.what
        steps = None
        if self.values.ndim == 2:
            steps = axis_points(self.times, self.values.shape[1], f"{what}: times", increasing=True)
        points = self._points(shape)
        length, time = (labelled(name, unit) for name, unit in zip(("position", "time"), self.units, strict=True))
        if len(shape) == 1 and steps is not None and self.step is None:
            return draw_image(axes_or_new(axes), points[0], steps, self.values.T, scale, (length, time))
        field, title = self._at_step(steps)
        axes = axes_or_new(axes)
        axes.set_title(title)
        if len(shape) == 2:
            axes.set_aspect("equal")
            return draw_image(axes, points[1], points[0], field.reshape(shape), scale, (length, length))
        axes.plot(points[0], field, color=Palette.of(axes).main)
        axes.set(xlabel=length, ylabel=scale.label)
        axes.grid(alpha=0.3)
        return axes

    def _checked_shape(self) -> tuple[int, ...]:
        count = len(self.values)
        shape = (count,) if self.shape is None else tuple(integer(n, f"{self.what}: shape") for n in self.shape)
        if len(shape) not in (1, 2) or np.prod(shape) != count or min(shape) < 1:
            raise ShapeError(f"{self.what}: shape: expected one or two sizes of {count} parameters, found {shape}")
        return shape

    def _points(self, shape: tuple[int, ...]) -> list[Floats]:
        """Return the coordinates in each dimension."""
        given = self.coordinates
        if given is None:
            given = [None] * len(shape)
        elif len(shape) == 1 and np.ndim(given[0]) == 0:
            given = [given]
        what = f"{self.what}: coordinates"
        if len(given) != len(shape):
            raise ShapeError(f"{what}: expected an array for each of {len(shape)} dimensions, found {len(given)}")
        return [axis_points(points, size, what, increasing=True) for points, size in zip(given, shape, strict=True)]

    def _at_step(self, steps: Floats | None) -> tuple[Floats, str]:
        """Return the field at the step to draw, and a title that names the step."""
        if steps is None:
            if self.step is not None:
                raise ShapeError(f"{self.what}: step: expected values of shape (Nm, Nt), found {self.values.shape}")
            return self.values, ""
        step = self.step
        if step is None:
            step = int(np.argmax(np.linalg.norm(np.nan_to_num(self.values), axis=0)))
        check_index(step, len(steps), f"{self.what}: step")
        return self.values[:, step], f"time {steps[step]:.4g}{f' {self.units[1]}' * bool(self.units[1])}"
