"""PyTorch on grids: each rank's part of a loss and of a gradient, with tensors without elements off the grids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec import errors
from numba_fftmatvec.layout import Space
from support.harness import run_ranks
from support.tasks import build, vector
from support.tensors import (
    BACKENDS,
    NEEDS_TORCH,
    F,
    G,
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


def on_grid(setting: tuple[tuple[int, int], str]) -> dict[str, Any]:
    """Return this rank's parts of products, gradients and Hessian-vector products, and errors met on one rank."""
    grid, backend = setting
    with fm.Comm(MPI.COMM_WORLD, *grid, backend=backend, collectives="mpi") as comm:
        matrix = build(comm, F, G)
        return {
            "exchange": exchange(matrix),
            "nothing off the grid": gradients(matrix, none=True),
            "empty off the grid": gradients(matrix, none=False),
            "curvature": curvature(matrix),
            "error": error_on_one_rank(matrix),
            "transforms": {name: host(case(matrix)) for name, case in TRANSFORMS.items()},
            "refusals": {name: refusal(case, matrix) for name, case in REFUSALS.items()},
        }


def part(matrix: Any, space: str, requires_grad: bool = True) -> Any:
    """Return this rank's part of an operand; a tensor without elements on ranks without values."""
    blocks = matrix.layout.vector(Space(space)).blocks
    rows = X[space][blocks.start : blocks.stop] if matrix.comm.axis(Space(space)).owns else np.empty((0, Nt))
    return tensor(matrix.comm, rows, requires_grad=requires_grad)


def exchange(matrix: Any) -> Any:
    x, mine = vector(matrix, "col"), part(matrix, "col")
    x.from_torch(mine if x.on_grid() else None)
    found = x.to_torch()
    return x.is_initialized(), x.on_grid(), None if found is None else host(found)


def gradients(matrix: Any, none: bool) -> Any:
    """Return results and gradients of F and F*; gradients are wanted by the owners only where `none` is set."""
    results = {}
    for name, space in {"F": "col", "F*": "row"}.items():
        operand: Any = part(matrix, space)
        if none and operand.numel() == 0:
            operand = None
        found = apply(matrix, name, operand)
        ((found**2).sum() / 2).backward()
        results[name] = host(found), np.empty((0, Nt)) if operand is None else host(operand.grad)
    return results


def curvature(matrix: Any) -> Any:
    """Return F*F v as the gradient of <gradient, v>, v = 1: backward through backward."""
    x = part(matrix, "col")
    loss = (bridge.matvec(matrix, x) ** 2).sum() / 2
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    gradient.sum().backward()
    return host(x.grad)


def error_on_one_rank(matrix: Any) -> str:
    comm = matrix.comm
    x = part(matrix, "col")
    if comm.world_rank == comm.world_size - 1:
        x = torch.ones(Nm * Nt + 1, dtype=torch.float64, device=device(comm))
    try:
        bridge.matvec(matrix, x)
    except errors.ShapeError as error:
        return str(error)
    return "no error"


def stack(matrix: Any, space: str) -> Any:
    """Return this rank's part of several operands, (R, blocks, Nt); without elements on ranks without values."""
    return part(matrix, space, requires_grad=False) * tensor(matrix.comm, SCALES)


def loss(matrix: Any) -> Any:
    return lambda x: (bridge.matvec(matrix, x) ** 2).sum() / 2


def owned(matrix: Any) -> bool:
    """Return whether this rank has values of a "col" vector."""
    return bool(matrix.comm.axis(Space.COL).owns)


def forward(matrix: Any) -> Any:
    """Return F x as the tangent of a product, of forward mode without `torch.func`."""
    ad, x = torch.autograd.forward_ad, stack(matrix, "col")
    with ad.dual_level():
        return ad.unpack_dual(bridge.matvec(matrix, ad.make_dual(x, x))).tangent


def losses(matrix: Any) -> Any:
    """Return a function of R losses: one half of the squared norms of the multiples of F x."""
    return lambda x: (bridge.matvec(matrix, x * tensor(matrix.comm, SCALES) ** 0.5) ** 2).sum((1, 2)) / 2


