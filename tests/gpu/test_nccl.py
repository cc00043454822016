"""Products, vectors, matrices and files on grids with a GPU for each rank: collectives through NCCL."""

from __future__ import annotations

from typing import Any

import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
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
