"""Conjugate gradients: theory's bound, references, and every way in which they can fail."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse.linalg
from numpy.typing import NDArray

import numba_fftmatvec as fm
from numba_fftmatvec.solvers import State, cg
from support.solvers import Dense, square, vector, with_eigenvalues

Array = NDArray[np.float64]
UNIT = 2.0**-53
SHAPE = (7, 6)
SIZE = 42


def spread(condition: float) -> Array:
    return with_eigenvalues(np.geomspace(1.0, condition, SIZE))


def rhs(comm: fm.Comm, scale: float = 1.0) -> fm.Vector:
    values = scale * np.random.default_rng(3).standard_normal(SHAPE)
    return vector(comm, comm.axis("col").layout(*SHAPE), values)


@pytest.mark.parametrize("condition", [10.0, 1e3, 1e5])
def test_the_error_falls_as_fast_as_chebyshevs_bound(comm: fm.Comm, condition: float) -> None:
    """The error in the norm of A is at most 2 q^k times the first, with q = (sqrt(cond) - 1) / (sqrt(cond) + 1).

    Rounding adds at most a few cond(A) u times the norm of x.
    """
    matrix, b = spread(condition), rhs(comm)
    exact = np.linalg.solve(matrix, b.gather().ravel())
    sizes: list[float] = []

    def record(iteration: int, state: State) -> None:
        assert state.x is not None
        error = state.x.gather().ravel() - exact
        sizes.append(math.sqrt(error @ matrix @ error))

    solution = cg(square(comm, matrix), b, tolerance=1e-10, callback=record)
    root = math.sqrt(condition)
    bounds = 2 * ((root - 1) / (root + 1)) ** np.arange(len(sizes)) * sizes[0]
    rounding = 10 * condition * UNIT * math.sqrt(exact @ matrix @ exact)
    assert (np.array(sizes) <= bounds + rounding).all()
    assert solution.iterations == len(sizes) - 1 == len(solution.history) - 1


def test_the_iterations_are_scipys(comm: fm.Comm) -> None:
    matrix, b = spread(50.0), rhs(comm)
    norms: list[float] = []
    values = b.gather().ravel()
    expected, info = scipy.sparse.linalg.cg(
        matrix, values, rtol=1e-10, atol=0.0, callback=lambda x: norms.append(np.linalg.norm(values - matrix @ x))
    )
    assert info == 0
    solution = cg(square(comm, matrix), b, tolerance=1e-10)
    assert abs(solution.iterations - len(norms)) <= 1
    np.testing.assert_allclose(solution.history[1:16], norms[:15], rtol=1e-6)  # later ones differ by rounding
    np.testing.assert_allclose(solution.x.gather().ravel(), expected, rtol=1e-8, atol=1e-11)


def test_a_preconditioner_saves_iterations(comm: fm.Comm) -> None:
    scales = np.geomspace(1, 100, SIZE)
    matrix = scales[:, None] * spread(10.0) * scales
    b, A = rhs(comm), square(comm, matrix)
    inverse = square(comm, np.diag(scales**-2.0))
    plain = cg(A, b, tolerance=1e-8)
    quick = cg(A, b, tolerance=1e-8, preconditioner=inverse)
    assert quick.iterations < plain.iterations / 3
    exact = np.linalg.solve(matrix, b.gather().ravel())
    error = np.linalg.norm(quick.x.gather().ravel() - exact) / np.linalg.norm(exact)
    assert error <= np.linalg.cond(matrix) * 1e-8


def test_the_rule_holds_for_the_true_residual(comm: fm.Comm) -> None:
    """For this condition number the recursive residual runs ahead of the true one."""
    matrix, b = spread(1e7), rhs(comm)
    tolerance = 1e-7
    solution = cg(square(comm, matrix), b, tolerance=tolerance, max_iterations=20_000)
    residual = np.linalg.norm(b.gather().ravel() - matrix @ solution.x.gather().ravel())
    limit = tolerance * b.norm()
    assert residual <= limit * (1 + 1e-6)
    assert solution.history[-1] == pytest.approx(residual, rel=1e-3)


def test_initial_guesses(comm: fm.Comm) -> None:
    matrix, b = spread(10.0), rhs(comm)
    A = square(comm, matrix)
    first = cg(A, b, tolerance=1e-10)
    again = cg(A, b, first.x, tolerance=1e-9)
    assert (again.iterations, again.converged) == (0, True)
    assert np.array_equal(again.x.gather(), first.x.gather())
    assert again.x is not first.x
    zero = vector(comm, b.layout, np.zeros(SHAPE))
    for guess in (None, first.x):
        solution = cg(A, zero, guess)
        assert (solution.iterations, solution.converged) == (0, True)
        assert not solution.x.gather().any()


@pytest.mark.parametrize("scale", [2.0**-330, 2.0**330])
def test_the_scale_of_the_data_does_not_matter(comm: fm.Comm, scale: float) -> None:
    """Powers of two do not round."""
    A = square(comm, spread(50.0))
    one, scaled = cg(A, rhs(comm)), cg(A, rhs(comm, scale))
    assert one.iterations == scaled.iterations
    np.testing.assert_array_equal(scaled.x.gather() / scale, one.x.gather())


@pytest.mark.parametrize("scale", [1e-130, 1e130])
def test_extreme_scales_are_refused(comm: fm.Comm, scale: float) -> None:
    with pytest.raises(fm.ArgumentError, match="right-hand side: expected 0 or a norm of .* scale the problem"):
        cg(square(comm, spread(10.0)), rhs(comm, scale))


def test_a_tolerance_below_rounding_is_named(comm: fm.Comm) -> None:
    with pytest.raises(
        fm.ConvergenceError, match="where rounding .* ends its progress; try a larger tolerance"
    ) as found:
        cg(square(comm, spread(1e3)), rhs(comm), tolerance=1e-18)
    assert found.value.solution.reason == "stagnation"
    assert found.value.solution.history[-1] < 1e-12 * found.value.solution.history[0]


def test_no_convergence_carries_the_solution(comm: fm.Comm) -> None:
    matrix, b = spread(1e4), rhs(comm)
    with pytest.raises(
        fm.ConvergenceError, match=r"expected relative residual with tolerance 1.0e-08, found .* after 5 it"
    ) as found:
        cg(square(comm, matrix), b, max_iterations=5)
    solution = found.value.solution
    assert (solution.iterations, solution.converged, solution.reason) == (5, False, "max_iterations")
    assert np.linalg.norm(b.gather().ravel() - matrix @ solution.x.gather().ravel()) == pytest.approx(
        solution.history[-1]
    )


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda a: -a, fm.NotPositiveDefiniteError, "<p, A p> = -.* in iteration 1; a regularisation"),
        (lambda a: a - 30 * np.eye(SIZE), fm.NotPositiveDefiniteError, "<p, A p> = -"),
        (lambda a: a + np.triu(a, 1) / 100, fm.NotSelfAdjointError, "cgls and lsqr take any operator"),
        (lambda a: np.zeros_like(a), fm.NotPositiveDefiniteError, "<p, A p> = 0"),
        (lambda a: a * np.nan, fm.NonFiniteError, "<p, A p>, found nan in iteration 1"),
    ],
    ids=["negative", "indefinite", "not self-adjoint", "zero", "NaN"],
)
def test_unfit_operators_are_named(comm: fm.Comm, change: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        cg(square(comm, change(spread(100.0))), rhs(comm))  # type: ignore[operator]


def test_asymmetry_within_the_operators_rounding_passes(comm: fm.Comm) -> None:
    """An operator in single precision may be as asymmetric as its rounding."""
    matrix = spread(100.0)
    noise = np.random.default_rng(1).standard_normal(matrix.shape) * 2.0**-24
    rough = square(comm, matrix * (1 + noise))
    assert cg(rough, rhs(comm), tolerance=1e-4).converged


def test_an_indefinite_preconditioner_is_named(comm: fm.Comm) -> None:
    A = square(comm, spread(10.0))
    with pytest.raises(fm.NotPositiveDefiniteError, match="positive definite preconditioner M, found <r, M r> = -"):
        cg(A, rhs(comm), preconditioner=-1.0 * A)


def test_a_nan_in_the_data_is_named(comm: fm.Comm) -> None:
    b = rhs(comm)
    b.array[2, 3] = np.inf
    with pytest.raises(fm.NonFiniteError, match="cg: right-hand side: expected finite values, found a norm of inf"):
        cg(square(comm, spread(10.0)), b)


def test_operands_that_do_not_fit(comm: fm.Comm) -> None:
    A, b = square(comm, spread(10.0)), rhs(comm)
    row = Dense(comm, spread(10.0), A.domain, comm.axis("row").layout(*SHAPE))
    data = vector(comm, row.range, b.gather())
    with pytest.raises(
        fm.ArgumentError, match="expected one from a space to itself, found one from 'col' .* cgls and lsqr"
    ):
        cg(row, data)
    with pytest.raises(fm.SpaceError, match="right-hand side: expected a 'col' vector"):
        cg(A, data)
    with pytest.raises(fm.ShapeError, match="initial guess: expected 7 blocks of 6, found 6 blocks of 7"):
        cg(A, b, vector(comm, comm.axis("col").layout(6, 7), b.gather()))
    with pytest.raises(fm.ArgumentTypeError, match="operator: expected a LinearOperator, found ndarray"):
        cg(spread(10.0), b)  # type: ignore[arg-type]
    with pytest.raises(fm.ArgumentTypeError, match="preconditioner: expected a LinearOperator, found function"):
        cg(A, b, preconditioner=spread)  # type: ignore[arg-type]
    with pytest.raises(fm.UninitializedError, match="right-hand side"):
        cg(A, fm.Vector.from_layout(comm, b.layout))
    with pytest.raises(fm.ShapeError, match="right-hand side: expected 7 blocks of 6, found 2 vectors"):
        cg(A, vector(comm, b.layout, np.ones((2, *SHAPE))))


@pytest.mark.parametrize(
    ("option", "error", "text"),
    [
        ({"tolernce": 1.0}, fm.ArgumentTypeError, "cg: expected options of tolerance, .* found 'tolernce'"),
        ({"tolerance": 0.0}, fm.ArgumentError, "tolerance: expected a positive number, found 0.0"),
        ({"tolerance": math.nan}, fm.ArgumentError, "tolerance: expected a positive number, found nan"),
        ({"max_iterations": -1}, fm.ArgumentError, "max_iterations: .* found -1"),
        ({"restart_every": 0}, fm.ShapeError, "restart_every: .* found 0"),
        ({"callback": 3}, fm.ArgumentTypeError, "callback: expected a callable, found 3"),
        ({"resume": True}, fm.ArgumentError, "resume: expected a restart_file"),
        ({"restart_file": 3}, fm.ArgumentTypeError, "path: expected a str"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_options_are_checked(comm: fm.Comm, option: dict[str, object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        cg(square(comm, spread(10.0)), rhs(comm), **option)


def test_callbacks(comm: fm.Comm) -> None:
    seen: list[tuple[int, float, float]] = []

    def callback(iteration: int, state: State) -> bool:
        assert state.x is not None
        seen.append((iteration, float(state.residuals[0]), state.ratio))
        return iteration == 3

    b = rhs(comm)
    solution = cg(square(comm, spread(1e3)), b, callback=callback, tolerance=1e-6)
    assert (solution.iterations, solution.reason, solution.converged) == (3, "callback", False)
    assert [iteration for iteration, *_ in seen] == [0, 1, 2, 3]
    np.testing.assert_array_equal([norm for _, norm, _ in seen], solution.history)
    np.testing.assert_allclose([ratio for *_, ratio in seen], solution.history / (1e-6 * b.norm()))


def test_an_error_of_a_callback_passes_through(comm: fm.Comm) -> None:
    def fail(iteration: int, state: State) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        cg(square(comm, spread(10.0)), rhs(comm), callback=fail)
