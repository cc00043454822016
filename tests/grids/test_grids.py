"""Products, vectors, matrices and files on every process grid, on the CPU."""

from __future__ import annotations

from typing import Any

import pytest

from support.suites import GridSuite

pytestmark = pytest.mark.mpi

GRIDS = [(1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (3, 1)]


@pytest.fixture(scope="module", params=GRIDS, ids=lambda grid: f"{grid[0]}x{grid[1]}")
def results(request: pytest.FixtureRequest, grid_results: Any) -> Any:
    return grid_results(request.param, "cpu", "mpi")


class TestGrids(GridSuite):
    """The suite, with ranks that share the CPU."""
