"""One exception on all ranks, wherever a collective call fails on one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.harness import run_ranks
from support.injection import ERRORS
from support.workbench import OPERANDS

pytestmark = pytest.mark.mpi

GRIDS = [(1, 2), (2, 1), (2, 2), (1, 3), (3, 1)]


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid[0]}x{grid[1]}")
def test_every_site_on_every_rank(grid: tuple[int, int], kind: str, tmp_path: Path) -> None:
    ranks = run_ranks(grid[0] * grid[1], "support.injection:inject", (grid, str(tmp_path), kind), timeout=240)
    for found in ranks:
        assert not found["wrong"], f"{len(found['wrong'])} of {found['total']}:\n" + "\n".join(found["wrong"][:20])
        assert found["total"] > 100
        assert found["norm"] == pytest.approx(np.linalg.norm(OPERANDS["col"]), rel=1e-14)
