"""The collection of vectors by parts: the parts that the first rank gets, and the errors when a rank fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec.layout import Space
from support.harness import run_ranks

BLOCKS, STEPS, VECTORS, ITEMS = 5, 3, 2, 4
GRIDS = ((1, 3), (3, 1), (2, 2), (1, 1))
GLOBAL = np.arange(ITEMS * VECTORS * BLOCKS * STEPS, dtype=float).reshape(ITEMS, VECTORS, BLOCKS, STEPS)


def attempt(comm: fm.Comm, space: Space, fails: Callable[[str, int], bool], exhaust: bool) -> Any:
    """Collect the items; return the ones that this rank consumed, or its error."""
    layout = comm.axis(space).layout(BLOCKS, STEPS, VECTORS)
    consumed = []

    def local(item: int) -> np.ndarray:
        if fails("local", item):
            raise fm.FileError(f"no values of {item} on part {comm.axis(space).index}")
        return GLOBAL[item][:, layout.blocks.start : layout.blocks.stop]

    def consume(item: int, parts: Iterator[tuple[range, np.ndarray]]) -> None:
        whole = np.full((VECTORS, BLOCKS, STEPS), np.nan)
        for blocks, values in parts:
            whole[:, blocks.start : blocks.stop] = values
            if fails("consume", item):
                raise fm.FileError(f"cannot take {item}")
            if not exhaust:
                break
        consumed.append((item, whole))

    try:
        comm.collect(layout, range(ITEMS), local, consume, "collecting")
    except Exception as error:
        return type(error).__name__, str(error), error.__notes__
    return consumed


def outcomes(grid: tuple[int, int]) -> dict[str, Any]:
    """Return the outcome of each case on one rank of a grid; a plain collection must work after each."""
    found = {}
    with fm.Comm(MPI.COMM_WORLD, *grid, backend="cpu") as comm:
        for space in Space:
            index = comm.axis(space).index
            last = comm.axis(space).parts - 1
            cases: dict[str, tuple[Callable[[str, int], bool], bool]] = {
                "plain": (lambda where, item: False, True),
                "not exhausted": (lambda where, item: False, False),
                "consumer": (lambda where, item: where == "consume" and item == 2, True),
                "first sender": (lambda where, item, i=index: where == "local" and item == 1 and i == 0, True),
                "last sender": (lambda where, item, i=index, n=last: where == "local" and item == 3 and i == n, True),
                "all senders": (lambda where, item: where == "local" and item == 0, True),
            }
            for name, (fails, exhaust) in cases.items():
                found[f"{space}, {name}"] = attempt(comm, space, fails, exhaust)
                found[f"{space}, after {name}"] = attempt(comm, space, lambda where, item: False, True)
            found[f"{space}, first"] = index == 0
    return found


@pytest.mark.mpi
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_collections(grid: tuple[int, int]) -> None:
    ranks = run_ranks(grid[0] * grid[1], "unit.comm.test_collection:outcomes", grid, timeout=120)
    messages = {
        "consumer": "cannot take 2",
        "first sender": "no values of 1 on part 0",
        "last sender": "no values of 3 on part",
        "all senders": "no values of 0 on part 0",
    }
    for found in ranks:
        for space in ("col", "row"):
            for name in ("plain", "not exhausted", *messages):
                for case in (name, f"after {name}"):
                    outcome = found[f"{space}, {case}"]
                    if case in messages:
                        kind, message, notes = outcome
                        assert kind == "FileError"
                        assert messages[case] in message
                        assert "while collecting" in notes[0]
                        assert outcome == ranks[0][f"{space}, {case}"]
                    elif not found[f"{space}, first"]:
                        assert outcome == []
                    else:
                        assert [item for item, _ in outcome] == list(range(ITEMS))
                        if case != "not exhausted":
                            np.testing.assert_array_equal([whole for _, whole in outcome], GLOBAL)
