"""Batches of vectors, the transforms of `torch.func`, copies, the compiler and tracers, against dense matrices."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec import errors
from support import reference
from support.tasks import build
from support.tensors import BACKENDS, NEEDS_TORCH, F, G, Nd, Nm, Nt, X, apply, bridge, device, tensor, torch

pytestmark = [*NEEDS_TORCH, pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")]

Map = Callable[[Any], Any]
COUNT = 6
MATRICES = {"F": F, "G": G}


@pytest.fixture(scope="module", params=BACKENDS)
def comm(request: pytest.FixtureRequest) -> Iterator[Any]:
    with fm.Comm(MPI.COMM_SELF, backend=request.param) as made:
        yield made


@pytest.fixture(scope="module")
def matrix(comm: Any) -> Any:
    return build(comm, F, G)


def linear(dense: Any, rows: int) -> Map:
    """Return the map with a dense matrix as a function of a (..., blocks, Nt) tensor."""
    return lambda x: (x.flatten(-2) @ dense.T).unflatten(-1, (rows, Nt))


def dense_map(comm: Any, name: str) -> Map:
    """Return a product with its dense matrix."""
    values = MATRICES[name[0]]
    dense = np.zeros((Nd, Nt, Nm, Nt))
    for t in range(Nt):
        for s in range(t + 1):
            dense[:, t, :, s] = values[:, :, t - s]
    whole = tensor(comm, dense.reshape(Nd * Nt, Nm * Nt))
    return linear(whole.T, Nm) if name.endswith("*") else linear(whole, Nd)


def majorant(comm: Any, name: str) -> Map:
    """Return the map that takes the sum of the moduli of each block times the block's gain, to every time step.

    It bounds a product in modulus. By `reference.error_bound`, growth times it bounds the error of a computed product.
    """
    gains = reference.gains(MATRICES[name[0]])
    gains = gains.T if name.endswith("*") else gains
    return linear(tensor(comm, np.kron(gains, np.ones((Nt, Nt)))), len(gains))


def cubed(A: Map) -> Map:
    return lambda x: (A(x) ** 3).sum()


def squared(A: Map) -> Map:
    return lambda x: A(x) ** 2


def forward_mode(f: Map, x: Any, v: Any) -> Any:
    """Return a directional derivative without `torch.func`."""
    ad = torch.autograd.forward_ad
    with ad.dual_level():
        return ad.unpack_dual(f(ad.make_dual(x, v))).tangent


def gradient(f: Map, x: Any) -> Any:
    """Return a gradient without `torch.func`."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(f(x), x)[0]


def pullbacks(A: Map, x: Any, w: Any) -> Any:
    _, pull = torch.func.vjp(A, x)
    return torch.func.vmap(pull)(w)[0]


