"""Pictures: the data of their artists, their labels and colours, and bad input."""

from __future__ import annotations

import doctest
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec import errors, plotting
from support.harness import clean_environment

matplotlib = pytest.importorskip("matplotlib", reason="needs matplotlib (extra `plot`)")

Nm, Nt, Nd = 12, 5, 3
X, T = np.linspace(1.0, 6.5, Nm), np.linspace(0.0, 2.0, Nt)
RANDOM = np.random.default_rng(0)
FIELD = RANDOM.standard_normal((Nm, Nt))
MEAN, VARIANCE = RANDOM.standard_normal((2, Nt)), RANDOM.uniform(0.1, 2.0, (2, Nt))
STYLES = ("default", "dark_background")


@dataclass
class Forecast:
    mean: Any
    variance: Any


@dataclass
class Selection:
    gains: Any
    sensors: Any


@pytest.fixture(autouse=True)
def pyplot() -> Iterator[Any]:
    """Draw without a display. Nothing may change matplotlib's settings."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams)
    yield pyplot
    pyplot.close("all")
    assert dict(matplotlib.rcParams) == before


def mesh(axes: Any) -> tuple[Any, Any, Any]:
    """Return an image's values, and the edges of its cells in both directions."""
    (found,) = axes.collections
    corners = found.get_coordinates()
    return np.asarray(found.get_array()), corners[0, :, 0], corners[:, 0, 1]


def bar(axes: Any) -> Any:
    """Return the axes of an image's colour bar."""
    (found,) = axes.child_axes
    return found


def edges(points: Any) -> Any:
    middle = (points[1:] + points[:-1]) / 2
    return np.concatenate([[points[0] - (middle[0] - points[0])], middle, [points[-1] + (points[-1] - middle[-1])]])


def band(axes: Any, index: int = 0) -> tuple[Any, Any]:
    """Return the lower and the upper edge of a band."""
    vertices = axes.collections[index].get_paths()[0].vertices
    times = np.unique(vertices[:, 0])
    assert len(times) == Nt
    both = [vertices[np.isclose(vertices[:, 0], time), 1] for time in times]
    return np.array([found.min() for found in both]), np.array([found.max() for found in both])


