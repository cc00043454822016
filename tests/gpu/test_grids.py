"""Products, vectors, matrices and files on grids of ranks that share one GPU, and of one GPU a rank."""

from __future__ import annotations

from typing import Any

import pytest

from mpi.suites import GridSuite, section

pytestmark = pytest.mark.gpu


def grid_name(grid: tuple[int, int]) -> str:
    return f"{grid[0]}x{grid[1]}"


class TestSharedGpu(GridSuite):
    """Collectives through MPI, staged in host memory."""

    @pytest.fixture(scope="class", params=[(1, 1), (1, 2), (2, 1), (2, 2)], ids=grid_name)
    def results(self, request: pytest.FixtureRequest, grid_results: Any) -> Any:
        return grid_results(request.param, "cuda", "mpi")

    def test_backend(self, results: Any) -> None:
        assert {grid["backend"] for grid in section(results, "grid")} == {"cuda"}


class TestGpuEach(GridSuite):
    """Collectives through NCCL, each rank with a GPU of its own."""

    @pytest.fixture(scope="class", params=[(1, 2), (2, 1)], ids=grid_name)
    def results(self, two_gpus: None, request: pytest.FixtureRequest, grid_results: Any) -> Any:
        return grid_results(request.param, "cuda", "nccl")

    def test_devices(self, results: Any) -> None:
        assert len({grid["device"] for grid in section(results, "grid")}) == len(results)
