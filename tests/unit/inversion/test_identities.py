"""Every identity of the exact inversion, on every grid, against dense matrices that NumPy inverts.

The matrices have condition numbers below 1e5 and at most 84 rows, so relative errors stay below 1e-10.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

from support.inversion import GRIDS, NAMES, ND, NM, NQ, NT, dense, missing_sensors, on_grid, problem

TOLERANCE = 1e-10

CASES = [(name, (1, 1)) for name in NAMES] + list(zip(["field", "path"] * 2, GRIDS[1:], strict=True))
BACKENDS = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1][0]}x{case[1][1]}")
def case(request: pytest.FixtureRequest, backend: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    name, grid = request.param
    return name, on_grid(name, grid, backend)


@cache
def reference(name: str) -> Any:
    return dense(problem(name))


@cache
def expected(name: str) -> dict[str, Any]:
    return reference(name).given(np.arange(ND * NT))  # type: ignore[no-any-return]


def check(found: Any, expected: Any, what: str) -> None:
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, what
    scale = np.abs(expected).max()
    assert np.abs(found - expected).max() <= TOLERANCE * scale, what


def test_all_ranks_have_the_same_bits(case: Any) -> None:
    _, ranks = case
    for other in ranks[1:]:
        for key in ("source", "mean", "variance", "covariance", "evidence", "gradient", "residuals", "samples"):
            assert np.array_equal(np.asarray(other[key]), np.asarray(ranks[0][key])), key
        assert other["sensors"].sensors == ranks[0]["sensors"].sensors


def test_the_data_space_hessian_and_its_factor(case: Any) -> None:
    name, ranks = case
    hessian = reference(name).hessian
    check(ranks[0]["hessian"], hessian, "Hessian")
    check(ranks[0]["factor"], np.linalg.cholesky(hessian), "factor")


@pytest.mark.parametrize("key", ["source", "source variance", "mean", "variance", "covariance", "chi2", "evidence"])
def test_the_posterior(case: Any, key: str) -> None:
    name, ranks = case
    check(ranks[0][key], expected(name)[key], key)


def test_data_as_a_vector_and_a_loaded_factor(case: Any) -> None:
    name, ranks = case
    check(ranks[0]["from a vector"], expected(name)["source"], "vector")
    check(ranks[0]["loaded mean"], expected(name)["mean"], "loaded")


def test_the_auxiliary_matrix_gives_the_same_forecast(case: Any) -> None:
    name, ranks = case
    check(ranks[0]["of the auxiliary matrix"][:NQ], expected(name)["mean"], "mean")
    absent = ranks[0]["of the auxiliary matrix"][NQ:]
    assert np.abs(absent).max() < 1e-14 * np.abs(expected(name)["mean"]).max()


def test_standardised_residuals(case: Any) -> None:
    name, ranks = case
    dense_ = reference(name)
    factor = np.linalg.cholesky(dense_.hessian)
    whitened = np.linalg.solve(factor, dense_.data - dense_.F @ dense_.mean)
    check(ranks[0]["residuals"], whitened.reshape(NT, ND).T, "residuals")


@pytest.mark.parametrize("gaps", [False, True])
def test_each_step_of_a_stream_is_the_truncated_problem(case: Any, gaps: bool) -> None:
    name, ranks = case
    missing = missing_sensors() if gaps else np.zeros((NT, ND), bool)
    for step, found in enumerate(ranks[0]["stream with gaps" if gaps else "stream"]):
        kept = np.flatnonzero(~missing[: step + 1].reshape(-1))
        solution = reference(name).given(kept)
        for key, value in found.items():
            check(value, solution[key], f"{key} after step {step}")


def test_a_resumed_stream_goes_on_with_the_same_bits(case: Any) -> None:
    _, ranks = case
    assert all(rank["same bits"] == (True, True, True) for rank in ranks)


def log_evidence(name: str, prior_scale: float, noise_scale: float) -> float:
    given = reference(name)
    scaled = given._replace(covariance=prior_scale**2 * given.covariance, noise=noise_scale**2 * given.noise)
    return float(scaled.given(np.arange(ND * NT))["evidence"])


def test_the_gradient_of_the_evidence(case: Any) -> None:
    name, ranks = case
    value, prior_scale, noise_scale = ranks[0]["gradient"]
    assert value == pytest.approx(expected(name)["evidence"], rel=TOLERANCE)
    h = 1e-4  # central differences: an error of h^2 third derivatives / 6, and of rounding / h
    up, down = np.exp(h), np.exp(-h)
    size = ND * NT
    prior = (log_evidence(name, up, 1) - log_evidence(name, down, 1)) / (2 * h)
    noise = (log_evidence(name, 1, up) - log_evidence(name, 1, down)) / (2 * h)
    assert prior_scale == pytest.approx(prior, abs=1e-6 * size)
    assert noise_scale == pytest.approx(noise, abs=1e-6 * size)


def gain(name: str, sensors: tuple[int, ...], *, about_forecast: bool = False) -> float:
    given = reference(name)
    at = (np.arange(NT)[:, None] * ND + np.asarray(sensors)).reshape(-1)
    hessian, known = given.hessian, given.noise
    if about_forecast:
        cross = given.G @ given.covariance @ given.F.T
        prior = given.G @ given.covariance @ given.G.T
        known = hessian - cross.T @ np.linalg.pinv(prior, hermitian=True) @ cross
    part = np.ix_(at, at)
    return float(0.5 * (np.linalg.slogdet(hessian[part])[1] - np.linalg.slogdet(known[part])[1]))


def test_information_gains(case: Any) -> None:
    name, ranks = case
    assert ranks[0]["gain of some"] == pytest.approx(gain(name, (2, 0)), rel=TOLERANCE)
    found = ranks[0]["gain about the forecast"]
    assert found == pytest.approx(gain(name, (1, 3), about_forecast=True), rel=1e-7)  # P is nearly singular


@pytest.mark.parametrize("about_forecast", [False, True])
def test_sensors_are_chosen_greedily(case: Any, about_forecast: bool) -> None:
    name, ranks = case
    selection = ranks[0]["sensors for the forecast" if about_forecast else "sensors"]
    chosen: tuple[int, ...] = ()
    for sensor, found in zip(selection.sensors, selection.gains, strict=True):
        gains = {
            other: gain(name, (*chosen, other), about_forecast=about_forecast) for other in set(range(ND)) - {*chosen}
        }
        assert gains[sensor] == pytest.approx(max(gains.values()), rel=1e-7)
        assert found == pytest.approx(gains[sensor], rel=1e-7)
        chosen = (*chosen, sensor)


def test_samples_do_not_depend_on_the_grid(case: Any) -> None:
    name, ranks = case
    assert ranks[0]["samples"].shape == (3, NM, NT)
    check(ranks[0]["samples"], on_one_rank(name), "samples")


@cache
def on_one_rank(name: str) -> Any:
    return on_grid(name, (1, 1), "cpu")[0]["samples"]