SCALES = np.arange(1.0, 4.0).reshape(3, 1, 1)
# Each returns this rank's part of the product that the name begins with, for each of the SCALES times its operand.
TRANSFORMS: dict[str, Any] = {
    "F by batch": lambda F: bridge.matvec(F, stack(F, "col")),
    "F by batch, None off the grid": lambda F: bridge.matvec(F, stack(F, "col") if owned(F) else None),
    "F by dimensions": lambda F: bridge.matvec(F, stack(F, "col")[None, :, None, None, None]).flatten(0, -3),
    "F by vmap": lambda F: torch.func.vmap(lambda x: bridge.matvec(F, x))(stack(F, "col")),
    "F by jvp": lambda F: torch.func.jvp(lambda x: bridge.matvec(F, x), (stack(F, "col"),), (stack(F, "col"),))[1],
    "F by forward mode": forward,
    "F* by vmap": lambda F: torch.func.vmap(lambda y: bridge.transpose_matvec(F, y))(stack(F, "row")),
    "F* by pullback": lambda F: torch.func.vjp(lambda x: bridge.matvec(F, x), stack(F, "col"))[1](stack(F, "row"))[0],
    "F* by vmap of a pullback": lambda F: torch.func.vmap(
        torch.func.vjp(lambda x: bridge.matvec(F, x), part(F, "col", False))[1]
    )(stack(F, "row"))[0],
    "F*F by grad": lambda F: torch.func.grad(loss(F))(stack(F, "col")),
    "F*F by vmap of grad": lambda F: torch.func.vmap(torch.func.grad(loss(F)))(stack(F, "col")),
    "F*F by grad of vmap": lambda F: torch.func.grad(lambda x: torch.func.vmap(loss(F))(x).sum())(stack(F, "col")),
    "F*F by jvp of grad": lambda F: torch.func.jvp(torch.func.grad(loss(F)), (stack(F, "col"),), (stack(F, "col"),))[1],
    "F*F by jacrev of summands": lambda F: torch.func.jacrev(losses(F))(part(F, "col", False)),
    "F*F by backward of a batch": lambda F: torch.autograd.grad(loss(F)(x := stack(F, "col").requires_grad_()), x)[0],
}


def refusal(case: Any, matrix: Any) -> str:
    try:
        case(matrix)
    except errors.FFTMatvecError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def first(matrix: Any) -> bool:
    return bool(matrix.comm.world_rank == 0)


def without_data(matrix: Any, transform: str) -> Any:
    """Apply a transform to a function that takes None, and so no argument of the transform, on ranks without data."""
    x = part(matrix, "col", requires_grad=False)
    f = lambda x: loss(matrix)(x if owned(matrix) else None) + x.sum()  # noqa: E731
    return {
        "grad": lambda: torch.func.grad(f)(x),
        "jvp": lambda: torch.func.jvp(f, (x,), (x,)),
        "vmap": lambda: torch.func.vmap(f)(x.expand(2, *x.shape)),
    }[transform]()


def without_tangent(matrix: Any) -> Any:
    ad, x = torch.autograd.forward_ad, part(matrix, "col", requires_grad=False)
    with ad.dual_level():
        return bridge.matvec(matrix, ad.make_dual(x, x) if owned(matrix) else x)


def mapped(matrix: Any, batched: bool) -> Any:
    x = stack(matrix, "col")
    return (torch.func.vmap(loss(matrix)) if batched else loss(matrix))(x)


def square(matrix: Any) -> Any:
    """Return a matrix with equal parts on all ranks, and this rank's part of an operand."""
    made = fm.Matrix(matrix.comm, 6, 6, Nt, global_sizes=True)
    made.init_mat_doubles()
    blocks = made.layout.block_cols if owned(made) else ()
    return made, tensor(matrix.comm, np.ones((len(blocks), Nt)))


def derivative(matrix: Any, transform: str) -> Any:
    made, x = square(matrix)
    f = loss(made) if transform == "hessian" else lambda x: bridge.matvec(made, x) ** 2
    return getattr(torch.func, transform)(f)(x)


