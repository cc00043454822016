"""The array library of each backend, against NumPy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import numba_fftmatvec as fm

BACKENDS = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
N = 7


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    with fm.Comm(backend=request.param) as comm, comm.backend.active():
        yield comm.backend


@pytest.fixture
def matrix() -> Any:
    root = np.random.default_rng(5).standard_normal((N, N))
    return root @ root.T + N * np.eye(N)


def on_device(backend: Any, values: Any) -> Any:
    return backend.arrays.numpy.asarray(values)


def test_cholesky_reads_the_lower_triangle(backend: Any, matrix: Any) -> None:
    lower = np.tril(matrix) + np.triu(np.full((N, N), 1e3), 1)
    factor = backend.download(backend.arrays.cholesky(on_device(backend, lower)))
    np.testing.assert_allclose(factor, np.linalg.cholesky(matrix), rtol=1e-13)
    assert (np.triu(factor, 1) == 0).all()
    assert factor.flags.c_contiguous


def test_a_matrix_that_is_not_positive_definite(backend: Any, matrix: Any) -> None:
    matrix[4, 4] = -1.0
    with pytest.raises(fm.NotPositiveDefiniteError, match=r"expected .*, found .* row") as caught:
        backend.arrays.cholesky(on_device(backend, matrix))
    assert caught.value.row == 4


def test_a_matrix_with_nan(backend: Any, matrix: Any) -> None:
    matrix[5, 2] = np.nan
    with pytest.raises(fm.NotPositiveDefiniteError, match="expected"):
        backend.arrays.cholesky(on_device(backend, matrix))


@pytest.mark.parametrize("transposed", [False, True])
def test_triangular_solves(backend: Any, matrix: Any, transposed: bool) -> None:
    factor, values = np.linalg.cholesky(matrix), np.arange(3.0 * N).reshape(N, 3)
    found = backend.arrays.solve_triangular(
        on_device(backend, factor), on_device(backend, values), transposed=transposed
    )
    expected = np.linalg.solve(factor.T if transposed else factor, values)
    np.testing.assert_allclose(backend.download(found), expected, rtol=1e-12)


def test_a_triangular_solve_from_the_right(backend: Any, matrix: Any) -> None:
    """The factor and the values are parts of wider arrays, which keep their other values."""
    factor, values = np.linalg.cholesky(matrix), np.arange(5.0 * (N + 3)).reshape(5, N + 3)
    wide = on_device(backend, np.hstack([np.full((N, 2), 7.0), factor, np.full((N, 1), 7.0)]))
    rows = on_device(backend, values.copy())
    others = [on_device(backend, np.ones((n, N))) for n in (3, 0, 4)]
    backend.arrays.solve_right(wide[:, 2:-1], rows[:, 1 : N + 1], *others)
    expected = values.copy()
    expected[:, 1 : N + 1] = np.linalg.solve(factor, values[:, 1 : N + 1].T).T
    np.testing.assert_allclose(backend.download(rows), expected, rtol=1e-12)
    for part in others:
        np.testing.assert_allclose(backend.download(part) @ factor.T, np.ones(part.shape), rtol=1e-12)


@pytest.mark.parametrize("cols", [0, 1, 5])
def test_squares_are_subtracted_from_the_lower_triangle(backend: Any, matrix: Any, cols: int) -> None:
    """The matrices are parts of wider arrays, which keep their other values."""
    rows = np.random.default_rng(6).standard_normal((N, cols + 2))
    wide = on_device(backend, np.hstack([np.full((N, 1), 7.0), matrix, np.full((N, 2), 7.0)]))
    backend.arrays.subtract_square(wide[:, 1:-2], on_device(backend, rows)[:, 1:-1])
    found = backend.download(wide)
    assert (found[:, [0, -2, -1]] == 7).all()
    expected = matrix - rows[:, 1:-1] @ rows[:, 1:-1].T
    np.testing.assert_allclose(np.tril(found[:, 1:-2]), np.tril(expected), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize(("size", "before", "steps"), [(1, 0, 5), (N, 3, 6), (100, 21, 4), (257, 1, 3)])
def test_a_forward_substitution(backend: Any, size: int, before: int, steps: int, columns: int) -> None:
    """A panel solves its steps from the solutions of earlier ones; again it gives the same bits."""
    random, first, end = np.random.default_rng(size), before * size, (before + steps) * size
    panel, inverses = random.standard_normal((end - first, end)), np.tril(random.random((steps, size, size)))
    given, start = random.standard_normal((end - first, columns)), random.standard_normal((end + size, columns))
    expected = start.copy()
    solutions = on_device(backend, start.copy())
    solve = backend.substitution(on_device(backend, panel), on_device(backend, inverses), solutions, before)
    for repetition in range(3):
        solutions[first:end] = np.nan
        for i in range(steps):
            rows, at = slice(i * size, (i + 1) * size), first + i * size
            solve(before + i, given[rows])
            if repetition:
                continue
            found, known = backend.download(solutions[: at + size]), expected[:at]
            expected[at : at + size] = inverses[i] @ (given[rows] - panel[rows, :at] @ known)
            terms = np.abs(inverses[i]) @ (np.abs(given[rows]) + np.abs(panel[rows, :at]) @ np.abs(known))
            error = np.abs(found[at:] - expected[at : at + size])
            assert (error <= 2 * (at + size + 8) * 2.0**-53 * terms).all()
            expected[at : at + size] = found[at:]  # the next steps' errors are their own
        np.testing.assert_array_equal(backend.download(solutions), expected)


@pytest.mark.parametrize("transposed", [*itertools.product([False, True], repeat=2)], ids=str)
@pytest.mark.parametrize(
    "shape", [(3, 4, 5), (3, 4, 1), (1, 4, 1), (1, 1, 1), (4, 1, 3), (3, 0, 2), (0, 2, 1), (2, 3, 0)], ids=str
)
def test_products_in_place(backend: Any, shape: tuple[int, int, int], transposed: tuple[bool, bool]) -> None:
    """Each matrix is a part of a wider array, whose other values stay."""
    rows, inner, cols = shape
    random = np.random.default_rng(9)
    sizes = (rows, inner), (inner, cols)
    operands = []
    for size, turned in zip(sizes, transposed, strict=True):
        wide = on_device(backend, random.standard_normal((size[::-1] if turned else size) + np.array([0, 3])))
        operands.append(wide[:, 1:-2].T if turned else wide[:, 1:-2])
    left, right = operands
    wide = on_device(backend, random.standard_normal((rows, cols + 2)))
    before, product = backend.download(wide), backend.download(left) @ backend.download(right)
    backend.arrays.add_product(wide[:, 1:-1], left, right)
    before[:, 1:-1] += product
    np.testing.assert_allclose(backend.download(wide), before, rtol=1e-13, atol=1e-13)
    backend.arrays.subtract_product(wide[:, 1:-1], left, right)
    before[:, 1:-1] -= product
    np.testing.assert_allclose(backend.download(wide), before, rtol=1e-13, atol=1e-13)
    wide[:, 1:-1] = np.nan
    backend.arrays.set_product(wide[:, 1:-1], left, right)
    before[:, 1:-1] = product
    np.testing.assert_allclose(backend.download(wide), before, rtol=1e-13, atol=1e-13)


VIEWS = {
    "every second column": lambda x: x[:, ::2],
    "every second row": lambda x: x[::2],
    "the columns backwards": lambda x: x[:, ::-1],
    "the rows backwards": lambda x: x[::-1].T,
    "a real part": lambda x: (x + 1j * x).real,
    "one row for all": lambda x: x[:1].repeat(4, axis=0) * 0 + x[:1],
    "single precision": lambda x: x.astype(np.float32),
}


@pytest.mark.parametrize("view", VIEWS)
def test_products_of_other_arrays(backend: Any, view: str) -> None:
    """A transform may leave its result in the real part of a complex array, and a user's prior in single precision."""
    whole = on_device(backend, np.random.default_rng(8).standard_normal((6, 6)).astype(np.float32).astype(np.float64))
    operand = VIEWS[view](whole)
    values = backend.download(operand).astype(np.float64)
    for left, right in ((operand, operand.T), (operand.T, operand), (operand, operand.T[:, :1])):
        target = on_device(backend, np.zeros((left.shape[0], right.shape[1])))
        backend.arrays.set_product(target, left, right)
        expected = backend.download(left).astype(np.float64) @ backend.download(right).astype(np.float64)
        np.testing.assert_allclose(backend.download(target), expected, rtol=1e-13, atol=1e-13 * np.abs(values).max())
    if backend.name == "cuda":
        with pytest.raises(ValueError, match="expected rows of adjacent float64 values, found"):
            backend.arrays.set_product(on_device(backend, np.zeros((6, 12)))[:, ::2], whole, whole)


