"""Products, vectors, matrices and files on grids with a GPU for each rank: collectives through NCCL."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec.products import PRODUCTS
from support.harness import run_ranks
from support.suites import GridSuite, section

pytestmark = pytest.mark.gpu

GRIDS = [(1, 2), (2, 1), (2, 2), (1, 4), (4, 1)]


@pytest.fixture(scope="module", params=GRIDS, ids=lambda grid: f"{grid[0]}x{grid[1]}")
def results(gpu_each: Any, request: pytest.FixtureRequest, grid_results: Any) -> Any:
    gpu_each(request.param)
    return grid_results(request.param, "cuda", "nccl")


class TestGpuEach(GridSuite):
    """The suite, with collectives from device to device."""

    def test_devices(self, results: Any) -> None:
        assert len({grid["device"] for grid in section(results, "grid")}) == len(results)


def close_before_the_matrix(grid: tuple[int, int]) -> list[float]:
    """Return the norms of products, after closing a Comm whose matrix has recorded them as graphs."""
    with fm.Comm(MPI.COMM_WORLD, *grid, backend="cuda", collectives="nccl") as comm:
        matrix = fm.Matrix(comm, 6, 4, 8, global_sizes=True)
        matrix.init_mat_ones()
        x, y = matrix.get_vec("input"), matrix.get_vec("output")
        x.init_vec_ones()
        norms = []
        for _ in range(3):  # eager, recorded, replayed
            matrix.matvec(x, y)
            norms.append(y.norm())
    with pytest.raises(fm.ClosedError):
        matrix.matvec(x, y)
    return norms


@pytest.mark.parametrize("grid", GRIDS[:2], ids=str)
def test_a_comm_may_close_before_its_matrices(gpu_each: Any, grid: tuple[int, int]) -> None:
    """NCCL waits for the graphs that hold its operations, so the Comm drops them."""
    gpu_each(grid)
    first, other = run_ranks(2, "gpu.test_nccl:close_before_the_matrix", grid, timeout=120)
    # Each of 4 blocks is 6 (1, 2, ..., 8), and the squares of 1 to 8 sum to 204.
    assert first == other == pytest.approx([2 * 6 * 204**0.5] * 3, rel=1e-14)


# Nm, Nd, Nt: odd numbers of blocks, so that the last pair of a chunk is a single block; cuFFT transforms the length.
SIZES = (37, 23, 41)
TOLERANCES = {"ddddd": 1e-13, "dssdd": 2e-6, "sssss": 2e-6}


def products_in_chunks(grid: tuple[int, int]) -> dict[Any, Any]:
    """Return products whose transforms go in chunks of two pairs, eager, recorded and replayed."""
    from numba_fftmatvec.backends.cuda import transforms

    transforms.CHUNK_BYTES = 2 * 2 * SIZES[2] * 16
    found: dict[Any, Any] = {}
    with fm.Comm(MPI.COMM_WORLD, *grid, backend="cuda", collectives="nccl") as comm:
        for code, num_vecs in itertools.product(TOLERANCES, (1, 3)):
            config = fm.MatvecPrecisionConfig.from_code(code)
            with fm.Matrix(comm, *SIZES, global_sizes=True, p_config=config) as F:
                F.init_mat_doubles()
                for name in ("F", "F*", "F*F"):
                    found[code, num_vecs, name] = [product.tolist() for product in repeated(F, name, num_vecs)]
    return found


def repeated(F: fm.Matrix, name: str, num_vecs: int) -> Iterator[Any]:
    product = PRODUCTS[name]
    x, y = (
        fm.Vector.from_layout(F.comm, F.layout.vector(space, num_vecs))
        for space in (product.input_space, product.output_space)
    )
    for i in range(4):
        x.scatter(np.random.default_rng(i).standard_normal(x.shape))
        y.init_vec_zeros()
        F.apply_product(product, x, y)
        yield y.gather()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_products_in_chunks(gpu_each: Any, grid: tuple[int, int]) -> None:
    gpu_each(grid)
    found, *others = run_ranks(grid[0] * grid[1], "gpu.test_nccl:products_in_chunks", grid, timeout=240)
    with fm.Comm(MPI.COMM_SELF, backend="cpu") as comm, fm.Matrix(comm, *SIZES, global_sizes=True) as F:
        F.init_mat_doubles()
        for (code, num_vecs, name), results in found.items():
            assert all(other[code, num_vecs, name] == results for other in others)
            for result, expected in zip(results, repeated(F, name, num_vecs), strict=True):
                error = np.linalg.norm(np.array(result) - expected) / np.linalg.norm(expected)
                assert error < TOLERANCES[code], (code, num_vecs, name)


def stopped_rank(payload: None) -> tuple[str, str, float]:
    """Return the error of a rank whose product waits for a stopped rank, and its seconds."""
    comm = fm.Comm(MPI.COMM_WORLD, 1, 2, backend="cuda", collectives="nccl", timeout=5.0)
    pids = MPI.COMM_WORLD.allgather(os.getpid())
    matrix = fm.Matrix(comm, 6, 4, 8, global_sizes=True)
    matrix.init_mat_ones()
    x, y = matrix.get_vec("input"), matrix.get_vec("output")
    x.init_vec_ones()
    for _ in range(3):
        matrix.matvec(x, y)
    comm.synchronize()
    started = time.monotonic()
    if comm.world_rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
        return "", "", 0.0
    matrix.matvec(x, y)  # queued
    with pytest.raises(fm.CollectiveTimeout) as caught:
        comm.synchronize()
    seconds = time.monotonic() - started
    with pytest.raises(fm.ClosedError):
        matrix.matvec(x, y)
    comm.close()
    os.kill(pids[1], signal.SIGCONT)
    return type(caught.value).__name__, str(caught.value), seconds


def test_a_product_that_waits_for_a_stopped_rank(gpu_each: Any) -> None:
    gpu_each((1, 2))
    kind, message, seconds = run_ranks(2, "gpu.test_nccl:stopped_rank", timeout=90)[0]
    assert kind == "CollectiveTimeout"
    assert "waiting for the device: expected the device's work within 5 s" in message
    assert 4.5 < seconds < 15


def failing_constructors(payload: None) -> list[tuple[str, str]]:
    """Return the errors of constructors in which NCCL fails on one rank, and then create a Comm."""
    from numba_fftmatvec.comm import nccl

    found = []
    original = nccl.nccl.get_unique_id

    def without_identity() -> Any:
        raise RuntimeError("no identity")

    nccl.nccl.get_unique_id = without_identity if MPI.COMM_WORLD.rank == 0 else original
    try:
        fm.Comm(MPI.COMM_WORLD, 1, 2, backend="cuda", collectives="nccl", timeout=30.0)
    except RuntimeError as error:
        found.append((type(error).__name__, str(error)))
    nccl.nccl.get_unique_id = original
    fm.Comm(MPI.COMM_WORLD, 1, 2, backend="cuda", collectives="nccl", timeout=30.0).close()
    return found


def test_a_constructor_that_fails_on_one_rank(gpu_each: Any) -> None:
    gpu_each((1, 2))
    first, second = run_ranks(2, "gpu.test_nccl:failing_constructors", timeout=90)
    assert first == second == [("RuntimeError", "no identity")]
