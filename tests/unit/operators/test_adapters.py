"""Operators in other libraries: products against dense matrices, and the solvers of each library."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.sparse.linalg
from mpi4py import MPI

import numba_fftmatvec as fm
from support.adapters import data, dense_problem, imported, needs, problem
from support.operators import built_leaves

A = dense_problem()
M, N = A.shape
SOLUTION = np.linalg.lstsq(A, data(), rcond=None)[0]
NORMAL = A.T @ A
CONDITION = np.linalg.cond(A)
PAGES = Path(__file__).resolve().parents[3] / "docs" / "howto" / "adapters"


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def comm(request: pytest.FixtureRequest) -> Iterator[fm.Comm]:
    with fm.Comm(MPI.COMM_SELF, backend=request.param) as made:
        yield made


@pytest.fixture(scope="module")
def operator(comm: fm.Comm) -> fm.LinearOperator:
    return problem(comm)


def bound(operator: fm.LinearOperator, x: Any) -> float:
    accuracy = operator.accuracy()
    assert accuracy is not None
    return 2 * accuracy.error * float(np.linalg.norm(x))


def check_products(operator: fm.LinearOperator, adapted: Any) -> None:
    """Compare products with (n,), (n, 1) and (n, k) arrays of float64, float32 and integers, and of other strides."""
    random = np.random.default_rng(2)
    x, y = random.standard_normal(N), random.standard_normal(M)
    X, Y = random.standard_normal((N, 19)), random.standard_normal((19, M)).T
    assert adapted.shape == (M, N)
    assert np.linalg.norm(adapted.matvec(x) - A @ x) <= bound(operator, x)
    assert np.linalg.norm(adapted.rmatvec(y) - A.T @ y) <= bound(operator, y)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*on 'column vectors'", FutureWarning)  # from SciPy 1.18 on
        assert adapted.matvec(x[:, None]).shape == (M, 1)
        assert adapted.rmatvec(y[:, None]).shape == (N, 1)
    assert adapted._matmat(x[:, None]).shape == (M, 1)
    assert adapted._rmatmat(y[:, None]).shape == (N, 1)
    assert np.linalg.norm(adapted.matmat(X) - A @ X) <= bound(operator, X)
    assert np.linalg.norm(adapted.rmatmat(Y) - A.T @ Y) <= bound(operator, Y)
    assert np.linalg.norm(adapted.matvec(np.arange(N)) - A @ np.arange(N)) <= bound(operator, np.arange(N))
    single = x.astype(np.float32)
    assert np.linalg.norm(adapted.matvec(single) - A @ single) <= bound(operator, single)
    assert np.linalg.norm(adapted.matvec(np.repeat(x, 2)[::2]) - A @ x) <= bound(operator, x)
    before = x.copy()
    first = adapted.matvec(x)
    kept = first.copy()
    adapted.matvec(2 * x)
    np.testing.assert_array_equal(x, before)  # an operand is not written to, and a result is not reused
    np.testing.assert_array_equal(first, kept)


def near(found: Any, expected: Any, tolerance: float) -> None:
    assert np.linalg.norm(np.asarray(found).reshape(np.shape(expected)) - expected) <= tolerance * np.linalg.norm(
        expected
    )


def run_page(library: str, comm: fm.Comm) -> None:
    """Run the examples of a library's page for a matrix F and its data."""
    F = built_leaves(comm)["F"]
    examples = re.findall(r"^```python\n(.*?)^```", (PAGES / f"{library}.md").read_text(), re.DOTALL | re.MULTILINE)
    assert examples
    exec("\n".join(examples), {"F": F, "fft": fm, "np": np, "data": np.ones(F.shape[0])})


def test_scipy_products(operator: fm.LinearOperator) -> None:
    adapted = operator.as_linear_operator()
    assert isinstance(adapted, scipy.sparse.linalg.LinearOperator)
    assert scipy.sparse.linalg.aslinearoperator(adapted) is adapted
    check_products(operator, adapted)
    check_products(operator, adapted.T.T)
    x = np.arange(N) / 7
    y = A @ x
    expression = adapted @ adapted.H + 2 * scipy.sparse.linalg.aslinearoperator(np.eye(M))
    near(expression @ y, A @ (A.T @ y) + 2 * y, 1e-12)
    with pytest.raises(fm.ArgumentTypeError, match="expected real numbers, found dtype complex128"):
        adapted.matvec(x * 1j)


