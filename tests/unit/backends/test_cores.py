"""The share of a node's cores that each rank takes."""

from __future__ import annotations

import os
from fractions import Fraction
from typing import Any

import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec.backends.cores import Place, available_cores, from_mask, to_mask, usable_cores
from numba_fftmatvec.comm import communicators
from support.harness import run_ranks

# The cores of each rank of a node, and each rank's share.
NODES: dict[str, tuple[list[range | set[int]], list[Fraction | int]]] = {
    "one rank": ([range(8)], [8]),
    "bound": ([range(4), range(4, 8)], [4, 4]),
    "bound to a core each": ([{0}, {1}, {2}, {3}], [1, 1, 1, 1]),
    "not bound": ([range(8)] * 4, [2, 2, 2, 2]),
    "not divisible": ([range(8)] * 3, [Fraction(8, 3)] * 3),
    "more ranks than cores": ([range(2)] * 4, [Fraction(1, 2)] * 4),
    "in part": ([range(4), range(2, 6), {7}], [3, 3, 1]),
    "one in all": ([range(4), {0}, {0}], [Fraction(10, 3), Fraction(1, 3), Fraction(1, 3)]),
    "pairs": ([range(4), range(4), range(64, 68), range(64, 68)], [2, 2, 2, 2]),
}


def place(cores: list[range | set[int]], rank: int) -> Place:
    return Place.of([frozenset(each) for each in cores], rank)


@pytest.mark.parametrize("name", NODES)
def test_ranks_share_the_cores_that_they_may_use(name: str) -> None:
    cores, shares = NODES[name]
    for rank, share in enumerate(shares):
        found = place(cores, rank)
        assert (found.rank, found.size, found.share) == (rank, len(cores), share)
        assert found.cores == max(1, int(share))
        assert found.has_core == (share >= 1)
    assert sum(shares) == len(set().union(*cores))  # all cores are given, each once


@pytest.mark.parametrize("cores", [set(), {0}, {7}, {8}, {0, 63, 64, 255}, set(range(300))])
def test_masks(cores: set[int]) -> None:
    assert from_mask(to_mask(cores)) == cores


def test_a_process_alone_takes_all_cores() -> None:
    assert Place.alone().share == Place.alone().cores == available_cores() == len(usable_cores())


def on_node(names: list[str]) -> list[tuple[int, bool]]:
    """Return the threads of a Comm, and whether it has a core, on pretended nodes and then on cores of this machine."""
    rank, true, found = MPI.COMM_WORLD.rank, communicators.usable_cores, []
    for name in names:
        communicators.usable_cores = lambda name=name: frozenset(NODES[name][0][rank])  # type: ignore[misc]
        with fm.Comm(backend="cpu") as comm:
            found.append((comm.backend.threads, comm._meeting.watch.has_core))
    communicators.usable_cores = true
    mine = sorted(os.sched_getaffinity(0))[rank]
    os.sched_setaffinity(0, {mine})
    with fm.Comm(backend="cpu") as comm:
        return [*found, (comm.backend.threads, comm._meeting.watch.has_core)]


@pytest.mark.mpi
@pytest.mark.skipif(available_cores() < 2, reason="binds two ranks to a core each")
def test_ranks_of_a_node() -> None:
    """Bound ranks keep their cores: each rank learns which cores the others of its node may use."""
    names = [name for name, (cores, _) in NODES.items() if len(cores) == 2]
    results: list[Any] = run_ranks(2, "unit.backends.test_cores:on_node", names, environment={"NUMBA_NUM_THREADS": "8"})
    for rank, result in enumerate(results):
        assert result == [*[(int(NODES[name][1][rank]), True) for name in names], (1, True)]
