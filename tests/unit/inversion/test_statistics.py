"""Posteriors against simulated events: coverage of bands, covariance of samples, distribution of residuals."""

from __future__ import annotations

import numpy as np
import pytest

import numba_fftmatvec as fm
from numba_fftmatvec import inversion
from support.inversion import ND, NQ, NT, dense, inverse, problem

EVENTS = 500


@pytest.fixture(scope="module")
def model() -> inversion.RealTimeInversion:
    found = inverse(fm.Comm(backend="cpu"), problem("field"))
    found.factorise()
    return found


@pytest.fixture(scope="module")
def events() -> tuple[np.ndarray, np.ndarray]:
    """Data, (events, Nd, Nt), and quantities, (events, Nq, Nt), of sources from the prior."""
    given, rng = dense(problem("field")), np.random.default_rng(12)
    sources = rng.multivariate_normal(given.mean, given.covariance, EVENTS, method="cholesky")
    noise = rng.multivariate_normal(np.zeros(ND * NT), given.noise, EVENTS, method="cholesky")
    data, quantities = sources @ given.F.T + noise, sources @ given.G.T
    return data.reshape(-1, NT, ND).swapaxes(1, 2), quantities.reshape(-1, NT, NQ).swapaxes(1, 2)


@pytest.mark.parametrize("step", [2, NT])
def test_bands_of_95_percent_cover_95_percent(model, events, step: int) -> None:
    covered = []
    for data, quantities in zip(*events, strict=True):
        stream = model.stream()
        for t in range(step):
            stream.assimilate(data[:, t])
        low, high = stream.forecast.band()
        covered.append((low <= quantities) & (quantities <= high))
    share = np.mean(covered, axis=0)
    assert 0.93 <= share.mean() <= 0.97
    # Each quantity is in its band 475 times in expectation, with a deviation of 4.9; 21 of them, five deviations.
    assert np.abs(share - 0.95).max() < 5 * np.sqrt(0.95 * 0.05 / EVENTS)


def test_misfits_have_a_chi_squared_distribution(model, events) -> None:
    misfits = np.array([model.chi2(data) for data in events[0]])
    size = ND * NT
    assert abs(misfits.mean() - size) < 5 * np.sqrt(2 * size / EVENTS)
    assert abs(misfits.var() - 2 * size) < 5 * np.sqrt((12 * 4 * size + 8 * size**2) / EVENTS)


def test_residuals_are_standard_normal(model, events) -> None:
    residuals = np.array([model.standardised_residuals(data).reshape(-1) for data in events[0]])
    assert np.abs(residuals.mean(axis=0)).max() < 5 / np.sqrt(EVENTS)
    assert np.abs(residuals.T @ residuals / EVENTS - np.eye(ND * NT)).max() < 6 * np.sqrt(2 / EVENTS)


def test_samples_have_the_posterior_mean_and_covariance(model) -> None:
    given, count = problem("field"), 4000
    exact = dense(given).given(np.arange(ND * NT))
    samples = model.sample(given.data, count, seed=2).gather()
    mean, covariance = exact["source"].T.reshape(-1), exact["source covariance"]
    found = samples.swapaxes(1, 2).reshape(count, -1)
    deviations = np.sqrt(np.diag(covariance))
    assert np.abs((found.mean(axis=0) - mean) / deviations).max() < 5 / np.sqrt(count)
    correlation = np.cov(found.T) / np.outer(deviations, deviations)
    assert np.abs(correlation - covariance / np.outer(deviations, deviations)).max() < 6 * np.sqrt(2 / count)


def test_seeds_make_samples(model) -> None:
    data = problem("field").data
    first, again, other = (model.sample(data, 2, seed=seed).gather() for seed in (1, 1, 3))
    assert np.array_equal(first, again)
    assert not np.isclose(first, other).any()


def test_the_fit_finds_the_scales_of_the_events() -> None:
    """The maximum of the evidence of data with known scales, against a search by dense matrices."""
    given = problem("diagonal")
    matrices, rng = dense(given), np.random.default_rng(4)
    truth = 4 * matrices.F @ matrices.covariance @ matrices.F.T + 0.25 * matrices.noise
    data = rng.multivariate_normal(np.zeros(ND * NT), truth, method="cholesky").reshape(NT, ND).T
    model = inverse(fm.Comm(backend="cpu"), given)
    fit = model.fit(data)
    assert not fit.at_bound

    def value(prior_scale: float, noise_scale: float) -> float:
        scaled = matrices._replace(
            covariance=prior_scale**2 * matrices.covariance,
            noise=noise_scale**2 * matrices.noise,
            data=data.T.reshape(-1),
        )
        return float(scaled.given(np.arange(ND * NT))["evidence"])

    best = value(fit.prior_scale, fit.noise_scale)
    assert fit.log_evidence == pytest.approx(best, rel=1e-9)
    for factor in (0.98, 1.02):
        assert best > value(fit.prior_scale * factor, fit.noise_scale)
        assert best > value(fit.prior_scale, fit.noise_scale * factor)
    assert 1.2 < fit.prior_scale < 3.0
    with pytest.raises(fm.UninitializedError, match="factorise"):
        model.infer(data)
    bounded = model.fit(data, bounds=(0.9, 1.1))
    assert bounded.at_bound
    assert bounded.prior_scale == pytest.approx(1.1)
    with pytest.raises(fm.ConvergenceError, match=r"expected derivatives of at most 1.0e-300"):
        model.fit(data, tolerance=1e-300)