def test_scipy_solvers(operator: fm.LinearOperator) -> None:
    adapted = operator.as_linear_operator(library="scipy")
    solvers = scipy.sparse.linalg
    near(solvers.lsqr(adapted, data(), atol=1e-14, btol=1e-14, conlim=0, iter_lim=1000)[0], SOLUTION, 1e-9)
    near(solvers.lsmr(adapted, data(), atol=1e-14, btol=1e-14, conlim=0, maxiter=1000)[0], SOLUTION, 1e-9)
    normal = (operator.T @ operator).as_linear_operator("scipy")
    for solver in (solvers.cg, solvers.minres, solvers.gmres):
        found, status = solver(normal, A.T @ data(), rtol=1e-13, maxiter=5000)
        assert status == 0
        near(found, SOLUTION, 1e-13 * CONDITION**2)
    found = solvers.eigsh(normal, k=4, return_eigenvectors=False, rng=1)
    np.testing.assert_allclose(np.sort(found), np.linalg.eigvalsh(NORMAL)[-4:], rtol=1e-10)
    values = solvers.svds(adapted, k=3, return_singular_vectors=False, rng=1)
    np.testing.assert_allclose(np.sort(values), np.linalg.svd(A, compute_uv=False)[2::-1], rtol=1e-10)
    values = solvers.svds(adapted, k=2, rng=1, solver="lobpcg", return_singular_vectors=False)
    np.testing.assert_allclose(np.sort(values), np.linalg.svd(A, compute_uv=False)[1::-1], rtol=1e-6)


def test_a_host_array_is_the_operand_itself_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with fm.Comm(MPI.COMM_SELF, backend="cpu") as comm:
        adapted = problem(comm).as_linear_operator()
        copies: list[Any] = []
        for name in ("scatter", "gather", "from_numpy", "to_numpy"):
            monkeypatch.setattr(fm.Vector, name, lambda *args: copies.append(args))
        adapted.rmatvec(adapted.matvec(np.ones(N)))
        assert copies == []


def test_the_operators_are_refused_at_once(comm: fm.Comm) -> None:
    """They have the names of other libraries' methods, whose calls would fail with other words."""
    o = built_leaves(comm)
    F = o["F"]
    for operator in (F, F + F, F.T, F.T @ F, o["I"]):
        for call in (
            lambda operator=operator: scipy.sparse.linalg.aslinearoperator(operator),
            lambda operator=operator: scipy.sparse.linalg.lsqr(operator, np.ones(operator.shape[0])),
            lambda operator=operator: scipy.sparse.linalg.svds(operator, k=2),
            lambda operator=operator: operator.rmatvec(np.ones(operator.shape[0])),
            lambda operator=operator: operator @ np.ones(operator.shape[1]),
            lambda operator=operator: operator.apply(np.ones(operator.shape[1]), np.ones(operator.shape[0])),
            lambda operator=operator: operator.apply_adjoint(np.ones(operator.shape[0]), np.ones(operator.shape[1])),
        ):
            with pytest.raises(fm.ArgumentTypeError, match="as_linear_operator"):
                call()


@pytest.mark.parametrize("method", ["matvec", "transpose_matvec", "matmat", "transpose_matmat"])
def test_products_of_a_matrix_with_arrays(comm: fm.Comm, method: str) -> None:
    F = built_leaves(comm)["F"]
    x = F.get_vec("input" if method in ("matvec", "matmat") else "output")
    x.init_vec_ones()
    call = getattr(F, method)
    with pytest.raises(fm.ArgumentTypeError, match="operand of F.*found ndarray; A.as_linear_operator"):
        call(x.gather(), x.gather())
    with pytest.raises(fm.ArgumentTypeError, match="result of F.*found ndarray; A.as_linear_operator"):
        call(x, x.gather())
    if "matmat" not in method:
        with pytest.raises(fm.ArgumentTypeError, match="operand of F.*found ndarray; A.as_linear_operator"):
            call(x.gather().ravel())
        with pytest.raises(fm.ArgumentTypeError, match="result of F.*: expected a Vector, found NoneType$"):
            call(x)