class TestSource:
    def test_line(self) -> None:
        axes = plotting.plot_source(FIELD[:, 0], coordinates=X, label="slip", unit="m", length_unit="km")
        (line,) = axes.lines
        assert np.array_equal(line.get_xdata(), X)
        assert np.array_equal(line.get_ydata(), FIELD[:, 0])
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("position [km]", "slip [m]")

    def test_over_space_and_time(self) -> None:
        axes = plotting.plot_source(FIELD, coordinates=X, times=T, time_unit="s")
        values, x, y = mesh(axes)
        assert np.array_equal(values, FIELD.T)
        assert np.allclose(x, edges(X), rtol=1e-14)
        assert np.allclose(y, edges(T), rtol=1e-14)
        assert (axes.get_xlabel(), axes.get_ylabel(), bar(axes).get_ylabel()) == ("position", "time [s]", "source")
        largest = np.abs(FIELD).max()
        assert axes.collections[0].get_clim() == (-largest, largest)

    def test_step_of_a_line(self) -> None:
        axes = plotting.plot_source(FIELD, step=2, times=T, time_unit="s")
        assert np.array_equal(axes.lines[0].get_xdata(), np.arange(Nm))
        assert np.array_equal(axes.lines[0].get_ydata(), FIELD[:, 2])
        assert axes.get_title() == "time 1 s"

    def test_plane(self) -> None:
        axes = plotting.plot_source(FIELD[:, 1], shape=(3, 4), coordinates=(T[:3], X[:4]))
        values, x, y = mesh(axes)
        assert np.array_equal(values, FIELD[:, 1].reshape(3, 4))
        assert np.allclose(x, edges(X[:4]), rtol=1e-14)
        assert np.allclose(y, edges(T[:3]), rtol=1e-14)
        assert axes.get_aspect() == 1.0

    def test_step_of_a_plane(self) -> None:
        """The default is the step of the largest norm."""
        field = FIELD.copy()
        field[:, 3] *= 10
        field[0, 1] = np.nan
        axes = plotting.plot_source(field, shape=(3, 4), times=T)
        assert np.array_equal(mesh(axes)[0], field[:, 3].reshape(3, 4))
        assert axes.get_title() == "time 1.5"
        axes = plotting.plot_source(field, shape=(3, 4), step=0)
        assert np.array_equal(mesh(axes)[0], field[:, 0].reshape(3, 4))

    def test_one_point(self) -> None:
        values, x, y = mesh(plotting.plot_source([[2.0]]))
        assert (values.tolist(), x.tolist(), y.tolist()) == ([[2.0]], [-0.5, 0.5], [-0.5, 0.5])

    def test_vector(self) -> None:
        with fm.Comm(MPI.COMM_SELF, backend="cpu") as comm:
            x = fm.Vector(comm, Nm, Nt, "col", global_sizes=True)
            x.init_vec_consecutive()
            values, *_ = mesh(plotting.plot_source(x))
        assert np.array_equal(values, np.arange(Nm * Nt).reshape(Nm, Nt).T)

    def test_zeros(self) -> None:
        axes = plotting.plot_source(np.zeros((Nm, Nt)))
        assert axes.collections[0].get_clim() == (-1.0, 1.0)

    @pytest.mark.parametrize(
        ("arguments", "error", "says"),
        [
            (
                {"values": np.zeros((2, 3, 4))},
                "ShapeError",
                r"values: expected .* 1 or 2 dimensions, found shape \(2, 3",
            ),
            ({"values": np.zeros((0, 3))}, "ShapeError", "values"),
            ({"values": FIELD * 1j}, "ArgumentTypeError", "complex128"),
            ({"values": FIELD, "shape": (3, 5)}, "ShapeError", r"shape: expected .* of 12 parameters, found \(3, 5\)"),
            ({"values": FIELD, "shape": (3, 2, 2)}, "ShapeError", r"found \(3, 2, 2\)"),
            ({"values": FIELD, "shape": (-3, -4)}, "ShapeError", "one or two sizes"),
            ({"values": FIELD, "shape": (3.0, 4)}, "ArgumentTypeError", "shape: expected an integer, found 3.0"),
            (
                {"values": FIELD, "coordinates": X[1:]},
                "ShapeError",
                r"coordinates: expected shape \(12,\), found \(11,",
            ),
            ({"values": FIELD, "coordinates": (X, X)}, "ShapeError", "each of 1 dimensions, found 2"),
            ({"values": FIELD, "shape": (3, 4), "coordinates": X}, "ShapeError", "each of 2 dimensions, found 12"),
            ({"values": FIELD, "coordinates": X[::-1]}, "ArgumentError", "coordinates: expected increasing"),
            ({"values": FIELD, "times": T[:2]}, "ShapeError", r"times: expected shape \(5,\), found \(2,\)"),
            (
                {"values": FIELD, "times": 0 * T},
                "ArgumentError",
                "times: expected increasing values, found a step of 0",
            ),
            ({"values": FIELD, "step": 5}, "VectorIndexError", r"step: expected an index of 0 \.\. 4, found 5"),
            ({"values": FIELD, "step": -1}, "VectorIndexError", "found -1"),
            ({"values": FIELD, "step": 1.0}, "ArgumentTypeError", "step: expected an integer"),
            ({"values": FIELD[:, 0], "step": 0}, "ShapeError", r"step: expected values of shape \(Nm, Nt\)"),
            ({"values": FIELD, "axes": "left"}, "ArgumentTypeError", "axes: expected matplotlib's Axes, found str"),
        ],
    )
    def test_bad_input(self, arguments: dict[str, Any], error: str, says: str) -> None:
        with pytest.raises(getattr(errors, error), match=says):
            plotting.plot_source(**arguments)


