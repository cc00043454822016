"""Products, vectors, matrices and files on grids with a GPU for each rank: collectives through NCCL."""

from __future__ import annotations

from typing import Any

import pytest

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