# Functions of a map A, its operands x and v and cotangents w. Each is a polynomial with positive coefficients in the
# entries of A, x, v and w, of at most DEGREE products with A.
DEGREE = 8
CASES: dict[str, Callable[[Map, Any, Any, Any], Any]] = {
    "batch": lambda A, x, v, w: A(x),
    "batch of one": lambda A, x, v, w: A(x[:1]),
    "empty batch": lambda A, x, v, w: A(x[:0]),
    "two leading dimensions": lambda A, x, v, w: A(x.reshape(2, 3, *x.shape[1:])),
    "five leading dimensions": lambda A, x, v, w: A(x.reshape(1, 2, 1, 3, 1, *x.shape[1:])),
    "more than 16": lambda A, x, v, w: A(x[None] + v[:, None]),
    "strided": lambda A, x, v, w: A(x.movedim(0, 2).contiguous().movedim(2, 0)),
    "gradient of a batch": lambda A, x, v, w: gradient(cubed(A), x),
    "gradient of vmap": lambda A, x, v, w: gradient(lambda x: torch.func.vmap(cubed(A))(x).sum(), x),
    "forward mode": lambda A, x, v, w: forward_mode(squared(A), x, v),
    "forward mode of vmap": lambda A, x, v, w: forward_mode(torch.func.vmap(squared(A)), x, v),
    "grad": lambda A, x, v, w: torch.func.grad(cubed(A))(x),
    "vjp": lambda A, x, v, w: torch.func.vjp(squared(A), x)[1](w)[0],
    "jvp": lambda A, x, v, w: torch.func.jvp(squared(A), (x,), (v,))[1],
    "vmap": lambda A, x, v, w: torch.func.vmap(A)(x),
    "vmap in other dimensions": lambda A, x, v, w: torch.func.vmap(A, 1, 2)(x.movedim(0, 1)),
    "vmap in chunks": lambda A, x, v, w: torch.func.vmap(A, chunk_size=4)(x),
    "vmap of a batch": lambda A, x, v, w: torch.func.vmap(A, 1)(x.reshape(2, 3, *x.shape[1:])),
    "vmap of vmap": lambda A, x, v, w: torch.func.vmap(torch.func.vmap(A))(x.reshape(2, 3, *x.shape[1:])),
    "vmap over another operand": lambda A, x, v, w: torch.func.vmap(lambda y: A(x[0]) * y)(w),
    "vmap of grad": lambda A, x, v, w: torch.func.vmap(torch.func.grad(cubed(A)))(x),
    "grad of vmap": lambda A, x, v, w: torch.func.grad(lambda x: torch.func.vmap(cubed(A))(x).sum())(x),
    "grad of grad": lambda A, x, v, w: torch.func.grad(lambda x: (torch.func.grad(cubed(A))(x) * v).sum())(x),
    "vmap of jvp": lambda A, x, v, w: torch.func.vmap(lambda x, v: torch.func.jvp(squared(A), (x,), (v,))[1])(x, v),
    "jvp of vmap": lambda A, x, v, w: torch.func.jvp(torch.func.vmap(squared(A)), (x,), (v,))[1],
    "jvp of grad": lambda A, x, v, w: torch.func.jvp(torch.func.grad(cubed(A)), (x,), (v,))[1],
    "grad of jvp": lambda A, x, v, w: torch.func.grad(lambda x: torch.func.jvp(cubed(A), (x,), (v,))[1])(x),
    "jvp of vmap of grad": lambda A, x, v, w: torch.func.jvp(torch.func.vmap(torch.func.grad(cubed(A))), (x,), (v,))[1],
    "vmap of a pullback": lambda A, x, v, w: pullbacks(squared(A), x[0], w),
    "jacrev": lambda A, x, v, w: torch.func.jacrev(squared(A))(x[0]),
    "jacfwd": lambda A, x, v, w: torch.func.jacfwd(squared(A))(x[0]),
    "hessian": lambda A, x, v, w: torch.func.hessian(cubed(A))(x[0]),
    "jacrev of jacrev": lambda A, x, v, w: torch.func.jacrev(torch.func.jacrev(cubed(A)))(x[0]),
    "jacrev of jacfwd": lambda A, x, v, w: torch.func.jacrev(torch.func.jacfwd(cubed(A)))(x[0]),
    "vmap of hessian": lambda A, x, v, w: torch.func.vmap(torch.func.hessian(cubed(A)))(x[:2]),
}


@pytest.mark.parametrize("name", ["F", "G*"])
@pytest.mark.parametrize("case", CASES)
def test_values(comm: Any, matrix: Any, name: str, case: str) -> None:
    """Compare with a dense matrix, elementwise: each product adds at most growth times the polynomial's majorant."""
    random = np.random.default_rng(1)
    source, target = (Nd, Nm) if name.endswith("*") else (Nm, Nd)
    x, v = (tensor(comm, random.standard_normal((COUNT, source, Nt))) for _ in range(2))
    w = tensor(comm, random.standard_normal((COUNT, target, Nt)))
    found = CASES[case](lambda x: apply(matrix, name, x), x, v, w)
    expected = CASES[case](dense_map(comm, name), x, v, w)
    largest = CASES[case](majorant(comm, name), x.abs(), v.abs(), w.abs())
    assert (found.shape, found.dtype, found.requires_grad) == (expected.shape, torch.float64, False)
    growth = 2.0**-53 * (2 * (1 + math.log2(2 * Nt)) + source * Nt)  # of a product, and of a dense one
    assert bool(((found - expected).abs() <= DEGREE * growth * largest).all())
    assert case == "empty batch" or float(expected.abs().max()) > 0


