"""Mixed precision: products of a matrix in low precision, and the accuracy of double."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import numba_fftmatvec as fm
from numba_fftmatvec.solvers import Solution, cg, refine
from support.solvers import ND, NM, NT, first_column, square, toeplitz, vector, with_eigenvalues

DAMPING = 0.3


class Counted(fm.LinearOperator):
    """An operator that counts its products."""

    def __init__(self, operator: fm.LinearOperator) -> None:
        self.comm, self.operator, self.count = operator.comm, operator, 0

    @property
    def domain(self) -> fm.layout.VectorLayout:
        return self.operator.domain

    range = domain

    def apply(self, x: fm.Vector, y: fm.Vector) -> None:
        self.count += 1
        self.operator.apply(x, y)

    apply_adjoint = apply


def last(call: Callable[[], Solution]) -> Solution:
    """Return the solution of a call, which may stop before the tolerance."""
    try:
        return call()
    except fm.ConvergenceError as error:
        found: Solution = error.solution
        return found


@pytest.mark.parametrize("code", ["dssdd", "sssss", "ddidd", "ddhdd"])
def test_cheap_products_give_the_answer_of_double(comm: fm.Comm, code: str) -> None:
    F = fm.Matrix(comm, NM, ND, NT, global_sizes=True)
    F.init_mat_from_array(first_column())
    cheap = F.with_precision(fm.MatvecPrecisionConfig.from_code(code))
    identity = DAMPING**2 * fm.Identity(comm, F.domain)
    A, fast = Counted(F.T @ F + identity), cheap.T @ cheap + identity
    dense = toeplitz(first_column())
    normal = dense.T @ dense + DAMPING**2 * np.eye(NM * NT)
    b = vector(comm, F.domain, np.random.default_rng(3).standard_normal((NM, NT)))
    exact = np.linalg.solve(normal, b.gather().ravel())
    tolerance = 1e-13
    solution = refine(fast, A, b, tolerance=tolerance)
    error = np.linalg.norm(solution.x.gather().ravel() - exact) / np.linalg.norm(exact)
    assert error <= 3 * np.linalg.cond(normal) * tolerance
    assert 8 <= A.count <= 0.5 * solution.iterations  # one product for each digit or more
    rough = last(lambda: cg(fast, b, tolerance=tolerance, max_iterations=500))
    assert np.linalg.norm(rough.x.gather().ravel() - exact) > 100 * error * np.linalg.norm(exact)


def test_exact_products_cost_no_iterations(comm: fm.Comm) -> None:
    """With one operator for both, the iterations are those of CG: a cycle's end keeps the Krylov space."""
    matrix = with_eigenvalues(np.geomspace(1, 1e3, 42))
    A = square(comm, matrix)
    b = vector(comm, A.domain, np.random.default_rng(3).standard_normal((7, 6)))
    plain, refined = cg(A, b, tolerance=1e-10), refine(A, A, b, tolerance=1e-10)
    assert abs(refined.iterations - plain.iterations) <= 0.1 * plain.iterations


def test_operators_that_differ_too_much_are_named(comm: fm.Comm) -> None:
    matrix = with_eigenvalues(np.geomspace(1, 1e3, 42))
    A = square(comm, matrix)
    rough = square(comm, matrix + 20 * np.eye(42))
    b = vector(comm, A.domain, np.random.default_rng(3).standard_normal((7, 6)))
    with pytest.raises(fm.ConvergenceError, match="refine: .*; try a larger tolerance, products of a higher precision"):
        refine(rough, A, b, tolerance=1e-10)


def test_bad_arguments(comm: fm.Comm) -> None:
    matrix = with_eigenvalues(np.geomspace(1, 1e3, 42))
    A = square(comm, matrix)
    b = vector(comm, A.domain, np.ones((7, 6)))
    other = square(comm, matrix[:36, :36], 6)
    with pytest.raises(fm.ShapeError, match="right-hand side of the exact operator: expected 6 blocks of 6"):
        refine(A, other, b)
    with pytest.raises(fm.ArgumentTypeError, match="exact operator: expected a LinearOperator, found ndarray"):
        refine(A, matrix, b)  # type: ignore[arg-type]
    for reduction in (0.0, 1.0, -3):
        with pytest.raises(fm.ArgumentError, match="reduction: expected a number between 0 and 1"):
            refine(A, A, b, reduction=reduction)
    with pytest.raises(fm.NotPositiveDefiniteError, match="refine: expected a positive definite operator"):
        refine(-1.0 * A, A, b)