class TestDeviation:
    def test_ratio(self) -> None:
        prior = 1.0 + RANDOM.random((Nm, Nt))
        posterior = prior * RANDOM.random((Nm, Nt))
        axes = plotting.plot_deviation(posterior, prior)
        assert np.allclose(mesh(axes)[0], np.sqrt(posterior / prior).T, rtol=1e-14)
        assert axes.collections[0].get_clim() == (0.0, 1.0)
        assert bar(axes).get_ylabel() == "posterior / prior deviation"

    def test_one_prior_variance(self) -> None:
        axes = plotting.plot_deviation(np.full(Nm, 0.25), 4.0, shape=(4, 3))
        assert np.array_equal(mesh(axes)[0], np.full((4, 3), 0.25))

    def test_without_prior(self) -> None:
        axes = plotting.plot_deviation(np.full((Nm, Nt), 9.0), unit="m")
        assert np.array_equal(mesh(axes)[0], np.full((Nt, Nm), 3.0))
        assert axes.collections[0].get_clim() == (0.0, 3.0)
        assert bar(axes).get_ylabel() == "posterior deviation [m]"

    @pytest.mark.parametrize(
        ("posterior", "prior", "error", "says"),
        [
            (np.ones(Nm), np.ones(Nt), "ShapeError", r"prior_variance: expected shape \(12,\), found \(5,\)"),
            (np.ones(Nm), np.ones((Nm, Nt)), "ShapeError", "prior_variance"),
            (
                -np.ones(Nm),
                None,
                "ArgumentError",
                "posterior_variance: expected values that are not negative, found -1",
            ),
            (np.ones(Nm), 0.0, "ArgumentError", "prior_variance: expected positive values, found 0"),
            (np.ones(Nm), np.nan, "ArgumentError", "prior_variance: expected positive values, found nan"),
        ],
    )
    def test_bad_input(self, posterior: Any, prior: Any, error: str, says: str) -> None:
        with pytest.raises(getattr(errors, error), match=f"plot_deviation: {says}"):
            plotting.plot_deviation(posterior, prior)


