"""The picture of an inversion: the source's mean and deviation and, if there is one, a forecast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .fields import plot_deviation, plot_source
from .forecasts import plot_forecast
from .style import matplotlib


def save_overview(
    path: Path,
    mean: Any,
    variance: Any,
    *,
    shape: Sequence[int] | None = None,
    forecast: tuple[Any, Any] | None = None,
) -> None:
    """Draw an inversion into a PNG file. No display is used, and no setting of matplotlib is changed.

    Parameters
    ----------
    path : Path
        The file.
    mean, variance : (Nm, Nt) arrays
        The posterior mean and variance of the source.
    shape : sequence of int, optional
        The grid of the sources, one or two sizes; one dimension by default.
    forecast : pair of (Nq, Nt) arrays, optional
        The mean and the variance of the quantities. The quantity of the largest mean is drawn.

    Raises
    ------
    BackendError
        matplotlib is not installed.
    """
    matplotlib()
    from matplotlib.figure import Figure

    count = 2 if forecast is None else 3
    figure = Figure(figsize=(5.0 * count, 4.0), layout="constrained")
    axes = figure.subplots(1, count)
    # Both fields of a plane are those of one step.
    step = int(np.linalg.norm(mean, axis=0).argmax()) if shape is not None and len(shape) == 2 else None
    plot_source(mean, shape=shape, step=step, label="posterior mean", axes=axes[0])
    plot_deviation(variance, shape=shape, step=step, axes=axes[1])
    if forecast is not None:
        quantity = int(np.abs(forecast[0]).max(axis=1).argmax())
        label = f"forecast of quantity {quantity}"
        plot_forecast(np.arange(mean.shape[1]), *forecast, quantity=quantity, label=label, axes=axes[2])
    figure.savefig(path, format="png", dpi=120)
