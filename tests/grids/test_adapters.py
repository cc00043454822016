"""Operators in SciPy, PyLops-MPI and PETSc on process grids: products and solvers, against dense matrices."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.sparse.linalg
from mpi4py import MPI

import numba_fftmatvec as fm
from support.adapters import data, dense_problem, imported, needs, problem
from support.harness import RanksError, run_ranks
from support.suites import agreed

GRIDS = [(1, 2), (2, 2)]
PLACES = [*((grid, "cpu") for grid in GRIDS), pytest.param(((1, 1), "cuda"), marks=pytest.mark.gpu)]
A = dense_problem()
M, N = A.shape
SOLUTION = np.linalg.lstsq(A, data(), rcond=None)[0]
STEP = {"niter": 30, "eps": 0.1, "alpha": 1 / float(np.linalg.norm(A, 2)) ** 2}


def on_scipy(operator: fm.LinearOperator) -> dict[str, Any]:
    adapted = operator.as_linear_operator("scipy")
    columns = np.random.default_rng(5).standard_normal((N, 3))
    rank = operator.comm.world_rank
    found = {
        "products": adapted.matmat(columns),
        "adjoints": adapted.rmatmat(A @ columns),
        "lsqr": scipy.sparse.linalg.lsqr(adapted, data(), atol=1e-14, btol=1e-14, conlim=0, iter_lim=1000)[0],
        "eigsh": scipy.sparse.linalg.eigsh(adapted.H @ adapted, k=2, return_eigenvectors=False, rng=1),
    }
    try:
        adapted.matvec(np.full(N, float(rank)))
        found["other values"] = "no error"
    except fm.AgreementError as error:
        found["other values"] = str(error)
    return found


def on_pylops_mpi(operator: fm.LinearOperator) -> dict[str, Any]:
    pylops_mpi = imported("pylops_mpi")
    adapted = operator.as_linear_operator("pylops_mpi")
    d, x = fm.Vector.from_layout(operator.comm, operator.range), fm.Vector.from_layout(operator.comm, operator.domain)
    d.scatter(data())
    x.init_vec_doubles()
    y, model = adapted.distributed(d), adapted.distributed(x)
    zero = model.zeros_like()
    normal = adapted.H @ adapted
    found = {
        "products": adapted.matvec(model).asarray() - A @ x.gather().ravel(),
        "vector": adapted.vector(adapted.rmatvec(y)).gather(),
        "data": adapted.vector(adapted.matvec(model), "row").gather(),
        "cg": pylops_mpi.cg(normal, adapted.rmatvec(y), zero.copy(), niter=150, tol=1e-22)[0].asarray(),
        "cgls": pylops_mpi.cgls(adapted, y, zero.copy(), niter=150, tol=1e-22)[0].asarray(),
        "ista": pylops_mpi.ista(adapted, y, zero.copy(), **STEP)[0].asarray(),
        "fista": pylops_mpi.fista(adapted, y, zero.copy(), **STEP)[0].asarray(),
        "dot test": pylops_mpi.utils.dottest(adapted, model, y, M, N, rtol=1e-12, raiseerror=True),
    }
    try:
        adapted.matvec(
            pylops_mpi.DistributedArray(N, operator.comm.global_comm, partition=pylops_mpi.Partition.BROADCAST)
        )
        found["error"] = "no error"
    except fm.ShapeError as error:
        found["error"] = str(error)
    return found


def on_petsc(operator: fm.LinearOperator) -> dict[str, Any]:
    PETSc = imported("petsc")
    matrix = operator.as_linear_operator("petsc")
    x, y = matrix.createVecs()
    values = fm.Vector.from_layout(operator.comm, operator.domain)
    values.init_vec_doubles()
    right = fm.Vector.from_layout(operator.comm, operator.range)
    right.scatter(data())
    for vector, source in ((x, values), (y, right)):
        local = source.to_numpy()
        vector.array[:] = 0.0 if local is None else local.ravel()
    product, adjoint, solution = y.duplicate(), x.duplicate(), x.duplicate()
    matrix.mult(x, product)
    matrix.multTranspose(y, adjoint)
    solver = PETSc.KSP().create(comm=operator.comm.global_comm)
    solver.setOperators(matrix)
    solver.setType("lsqr")
    solver.getPC().setType("none")
    solver.setTolerances(rtol=1e-14, atol=1e-14, max_it=2000)
    solver.solve(y, solution)
    gather = operator.comm.global_comm.allgather
    empty = fm.Matrix(operator.comm, 4, 4, 2, global_sizes=True).as_linear_operator("petsc")
    cause: object = None
    try:
        empty.mult(*empty.createVecs())
    except PETSc.Error as error:
        cause = error.__cause__
    return {
        "cause": type(cause).__name__,
        "operand": values.gather().ravel(),
        "sizes": matrix.getSizes()[0][1] == M and matrix.getSizes()[1][1] == N,
        "products": np.concatenate(gather(product.array.copy())),
        "adjoints": np.concatenate(gather(adjoint.array.copy())),
        "lsqr": np.concatenate(gather(solution.array.copy())),
    }


RUNS: dict[str, Callable[[fm.LinearOperator], dict[str, Any]]] = {
    "scipy": on_scipy,
    "pylops_mpi": on_pylops_mpi,
    "petsc": on_petsc,
}


def on_grid(setting: tuple[tuple[int, int], str, tuple[str, ...]]) -> dict[str, dict[str, Any]]:
    grid, backend, libraries = setting
    with fm.Comm(MPI.COMM_WORLD, *grid, backend=backend, collectives="mpi") as comm:
        return {library: RUNS[library](problem(comm)) for library in libraries}


@functools.cache
def ranks(grid: tuple[int, int], backend: str) -> list[dict[str, Any]] | RanksError:
    present = tuple(library for library in RUNS if library == "scipy" or imported(library) is not None)
    try:
        return run_ranks(grid[0] * grid[1], "grids.test_adapters:on_grid", (grid, backend, present))
    except RanksError as error:
        return error


@pytest.fixture(params=PLACES, ids=lambda place: f"{place[0][0]}x{place[0][1]}-{place[1]}")
def results(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    found = ranks(*request.param)
    if isinstance(found, RanksError):
        pytest.fail(str(found), pytrace=False)
    return found


def same(results: list[dict[str, Any]], library: str) -> dict[str, Any]:
    found = [rank[library] for rank in results]
    return {name: agreed([rank[name] for rank in found]) for name in found[0]}


def near(found: Any, expected: Any, tolerance: float) -> None:
    assert np.linalg.norm(np.reshape(found, np.shape(expected)) - expected) <= tolerance * np.linalg.norm(expected)


pytestmark = pytest.mark.mpi


def test_scipy(results: list[dict[str, Any]]) -> None:
    found = same(results, "scipy")
    columns = np.random.default_rng(5).standard_normal((N, 3))
    near(found["products"], A @ columns, 1e-13)
    near(found["adjoints"], A.T @ A @ columns, 1e-13)
    near(found["lsqr"], SOLUTION, 1e-9)
    np.testing.assert_allclose(np.sort(found["eigsh"]), np.linalg.eigvalsh(A.T @ A)[-2:], rtol=1e-10)
    several = len(results) > 1
    assert ("expected the same call and arguments on every rank" in found["other values"]) == several


class TestPylopsMpi:
    pytestmark: ClassVar = [pytest.mark.mpi, *needs("pylops_mpi")]

    def test_products_and_solvers(self, results: list[dict[str, Any]]) -> None:
        found = same(results, "pylops_mpi")
        assert np.abs(found["products"]).max() <= 1e-12
        near(found["vector"].ravel(), A.T @ data(), 1e-13)
        assert found["data"].shape == (M // 6, 6)
        assert found["dot test"]
        near(found["cg"], SOLUTION, 1e-8)
        near(found["cgls"], SOLUTION, 1e-8)
        assert "expected Partition.SCATTER with local_shapes" in found["error"]

    @pytest.mark.skipif(imported("pylops") is None, reason="pylops is not installed")
    @pytest.mark.parametrize("solver", ["ista", "fista"])
    def test_sparse_solvers(self, results: list[dict[str, Any]], solver: str) -> None:
        pylops = imported("pylops")
        dense = getattr(pylops, solver)(pylops.MatrixMult(A), data(), **STEP)[0]
        near(same(results, "pylops_mpi")[solver], dense, 1e-10)


class TestPetsc:
    pytestmark: ClassVar = [pytest.mark.mpi, *needs("petsc")]

    def test_products_and_solver(self, results: list[dict[str, Any]]) -> None:
        found = same(results, "petsc")
        assert found["sizes"]
        assert found["cause"] == "UninitializedError"
        near(found["products"], A @ found["operand"], 1e-13)
        near(found["adjoints"], A.T @ data(), 1e-13)
        near(found["lsqr"], SOLUTION, 1e-8)
