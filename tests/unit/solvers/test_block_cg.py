"""Block CG: dependent and zero right-hand sides, exact termination, fewer iterations than single solves."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import numba_fftmatvec as fm
from numba_fftmatvec.solvers import Solution, block_cg, cg
from support.solvers import square, vector, with_eigenvalues

Array = NDArray[np.float64]
SHAPE, SIZE = (20, 4), 80
CONDITION = 1e4
MATRIX = with_eigenvalues(np.geomspace(1.0, CONDITION, SIZE))
TOLERANCE = 1e-10


def solve(comm: fm.Comm, values: Array, matrix: Array = MATRIX, **options: object) -> Solution:
    A = square(comm, matrix, SHAPE[0])
    B = vector(comm, A.domain, values.reshape(-1, *SHAPE))
    return block_cg(A, B, **{"tolerance": TOLERANCE, **options})  # type: ignore[arg-type]


def check(solution: Solution, values: Array, matrix: Array = MATRIX) -> None:
    """Each residual satisfies the rule, up to the rounding of a dense product."""
    found = solution.x.gather().reshape(len(values), -1)
    norms = np.linalg.norm(values, axis=1)
    assert (np.linalg.norm(values - found @ matrix, axis=1) <= 1.01 * TOLERANCE * norms).all()
    assert solution.converged
    assert solution.history.shape == (solution.iterations + 1, len(values))
    np.testing.assert_allclose(solution.history[0], norms)


def independent(count: int = 6) -> Array:
    return np.random.default_rng(2).standard_normal((count, SIZE))


def test_fewer_iterations_than_single_solves(comm: fm.Comm) -> None:
    values = independent()
    solution = solve(comm, values)
    check(solution, values)
    A = square(comm, MATRIX, SHAPE[0])
    single = cg(A, vector(comm, A.domain, values[0]), tolerance=TOLERANCE).iterations
    assert solution.iterations < single / 3


@pytest.mark.parametrize(
    "change",
    [
        lambda b: np.vstack([b, b[:1] + b[1:2]]),
        lambda b: np.vstack([b, b]),
        lambda b: np.vstack([b, 0 * b[:2]]),
        lambda b: np.vstack([b, b[:1] * (1 + 1e-15), b[1:2] + 1e-11 * b[2:3]]),
        lambda b: b * np.geomspace(1, 1e-60, len(b))[:, None],
        lambda b: np.vstack([b[:1]] * 4),
    ],
    ids=["sum", "twice", "zeros", "nearly", "scales", "one direction"],
)
def test_dependent_right_hand_sides(comm: fm.Comm, change: object) -> None:
    values = change(independent())  # type: ignore[operator]
    check(solve(comm, values), values)


def test_as_many_right_hand_sides_as_unknowns(comm: fm.Comm) -> None:
    """The first block of directions spans the whole space."""
    values = np.random.default_rng(3).standard_normal((SIZE, SIZE))
    solution = solve(comm, values)
    check(solution, values)
    assert solution.iterations <= 3


def test_few_eigenvalues(comm: fm.Comm) -> None:
    """The Krylov space is exhausted after three iterations."""
    matrix = with_eigenvalues(np.repeat([1.0, 7.0, 100.0, 3.0], SIZE // 4))
    values = independent(3)
    solution = solve(comm, values, matrix)
    check(solution, values, matrix)
    assert solution.iterations <= 5


def test_a_right_hand_side_alone(comm: fm.Comm) -> None:
    values = independent(1)
    A = square(comm, MATRIX, SHAPE[0])
    b = vector(comm, A.domain, values)
    one = cg(A, b, tolerance=1e-6, max_iterations=3000)
    solution = block_cg(A, b, tolerance=1e-6, max_iterations=3000)
    assert abs(one.iterations - solution.iterations) <= 0.05 * one.iterations
    assert solution.x.shape == b.shape


def test_a_preconditioner(comm: fm.Comm) -> None:
    scales = np.geomspace(1, 30, SIZE)
    matrix = scales[:, None] * with_eigenvalues(np.geomspace(1, 10, SIZE)) * scales
    values = np.vstack([independent(3), np.zeros((1, SIZE))])
    inverse = square(comm, np.diag(scales**-2.0), SHAPE[0])
    plain = solve(comm, values, matrix)
    quick = solve(comm, values, matrix, preconditioner=inverse)
    check(quick, values, matrix)
    assert quick.iterations < plain.iterations / 1.5


def test_only_zeros(comm: fm.Comm) -> None:
    solution = solve(comm, np.zeros((3, SIZE)))
    assert (solution.iterations, solution.converged, solution.x.norm()) == (0, True, 0.0)


@pytest.mark.parametrize(
    ("matrix", "error", "text"),
    [
        (-MATRIX, fm.NotPositiveDefiniteError, "P. A P with the eigenvalue -.* in iteration 1; a regularisation"),
        (MATRIX - 50 * np.eye(SIZE), fm.NotPositiveDefiniteError, "P. A P with the eigenvalue -"),
        (MATRIX + np.triu(MATRIX, 1) / 100, fm.NotSelfAdjointError, "P. A P and its transpose that differ by"),
        (MATRIX * np.nan, fm.NonFiniteError, "P. A P, found nan in iteration 1"),
    ],
    ids=["negative", "indefinite", "not self-adjoint", "NaN"],
)
def test_unfit_operators_are_named(comm: fm.Comm, matrix: Array, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        solve(comm, independent(), matrix)


def test_bad_right_hand_sides_and_preconditioners(comm: fm.Comm) -> None:
    values = independent()
    values[4, 7] = np.nan
    with pytest.raises(fm.NonFiniteError, match="block_cg: right-hand side 4: expected finite values"):
        solve(comm, values)
    A = square(comm, MATRIX, SHAPE[0])
    other = vector(comm, comm.axis("col").layout(4, 20), independent().reshape(-1, 4, 20))
    with pytest.raises(
        fm.ShapeError, match="right-hand sides: expected 6 vectors of 20 blocks of 4, found 6 vectors of 4"
    ):
        block_cg(A, other)
    with pytest.raises(fm.NotPositiveDefiniteError, match="positive definite preconditioner M, found M R = 0"):
        solve(comm, independent(), preconditioner=square(comm, np.zeros((SIZE, SIZE)), SHAPE[0]))


def test_a_tolerance_below_rounding_is_named(comm: fm.Comm) -> None:
    with pytest.raises(fm.ConvergenceError, match="rounding in the operator's products"):
        solve(comm, independent(), tolerance=1e-18)
