"""Products, vectors, matrices and files on grids of ranks that share one GPU: collectives through MPI."""

from __future__ import annotations

from typing import Any

import pytest

from support.suites import GridSuite, section

pytestmark = pytest.mark.gpu

GRIDS = [(1, 1), (1, 2), (2, 1), (2, 2)]


@pytest.fixture(scope="module", params=GRIDS, ids=lambda grid: f"{grid[0]}x{grid[1]}")
def results(request: pytest.FixtureRequest, grid_results: Any) -> Any:
    return grid_results(request.param, "cuda", "mpi")


class TestSharedGpu(GridSuite):
    """The suite, with collectives staged in host memory."""

    def test_backend(self, results: Any) -> None:
        assert {grid["backend"] for grid in section(results, "grid")} == {"cuda"}
