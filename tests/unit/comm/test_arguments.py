"""Calls with other arguments, or of other functions, on one rank: an AgreementError on every rank that shows both."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from support.harness import run_ranks
from support.tasks import operands
from support.workbench import ND, NM, NT, OPERANDS, SHAPE, Workbench

F = operands(SHAPE)[0]
GRIDS = ((1, 2), (2, 1))


def blank(s: Workbench) -> fm.Vector:
    return fm.Vector(s.comm, NM, NT, "col", global_sizes=True)


# A call whose arguments differ on the last rank (`odd` is true there), and texts of the message.
Case = tuple[Callable[[Workbench, bool], Any], tuple[str, ...]]
DIFFERING: dict[str, Case] = {
    "norm order": (lambda s, odd: s.x.norm(1 if odd else 2), ("order: 2 on rank 0, 1 on rank 1",)),
    "norm infinity": (lambda s, odd: s.x.norm(math.inf if odd else 1), ("inf",)),
    "norm or dot": (lambda s, odd: s.x.norm() if odd else s.x.dot(s.x), ("call: 'dot'", "'norm' on rank 1")),
    "norm or gather": (lambda s, odd: s.x.norm() if odd else s.x.gather(), ("'gathering a vector' on rank 0",)),
    "norm of the other vector": (lambda s, odd: (s.y if odd else s.x).norm(), ("shape", "space")),
    "norm or norms": (lambda s, odd: s.x.norms() if odd else s.x.norm(), ("norms",)),
    "gather or save": (lambda s, odd: s.x.save(str(s.folder / "a.h5")) if odd else s.x.gather(), ("writing",)),
    "vector blocks": (lambda s, odd: fm.Vector(s.comm, NM + odd, NT, "col", True), (f"blocks: {NM} on", f"{NM + 1}")),
    "vector block size": (lambda s, odd: fm.Vector(s.comm, NM, NT + odd, "col", True), ("block_size",)),
    "vector space": (lambda s, odd: fm.Vector(s.comm, NM, NT, "row" if odd else "col", True), ("'row'", "'col'")),
    "vector count": (lambda s, odd: fm.Vector(s.comm, NM, NT, "col", True, num_vecs=1 + odd), ("num_vecs",)),
    "vector of a matrix": (lambda s, odd: s.matrix.get_vec("output" if odd else "input"), ("which",)),
    "scatter": (lambda s, odd: s.y.scatter(OPERANDS["row"]) if odd else s.x.scatter(OPERANDS["col"]), ("space",)),
    "matrix rows": (lambda s, odd: fm.Matrix(s.comm, NM, ND + odd, NT, True), ("arguments",)),
    "matrix columns": (lambda s, odd: fm.Matrix(s.comm, cols=NM + odd, rows=ND, block_size=NT), (f"cols: {NM}",)),
    "matrix config": (
        lambda s, odd: fm.Matrix(
            s.comm, NM, ND, NT, True, p_config=fm.MatvecPrecisionConfig.from_code("dsddd" if odd else "ddddd")
        ),
        ("p_config", "'dsddd' on rank 1"),
    ),
    "matrix path": (lambda s, odd: fm.Matrix(s.comm, str(s.folder / ("B" if odd else "A"))), ("A", "B")),
    "matrix aux_path": (
        lambda s, odd: fm.Matrix(s.comm, str(s.folder / "A"), **({"aux_path": str(s.folder / "A")} if odd else {})),
        ("aux_path: nothing on rank 0",),
    ),
    "matrix from a path or sizes": (
        lambda s, odd: fm.Matrix(s.comm, str(s.folder / "A")) if odd else fm.Matrix(s.comm, NM, ND, NT),
        ("arguments",),
    ),
    "fill": (lambda s, odd: s.matrix.init_mat_ones() if odd else s.matrix.init_mat_doubles(), ("formula",)),
    "fill aux_mat": (lambda s, odd: s.matrix.init_mat_ones(aux_mat=odd), ("aux_mat",)),
    "array aux_mat": (lambda s, odd: s.matrix.init_mat_from_array(F, aux_mat=odd), ("aux_mat",)),
    "array or callable": (
        lambda s, odd: s.matrix.init_mat_from_array(F.__getitem__ if odd else F),
        ("callable: False on rank 0, True on rank 1",),
    ),
    "file aux_mat": (lambda s, odd: s.matrix.init_mat_from_file(str(s.folder / "A"), aux_mat=odd), ("aux_mat",)),
    "file path": (lambda s, odd: s.matrix.init_mat_from_file(str(s.folder / ("B" if odd else "A"))), ("call",)),
    "vector file": (lambda s, odd: s.x.init_vec_from_file(str(s.folder / ("y.h5" if odd else "x.h5"))), ("y.h5",)),
    "save path": (lambda s, odd: s.x.save(str(s.folder / ("b.h5" if odd else "a.h5"))), ("a.h5", "b.h5")),
    "save QoI": (lambda s, odd: s.y.save(str(s.folder / "a.h5"), QoI=odd), ("QoI",)),
    "save matrix": (lambda s, odd: s.matrix.save(str(s.folder / ("D" if odd else "C"))), ("C", "D")),
    "precision": (
        lambda s, odd: s.matrix.with_precision(fm.MatvecPrecisionConfig.from_code("ddsdd" if odd else "ssdss")),
        ("'ddsdd' on rank 1",),
    ),
    "grid": (lambda s, odd: s.new_comm(*(s.grid[::-1] if odd else s.grid)), ("proc_rows", "proc_cols")),
    "backend": (
        lambda s, odd: fm.Comm(s.comm.global_comm, *s.grid, backend="auto" if odd else "cpu"),
        ("backend: 'cpu' on rank 0",),
    ),
    "collectives": (
        lambda s, odd: fm.Comm(s.comm.global_comm, *s.grid, backend="cpu", collectives="mpi" if odd else "auto"),
        ("collectives",),
    ),
    "time limit": (
        lambda s, odd: fm.Comm(s.comm.global_comm, *s.grid, backend="cpu", timeout=20.0 + odd),
        ("timeout: 20.0 on rank 0, 21.0 on rank 1",),
    ),
    "barrier or agreement": (
        lambda s, odd: s.comm.barrier() if odd else s.comm.allgather(1),
        ("waiting for all ranks' on rank 1",),
    ),
    "values of other numbers": (lambda s, odd: s.comm.stack(np.zeros(2 + odd)), ("number of values: 2 on rank 0",)),
    "close or norm": (lambda s, odd: s.other.close() if odd else s.other.barrier(), ("'closing a Comm' on rank 1",)),
}


# A call that one rank cannot make, because of its own state or argument, and the error of all ranks.
Errors = type[Exception] | tuple[type[Exception], ...]
LOCAL: dict[str, tuple[Errors, Callable[[Workbench, bool], Any]]] = {
    "norm": (fm.UninitializedError, lambda s, odd: (s.blank_x if odd else s.x).norm()),
    "norms": (fm.UninitializedError, lambda s, odd: (s.blank_x if odd else s.x).norms()),
    "dot": (fm.UninitializedError, lambda s, odd: s.x.dot(s.blank_x if odd else s.x)),
    "dots": (fm.UninitializedError, lambda s, odd: (s.blank_x if odd else s.x).dots(s.x)),
    "dot with a list": (fm.ArgumentTypeError, lambda s, odd: s.x.dot([1.0] if odd else s.x)),
    "gather": (fm.UninitializedError, lambda s, odd: (s.blank_x if odd else s.x).gather()),
    "save": (fm.UninitializedError, lambda s, odd: (s.blank_x if odd else s.x).save(str(s.folder / "a.h5"))),
    "save a matrix": (fm.UninitializedError, lambda s, odd: (s.blank_F if odd else s.matrix).save(str(s.folder / "C"))),
    "order": (fm.ArgumentError, lambda s, odd: s.x.norm(3 if odd else 2)),
    "unhashable order": (TypeError, lambda s, odd: s.x.norm([2] if odd else 2)),
    # A rank that owns no part of the vector reads nothing, and finds the difference alone.
    "vector file": (
        (fm.FileError, fm.AgreementError),
        lambda s, odd: s.x.init_vec_from_file(str(s.folder / ("no" if odd else "x.h5"))),
    ),
    "vector file's checksum": (
        (fm.ChecksumError, fm.AgreementError),
        lambda s, odd: s.x.init_vec_from_file(str(s.folder / "x.h5"), int(odd)),
    ),
    "vector file's mark": (
        (fm.FileFormatError, fm.AgreementError),
        lambda s, odd: s.x.init_vec_from_file(str(s.folder / "x.h5"), QoI=odd),
    ),
    "scatter": (fm.ShapeError, lambda s, odd: s.x.scatter(OPERANDS["row" if odd else "col"])),
    "vector space": (fm.SpaceError, lambda s, odd: fm.Vector(s.comm, NM, NT, "up" if odd else "col", True)),
    "vector of a matrix": (fm.ArgumentError, lambda s, odd: s.matrix.get_vec("up" if odd else "input")),
    "config": (
        fm.ArgumentTypeError,
        lambda s, odd: fm.Matrix(s.comm, NM, ND, NT, p_config="ddddd" if odd else fm.MatvecPrecisionConfig()),
    ),
    "closed vector": (fm.ClosedError, lambda s, odd: (s.closed if odd else s.x).norm()),
    "array": (fm.ShapeError, lambda s, odd: s.matrix.init_mat_from_array(F[:, :, 1:] if odd else F)),
    "from_array": (fm.ShapeError, lambda s, odd: fm.Matrix.from_array(s.comm, F[0] if odd else F)),
    "grid": (fm.GridError, lambda s, odd: s.new_comm(7 if odd else s.grid[0], s.grid[1])),
    "backend": (fm.ArgumentError, lambda s, odd: fm.Comm(s.comm.global_comm, *s.grid, backend="x" if odd else "cpu")),
    "time limit": (
        fm.ArgumentError,
        lambda s, odd: fm.Comm(s.comm.global_comm, *s.grid, backend="cpu", timeout=-1 if odd else 9),
    ),
}


def outcome(s: Workbench, act: Callable[[Workbench, bool], Any]) -> tuple[str, str] | None:
    try:
        act(s, s.last)
    except Exception as error:
        return type(error).__name__, str(error)
    return None


def outcomes(payload: tuple[tuple[int, int], str]) -> dict[Any, Any]:
    grid, folder = payload
    with fm.Comm(MPI.COMM_WORLD, *grid, backend="cpu", timeout=20) as comm:
        s: Any = Workbench(comm, grid, Path(folder))
        s.matrix.save(str(s.folder / "A"))
        s.matrix.save(str(s.folder / "B"))
        for name in ("x.h5", "y.h5"):
            s.x.save(str(s.folder / name))
        s.blank_x, s.blank_F, s.closed, s.other = blank(s), s.blank(), blank(s), s.new_comm(*grid)
        s.closed.close()
        found: dict[Any, Any] = {("differing", name): outcome(s, act) for name, (act, _) in DIFFERING.items()}
        found |= {("local", name): outcome(s, act) for name, (_, act) in LOCAL.items()}
        s.matrix.init_mat_from_array(F)
        found["afterwards"] = float(abs((s.matrix @ s.x).gather()).sum())
    return found


@pytest.fixture(scope="module", params=GRIDS, ids=lambda grid: f"{grid[0]}x{grid[1]}")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    folder = str(tmp_path_factory.mktemp("arguments"))
    return run_ranks(2, "unit.comm.test_arguments:outcomes", (request.param, folder), timeout=150)


@pytest.mark.mpi
@pytest.mark.parametrize("name", DIFFERING)
def test_differing_arguments(results: Any, name: str) -> None:
    first, second = (found["differing", name] for found in results)
    assert first is not None
    assert first == second
    kind, message = first
    assert kind == "AgreementError", message
    assert "expected the same call and arguments on every rank, found" in message
    for text in DIFFERING[name][1]:
        assert text in message


@pytest.mark.mpi
@pytest.mark.parametrize("name", LOCAL)
def test_checks_that_fail_on_one_rank(results: Any, name: str) -> None:
    first, second = (found["local", name] for found in results)
    assert first is not None
    assert first == second
    assert issubclass(getattr(fm, first[0], TypeError), LOCAL[name][0]), first


@pytest.mark.mpi
def test_afterwards(results: Any) -> None:
    """The ranks stay in step: a product is right after all the errors."""
    from support.reference import apply

    expected = abs(apply(F, OPERANDS["col"])).sum()
    for found in results:
        assert found["afterwards"] == pytest.approx(expected, rel=1e-12)


def small_matrix(s: Workbench) -> fm.Matrix:
    matrix = fm.Matrix(s.comm, NM, ND, NT, True, p_config=fm.MatvecPrecisionConfig.from_code("ddsdd"))
    matrix.init_mat_ones()
    return matrix


# Products with differing arguments, and products that fail on one rank, with NUMBA_FFTMATVEC_CHECK=1.
PRODUCTS: dict[str, tuple[str, Callable[[Any, bool], Any]]] = {
    "operand without values": ("UninitializedError", lambda s, odd: s.matrix.matvec(s.blank_x if odd else s.x, s.y)),
    "operand of the other space": ("SpaceError", lambda s, odd: s.matrix.matvec(s.y if odd else s.x, s.y)),
    "F or F*F": ("AgreementError", lambda s, odd: s.matrix.matvec(s.x, s.blank_x if odd else s.y, full=odd)),
    "F or G": ("AgreementError", lambda s, odd: s.matrix.matvec(s.x, s.y, use_aux_mat=odd)),
    "precision": ("AgreementError", lambda s, odd: (s.other_F if odd else s.matrix).matvec(s.x, s.y)),
    "product or norm": ("AgreementError", lambda s, odd: s.x.norm() if odd else s.matrix.matvec(s.x, s.y)),
}


def product_outcomes(grid: tuple[int, int]) -> dict[str, Any]:
    os.environ["NUMBA_FFTMATVEC_CHECK"] = "1"
    with fm.Comm(MPI.COMM_WORLD, *grid, backend="cpu", timeout=20) as comm:
        s: Any = Workbench(comm, grid, Path())
        s.blank_x, s.other_F = blank(s), small_matrix(s)
        found: dict[str, Any] = {name: outcome(s, act) for name, (_, act) in PRODUCTS.items()}
        found["afterwards"] = float(abs((s.matrix @ s.x).gather()).sum())
    return found


@pytest.mark.mpi
@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid[0]}x{grid[1]}")
def test_products_that_compare(grid: tuple[int, int]) -> None:
    first, second = run_ranks(2, "unit.comm.test_arguments:product_outcomes", grid, timeout=60)
    assert first == second
    assert {name: first[name] and first[name][0] for name in PRODUCTS} == {
        name: kind for name, (kind, _) in PRODUCTS.items()
    }
    assert first["afterwards"] > 0
