"""Lanczos and randomised methods against dense eigenvalues: multiple values, whole bases, low rank, error estimates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import numba_fftmatvec as fm
from numba_fftmatvec.solvers import State, lanczos, randomised_eigenvalues, randomised_svd
from numba_fftmatvec.solvers.orthonormal import orthonormalise
from numba_fftmatvec.vector import fill_normal
from support.solvers import Dense, square, vector, with_eigenvalues

Array = NDArray[np.float64]
SIZE, BLOCKS = 60, 12
ROUNDING = 200 * 2.0**-53
SPECTRA = {
    "geometric": np.geomspace(1e-6, 1, SIZE),
    "linear": np.linspace(-1, 0.9, SIZE),
    "low rank": np.concatenate([np.zeros(SIZE - 15), np.linspace(1, 3, 15)]),
    "multiple": np.concatenate([np.ones(SIZE - 5), [2, 2, 2, 3, 3]]),
    "one value": np.full(SIZE, 2.5),
    "zero": np.zeros(SIZE),
}


def wanted(values: Array, which: str, k: int) -> Array:
    values = np.sort(values)
    found: Array = {
        "largest": values[::-1],
        "smallest": values,
        "magnitude": values[np.argsort(-abs(values), kind="stable")],
    }[which][:k]
    return found


def check_pairs(found: Any, matrix: Array, limit: float) -> None:
    """Check the residuals of the pairs, and that the vectors are orthonormal."""
    k = len(found.values)
    rows = found.vectors.gather().reshape(k, -1)
    norms = np.linalg.norm(rows @ matrix - found.values[:, None] * rows, axis=1)
    assert abs(rows @ rows.T - np.eye(k)).max() <= ROUNDING
    assert norms.max() <= limit + ROUNDING
    np.testing.assert_allclose(found.residuals, norms, rtol=1e-3, atol=1e-13)


CASES = [(name, which) for name in SPECTRA for which in ("largest", "smallest", "magnitude")]
CASES.remove(("geometric", "smallest"))  # these values are closer than a Krylov space resolves


@pytest.mark.parametrize(("name", "which"), CASES)
def test_lanczos(comm: fm.Comm, name: str, which: str) -> None:
    matrix = with_eigenvalues(SPECTRA[name])
    found = lanczos(square(comm, matrix, BLOCKS), 4, which=which, tolerance=1e-9)
    norm = abs(SPECTRA[name]).max()
    check_pairs(found, matrix, 1e-9 * norm)
    expected = wanted(SPECTRA[name], which, 4)
    assert abs(found.values - expected).max() <= 1e-9 * norm + ROUNDING
    assert found.converged


def test_copies_of_a_value_beside_converged_pairs_are_found(comm: fm.Comm) -> None:
    """With this tolerance every small pair counts as converged, and each search finds one more copy."""
    matrix = with_eigenvalues(np.concatenate([np.full(6, 5.0), np.linspace(0, 1e-3, SIZE - 6)]))
    found = lanczos(square(comm, matrix, BLOCKS), 5, basis=7, tolerance=1e-2)
    assert abs(found.values - 5.0).max() <= 1e-2
    check_pairs(found, matrix, 5e-2)


@pytest.mark.parametrize(("k", "basis"), [(1, 2), (1, SIZE), (SIZE, None), (3, 4), (SIZE - 1, SIZE)])
def test_sizes_of_the_basis(comm: fm.Comm, k: int, basis: int | None) -> None:
    values = np.geomspace(1e-3, 1, SIZE)
    matrix = with_eigenvalues(values)
    found = lanczos(square(comm, matrix, BLOCKS), k, basis=basis, tolerance=1e-7, max_iterations=500)
    check_pairs(found, matrix, 1e-7)
    assert abs(found.values - values[::-1][:k]).max() <= 1e-7


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"k": 0}, fm.ShapeError, "k: expected a positive integer, found 0"),
        ({"k": SIZE + 1}, fm.ShapeError, "k < basis <= 60, the operator's size, found k = 61"),
        ({"k": 3, "basis": 3}, fm.ShapeError, "found k = 3 and basis = 3"),
        ({"k": 3, "which": "middle"}, fm.ArgumentError, "which: expected one of largest, .* found 'middle'"),
        ({"k": 3, "seed": -1}, fm.ArgumentError, "seed: .* found -1"),
        ({"k": 3, "max_iterations": 1, "basis": 6}, fm.ConvergenceError, "try more iterations .*, a larger basis"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_arguments(comm: fm.Comm, arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    A = square(comm, with_eigenvalues(SPECTRA["linear"]), BLOCKS)
    with pytest.raises(error, match=text):
        lanczos(A, **arguments)


def test_no_convergence_carries_the_pairs(comm: fm.Comm) -> None:
    matrix = with_eigenvalues(SPECTRA["linear"])
    with pytest.raises(fm.ConvergenceError) as found:
        lanczos(square(comm, matrix, BLOCKS), 3, basis=8, max_iterations=2)
    check_pairs(found.value.solution, matrix, 1.0)
    assert abs(found.value.solution.values - wanted(SPECTRA["linear"], "largest", 3)).max() < 0.3


@pytest.mark.parametrize(
    ("change", "error"),
    [(lambda a: a + np.triu(a, 1) / 10, fm.NotSelfAdjointError), (lambda a: a * np.nan, fm.NonFiniteError)],
    ids=["not self-adjoint", "NaN"],
)
def test_unfit_operators_are_named(comm: fm.Comm, change: Any, error: type[Exception]) -> None:
    A = square(comm, change(with_eigenvalues(SPECTRA["linear"])), BLOCKS)
    for call in (lanczos, randomised_eigenvalues):
        with pytest.raises(error, match=call.__name__):
            call(A, 3)


def test_a_callback_stops_with_the_present_pairs(comm: fm.Comm) -> None:
    def stop(iteration: int, state: State) -> bool:
        assert state.x is None
        return iteration == 1

    matrix = with_eigenvalues(SPECTRA["linear"])
    found = lanczos(square(comm, matrix, BLOCKS), 3, basis=8, callback=stop)
    assert (found.iterations, found.reason, found.converged) == (1, "callback", False)
    check_pairs(found, matrix, 1.0)


@pytest.mark.parametrize("name", SPECTRA)
def test_randomised_eigenvalues(comm: fm.Comm, name: str) -> None:
    """The estimate of the error bounds the norm of the part outside the subspace, which is at least the next value."""
    values = SPECTRA[name]
    matrix = with_eigenvalues(values)
    A = square(comm, matrix, BLOCKS)
    found = randomised_eigenvalues(A, 4, oversampling=12, tolerance=1e-6, max_iterations=500)
    check_pairs(found, matrix, 1e-6 * abs(values).max())
    magnitudes = np.sort(abs(values))[::-1]
    assert abs(abs(found.values) - magnitudes[:4]).max() <= 1e-6 * magnitudes[0] + ROUNDING
    assert found.error >= magnitudes[16] - ROUNDING
    fixed = randomised_eigenvalues(A, 4, max_iterations=1)
    assert fixed.iterations <= 1
    check_pairs(fixed, matrix, fixed.residuals.max())


@pytest.mark.parametrize("name", ["geometric", "low rank", "zero"])
@pytest.mark.parametrize("shape", [(36, 60), (60, 36)], ids=["wide", "tall"])
def test_randomised_svd(comm: fm.Comm, name: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    u, _, v = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
    values = np.sort(SPECTRA[name])[::-1][: min(shape)]
    matrix = (u * values) @ v
    rows, cols = shape
    A = Dense(comm, matrix, comm.axis("col").layout(cols // 4, 4), comm.axis("row").layout(rows // 4, 4))
    found = randomised_svd(A, 5, tolerance=1e-8)
    left, right = (block.gather().reshape(5, -1) for block in (found.u, found.v))
    assert abs(found.values - values[:5]).max() <= 1e-8 * values[0] + ROUNDING
    for basis in (left, right):
        assert abs(basis @ basis.T - np.eye(5)).max() <= ROUNDING
    assert abs(right @ matrix.T - found.values[:, None] * left).max() <= 1e-8 * values[0] + ROUNDING
    assert abs(left @ matrix - found.values[:, None] * right).max() <= ROUNDING
    assert found.error >= values[15] - ROUNDING


def test_randomised_methods_without_a_tolerance_do_two_iterations(comm: fm.Comm) -> None:
    A = square(comm, with_eigenvalues(SPECTRA["linear"]), BLOCKS)
    for call in (randomised_eigenvalues, randomised_svd):
        found = call(A, 3)
        assert (found.iterations, found.reason, found.converged) == (2, "max_iterations", False)
        with pytest.raises(fm.ConvergenceError, match="more oversampling"):
            call(A, 3, tolerance=1e-8, max_iterations=2)
        with pytest.raises(fm.ShapeError, match="k: expected at most 60"):
            call(A, 61)


def test_the_seed_decides(comm: fm.Comm) -> None:
    A = square(comm, with_eigenvalues(SPECTRA["linear"]), BLOCKS)
    one, two, again = (randomised_eigenvalues(A, 3, seed=seed) for seed in (1, 2, 1))
    assert np.array_equal(one.vectors.gather(), again.vectors.gather())
    assert not np.allclose(one.values, two.values, rtol=1e-8)


@pytest.mark.parametrize("condition", [1.0, 1e6, 1e12, 1e18, np.inf])
def test_orthonormal_bases_of_nearly_dependent_vectors(comm: fm.Comm, condition: float) -> None:
    """X = Q R holds to the rounding of X, whatever the condition of X."""
    rng = np.random.default_rng(5)
    values = np.geomspace(1, 1 / condition, 6) if np.isfinite(condition) else np.array([1, 1, 1, 0, 0, 0.0])
    u, _, v = np.linalg.svd(rng.standard_normal((6, SIZE)), full_matrices=False)
    rows = (u * values) @ v
    if not np.isfinite(condition):
        rows[4] = 0.0
    x = vector(comm, comm.axis("col").layout(BLOCKS, 5), rows)
    R = orthonormalise(x, x.copy())
    Q = x.gather().reshape(6, -1)
    assert abs(Q @ Q.T - np.eye(6)).max() <= ROUNDING
    assert abs(R.T @ Q - rows).max() <= ROUNDING


def test_normal_values(comm: fm.Comm) -> None:
    """Moments within five standard deviations; vectors and seeds are uncorrelated."""
    x = fm.Vector(comm, 101, 99, "col", global_sizes=True, num_vecs=2)
    fill_normal(x, 7)
    values = x.gather().reshape(2, -1)
    count = values.shape[1]
    fill_normal(x, 8)
    rows = np.vstack([values, x.gather().reshape(2, -1)])
    for power, (moment, variance) in {1: (0, 1), 2: (1, 2), 3: (0, 15), 4: (3, 96)}.items():
        assert (abs((rows**power).mean(axis=1) - moment) <= 5 * np.sqrt(variance / count)).all()
    correlation = np.corrcoef(rows) - np.eye(4)
    assert abs(correlation).max() <= 5 / np.sqrt(count)
    assert np.isfinite(rows).all()
