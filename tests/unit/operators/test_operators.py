"""Operators on the base alone: adjoints, products with vectors, and the dot test, which a wrong adjoint fails."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec.layout import VectorLayout

# It maps one block of 3 values to one of 2. The values are integers, so that every result is exact.
A = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]])


class Dense(fm.LinearOperator):
    """A matrix on one rank, between vectors of one block, with any matrix as its adjoint."""

    def __init__(self, comm: fm.Comm, matrix: np.ndarray, adjoint: np.ndarray) -> None:
        self.comm = comm
        self.matrix, self.adjoint = matrix, adjoint

    @property
    def domain(self) -> VectorLayout:
        return self.comm.axis("col").layout(1, self.matrix.shape[1])

    @property
    def range(self) -> VectorLayout:
        return self.comm.axis("row").layout(1, self.matrix.shape[0])

    def apply(self, x: fm.Vector, y: fm.Vector) -> None:
        y.scatter(x.gather() @ self.matrix.T)

    def apply_adjoint(self, y: fm.Vector, x: fm.Vector) -> None:
        x.scatter(y.gather() @ self.adjoint.T)


@pytest.fixture(scope="module")
def comm() -> Iterator[fm.Comm]:
    with fm.Comm(MPI.COMM_SELF, backend="cpu") as made:
        yield made


def vector(layout: VectorLayout, comm: fm.Comm, values: object) -> fm.Vector:
    made = fm.Vector.from_layout(comm, layout)
    made.scatter(np.asarray(values, dtype=float))
    return made


def test_products_with_an_operator_and_its_adjoint(comm: fm.Comm) -> None:
    operator = Dense(comm, A, A.T)
    assert (operator.shape, operator.T.shape, operator.dtype) == ((2, 3), (3, 2), np.float64)
    assert operator.T.T is operator
    assert (operator.T.domain, operator.T.range) == (operator.range, operator.domain)
    x, y = vector(operator.domain, comm, [[1, -1, 2]]), vector(operator.range, comm, [[3, 1]])
    np.testing.assert_array_equal((operator @ x).gather(), [[5, 13]])
    np.testing.assert_array_equal((operator.T @ y).gather(), [[7, 11, 16]])
    back = fm.Vector.from_layout(comm, operator.range)
    operator.T.apply_adjoint(x, back)
    np.testing.assert_array_equal(back.gather(), [[5, 13]])


def test_several_operands(comm: fm.Comm) -> None:
    operator = Dense(comm, A, A.T)
    X = fm.Vector(comm, 1, 3, "col", global_sizes=True, num_vecs=4)
    X.init_vec_consecutive()
    np.testing.assert_array_equal((operator @ X).gather()[:, 0], np.arange(12.0).reshape(4, 3) @ A.T)


def test_dot_test(comm: fm.Comm) -> None:
    assert fm.dot_test(Dense(comm, A, A.T)) <= 1e-15
    wrong = A.T.copy()
    wrong[0, 0] += 1e-12
    assert fm.dot_test(Dense(comm, A, wrong), tolerance=1e-10) <= 1e-12
    with pytest.raises(fm.VerificationError, match="expected <F x, y> = <x, F"):
        fm.dot_test(Dense(comm, A, wrong))
    with pytest.raises(fm.VerificationError):
        fm.dot_test(Dense(comm, A, A.T * np.nan))


def test_dot_test_of_given_vectors(comm: fm.Comm) -> None:
    """The wrong element of the adjoint meets a zero of the operand."""
    wrong = A.T.copy()
    wrong[0, 1] += 1
    operator = Dense(comm, A, wrong)
    y = vector(operator.range, comm, [[1, 0]])
    assert fm.dot_test(operator, y=y) <= 1e-15
    zero = vector(operator.domain, comm, [[0, 0, 0]])
    assert fm.dot_test(operator, zero, y) == 0.0


@pytest.mark.parametrize("code", ["ddddd", "dssdd", "ddidd", "ddhdd", "sssss"])
def test_dot_test_of_a_matrix_in_its_own_precision(comm: fm.Comm, code: str) -> None:
    config = fm.MatvecPrecisionConfig.from_code(code)
    matrix = fm.Matrix(comm, 5, 3, 7, global_sizes=True, p_config=config)
    matrix.init_mat_doubles()
    assert matrix.unit_roundoff == matrix.T.unit_roundoff == config.unit_roundoff
    assert fm.dot_test(matrix) <= 50 * config.unit_roundoff
    assert fm.dot_test(matrix.T) <= 50 * config.unit_roundoff


def test_layouts_of_another_grid_are_refused(comm: fm.Comm) -> None:
    layout = VectorLayout(fm.layout.Space.COL, 6, 2, 1, range(3))
    with pytest.raises(
        fm.ShapeError, match=r"expected this rank's share of the blocks, range\(0, 6\), found range\(0, 3\)"
    ):
        fm.Vector.from_layout(comm, layout)