class TestForecast:
    @pytest.mark.parametrize("quantity", [0, 1])
    def test_band(self, quantity: int) -> None:
        axes = plotting.plot_forecast(
            T, MEAN, VARIANCE, quantity, truth=MEAN + 1, label="height", unit="m", time_unit="s"
        )
        mean, truth = axes.lines
        assert np.array_equal(mean.get_xdata(), T)
        assert np.array_equal(mean.get_ydata(), MEAN[quantity])
        assert np.array_equal(truth.get_ydata(), MEAN[quantity] + 1)
        half = 1.96 * np.sqrt(VARIANCE[quantity])
        assert np.allclose(band(axes), (MEAN[quantity] - half, MEAN[quantity] + half), rtol=1e-13, atol=1e-13)
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("time [s]", "height [m]")
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["mean and 95 % band", "truth"]

    def test_object(self) -> None:
        axes = plotting.plot_forecast(None, Forecast(MEAN, VARIANCE), quantity=1)
        assert np.array_equal(axes.lines[0].get_xdata(), np.arange(Nt))
        assert np.array_equal(axes.lines[0].get_ydata(), MEAN[1])

    def test_one_quantity(self) -> None:
        axes = plotting.plot_forecast(T, MEAN[0], VARIANCE[0], truth=MEAN[1])
        assert np.array_equal(axes.lines[0].get_ydata(), MEAN[0])
        assert np.array_equal(axes.lines[1].get_ydata(), MEAN[1])

    def test_as_data_arrive(self) -> None:
        forecasts = [Forecast(MEAN + shift, VARIANCE / (1 + shift)) for shift in range(2)]
        forecasts.append((MEAN + 2, VARIANCE / 3))
        axes = plotting.plot_forecasts(T, forecasts, [0.5, 1.0, 1.5], 1, MEAN, time_unit="s")
        *drawn, truth = axes.lines
        for shift, (mean, moment) in enumerate(zip(drawn[::2], drawn[1::2], strict=True)):
            assert np.array_equal(mean.get_ydata(), MEAN[1] + shift)
            assert list(moment.get_xdata()) == [0.5 * (1 + shift)] * 2
            assert mean.get_label() == f"data until {0.5 * (1 + shift):.3g} s"
            half = 1.96 * np.sqrt(VARIANCE[1] / (1 + shift))
            expected = MEAN[1] + shift - half, MEAN[1] + shift + half
            assert np.allclose(band(axes, shift), expected, rtol=1e-13, atol=1e-13)
        assert np.array_equal(truth.get_ydata(), MEAN[1])
        assert len({str(mean.get_color()) for mean in drawn[::2]}) == 3

    @pytest.mark.parametrize(
        ("arguments", "error", "says"),
        [
            ((T, MEAN, VARIANCE[:1]), "ShapeError", r"variance: expected shape \(2, 5\), found \(1, 5\)"),
            ((T[1:], MEAN, VARIANCE), "ShapeError", r"times: expected shape \(5,\), found \(4,\)"),
            ((T, MEAN, -VARIANCE), "ArgumentError", "variance: expected values that are not negative"),
            ((T, MEAN, VARIANCE, 2), "VectorIndexError", r"quantity: expected an index of 0 \.\. 1, found 2"),
            ((T, MEAN, VARIANCE, -1), "VectorIndexError", "quantity"),
            ((T, MEAN, VARIANCE, 0, T[1:]), "ShapeError", r"truth: expected shape \(5,\), found \(4,\)"),
            ((T, MEAN, VARIANCE, 1, MEAN[:1]), "VectorIndexError", r"truth: expected an index of 0 \.\. 0, found 1"),
            ((T, MEAN), "ArgumentTypeError", "an object with both, found ndarray"),
            ((T, MEAN[None], VARIANCE[None]), "ShapeError", r"mean: expected .* found shape \(1, 2, 5\)"),
        ],
    )
    def test_bad_input(self, arguments: Any, error: str, says: str) -> None:
        with pytest.raises(getattr(errors, error), match=f"plot_forecast: {says}" if "object" not in says else says):
            plotting.plot_forecast(*arguments)

    @pytest.mark.parametrize(
        ("forecasts", "moments", "says"),
        [
            ([], [], "moments"),
            ([(MEAN, VARIANCE)], [1.0, 2.0], "each of 2 moments, found 1"),
            ([(MEAN, VARIANCE), (MEAN[:, 1:], VARIANCE[:, 1:])], [1.0, 2.0], r"expected shape \(5,\), found \(4,\)"),
        ],
    )
    def test_bad_moments(self, forecasts: Any, moments: Any, says: str) -> None:
        with pytest.raises(errors.ShapeError, match=f"plot_forecasts: .*{says}"):
            plotting.plot_forecasts(T, forecasts, moments)


