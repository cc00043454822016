"""CGLS and LSQR against dense references and SciPy: over- and underdetermined, damped, inconsistent, degenerate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
from numpy.typing import NDArray

import numba_fftmatvec as fm
from numba_fftmatvec.solvers import Solution, cgls, lsqr
from support.solvers import Dense, vector

Array = NDArray[np.float64]
Solver = Callable[..., Solution]
SOLVERS = pytest.mark.parametrize("solve", [cgls, lsqr], ids=["cgls", "lsqr"])
TALL, WIDE = (28, 20), (20, 28)


def matrix(shape: tuple[int, int], condition: float = 100.0) -> Array:
    rng = np.random.default_rng(6)
    u, _, v = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
    found: Array = (u * np.geomspace(1, condition, min(shape))) @ v
    return found


def operator(comm: fm.Comm, values: Array) -> Dense:
    rows, cols = values.shape
    return Dense(comm, values, comm.axis("col").layout(cols // 4, 4), comm.axis("row").layout(rows // 4, 4))


def data(comm: fm.Comm, A: Dense, values: Array) -> fm.Vector:
    return vector(comm, A.range, values.reshape(-1, 4))


@SOLVERS
@pytest.mark.parametrize("shape", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize("damping", [0.0, 0.3, 30.0])
@pytest.mark.parametrize("consistent", [True, False])
def test_solutions(comm: fm.Comm, solve: Solver, shape: tuple[int, int], damping: float, consistent: bool) -> None:
    """The rules bound the backward error by the tolerance; the error is that times the square of the condition."""
    F = matrix(shape)
    rng = np.random.default_rng(7)
    values = F @ rng.standard_normal(shape[1]) if consistent else rng.standard_normal(shape[0])
    stacked = np.vstack([F, damping * np.eye(shape[1])])
    expected = np.linalg.lstsq(stacked, np.concatenate([values, np.zeros(shape[1])]), rcond=None)[0]
    A = operator(comm, F)
    d = data(comm, A, values)
    tolerance = 1e-11
    solution = solve(A, d, damping=damping, tolerance=tolerance)
    found = solution.x.gather().ravel()
    norm, size = np.linalg.norm(stacked), np.linalg.norm(found)
    residual = np.concatenate([values - F @ found, -damping * found])
    normal = np.linalg.norm(stacked.T @ residual)
    met = [
        np.linalg.norm(residual) <= tolerance * (np.linalg.norm(values) + 3 * norm * size),
        normal <= 3 * tolerance * norm * np.linalg.norm(residual),
    ]
    assert any(met)
    condition = 100.0
    assert np.linalg.norm(found - expected) <= 20 * condition**2 * tolerance * max(np.linalg.norm(expected), 1)
    assert solution.history[-1] == pytest.approx([np.linalg.norm(residual), normal], rel=1e-2, abs=1e-12)


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_the_iterations_are_scipys(comm: fm.Comm, damping: float) -> None:
    F = matrix(TALL, 10.0)
    values = np.random.default_rng(7).standard_normal(TALL[0])
    A = operator(comm, F)
    d = data(comm, A, values)
    expected = scipy.sparse.linalg.lsqr(F, values, damp=damping, atol=1e-10, btol=1e-10)
    for solve in (cgls, lsqr):
        solution = solve(A, d, damping=damping, tolerance=1e-10)
        assert abs(solution.iterations - expected[2]) <= 3
        np.testing.assert_allclose(solution.x.gather().ravel(), expected[0], rtol=1e-7, atol=1e-9)


@SOLVERS
def test_zero_data_and_data_outside_the_range(comm: fm.Comm, solve: Solver) -> None:
    """Data that are orthogonal to the range have the solution 0."""
    F = matrix(TALL)
    A = operator(comm, F)
    solution = solve(A, data(comm, A, np.zeros(TALL[0])))
    assert (solution.iterations, solution.converged, solution.x.norm()) == (0, True, 0.0)
    F[-4:] = 0.0
    values = np.zeros(TALL[0])
    values[-2] = 1.0
    B = operator(comm, F)
    solution = solve(B, data(comm, B, values))
    assert (solution.iterations, solution.converged, solution.x.norm()) == (0, True, 0.0)


def test_a_guess(comm: fm.Comm) -> None:
    F = matrix(TALL)
    A = operator(comm, F)
    d = data(comm, A, np.random.default_rng(7).standard_normal(TALL[0]))
    first = cgls(A, d, tolerance=1e-11, damping=0.3)
    again = cgls(A, d, first.x, tolerance=1e-8, damping=0.3)
    assert again.iterations <= 1
    assert (again.x - first.x).norm() <= 1e-8 * first.x.norm()


@SOLVERS
def test_a_tolerance_below_rounding_is_named(comm: fm.Comm, solve: Solver) -> None:
    A = operator(comm, matrix(TALL))
    d = data(comm, A, np.random.default_rng(7).standard_normal(TALL[0]))
    with pytest.raises(fm.ConvergenceError, match="tolerance 1.0e-18") as found:
        solve(A, d, tolerance=1e-18, max_iterations=300)
    assert found.value.solution.reason in ("stagnation", "max_iterations")
    assert found.value.solution.history[-1, 1] < 1e-9 * found.value.solution.history[0, 1]


@SOLVERS
@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"damping": -1.0}, fm.ArgumentError, "damping: expected 0 or a number of .* found -1.0"),
        ({"damping": np.inf}, fm.ArgumentError, "damping: .* found inf"),
        ({"damping": np.nan}, fm.ArgumentError, "damping: .* found nan"),
        ({"damping": 1e200}, fm.ArgumentError, "damping: .* found 1e.200"),
        ({"damping": True}, fm.ArgumentError, "damping: .* found True"),
        ({"damping": "0"}, fm.ArgumentError, "damping: .* found '0'"),
        ({"max_iterations": 3}, fm.ConvergenceError, "after 3 iterations; try more .* or more damping"),
    ],
)
def test_bad_arguments(comm: fm.Comm, solve: Solver, change: dict[str, Any], error: type[Exception], text: str) -> None:
    A = operator(comm, matrix(TALL))
    with pytest.raises(error, match=text):
        solve(A, data(comm, A, np.ones(TALL[0])), **change)


@SOLVERS
def test_nan_in_products_is_named(comm: fm.Comm, solve: Solver) -> None:
    A = operator(comm, matrix(TALL) * np.nan)
    with pytest.raises(fm.NonFiniteError, match=f"{solve.__name__}: expected a finite .*, found nan in iteration 0"):
        solve(A, data(comm, A, np.ones(TALL[0])))


@SOLVERS
def test_tiny_operators_are_refused(comm: fm.Comm, solve: Solver) -> None:
    """The square of the norm of A* r underflows."""
    A = operator(comm, matrix(TALL) * 1e-170)
    with pytest.raises(fm.ArgumentError, match=r"A\* .*: expected 0 or a norm of .* scale the problem"):
        solve(A, data(comm, A, np.random.default_rng(7).standard_normal(TALL[0])))


@SOLVERS
def test_products_that_overflow_are_named(comm: fm.Comm, solve: Solver) -> None:
    """The data see a small part of A first, whose norm is in range."""
    F = matrix(TALL)
    u, values, v = np.linalg.svd(F, full_matrices=False)
    A = operator(comm, (u * (values * np.where(np.arange(20) < 3, 1e160, 1.0))) @ v)
    with pytest.raises((fm.NonFiniteError, fm.ArgumentError, fm.ConvergenceError)):
        solve(A, data(comm, A, u[:, -1]))


@SOLVERS
def test_a_product_of_zero_after_an_adjoint_that_is_not(comm: fm.Comm, solve: Solver) -> None:
    class Half(Dense):
        def apply(self, x: fm.Vector, y: fm.Vector) -> None:
            y.init_vec_zeros()

    good = operator(comm, matrix(TALL))
    A = Half(comm, good.matrix, good.domain, good.range)
    with pytest.raises((fm.ArgumentError, fm.ConvergenceError)):
        solve(A, data(comm, A, np.ones(TALL[0])), max_iterations=50)


def test_an_adjoint_of_another_operator_does_not_pass(comm: fm.Comm) -> None:
    class Wrong(Dense):
        def apply_adjoint(self, y: fm.Vector, x: fm.Vector) -> None:
            super().apply_adjoint(y, x)
            x.scale(-1.0)

    good = operator(comm, matrix(TALL))
    A = Wrong(comm, good.matrix, good.domain, good.range)
    for solve in (cgls, lsqr):
        with pytest.raises((fm.ConvergenceError, fm.ArgumentError)):
            solve(A, data(comm, A, np.ones(TALL[0])), max_iterations=200)
