"""PyTorch: tensors that share a vector's memory, and differentiable products, against NumPy and dense references."""

from __future__ import annotations

import doctest
import gc
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec import errors
from support import reference
from support.harness import clean_environment
from support.tasks import build, vector
from support.tensors import (
    BACKENDS,
    NEEDS_TORCH,
    PRODUCTS,
    F,
    G,
    Nd,
    Nm,
    Nt,
    X,
    apply,
    bridge,
    check,
    device,
    host,
    source,
    tensor,
    torch,
)

pytestmark = NEEDS_TORCH


@pytest.fixture(scope="module", params=BACKENDS)
def comm(request: pytest.FixtureRequest) -> Iterator[Any]:
    with fm.Comm(MPI.COMM_SELF, backend=request.param) as made:
        yield made


@pytest.fixture(scope="module")
def matrix(comm: Any) -> Any:
    return build(comm, F, G)


@pytest.fixture
def x(matrix: Any) -> Any:
    return vector(matrix, "col", X["col"])


class TestToTorch:
    def test_values(self, comm: Any, x: Any) -> None:
        found = x.to_torch()
        assert (found.dtype, tuple(found.shape), found.device) == (torch.float64, (Nm, Nt), device(comm))
        assert np.array_equal(host(found), X["col"])
        assert torch.equal(found, x.to_torch(dtype=torch.float64))

    def test_writes_through(self, x: Any) -> None:
        found = x.to_torch()
        found[2, 3] = 42.0
        assert x.to_numpy()[2, 3] == 42.0
        x.init_vec_consecutive()
        assert np.array_equal(host(found), np.arange(Nm * Nt).reshape(Nm, Nt))

    def test_keeps_memory(self, comm: Any, matrix: Any) -> None:
        made = vector(matrix, "col", X["col"])
        found = made.to_torch()
        made.close()
        del made
        gc.collect()
        others = [vector(matrix, "col", np.zeros((Nm, Nt))) for _ in range(8)]
        assert np.array_equal(host(found), X["col"])
        assert len(others) == 8

    @pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
    def test_casts(self, comm: Any, x: Any, name: str) -> None:
        dtype = getattr(torch, name)
        found = x.to_torch(dtype)
        assert found.dtype == dtype
        assert torch.equal(found, tensor(comm, X["col"]).to(dtype))
        x.init_vec_zeros()  # it was copied
        assert found.abs().sum() > 0

    @pytest.mark.parametrize("dtype", ["int64", "complex128", "bool"])
    def test_other_kinds(self, x: Any, dtype: str) -> None:
        with pytest.raises(errors.ArgumentTypeError, match=f"floating torch.dtype, found torch.{dtype}"):
            x.to_torch(getattr(torch, dtype))

    def test_dtype_of_numpy(self, x: Any) -> None:
        with pytest.raises(errors.ArgumentTypeError, match="float32"):
            x.to_torch(np.float32)

    def test_without_values(self, matrix: Any) -> None:
        with pytest.raises(errors.UninitializedError, match="to_torch"):
            matrix.get_vec("input").to_torch()

    def test_dlpack(self, x: Any) -> None:
        found = torch.from_dlpack(x)
        x.init_vec_ones()
        assert np.array_equal(host(found), np.ones((Nm, Nt)))