class TestResiduals:
    def test_histogram(self) -> None:
        values = RANDOM.standard_normal((Nd, 400))
        values[0, 7] = np.nan
        axes = plotting.plot_residuals(values)
        present = values[~np.isnan(values)]
        left = np.array([patch.get_x() for patch in axes.patches])
        width = np.array([patch.get_width() for patch in axes.patches])
        height = np.array([patch.get_height() for patch in axes.patches])
        counts, _ = np.histogram(present, np.append(left, left[-1] + width[-1]))
        assert counts.sum() == len(present)
        assert np.allclose(height * width * len(present), counts)
        density = axes.lines[0]
        x = density.get_xdata()
        assert np.allclose(density.get_ydata(), np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), rtol=1e-14)
        text = f"residuals (mean {present.mean():.2f}, deviation {present.std():.2f})"
        assert text in [found.get_text() for found in axes.get_legend().get_texts()]

    def test_outliers_have_few_bins(self) -> None:
        values = RANDOM.standard_normal((Nd, 4000))
        values[0, 0] = 1e6
        assert len(plotting.plot_residuals(values).patches) <= 100

    def test_image(self) -> None:
        values = RANDOM.standard_normal((Nd, Nt))
        axes = plotting.plot_residuals(values, "image", times=T)
        found, x, y = mesh(axes)
        assert np.array_equal(found, values)
        assert np.allclose(x, edges(T), rtol=1e-14)
        assert np.array_equal(y, np.arange(Nd + 1) - 0.5)
        assert axes.collections[0].get_clim() == (-3.0, 3.0)

    @pytest.mark.parametrize(
        ("values", "kind", "error", "says"),
        [
            (np.zeros(4), "histogram", "ShapeError", r"residuals: expected values in 2 dimensions, found shape \(4,\)"),
            (np.full((2, 2), np.nan), "image", "ArgumentError", "found 0 infinite and 4 missing of 4"),
            (np.full((2, 2), np.inf), "histogram", "ArgumentError", "found 4 infinite and 0 missing of 4"),
            (np.zeros((2, 2)), "pie", "ArgumentError", "kind: expected 'histogram' or 'image', found 'pie'"),
        ],
    )
    def test_bad_input(self, values: Any, kind: str, error: str, says: str) -> None:
        with pytest.raises(getattr(errors, error), match=says):
            plotting.plot_residuals(values, kind)


class TestGain:
    GAINS = np.cumsum([3.0, 2.0, 0.5])

    @pytest.mark.parametrize("names", [None, ["a", "b", "c", "d", "e"]])
    def test_curve(self, names: Any) -> None:
        for axes in (
            plotting.plot_gain(self.GAINS, [4, 0, 2], names=names),
            plotting.plot_gain(Selection(self.GAINS, (4, 0, 2)), names=names),
        ):
            (line,) = axes.lines
            assert line.get_xdata().tolist() == [1, 2, 3]
            assert np.array_equal(line.get_ydata(), self.GAINS)
            assert [text.get_text() for text in axes.texts] == (["4", "0", "2"] if names is None else ["e", "a", "c"])
            assert [text.xy for text in axes.texts] == list(zip([1, 2, 3], self.GAINS, strict=True))

    def test_without_sensors(self) -> None:
        assert not plotting.plot_gain(self.GAINS).texts

    @pytest.mark.parametrize(
        ("arguments", "error", "says"),
        [
            (([[1.0]],), "ShapeError", "gains: expected values in 1 dimensions"),
            (([1.0, 2.0], [0]), "ShapeError", r"sensors: expected shape \(2,\), found \(1,\)"),
            (([1.0], [0.5]), "ArgumentTypeError", "sensors: expected an integer, found 0.5"),
        ],
    )
    def test_bad_input(self, arguments: Any, error: str, says: str) -> None:
        with pytest.raises(getattr(errors, error), match=f"plot_gain: {says}"):
            plotting.plot_gain(*arguments)

    def test_sensor_without_name(self) -> None:
        with pytest.raises(errors.VectorIndexError, match=r"sensors: expected an index of 0 \.\. 0, found 1"):
            plotting.plot_gain([1.0], [1], names=["a"])


