"""One exception on all ranks, wherever a collective call fails on one of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support.harness import run_ranks
from support.injection import ERRORS
from support.workbench import OPERANDS

pytestmark = pytest.mark.mpi

# Of the failures on each grid, one of this number is injected. `every_failure` injects all of them.
STEPS = {(1, 2): 1, (2, 1): 19, (2, 2): 83, (1, 3): 67, (3, 1): 67}
SECONDS = 240


def check(grid: tuple[int, int], kind: str, step: int, folder: Path) -> int:
    """Inject failures on a grid and assert that all ranks raised one error each time; return the number of failures."""
    payload = grid, str(folder), kind, step
    ranks = run_ranks(grid[0] * grid[1], "support.injection:inject", payload, timeout=SECONDS)
    for found in ranks:
        assert not found["wrong"], f"{len(found['wrong'])} of {found['total']}:\n" + "\n".join(found["wrong"][:20])
        assert found["norm"] == pytest.approx(np.linalg.norm(OPERANDS["col"]), rel=1e-14)
    return int(ranks[0]["total"])


@pytest.mark.parametrize("grid", STEPS, ids=lambda grid: f"{grid[0]}x{grid[1]}")
def test_memory_errors(grid: tuple[int, int], tmp_path: Path) -> None:
    assert check(grid, "memory", STEPS[grid], tmp_path) > 50


def test_interrupts(tmp_path: Path) -> None:
    assert check((1, 2), "interrupt", 13, tmp_path) > 100


def every_failure(folder: Path, step: int = 1) -> Iterator[tuple[str, int]]:
    """Inject failures of every kind on every grid, one of `step`; yield each case with their number.

    All of them take about ten minutes.
    """
    for grid, kind in itertools.product(STEPS, ERRORS):
        case = f"{kind} {grid[0]}x{grid[1]}"
        place = folder / case.replace(" ", "-")
        place.mkdir()
        yield case, check(grid, kind, step, place)
