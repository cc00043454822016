"""MPI's communicators: no Comm loses one, however it ends, and a named error says when there are none left."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec.comm import communicators
from support.harness import run_ranks

CYCLES = 1000


def available() -> int:
    """Return the number of communicators that MPI can still create."""
    made = []
    try:
        while len(made) < 100_000:
            made.append(MPI.COMM_WORLD.Dup())
    except MPI.Exception:
        pass
    for communicator in made:
        communicator.Free()
    return len(made)


def create(**options: Any) -> fm.Comm:
    return fm.Comm(MPI.COMM_WORLD, **({"backend": "cpu"} | options))


def closed() -> None:
    create().close()


def abandoned() -> None:
    create()


def in_a_cycle() -> None:
    comm = create()
    comm.itself = comm  # type: ignore[attr-defined]


def of_an_error() -> None:
    try:
        with create():
            raise RuntimeError("lost")
    except RuntimeError:
        pass


def refused() -> None:
    with pytest.raises(fm.GridError):
        create(proc_rows=7)


def refused_by_one_rank() -> None:
    with pytest.raises(fm.ArgumentError):
        create(backend="tpu" if MPI.COMM_WORLD.rank == 1 else "cpu")


def without_device() -> None:
    """End in the middle of the constructor, when the communicators exist."""
    with pytest.raises(fm.BackendError):
        create(collectives="nccl")


def abandoned_by_one_rank() -> None:
    """Keep the Comm on one rank until the next cycle."""
    comm = create()
    KEPT[:] = [comm] if MPI.COMM_WORLD.rank == 0 else []


def on_a_duplicate() -> None:
    parent = MPI.COMM_WORLD.Dup()
    fm.Comm(parent, backend="cpu")
    parent.Free()


KEPT: list[fm.Comm] = []
ENDS = (
    closed,
    abandoned,
    in_a_cycle,
    of_an_error,
    refused,
    refused_by_one_rank,
    without_device,
    abandoned_by_one_rank,
    on_a_duplicate,
)


def cycles(payload: None) -> tuple[int, int, int]:
    closed()
    before = available()
    for cycle in range(CYCLES):
        ENDS[cycle % len(ENDS)]()
    KEPT.clear()
    gc.collect()
    closed()
    return before, available(), sum(len(family.present) for family in communicators._FAMILIES.values())


def exhaustion(payload: None) -> tuple[str, str, int, float]:
    """Open Comms until MPI has no more communicators, then close some and use another."""
    comms: list[fm.Comm] = []
    with pytest.raises(fm.CapacityError) as caught:
        comms.extend(create() for _ in range(100_000))
    number = len(comms)
    for comm in comms[:3]:
        comm.close()
    with create() as comm:
        x = fm.Vector(comm, 4, 2, "col", global_sizes=True)
        x.init_vec_ones()
        norm = x.norm(1)
    del comms[3:]
    gc.collect()
    for _ in range(3):
        closed()  # and by that all others
    assert sum(len(family.present) for family in communicators._FAMILIES.values()) == 0
    return type(caught.value).__name__, str(caught.value), number, norm


@pytest.mark.mpi
def test_no_communicator_is_lost() -> None:
    for before, after, present in run_ranks(2, "unit.comm.test_communicators:cycles", timeout=120):
        assert before == after
        assert before > 100
        assert present == 0


@pytest.mark.mpi
def test_no_communicators_left() -> None:
    first, second = run_ranks(2, "unit.comm.test_communicators:exhaustion", timeout=120)
    assert first == second
    kind, message, number, norm = first
    assert kind == "CapacityError"
    assert f"expected a free communicator in MPI, found none ({number} Comms are open): close()" in message
    assert number > 100
    assert norm == 8.0