class TestSingularValues:
    VALUES = np.array([10.0, 1.0, 0.1, 0.01, 0.0])

    def test_noise_level(self) -> None:
        axes = plotting.plot_singular_values(self.VALUES, 0.1, unit="m")
        above, below, level = axes.lines
        assert above.get_xdata().tolist() == [1, 2]
        assert above.get_ydata().tolist() == [10.0, 1.0]
        assert below.get_xdata().tolist() == [3, 4]
        assert below.get_ydata().tolist() == [0.1, 0.01]
        assert list(level.get_ydata()) == [0.1, 0.1]
        assert (axes.get_yscale(), axes.get_ylabel()) == ("log", "singular value [m]")
        texts = [text.get_text() for text in axes.get_legend().get_texts()]
        assert texts == ["2 above the noise level", "2 below the noise level"]

    def test_without_noise_level(self) -> None:
        (line,) = plotting.plot_singular_values(self.VALUES).lines
        assert line.get_ydata().tolist() == [10.0, 1.0, 0.1, 0.01]

    @pytest.mark.parametrize(
        ("values", "level", "says"),
        [
            ([1.0, -1.0], None, "values: expected values that are not negative, found -1"),
            ([[1.0]], None, "values: expected values in 1 dimensions"),
            ([1.0], 0.0, "noise_level: expected a positive number, found 0.0"),
            ([1.0], float("nan"), "noise_level: expected a positive number, found nan"),
        ],
    )
    def test_bad_input(self, values: Any, level: Any, says: str) -> None:
        with pytest.raises(errors.ArgumentError, match=f"plot_singular_values: {says}"):
            plotting.plot_singular_values(values, level)


def pictures(axes: list[Any]) -> list[Any]:
    """Draw every picture, and return the returned axes."""
    return [
        plotting.plot_source(FIELD[:, 0], axes=axes[0]),
        plotting.plot_source(FIELD, axes=axes[1]),
        plotting.plot_deviation(FIELD**2, shape=(3, 4), axes=axes[2]),
        plotting.plot_forecast(T, MEAN, VARIANCE, truth=MEAN, axes=axes[3]),
        plotting.plot_forecasts(T, [(MEAN, VARIANCE)] * 2, [0.5, 1.0], truth=MEAN, axes=axes[4]),
        plotting.plot_residuals(FIELD, axes=axes[5]),
        plotting.plot_gain([1.0, 2.0], axes=axes[6]),
        plotting.plot_singular_values([1.0, 0.1], 0.5, axes=axes[7]),
    ]


@pytest.mark.parametrize("style", STYLES)
def test_axes_of_any_style(pyplot: Any, style: str, tmp_path: Path) -> None:
    """Lines and the background differ in lightness. The axes keep the style that was active when they were made."""
    with pyplot.style.context(style):
        figure, grid = pyplot.subplots(2, 4, layout="constrained", figsize=(16, 8))
    axes = list(grid.flat)
    assert pictures(axes) == axes
    figure.savefig(tmp_path / "all.png", dpi=40, facecolor=figure.get_facecolor())
    background = np.array(axes[0].get_facecolor()[:3]).mean()
    for drawn in axes:
        for line in drawn.lines:
            colour = np.array(matplotlib.colors.to_rgb(line.get_color()))
            assert abs(colour @ [0.299, 0.587, 0.114] - background) > 0.2, (line.get_label(), style)


def test_transparent_axes_take_the_figure_s_background(pyplot: Any) -> None:
    axes = pyplot.figure(facecolor="black").subplots()
    axes.patch.set_alpha(0.0)
    axes.set_facecolor((1.0, 1.0, 1.0, 0.0))
    dark = plotting.plot_gain([1.0], axes=axes).lines[0].get_color()
    assert dark != plotting.plot_gain([1.0]).lines[0].get_color()


def test_new_figures(pyplot: Any) -> None:
    found = pictures([None] * 8)
    assert pyplot.get_fignums() == list(range(1, 9))
    assert len({id(axes.figure) for axes in found}) == 8


def test_matplotlib_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(errors.BackendError, match=r"expected matplotlib to be installed \(pip install .*\[plot\]'\)"):
        plotting.plot_gain([1.0])


def test_is_imported_lazily() -> None:
    code = "import numba_fftmatvec.plotting, sys; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], env=clean_environment(), check=True, timeout=60)


def test_examples() -> None:
    failed, tried = doctest.testmod(plotting)
    assert tried > 5
    assert failed == 0