REFUSALS: dict[str, Any] = {
    "jacrev": lambda F: derivative(F, "jacrev"),
    "jacfwd": lambda F: derivative(F, "jacfwd"),
    "hessian": lambda F: derivative(F, "hessian"),
    "leading dimensions": lambda F: bridge.matvec(F, stack(F, "col")[None] if first(F) else stack(F, "col")),
    "many leading dimensions": lambda F: bridge.matvec(F, stack(F, "col")[(None,) * (3 + first(F))]),
    "length of vmap": lambda F: torch.func.vmap(loss(F))(stack(F, "col")[: 2 + first(F)]),
    "transform on one rank": lambda F: mapped(F, first(F)),
    "constant on one rank": lambda F: torch.func.grad(lambda x: loss(F)(x.detach() if first(F) else x) + x.sum())(
        part(F, "col", False)
    ),
    "None in grad": lambda F: without_data(F, "grad"),
    "None in jvp": lambda F: without_data(F, "jvp"),
    "None in vmap": lambda F: without_data(F, "vmap"),
    "no tangent": without_tangent,
}


def refused(grid: tuple[int, int]) -> dict[str, str]:
    """Return parts of the expected messages. Ranks without values of a "col" vector are below the grid's first row."""
    rows, cols = grid
    several, off, split = (rows * cols > 1), rows > 1, cols > 1
    takes = "expected a transform of torch.func to take a tensor on every rank"
    bases = "AgreementError: taking the tensors", "ArgumentError: F*: expected", "ArgumentError: F: expected"
    expected = {
        "jacrev": several and bases[not split],
        "jacfwd": several and bases[2 * (not off)],
        "hessian": several and bases[2 * (not off)],
        "leading dimensions": split and "ShapeError: operand: expected the same leading dimensions on every rank",
        "many leading dimensions": split and "found (1, 1, 1, 1, 3) on rank 0, (1, 1, 1, 3) on rank",
        "length of vmap": several and "AgreementError: taking the tensors of a product: expected the same call",
        "transform on one rank": several and "found transforms: True on rank 0, False on rank",
        "constant on one rank": several and f"{takes}, without elements on ranks that hold no data; found that the",
        "None in grad": off and "found that the operand requires gradients on rank",
        "None in jvp": off and "found that the operand has a batch or a tangent on rank",
        "None in vmap": off and f"ArgumentError: operand: {takes}",
        "no tangent": off and "expected forward-mode differentiation to take a tensor on every rank",
    }
    return {name: says or "no error" for name, says in expected.items()}


@pytest.mark.mpi
@pytest.mark.parametrize(
    "grid", [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (3, 1)], ids=lambda grid: f"{grid[0]}x{grid[1]}"
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_on_grids(grid: tuple[int, int], backend: str) -> None:
    results = run_ranks(grid[0] * grid[1], "unit.test_torch_grids:on_grid", (grid, backend), timeout=240)

    def collected(parts: Any) -> Any:
        return torch.from_numpy(np.concatenate(list(parts)))

    exchanged = [result["exchange"] for result in results]
    assert all(initialized for initialized, _, _ in exchanged)
    assert [found is not None for _, _, found in exchanged] == [owns for _, owns, _ in exchanged]
    assert np.array_equal(collected(found for _, _, found in exchanged if found is not None), X["col"])
    for case in ("nothing off the grid", "empty off the grid"):
        for name, gradient in {"F": "F*F", "F*": "FF*"}.items():
            check(collected(result[case][name][0] for result in results), name, source(name))
            check(collected(result[case][name][1] for result in results), gradient, source(name))
    check(collected(result["curvature"] for result in results), "F*F", np.ones((Nm, Nt)))
    assert all(f"found shape ({Nm * Nt + 1},)" in result["error"] for result in results)
    for case in TRANSFORMS:
        name = case.partition(" ")[0]
        whole = np.concatenate([result["transforms"][case] for result in results], axis=1)
        for scale, found in zip(SCALES.ravel(), whole, strict=True):
            check(torch.from_numpy(found), name, scale * source(name))
    for case, says in refused(grid).items():
        assert all(says in result["refusals"][case] for result in results), (case, results[0]["refusals"][case])
