"""Colours, labels, axes and images, which the pictures share. matplotlib is imported on demand."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import ArgumentTypeError, BackendError
from .checks import Floats

SIGNED, POSITIVE, SEQUENCE = "RdBu_r", "cividis", "plasma"  # colour maps


@dataclass(frozen=True)
class Palette:
    """The colours of lines, of the palette of Okabe and Ito, for a light or a dark background.

    Parameters
    ----------
    main, second, third : str
        The colours of lines and markers.
    first, last : float
        The ends of a sequence of colours, in the colour map `SEQUENCE`.
    """

    main: str
    second: str
    third: str
    first: float
    last: float

    @classmethod
    def of(cls, axes: Any) -> Palette:
        """Return the palette that is legible on the axes' background."""
        red, green, blue, alpha = axes.get_facecolor()
        if alpha == 0:
            red, green, blue, _ = axes.figure.get_facecolor()
        return DARK if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else LIGHT

    def sequence(self, count: int) -> Any:
        """Return `count` colours in an order that shows."""
        return matplotlib().colormaps[SEQUENCE](np.linspace(self.first, self.last, count))


LIGHT = Palette("#0072B2", "#E69F00", "#D55E00", 0.8, 0.1)
DARK = Palette("#56B4E9", "#E69F00", "#F0E442", 0.4, 0.95)


@dataclass(frozen=True)
class Scale:
    """The colours of an image.

    Parameters
    ----------
    colours : str
        The name of matplotlib's colour map.
    low, high : float
        The values at the colour map's ends.
    label : str
        The label of the colour bar.
    """

    colours: str
    low: float
    high: float
    label: str

    @classmethod
    def signed(cls, values: Floats, label: str, least: float = 0.0) -> Scale:
        """Return a scale that is symmetric about 0 and includes all finite values, and `least`."""
        largest = max(float(np.abs(values[np.isfinite(values)]).max(initial=0.0)), least) or 1.0
        return cls(SIGNED, -largest, largest, label)

    @classmethod
    def positive(cls, values: Floats, label: str) -> Scale:
        """Return a scale from 0 that includes all finite values."""
        return cls(POSITIVE, 0.0, float(values[np.isfinite(values)].max(initial=0.0)) or 1.0, label)


def axes_or_new(axes: Any) -> Any:
    """Return the axes to draw into: the given ones, or those of a new figure."""
    if axes is None:
        matplotlib()
        from matplotlib import pyplot

        return pyplot.subplots(layout="constrained")[1]
    if not hasattr(axes, "pcolormesh"):
        raise ArgumentTypeError(f"axes: expected matplotlib's Axes, found {type(axes).__name__}")
    return axes


def matplotlib() -> ModuleType:
    """Import matplotlib; raise a BackendError if it is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise BackendError(
            f"plotting: expected matplotlib to be installed (pip install 'numba-fftmatvec[plot]'), found: {error}"
        ) from error
    module: ModuleType = matplotlib
    return module


def draw_image(axes: Any, x: Floats, y: Floats, values: Floats, scale: Scale, labels: tuple[str, str]) -> Any:
    """Draw cells around points (x, y), and a colour bar."""
    limits = {"cmap": scale.colours, "vmin": scale.low, "vmax": scale.high}
    mesh = axes.pcolormesh(_edges(x), _edges(y), values, rasterized=True, **limits)
    # The bar is as high as the axes, also where these have an aspect ratio.
    axes.figure.colorbar(mesh, cax=axes.inset_axes((1.03, 0.0, 0.04, 1.0)), label=scale.label)
    axes.set(xlabel=labels[0], ylabel=labels[1])
    return axes


def _edges(points: Floats) -> Floats:
    """Return the edges of cells around increasing points."""
    if len(points) == 1:
        return np.array([points[0] - 0.5, points[0] + 0.5])
    inner = (points[1:] + points[:-1]) / 2
    return np.concatenate([[2 * points[0] - inner[0]], inner, [2 * points[-1] - inner[-1]]])


def labelled(name: str, unit: str) -> str:
    """Return a label with its unit."""
    return f"{name} [{unit}]" if unit else name