def test_unknown_and_missing_libraries(comm: fm.Comm, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = built_leaves(comm)["I"]
    with pytest.raises(fm.ArgumentError, match="library: expected one of scipy, cupy, .*, found 'matlab'"):
        identity.as_linear_operator("matlab")
    with monkeypatch.context() as patched:
        patched.setitem(fm.operators.adapters.PACKAGES, "absent", "numba-fftmatvec[absent]")
        with pytest.raises(fm.BackendError, match=r"absent: expected it to be installed \(pip install 'numba-fftmatv"):
            identity.as_linear_operator("absent")
    with pytest.raises(fm.ShapeError, match=r"array: expected shape \(42,\) or \(42, k\), found \(41,\)"):
        identity.as_linear_operator().products.whole(np.ones(41))


@pytest.mark.gpu
def test_cupy() -> None:
    import cupy
    from cupyx.scipy.sparse import linalg

    with fm.Comm(MPI.COMM_SELF, backend="cuda") as comm:
        operator = problem(comm)
        adapted = operator.as_linear_operator("cupy")
        random = np.random.default_rng(3)
        x, Y = random.standard_normal(N), random.standard_normal((M, 5))
        for stream in (cupy.cuda.Stream.null, cupy.cuda.Stream(non_blocking=True)):
            with stream:
                near(adapted.matvec(cupy.asarray(x)).get(), A @ x, 1e-12)
                near(adapted.matvec(cupy.asarray(x[:, None])).get(), (A @ x)[:, None], 1e-12)
                near(adapted.rmatmat(cupy.asarray(Y)).get(), A.T @ Y, 1e-12)
        normal = (operator.T @ operator).as_linear_operator("cupy")
        found, status = linalg.cg(normal, cupy.asarray(A.T @ data()), rtol=1e-13, maxiter=5000)
        assert status == 0
        near(found.get(), SOLUTION, 1e-13 * CONDITION**2)
        found = linalg.lsmr(adapted, cupy.asarray(data()), atol=1e-14, btol=1e-14, conlim=0, maxiter=1000)[0]
        near(found.get(), SOLUTION, 1e-9)
        values = linalg.eigsh(normal, k=4, return_eigenvectors=False)
        np.testing.assert_allclose(np.sort(values.get()), np.linalg.eigvalsh(NORMAL)[-4:], rtol=1e-10)


def test_cupy_needs_one_gpu() -> None:
    pytest.importorskip("cupyx")
    with (
        fm.Comm(MPI.COMM_SELF, backend="cpu") as comm,
        pytest.raises(fm.BackendError, match="cupy: expected the backend 'cuda' and one rank, found 'cpu' and 1 ranks"),
    ):
        problem(comm).as_linear_operator("cupy")


class TestPylops:
    """PyLops on one rank."""

    pytestmark: ClassVar = needs("pylops")

    def test_products(self, operator: fm.LinearOperator) -> None:
        pylops = imported("pylops")
        adapted = operator.as_linear_operator("pylops")
        assert isinstance(adapted, pylops.LinearOperator)
        assert (adapted.dims, adapted.dimsd) == (operator.domain.shape, operator.range.shape)
        check_products(operator, adapted)
        x = np.arange(float(N))
        assert (adapted @ x.reshape(adapted.dims)).shape == adapted.dimsd
        near((adapted.H @ adapted + 2 * pylops.Identity(N)) @ x, NORMAL @ x + 2 * x, 1e-12)
        pylops.utils.dottest(adapted, M, N, rtol=1e-12, raiseerror=True)

    def test_solvers(self, operator: fm.LinearOperator) -> None:
        pylops = imported("pylops")
        adapted = operator.as_linear_operator("pylops")
        near(pylops.cgls(adapted, data(), niter=150, tol=1e-22)[0], SOLUTION, 1e-8)
        near(pylops.lsqr(adapted, data(), niter=1000, atol=1e-14, btol=1e-14, conlim=0)[0], SOLUTION, 1e-8)
        near(pylops.cg(adapted.H @ adapted, A.T @ data(), niter=150, tol=1e-22)[0], SOLUTION, 1e-8)
        dense = pylops.MatrixMult(A)
        options: dict[str, Any] = {"niter": 30, "eps": 0.1, "alpha": 1 / np.linalg.norm(A, 2) ** 2}
        near(pylops.fista(adapted, data(), **options)[0], pylops.fista(dense, data(), **options)[0], 1e-10)
        regularised = pylops.optimization.leastsquares.regularized_inversion(
            adapted, data(), [pylops.FirstDerivative(N)], epsRs=[0.3], iter_lim=1000, atol=1e-14, btol=1e-14
        )[0]
        smooth = pylops.FirstDerivative(N).todense()
        near(regularised, np.linalg.solve(NORMAL + 0.09 * smooth.T @ smooth, A.T @ data()), 1e-7)

    def test_page(self, comm: fm.Comm) -> None:
        run_page("pylops", comm)

    def test_the_operators_are_refused(self, comm: fm.Comm) -> None:
        pylops = imported("pylops")
        F = built_leaves(comm)["F"]
        for call in (
            lambda: pylops.aslinearoperator(F) @ np.ones(F.shape[1]),
            lambda: pylops.cgls(F, np.ones(F.shape[0])),
            lambda: pylops.LinearOperator(F.T @ F) @ np.ones(F.shape[1]),
        ):
            with pytest.raises(fm.ArgumentTypeError, match="as_linear_operator"):
                call()


class TestCuqi:
    """CUQIpy on one rank."""

    pytestmark: ClassVar = needs("cuqi")

    def test_products(self, operator: fm.LinearOperator) -> None:
        cuqi = imported("cuqi")
        model = operator.as_linear_operator("cuqi")
        assert isinstance(model, cuqi.model.LinearModel)
        assert (model.range_dim, model.domain_dim) == (M, N)
        x, y = np.arange(float(N)), np.arange(float(M))
        assert np.linalg.norm(model.forward(x) - A @ x) <= bound(operator, x)
        assert np.linalg.norm(model.adjoint(y) - A.T @ y) <= bound(operator, y)
        near(model.T @ y, A.T @ y, 1e-13)
        near(model.get_matrix().toarray(), A, 1e-13)

    def test_geometries(self, operator: fm.LinearOperator) -> None:
        cuqi = imported("cuqi")
        shapes = {"domain_geometry": operator.domain.shape, "range_geometry": operator.range.shape}
        planes = {name: cuqi.geometry.Continuous2D(shape) for name, shape in shapes.items()}
        x, y = np.arange(float(N)), np.arange(float(M))
        for names in (["domain_geometry"], ["range_geometry"], list(planes)):
            given = {name: planes[name] for name in names}
            model = operator.as_linear_operator("cuqi", **given)
            assert all(getattr(model, name) is geometry for name, geometry in given.items())
            near(model.forward(x), A @ x, 1e-13)
            near(model.adjoint(y), A.T @ y, 1e-13)
            near(model.get_matrix().toarray(), A, 1e-13)

    def test_posterior(self, operator: fm.LinearOperator) -> None:
        cuqi = imported("cuqi")
        model = operator.as_linear_operator("cuqi")
        x = cuqi.distribution.Gaussian(np.zeros(N), 4.0)
        y = cuqi.distribution.Gaussian(model(x), 0.25)
        posterior = cuqi.distribution.JointDistribution(x, y)(y=data())
        expected = np.linalg.solve(NORMAL / 0.25 + np.eye(N) / 4.0, A.T @ data() / 0.25)
        assert np.linalg.norm(posterior.gradient(expected)) <= 1e-9 * np.linalg.norm(A.T @ data() / 0.25)
        sampler = cuqi.sampler.LinearRTO(posterior, maxit=60, tol=1e-8, initial_point=expected)
        np.random.seed(1)  # noqa: NPY002 - CUQIpy draws from NumPy's global generator
        samples = sampler.sample(16).get_samples().samples
        deviations = np.sqrt(np.diag(np.linalg.inv(NORMAL / 0.25 + np.eye(N) / 4.0)))
        assert np.abs((samples.mean(axis=1) - expected) / deviations).max() <= 5 / np.sqrt(16)

    def test_page(self, comm: fm.Comm) -> None:
        run_page("cuqi", comm)

    def test_the_operators_are_refused(self, comm: fm.Comm) -> None:
        cuqi = imported("cuqi")
        F = built_leaves(comm)["F"]
        with pytest.raises(fm.ArgumentTypeError, match="as_linear_operator"):
            cuqi.model.LinearModel(F) @ np.ones(F.shape[1])
