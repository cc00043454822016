"""Interrupts of a rank at any moment, between and within messages: one outcome on all ranks, which stay in step."""

from __future__ import annotations

import random
import signal
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from support.harness import run_ranks

ROUNDS = 400
LONGEST = 3e-3  # seconds until an interrupt; the work of a round takes about that


def interrupt(*frame: object) -> None:
    raise KeyboardInterrupt


def work(comm: fm.Comm, x: fm.Vector, round: int) -> None:
    """Send messages of every kind, and check that none is one of another round."""
    values = x.gather()
    assert values[-1, -1] == values.size - 1
    assert comm.allgather((comm.world_rank, round)) == [(rank, round) for rank in range(comm.world_size)]
    assert comm.bcast(round if comm.world_rank == 0 else None) == round
    assert comm.stack(np.full(9, float(round))).min() == round

    def local(item: int) -> Any:
        return np.full(x.layout.local_shape, float(round + item))

    def consume(item: int, parts: Any) -> None:
        for blocks, part in parts:
            assert part.shape == (len(blocks), x.block_size)
            assert (part == round + item).all()

    comm.collect(x.layout, range(3), local, consume, "collecting")


def storm(seed: int) -> list[tuple[str, ...]]:
    """Return the outcome of each round."""
    moments = random.Random(seed)
    signal.signal(signal.SIGALRM, interrupt)
    outcomes = []
    with fm.Comm(MPI.COMM_WORLD, backend="cpu", timeout=20) as comm:
        x = fm.Vector(comm, 7, 3, "col", global_sizes=True)
        x.init_vec_consecutive()
        for round in range(ROUNDS):
            moment, rank = moments.uniform(1e-6, LONGEST), moments.randrange(comm.world_size)
            outcome = "right"
            try:
                with comm.agreement("a round"):
                    try:
                        if comm.world_rank == rank:
                            signal.setitimer(signal.ITIMER_REAL, moment)
                        work(comm, x, round)
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
            except BaseException as error:
                outcome = f"{type(error).__name__}: {error}"
            assert comm.stack(np.array([float(round)])).min() == round
            outcomes.append(outcome)
    return outcomes


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 3])
def test_interrupts_at_any_moment(ranks: int) -> None:
    first, *others = run_ranks(ranks, "faults.test_injection_interrupts:storm", ranks, timeout=120)
    assert all(found == first for found in others)
    assert set(first) <= {"right", "KeyboardInterrupt: "}
    assert first.count("KeyboardInterrupt: ") > ROUNDS // 20
