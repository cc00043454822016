"""Bad input on grids: the same named error on every rank, never a hang."""

from __future__ import annotations

from typing import Any

import pytest

from support.bad_input import CASES, check_afterwards, check_case

pytestmark = pytest.mark.mpi

GRIDS = [(1, 2), (2, 1), (2, 2)]


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid[0]}x{grid[1]}")
class TestBadInput:
    """Errors that `bad_input.run_cases` raised on each grid."""

    @pytest.mark.parametrize("name", CASES)
    def test_case(self, bad_input_results: Any, grid: tuple[int, int], name: str) -> None:
        check_case(bad_input_results(grid, "cpu"), name, grid)

    def test_afterwards(self, bad_input_results: Any, grid: tuple[int, int]) -> None:
        check_afterwards(bad_input_results(grid, "cpu"))
