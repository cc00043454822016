"""PyTorch on grids: each rank's part of a loss and of a gradient, with tensors without elements off the grids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec import errors
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
        }


def part(matrix: Any, space: str, requires_grad: bool = True) -> Any:
    """Return this rank's part of an operand; a tensor without elements on ranks without values."""
    made = vector(matrix, space)
    rows = X[space][made.blocks.start : made.blocks.stop] if made.on_grid() else np.empty((0, Nt))
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


@pytest.mark.mpi
@pytest.mark.parametrize("grid", [(1, 1), (1, 3), (2, 2), (3, 1)], ids=lambda grid: f"{grid[0]}x{grid[1]}")
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