def laplacian(n: int, shift: float) -> Any:
    """Return minus the second differences of n cells with reflecting edges, plus a multiple of the identity."""
    steps = scipy.sparse.diags_array([-1.0, 1.0], offsets=[0, 1], shape=(n - 1, n))
    return (steps.T @ steps + shift * scipy.sparse.eye_array(n)).tocsc()


@pytest.mark.parametrize("columns", [1, 3, 64, 150])
def test_sparse_solves(backend: Any, columns: int) -> None:
    """The numbers of columns are less than a panel of the GPU's solver, a whole panel, and two and a part."""
    matrix = laplacian(N, 0.5)
    values = np.random.default_rng(1).standard_normal((N, columns))
    solver = backend.arrays.sparse_solver(matrix)
    for order in "CF":
        given = on_device(backend, np.array(values, order=order))
        np.testing.assert_allclose(
            backend.download(solver(given)), np.linalg.solve(matrix.toarray(), values), rtol=1e-12, atol=1e-14
        )
        np.testing.assert_array_equal(backend.download(given), values)
    product = backend.arrays.sparse_matrix(matrix) @ on_device(backend, values)
    np.testing.assert_allclose(backend.download(product), matrix.toarray() @ values, rtol=1e-14, atol=1e-14)


def test_sparse_factors(backend: Any) -> None:
    """The matrix is a grid of two dimensions with an order that the factorisation changes."""
    line = laplacian(N, 0.1).toarray()
    dense = np.kron(line, np.eye(N)) + np.kron(np.eye(N), line @ line)
    solver = backend.arrays.sparse_solver(scipy.sparse.coo_array(dense))
    identity = on_device(backend, np.eye(N * N))
    factor = backend.download(solver.factor @ identity)
    np.testing.assert_allclose(factor @ factor.T, dense, atol=1e-13 * np.abs(dense).max())
    np.testing.assert_array_equal(backend.download(solver.adjoint_factor @ identity), factor.T)
    assert solver.log_determinant == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-13)


@pytest.mark.parametrize(
    ("matrix", "row"),
    [
        (scipy.sparse.csc_array(np.diag([1.0, 0.0, 2.0])), None),
        (scipy.sparse.csc_array(np.diag([1.0, 3.0, -2.0])), 2),
        (scipy.sparse.csc_array(np.array([[0.0, 1.0], [1.0, 0.0]])), 0),
        (scipy.sparse.csc_array(np.array([[1.0, 2.0], [2.0, 1.0]])), None),
        (laplacian(50, 0.0) * 0.3, None),
        (laplacian(50, -0.01), None),
    ],
    ids=["singular", "negative", "no diagonal", "indefinite", "constants have no precision", "slightly indefinite"],
)
def test_a_sparse_matrix_that_is_not_positive_definite(backend: Any, matrix: Any, row: int | None) -> None:
    with pytest.raises(
        fm.NotPositiveDefiniteError, match="sparse matrix: expected a positive definite one, found"
    ) as caught:
        backend.arrays.sparse_solver(matrix)
    assert row in (None, caught.value.row)
