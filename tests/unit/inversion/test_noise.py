"""Noise of the data against dense covariances made by NumPy, in the order of the data: sensors outer, time inner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import numba_fftmatvec as fm
from numba_fftmatvec.inversion import CorrelatedNoise, Noise, SensorNoise, SensorTimeNoise, WhiteNoise

EPS = np.finfo(np.float64).eps
Nd, Nt = 3, 4
SENSORS = np.array([0.5, 2.0, 1.25])
ALL = 0.5 + np.random.default_rng(2).random((Nd, Nt))
MATRIX = np.array([[4.0, 1.0, -0.5], [1.0, 3.0, 0.25], [-0.5, 0.25, 2.0]])


class Case(NamedTuple):
    noise: Noise
    dense: np.ndarray


CASES = {
    "white": Case(WhiteNoise(0.3), 0.09 * np.eye(Nd * Nt)),
    "sensors": Case(SensorNoise(SENSORS), np.diag(np.repeat(SENSORS**2, Nt))),
    "sensors and times": Case(SensorTimeNoise(ALL), np.diag(ALL.ravel() ** 2)),
    "correlated": Case(CorrelatedNoise(MATRIX), np.kron(MATRIX, np.eye(Nt))),
    "one correlated sensor": Case(CorrelatedNoise([[2.0]]), 2.0 * np.eye(5)),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def sizes(case: Case) -> tuple[int, int]:
    return (1, 5) if len(case.dense) == 5 else (Nd, Nt)


def dense(case: Case, name: str) -> np.ndarray:
    """Return the matrix of one of the maps: its columns are the images of the unit vectors."""
    size = len(case.dense)
    return getattr(case.noise, name)(np.eye(size).reshape(size, *sizes(case))).reshape(size, size).T


def rounding(matrix: np.ndarray) -> float:
    """Return a bound of the relative error, in the 2-norm, of a few products and solves with a covariance."""
    return float(16 * len(matrix) * EPS * np.linalg.cond(matrix))


def assert_near(found: np.ndarray, expected: np.ndarray, bound: float) -> None:
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected, 2) <= bound * np.linalg.norm(expected, 2)


def test_maps(case: Case) -> None:
    small = rounding(case.dense)
    covariance = dense(case, "apply")
    assert_near(covariance, case.dense, small)
    np.testing.assert_array_equal(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > 0
    assert_near(dense(case, "solve"), np.linalg.inv(case.dense), small)
    whiten = dense(case, "whiten")
    assert (np.triu(whiten, 1) == 0).all()
    assert_near(whiten, np.linalg.inv(np.linalg.cholesky(case.dense)), small)


def test_determinant(case: Case) -> None:
    sign, expected = np.linalg.slogdet(case.dense)
    assert sign == 1
    assert case.noise.log_determinant(*sizes(case)) == pytest.approx(expected, rel=1e-13, abs=1e-13)


def test_variances_or_covariance(case: Case) -> None:
    variances, covariance = case.noise.variances(*sizes(case)), case.noise.covariance(sizes(case)[0])
    assert (variances is None) != (covariance is None)
    if variances is not None:
        np.testing.assert_allclose(variances.T.ravel(), np.diag(case.dense), rtol=1e-15)
        assert variances.flags.c_contiguous
    if covariance is not None:
        np.testing.assert_array_equal(np.kron(covariance, np.eye(sizes(case)[1])), case.dense)


def test_samples(case: Case) -> None:
    """The entries of a sample covariance have the deviation sqrt((N_ii N_jj + N_ij^2) / count)."""
    count, exact = 20_000, case.dense
    samples = case.noise.sample(np.random.default_rng(4), (count, *sizes(case))).reshape(count, -1)
    spread = np.sqrt((np.outer(np.diag(exact), np.diag(exact)) + exact**2) / count)
    assert (np.abs(samples.T @ samples / count - exact) <= 5 * spread).all()
    whitened = case.noise.whiten(samples.reshape(count, *sizes(case))).reshape(count, -1)
    assert (np.abs(whitened.T @ whitened / count - np.eye(len(exact))) <= 5 * np.sqrt(2 / count)).all()
    one = case.noise.sample(9, sizes(case))
    assert one.shape == sizes(case)
    np.testing.assert_array_equal(one, case.noise.sample(9, sizes(case)))


def test_scaled(case: Case) -> None:
    scaled = Case(case.noise.scaled(2.0), 4.0 * case.dense)
    assert type(scaled.noise) is type(case.noise)
    test_maps(scaled)
    test_determinant(scaled)
    test_variances_or_covariance(scaled)
    for factor in (0.0, np.nan):
        with pytest.raises(fm.ArgumentError, match="noise: factor: expected a positive number, found"):
            case.noise.scaled(factor)


def test_leading_axes(case: Case) -> None:
    values = np.random.default_rng(8).standard_normal((2, 3, *sizes(case)))
    before = values.copy()
    for name in ("apply", "solve", "whiten"):
        found = getattr(case.noise, name)(values)
        rows = values.reshape(6, -1) @ dense(case, name).T
        np.testing.assert_allclose(found.reshape(6, -1), rows, rtol=0, atol=rounding(case.dense) * np.abs(rows).max())
    np.testing.assert_array_equal(values, before)


def test_wrong_sizes(case: Case) -> None:
    d, t = sizes(case)
    given_sensors, given_steps = case.noise.sizes
    wrong = [] if given_sensors is None else [(d + 1, t, f"expected {d + 1} sensors, as the data have, found {d}")]
    wrong += [] if given_steps is None else [(d, t + 1, f"expected {t + 1} time steps, as the data have, found {t}")]
    for Nd, Nt, message in wrong:
        with pytest.raises(fm.ShapeError, match=message):
            case.noise.check(Nd, Nt)
        for name in ("apply", "solve", "whiten"):
            with pytest.raises(fm.ShapeError, match=message):
                getattr(case.noise, name)(np.zeros((Nd, Nt)))
        with pytest.raises(fm.ShapeError, match=message):
            case.noise.log_determinant(Nd, Nt)
        with pytest.raises(fm.ShapeError, match=message):
            case.noise.sample(1, (Nd, Nt))
    with pytest.raises(fm.ShapeError, match=r"noise apply: expected values of shape \(.., Nd, Nt\), found \(7,\)"):
        case.noise.apply(np.zeros(7))
    with pytest.raises(fm.ShapeError, match="noise: time steps: expected a positive integer, found 0"):
        case.noise.check(d, 0)


NEARLY = MATRIX + np.array([[0, 1e-9, 0], [0, 0, 0], [0, 0, 0]])
SHAPE, TYPE, NOT_FINITE, NOT_POSITIVE = (
    fm.ShapeError,
    fm.ArgumentTypeError,
    fm.NonFiniteError,
    fm.NotPositiveDefiniteError,
)
BAD = [
    (NOT_POSITIVE, "noise: deviation: expected positive numbers, found 0.0$", lambda: WhiteNoise(0.0)),
    (NOT_FINITE, "noise: deviation: expected finite numbers, found inf$", lambda: WhiteNoise(np.inf)),
    (TYPE, "noise: deviation: expected real numbers", lambda: WhiteNoise(None)),
    (SHAPE, "noise: deviation: expected an array of 0 dimensions", lambda: WhiteNoise([1.0, 2.0])),
    (
        NOT_POSITIVE,
        "noise: deviations: expected positive numbers, found -2.0 at index 1",
        lambda: SensorNoise([1, -2.0]),
    ),
    (SHAPE, "noise: deviations: expected an array of 1 dimensions", lambda: SensorNoise(1.0)),
    (NOT_FINITE, r"found nan at index \(1, 0\)", lambda: SensorTimeNoise([[1.0, 2.0], [np.nan, -1.0]])),
    (NOT_POSITIVE, r"found 0.0 at index \(0, 1\)", lambda: SensorTimeNoise([[1.0, 0.0]])),
    (SHAPE, r"covariance: expected shape \(Nd, Nd\), found \(3,\)", lambda: CorrelatedNoise([1.0, 2.0, 3.0])),
    (SHAPE, r"covariance: expected shape \(2, 2\), found \(2, 3\)", lambda: CorrelatedNoise(np.eye(2, 3))),
    (NOT_FINITE, r"found nan at index \(1, 1\)", lambda: CorrelatedNoise(np.diag([1.0, np.nan]))),
    (
        NOT_POSITIVE,
        r"covariance: expected a symmetric matrix, found 1.000000001\d* at \(0, 1\) and 1 at \(1, 0\)",
        lambda: CorrelatedNoise(NEARLY),
    ),
    (
        NOT_POSITIVE,
        "covariance: expected a positive definite matrix, found .* row 1",
        lambda: CorrelatedNoise(np.ones((2, 2))),
    ),
]


@pytest.mark.parametrize(("kind", "message", "make"), BAD, ids=[message for _, message, _ in BAD])
def test_bad_values(kind: type[Exception], message: str, make: Callable[[], Any]) -> None:
    with pytest.raises(kind, match=message):
        make()


def test_the_row_of_a_failed_factorisation() -> None:
    with pytest.raises(fm.NotPositiveDefiniteError) as caught:
        CorrelatedNoise(np.diag([1.0, 2.0, -1.0]))
    assert caught.value.row == 2


def test_noise_is_a_constant() -> None:
    given = MATRIX.copy()
    noise = CorrelatedNoise(given)
    given[:] = 0
    np.testing.assert_array_equal(noise.covariance(Nd), MATRIX)
    with pytest.raises(ValueError, match="read-only"):
        noise.matrix[0, 0] = 1.0