@pytest.mark.parametrize("name", ["F", "G*"])
def test_gradcheck_of_a_batch(comm: Any, matrix: Any, name: str) -> None:
    values = np.random.default_rng(2).standard_normal((3, Nd if name.endswith("*") else Nm, Nt))
    operand = tensor(comm, values, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: apply(matrix, name, x), operand, nondet_tol=1e-12, check_forward_ad=True, fast_mode=True
    )
    assert torch.autograd.gradgradcheck(
        lambda x: apply(matrix, name, x) ** 3, operand, nondet_tol=1e-9, check_fwd_over_rev=True, fast_mode=True
    )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_other_dtypes(comm: Any, matrix: Any, dtype: str) -> None:
    x = tensor(comm, np.random.default_rng(3).standard_normal((3, Nm, Nt)), getattr(torch, dtype))
    found = torch.func.vmap(lambda x: bridge.matvec(matrix, x))(x)
    assert torch.equal(found, bridge.matvec(matrix, x))
    assert found.dtype == x.dtype
    _, tangent = torch.func.jvp(lambda x: bridge.matvec(matrix, x), (x,), (x,))
    assert torch.equal(tangent, found)


@pytest.mark.parametrize(
    ("case", "products"),
    {
        "batch": [("F", 6)],
        "five leading dimensions": [("F", 6)],
        "empty batch": [],
        "vmap": [("F", 6)],
        "vmap of vmap": [("F", 6)],
        "vmap in chunks": [("F", 4), ("F", 2)],
        "vmap of grad": [("F", 6), ("F*", 6)],
        "jacrev": [("F", 1), ("F*", Nd * Nt)],
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_is_one_product(comm: Any, monkeypatch: pytest.MonkeyPatch, case: str, products: list[Any]) -> None:
    matrix = build(comm, F, G)
    compute, made = matrix.apply_product, []

    def counted(product: Any, X: Any, Y: Any) -> None:
        made.append((product.name, X.num_vecs))
        compute(product, X, Y)

    monkeypatch.setattr(matrix, "apply_product", counted)
    x = tensor(comm, np.ones((COUNT, Nm, Nt)))
    CASES[case](lambda x: bridge.matvec(matrix, x), x, x, tensor(comm, np.ones((COUNT, Nd, Nt))))
    assert made == products


def test_results_can_be_changed_in_place(comm: Any, matrix: Any) -> None:
    x = tensor(comm, np.ones((2, Nm, Nt)), requires_grad=True)
    found = bridge.matvec(matrix, x)
    expected = found.detach() * 2
    found *= 2
    assert torch.equal(found, expected)
    found.sum().backward()
    assert torch.equal(x.grad, bridge.transpose_matvec(matrix, 2 * torch.ones_like(found)))


@pytest.mark.parametrize("shape", [(2, Nd, Nt), (2, Nm * Nt), (2, Nt, Nm), (2, 1, Nm + 1, Nt), (0,), ()], ids=str)
def test_bad_shapes(comm: Any, matrix: Any, shape: tuple[int, ...]) -> None:
    says = rf"operand: expected shape \(\.\.\., {Nm}, {Nt}\), or another one of {Nm * Nt} elements, found shape "
    with pytest.raises(errors.ShapeError, match=says):
        bridge.matvec(matrix, torch.ones(shape, device=device(comm)))


@pytest.mark.parametrize("transform", ["grad", "vmap"])
def test_vectors_take_no_transformed_tensors(comm: Any, matrix: Any, transform: str) -> None:
    def copied(x: Any) -> Any:
        matrix.get_vec("input").from_torch(x)
        return x.sum()

    operands = tensor(comm, np.ones((2, Nm, Nt)))
    with pytest.raises(errors.ArgumentTypeError, match="from_torch: expected a tensor outside of the transforms"):
        getattr(torch.func, transform)(copied)(operands if transform == "vmap" else operands[0])


def test_batches_by_autograd_are_refused(comm: Any, matrix: Any) -> None:
    x = tensor(comm, X["col"], requires_grad=True)
    y = bridge.matvec(matrix, x)
    with pytest.raises(errors.ArgumentTypeError, match=r"expected a batch by torch\.func\.vmap.*is_grads_batched"):
        torch.autograd.grad(y, x, torch.ones_like(y).expand(3, Nd, Nt), is_grads_batched=True)


def _traced(trace: str, f: Map, x: Any) -> Any:
    from torch.fx.experimental.proxy_tensor import make_fx

    return {
        "make_fx": lambda: make_fx(f)(x),
        "linearize": lambda: torch.func.linearize(f, x),
        "torch.jit.trace": lambda: torch.jit.trace(f, x),
    }[trace]()


@pytest.mark.parametrize("trace", ["make_fx", "linearize", "torch.jit.trace"])
def test_tracers_are_refused(comm: Any, matrix: Any, trace: str) -> None:
    """A tracer would record the present result as a constant."""
    found = {"linearize": "make_fx"}.get(trace, trace)
    with pytest.raises(errors.ArgumentError, match=f"F: expected a call outside of tracers.*found an active {found}"):
        _traced(trace, lambda x: bridge.matvec(matrix, x), tensor(comm, X["col"]))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler's own access
class TestCompile:
    """The compiler leaves products out of its graphs. It would warn if it traced this library."""

    @pytest.fixture(autouse=True)
    def compiler(self) -> Iterator[None]:
        torch._dynamo.reset()
        yield
        torch._dynamo.reset()

    def test_function(self, comm: Any, matrix: Any) -> None:
        def loss(x: Any) -> Any:
            return (bridge.matvec(matrix, x.sin()) ** 2).sum()

        compiled = torch.compile(loss, backend="aot_eager")
        for scale in (1, 2):  # the graph is used again
            x, expected = (tensor(comm, scale * X["col"], requires_grad=True) for _ in range(2))
            compiled(x).backward()
            loss(expected).backward()
            assert torch.allclose(x.grad, expected.grad, rtol=1e-12)

    @pytest.mark.parametrize("transform", ["vmap", "grad"])
    def test_transforms(self, comm: Any, matrix: Any, transform: str) -> None:
        def loss(x: Any) -> Any:
            return (bridge.matvec(matrix, x) ** 2).sum()

        f = getattr(torch.func, transform)(loss)
        compiled = torch.compile(f, backend="aot_eager")
        for scale in (1, 2):
            x = scale * tensor(comm, np.ones((3, Nm, Nt)))
            assert torch.allclose(compiled(x), f(x), rtol=1e-12)

    def test_module(self, comm: Any, matrix: Any) -> None:
        model = torch.nn.Sequential(bridge.LinearMap(matrix), torch.nn.Tanh())
        x = tensor(comm, X["col"])
        assert torch.equal(torch.compile(model, backend="aot_eager")(x), model(x))

    def test_whole_graphs(self, comm: Any, matrix: Any) -> None:
        compiled = torch.compile(lambda x: bridge.matvec(matrix, x), backend="aot_eager", fullgraph=True)
        with pytest.raises(torch._dynamo.exc.Unsupported, match="disable"):
            compiled(tensor(comm, X["col"]))


class TestCopies:
    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
    def test_matrix_is_shared(self, comm: Any, matrix: Any, copied: Map) -> None:
        model = bridge.LinearMap(matrix, transpose=True, use_aux_mat=True)
        found = copied(model)
        assert type(found) is bridge.LinearMap
        assert found is not model
        assert found.F is matrix
        x = tensor(comm, X["row"])
        assert torch.equal(found(x), model(x))
        found.eval()
        assert model.training

    def test_network(self, comm: Any, matrix: Any) -> None:
        model = torch.nn.Sequential(bridge.LinearMap(matrix), torch.nn.Linear(Nt, 2, device=device(comm)).double())
        model[0].extra = [matrix, model[0]]
        found = copy.deepcopy(model)
        assert found[0].extra[0] is matrix
        assert found[0].extra[1] is found[0]
        assert found[1].weight is not model[1].weight
        with torch.no_grad():
            model[1].weight.zero_()
        assert float(found[1].weight.abs().sum().detach()) > 0

    def test_state(self, comm: Any, matrix: Any, tmp_path: Path) -> None:
        model = bridge.LinearMap(matrix)
        assert dict(model.state_dict()) == {}
        torch.save(model.state_dict(), tmp_path / "state")
        bridge.LinearMap(matrix).load_state_dict(torch.load(tmp_path / "state"))

    def test_pickling(self, matrix: Any, tmp_path: Path) -> None:
        model = torch.nn.Sequential(bridge.LinearMap(matrix))
        for write in (pickle.dumps, lambda model: torch.save(model, tmp_path / "model")):
            with pytest.raises(errors.ArgumentTypeError, match="pickle: expected its state_dict.* found a LinearMap"):
                write(model)
