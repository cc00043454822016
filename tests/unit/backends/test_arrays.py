"""The array library of each backend, against NumPy."""

from __future__ import annotations

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
    if backend.name == "cpu":
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


def test_sparse_solves(backend: Any) -> None:
    laplacian = scipy.sparse.diags_array([-1.0, 2.5, -1.0], offsets=[-1, 0, 1], shape=(N, N)).tocsc()
    values = np.arange(3.0 * N).reshape(N, 3)
    found = backend.arrays.sparse_solver(laplacian)(on_device(backend, values))
    np.testing.assert_allclose(backend.download(found), np.linalg.solve(laplacian.toarray(), values), rtol=1e-12)
    product = backend.arrays.sparse_matrix(laplacian) @ on_device(backend, values)
    np.testing.assert_allclose(backend.download(product), laplacian.toarray() @ values, rtol=1e-14)


def test_a_singular_sparse_matrix(backend: Any) -> None:
    with pytest.raises(fm.NotPositiveDefiniteError, match="found"):
        backend.arrays.sparse_solver(scipy.sparse.csc_array(np.diag([1.0, 0.0, 2.0])))