class TestFromTorch:
    @pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16"])
    @pytest.mark.parametrize("shape", [(Nm, Nt), (Nm * Nt,), (2, Nm, 1, Nt // 2)], ids=str)
    def test_values(self, comm: Any, matrix: Any, name: str, shape: tuple[int, ...]) -> None:
        given = tensor(comm, X["col"]).to(getattr(torch, name)).reshape(shape)
        expected = host(given.double()).reshape(Nm, Nt).copy()
        made = matrix.get_vec("input")
        made.from_torch(given)
        given.zero_()  # it was copied
        assert np.array_equal(made.to_numpy(), expected)

    def test_strided(self, comm: Any, matrix: Any) -> None:
        given = tensor(comm, np.arange(4.0 * Nm * Nt).reshape(2 * Nt, 2 * Nm))[::2, 1::2]
        made = matrix.get_vec("input")
        made.from_torch(given.T)
        assert np.array_equal(made.to_numpy(), host(given).T)
        made.from_torch(given)
        assert np.array_equal(made.to_numpy(), host(given).reshape(Nm, Nt))

    def test_requiring_gradients(self, comm: Any, matrix: Any) -> None:
        made = matrix.get_vec("input")
        made.from_torch(tensor(comm, X["col"], requires_grad=True))
        assert np.array_equal(made.to_numpy(), X["col"])
        assert not made.to_torch().requires_grad

    @pytest.mark.parametrize(
        ("make", "error", "says"),
        [
            (lambda where: X["col"], "ArgumentTypeError", "ndarray"),
            (lambda where: None, "ArgumentTypeError", "NoneType"),
            (lambda where: torch.ones(Nm, Nt, dtype=torch.int32, device=where), "ArgumentTypeError", "int32"),
            (lambda where: torch.ones(Nm, Nt, dtype=torch.complex64, device=where), "ArgumentTypeError", "complex64"),
            (lambda where: torch.ones(Nm, Nt, device=where).to_sparse(), "ArgumentTypeError", "sparse"),
            (lambda where: torch.ones(Nm + 1, Nt, device=where), "ShapeError", r"28 elements, found shape \(8, 4\)"),
            (lambda where: torch.ones(Nm, Nt, device="meta"), "ArgumentError", "meta"),
        ],
        ids=["array", "None", "int", "complex", "sparse", "count", "device"],
    )
    def test_bad_tensors(self, comm: Any, matrix: Any, make: Any, error: str, says: str) -> None:
        made = matrix.get_vec("input")
        with pytest.raises(getattr(errors, error), match=says):
            made.from_torch(make(device(comm)))
        assert not made.is_initialized()

    @pytest.mark.gpu
    @pytest.mark.parametrize("comm", ["cuda"], indirect=True)
    def test_host_tensor_for_a_device(self, matrix: Any) -> None:
        with pytest.raises(errors.ArgumentError, match="cuda:0, found one on cpu"):
            matrix.get_vec("input").from_torch(torch.ones(Nm, Nt))


class TestProducts:
    @pytest.mark.parametrize("name", PRODUCTS)
    def test_values(self, comm: Any, matrix: Any, name: str) -> None:
        found = apply(matrix, name, tensor(comm, source(name)))
        assert (found.dtype, found.requires_grad) == (torch.float64, False)
        check(found, name, source(name))

    @pytest.mark.parametrize("name", PRODUCTS)
    def test_gradcheck(self, comm: Any, matrix: Any, name: str) -> None:
        operand = tensor(comm, source(name), requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: apply(matrix, name, x), operand, nondet_tol=1e-12)

    @pytest.mark.parametrize("name", PRODUCTS)
    def test_gradgradcheck(self, comm: Any, matrix: Any, name: str) -> None:
        operand = tensor(comm, source(name), requires_grad=True)

        def cubed(x: Any) -> Any:  # a linear map alone has no second derivative to check
            return apply(matrix, name, x) ** 3

        assert torch.autograd.gradgradcheck(cubed, operand, nondet_tol=1e-9)

    def test_gradient_of_a_loss(self, comm: Any, matrix: Any) -> None:
        operand = tensor(comm, X["col"], requires_grad=True)
        loss = (bridge.matvec(matrix, operand) ** 2).sum() / 2
        loss.backward()
        check(operand.grad, "F*F", X["col"])

    def test_expanded_gradient(self, comm: Any, matrix: Any) -> None:
        operand = tensor(comm, X["col"], requires_grad=True)
        bridge.matvec(matrix, operand).sum().backward()
        check(operand.grad, "F*", np.ones((Nd, Nt)))

    @pytest.mark.parametrize("name", ["float32", "float16"])
    def test_other_dtypes(self, comm: Any, matrix: Any, name: str) -> None:
        dtype = getattr(torch, name)
        operand = tensor(comm, X["col"], dtype, requires_grad=True)
        found = bridge.matvec(matrix, operand)
        exact = reference.product("F", F, G, host(operand).astype(float))
        # Only the result's rounding counts: the product itself is double.
        assert found.dtype == dtype
        assert np.allclose(host(found), exact, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).smallest_normal)
        found.sum().backward()
        assert operand.grad.dtype == dtype
        adjoint = reference.product("F*", F, G, np.ones((Nd, Nt)))
        assert np.allclose(host(operand.grad), adjoint, rtol=torch.finfo(dtype).eps, atol=1e-6)

    def test_other_shapes(self, comm: Any, matrix: Any) -> None:
        operand = tensor(comm, X["col"].T).T.reshape(-1).requires_grad_()
        found = bridge.matvec(matrix, operand)
        check(found, "F", X["col"])
        (found**2).sum().backward()
        check(operand.grad.reshape(Nm, Nt) / 2, "F*F", X["col"])

    def test_operand_is_neither_kept_nor_changed(self, comm: Any, matrix: Any) -> None:
        operand = tensor(comm, X["col"])
        found = bridge.matvec(matrix, operand)
        operand.zero_()
        bridge.matvec(matrix, operand)
        check(found, "F", X["col"])

    def test_without_gradients(self, comm: Any, matrix: Any) -> None:
        operand = tensor(comm, X["col"], requires_grad=True)
        with torch.no_grad():
            assert not bridge.matvec(matrix, operand).requires_grad

    @pytest.mark.parametrize(
        ("make", "error", "says"),
        [
            (lambda where: None, "ArgumentTypeError", "NoneType"),
            (lambda where: torch.ones(Nd, Nt, device=where), "ShapeError", "28"),
            (lambda where: torch.ones(Nm, Nt, dtype=torch.int64, device=where), "ArgumentTypeError", "int64"),
            (lambda where: torch.ones(Nm, Nt, device="meta"), "ArgumentError", "meta"),
        ],
        ids=["None", "count", "int", "device"],
    )
    def test_bad_operands(self, comm: Any, matrix: Any, make: Any, error: str, says: str) -> None:
        with pytest.raises(getattr(errors, error), match=says):
            bridge.matvec(matrix, make(device(comm)))

    def test_no_matrix(self, comm: Any) -> None:
        with pytest.raises(errors.ArgumentTypeError, match="Matrix, found ndarray"):
            bridge.matvec(F, tensor(comm, X["col"]))

    def test_matrix_without_values(self, comm: Any) -> None:
        with pytest.raises(errors.UninitializedError):
            bridge.matvec(fm.Matrix(comm, Nm, Nd, Nt, global_sizes=True), tensor(comm, X["col"]))


class TestLinearMap:
    def test_is_the_product(self, comm: Any, matrix: Any) -> None:
        for use_aux_mat, name in enumerate("FG"):
            model = bridge.LinearMap(matrix, use_aux_mat=bool(use_aux_mat))
            check(model(tensor(comm, X["col"])), name, X["col"])
            check(model.adjoint()(tensor(comm, X["row"])), f"{name}*", X["row"])
            check(model.adjoint().adjoint()(tensor(comm, X["col"])), name, X["col"])

    def test_names_itself(self, matrix: Any) -> None:
        model = bridge.LinearMap(matrix)
        assert repr(model) == "LinearMap(F, (7, 4) -> (5, 4))"
        assert repr(model.adjoint()) == "LinearMap(F*, (5, 4) -> (7, 4))"

    def test_inversion(self, comm: Any, matrix: Any) -> None:
        """Gradient descent with the step 1/L on a quadratic, L its largest curvature, never increases it."""
        model = torch.nn.Sequential(bridge.LinearMap(matrix), torch.nn.Flatten(0))
        data = tensor(comm, reference.apply(F, X["col"])).reshape(-1)
        unknown = torch.nn.Parameter(tensor(comm, np.zeros((Nm, Nt))))
        optimiser = torch.optim.SGD([unknown], lr=1 / np.sum(reference.gains(F)) ** 2)
        losses = []
        for _ in range(20):
            optimiser.zero_grad()
            loss = ((model(unknown) - data) ** 2).sum() / 2
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert all(later < earlier for earlier, later in pairwise(losses))


def test_complete_example(comm: Any, matrix: Any) -> None:
    """Run the API document's example with differentiable products; its tensors share memory, but have no gradient."""
    x, y = matrix.get_vec("input"), matrix.get_vec("output")
    t = tensor(comm, X["col"].reshape(-1), requires_grad=True)
    if x.on_grid():
        x.from_torch(t)
    x.init_vec()
    matrix.matvec(x, y)
    y_torch = y.to_torch()
    assert y_torch is not None
    plain = (y_torch**2).sum()
    assert not plain.requires_grad
    loss = (bridge.matvec(matrix, t) ** 2).sum()
    loss.backward()
    torch.testing.assert_close(loss.detach(), plain, rtol=1e-14, atol=0)
    check(t.grad.reshape(Nm, Nt) / 2, "F*F", X["col"])


@pytest.mark.gpu
class TestStreams:
    """The work is on streams of PyTorch and CuPy that are not synchronised with each other."""

    CYCLES = 200_000_000  # about 0.1 s, in which everything after it would run if nothing waited

    @pytest.fixture(params=["own", "caller's"])
    def matrix(self, request: pytest.FixtureRequest) -> Iterator[Any]:
        import cupy

        stream = {"own": None, "caller's": cupy.cuda.Stream(non_blocking=True)}[request.param]
        with fm.Comm(MPI.COMM_SELF, backend="cuda", stream=stream) as comm:
            yield build(comm, F, G)

    def test_from_torch(self, matrix: Any) -> None:
        given, late = tensor(matrix.comm, np.zeros((Nm, Nt))), tensor(matrix.comm, X["col"])
        torch.cuda.synchronize()
        x = matrix.get_vec("input")
        with torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda._sleep(self.CYCLES)
            given.copy_(late)
            x.from_torch(given)
        assert np.array_equal(x.to_numpy(), X["col"])

    def test_from_dlpack(self, matrix: Any) -> None:
        given, late = tensor(matrix.comm, np.zeros((Nm, Nt))), tensor(matrix.comm, X["col"])
        torch.cuda.synchronize()
        x = matrix.get_vec("input")
        with torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda._sleep(self.CYCLES)
            given.copy_(late)
            x.from_dlpack(given)
        assert np.array_equal(x.to_numpy(), X["col"])

    @pytest.mark.parametrize("export", ["to_torch", "dlpack"])
    def test_to_torch(self, matrix: Any, export: str) -> None:
        x = vector(matrix, "col", X["col"])
        y = matrix.get_vec("output")
        matrix.matvec(x, y)
        y.init_vec_zeros()
        torch.cuda.synchronize()
        ours = torch.cuda.ExternalStream(matrix.comm.stream.ptr)
        with torch.cuda.stream(ours):
            torch.cuda._sleep(self.CYCLES)
        matrix.matvec(x, y)
        with torch.cuda.stream(torch.cuda.Stream()):
            found = host(y.to_torch() if export == "to_torch" else torch.from_dlpack(y))
        check(torch.from_numpy(found), "F", X["col"])

    def test_products(self, matrix: Any) -> None:
        operand = tensor(matrix.comm, np.zeros((Nm, Nt)), requires_grad=True)
        late = tensor(matrix.comm, X["col"])
        torch.cuda.synchronize()
        with torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda._sleep(self.CYCLES)
            with torch.no_grad():
                operand.copy_(late)
            found = bridge.matvec(matrix, operand)
            (found**2).sum().backward()
            result, gradient = host(found), host(operand.grad)
        check(torch.from_numpy(result), "F", X["col"])
        check(torch.from_numpy(gradient / 2), "F*F", X["col"])


@pytest.mark.parametrize("threads", [2, 4])
def test_threads(comm: Any, threads: int) -> None:
    """Each thread has its own tensors, and all have one matrix."""
    matrix = fm.Matrix(comm, 60, 20, 128, global_sizes=True)
    matrix.init_mat_doubles()

    def gradient(seed: int) -> Any:
        values = np.random.default_rng(seed).standard_normal((60, 128))
        x = tensor(comm, values, requires_grad=True)
        (bridge.matvec(matrix, x) ** 2).sum().backward()
        return host(x.grad)

    seeds = range(100)
    expected = [gradient(seed) for seed in seeds]
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(gradient, seeds))
    assert sum(not np.array_equal(a, b) for a, b in zip(expected, found, strict=True)) == 0


def test_examples() -> None:
    failed, tried = doctest.testmod(bridge)
    assert tried > 10
    assert failed == 0


def test_is_imported_lazily() -> None:
    code = "import numba_fftmatvec, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], env=clean_environment(), check=True, timeout=60)
