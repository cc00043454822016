"""The share of a node's cores that each rank takes."""

from __future__ import annotations

import math
import os
import re
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import numba
import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec.backends import cores as module
from numba_fftmatvec.backends.cores import (
    ENVIRONMENT_VARIABLE,
    Place,
    available_cores,
    default_threads,
    from_mask,
    present_threads,
    requested_threads,
    to_mask,
    usable_cores,
)
from numba_fftmatvec.comm import communicators
from numba_fftmatvec.comm.exclusive import exclusive
from numba_fftmatvec.kernels.threads import pool_size
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


@pytest.mark.parametrize(
    ("variable", "expected"),
    [("4", 4), ("1", 1), ("3,2", 3), (" 2 , 1", 2), ("04", 4), ("99", 8), ("0", 8), ("-1", 8), ("", 8), ("many", 8)],
)
def test_openmp_bounds_the_default(monkeypatch: pytest.MonkeyPatch, variable: str, expected: int) -> None:
    """The first number of the list bounds the share; OpenMP ignores other texts too."""
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert default_threads(place([range(8)], 0), "cuda").number == expected
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert default_threads(place([range(8)], 0), "cuda").number == 8


@pytest.mark.parametrize(
    ("environment", "pool", "caller", "expected"),
    [
        ({}, 8, 8, (8, "the rank's share of the cores")),
        ({"OMP_NUM_THREADS": "8"}, 8, 8, (8, "the rank's share of the cores")),
        ({"OMP_NUM_THREADS": "5,2"}, 8, 8, (5, "OMP_NUM_THREADS")),
        ({"OMP_NUM_THREADS": "5"}, 4, 4, (4, "NUMBA_NUM_THREADS")),
        ({"OMP_NUM_THREADS": "5"}, 4, 2, (2, "numba.set_num_threads")),
        ({"OMP_NUM_THREADS": "2", ENVIRONMENT_VARIABLE: "3"}, 4, 1, (3, ENVIRONMENT_VARIABLE)),
    ],
)
def test_the_number_has_an_origin(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], pool: int, caller: int, expected: tuple[int, str]
) -> None:
    for name in ("OMP_NUM_THREADS", ENVIRONMENT_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    openmp = environment.get("OMP_NUM_THREADS", "8")
    monkeypatch.setattr(module, "usable_cores", lambda: frozenset(range(8)))
    monkeypatch.setattr(module, "pool_size", lambda: pool)
    monkeypatch.setattr(module, "accessors", lambda: (lambda: caller, None))
    assert present_threads("cpu") == expected
    assert present_threads("cuda").number == int(environment.get(ENVIRONMENT_VARIABLE, openmp)[0])


def test_the_number_is_that_of_a_comm(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in (("OMP_NUM_THREADS", "1"), (ENVIRONMENT_VARIABLE, str(pool_size()))):
        with fm.Comm(backend="cpu") as comm:
            assert present_threads("cpu").number == comm.threads
        monkeypatch.setenv(variable, value)
    with fm.Comm(backend="cpu") as comm:
        assert present_threads("cpu") == (comm.threads, ENVIRONMENT_VARIABLE)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend to have eight cores and six threads in numba's pool."""
    monkeypatch.setattr(module, "available_cores", lambda: 8)
    monkeypatch.setattr(module, "pool_size", lambda: 6)
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


@pytest.mark.usefixtures("machine")
def test_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument has precedence over the environment variable."""
    assert requested_threads(None) is None
    assert [requested_threads(number) for number in (1, 6, np.int64(3))] == [1, 6, 3]
    for text in ("5", "+5", "05"):
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, text)
        assert requested_threads(None) == 5
        assert requested_threads(2) == 2


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    "value", [0, -1, 7, 10**30, 2.0, 0.5, math.nan, math.inf, True, np.True_, "2", "", b"2", [2], 2j]
)
def test_other_numbers_are_refused(value: object) -> None:
    expected = r"^threads: expected an integer of 1 .. 6 \(numba's threads, set by NUMBA_NUM_THREADS\), found "
    with pytest.raises(fm.ArgumentError, match=expected + re.escape(repr(value))):
        requested_threads(value)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("text", ["0", "-1", "7", "2.0", "nan", "", " ", "two", "1e0", "2 3", "\u0662", "9" * 5000])
def test_other_texts_of_the_variable_are_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, text)
    with pytest.raises(fm.ArgumentError, match=rf"^{ENVIRONMENT_VARIABLE}: expected an integer of 1 .. 6 .*, found "):
        requested_threads(None)


@pytest.mark.usefixtures("machine")
def test_the_cores_bound_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_cores", lambda: 4)
    with pytest.raises(fm.ArgumentError, match=r"1 .. 4 \(the cores that this process may use\), found 5"):
        requested_threads(5)


def observed(comm: fm.Comm) -> int:
    """Return the number of numba's threads in a call of the Comm."""
    x = fm.Vector(comm, 1, 1, "col", global_sizes=True)
    found: list[int] = []
    x.from_numpy = exclusive(lambda self: found.append(numba.get_num_threads())).__get__(x)  # type: ignore[method-assign]
    x.from_numpy()
    return found[0]


@pytest.mark.skipif(pool_size() < 2, reason="compares one thread with two")
def test_calls_use_the_threads_of_their_comm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A smaller number of the caller bounds the default of new Comms alone, and calls leave it as it was."""
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    two, one = fm.Comm(backend="cpu", threads=2), fm.Comm(backend="cpu", threads=1)
    usual = numba.get_num_threads()
    try:
        assert [observed(comm) for comm in (two, one, two)] == [2, 1, 2]
        assert numba.get_num_threads() == usual
        numba.set_num_threads(1)
        bounded = fm.Comm(backend="cpu")
        assert fm.Comm(backend="cpu", threads=2).threads == 2
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, "2")
        assert fm.Comm(backend="cpu").threads == 2
        numba.set_num_threads(2)
        assert [comm.threads for comm in (two, one, bounded)] == [2, 1, 1]
        assert [observed(comm) for comm in (bounded, two)] == [1, 2]
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(observed, one).result() == 1
            assert pool.submit(numba.get_num_threads).result() == pool_size()
        assert numba.get_num_threads() == 2
    finally:
        numba.set_num_threads(usual)


@pytest.mark.skipif(pool_size() < 2, reason="compares one thread with two")
@pytest.mark.parametrize("num_vecs", [1, 5])
def test_results_do_not_depend_on_the_threads(num_vecs: int) -> None:
    results = []
    for threads in (1, 2):
        with fm.Comm(backend="cpu", threads=threads) as comm:
            F = fm.Matrix(comm, 70, 30, 150, global_sizes=True)
            F.init_mat_doubles()
            x = fm.Vector.from_layout(comm, F.layout.vector("col", num_vecs))
            x.init_vec_doubles()
            y = fm.Vector.from_layout(comm, F.layout.vector("row", num_vecs))
            F.apply(x, y)
            F.apply_adjoint(y, x)
            results.append((y.gather(), x.gather(), x.norms()))
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


def on_node(names: list[str]) -> list[tuple[int, bool]]:
    """Return the threads of a Comm, and whether it has a core, on pretended nodes and then on cores of this machine."""
    rank, true, found = MPI.COMM_WORLD.rank, communicators.usable_cores, []
    for name in names:
        communicators.usable_cores = lambda name=name: frozenset(NODES[name][0][rank])  # type: ignore[misc]
        with fm.Comm(backend="cpu") as comm:
            found.append((comm.threads, comm._meeting.watch.has_core))
    communicators.usable_cores = true
    with fm.Comm(backend="cpu", threads=1 + rank) as comm:  # ranks may differ
        found.append((comm.threads, comm._meeting.watch.has_core))
    mine = sorted(os.sched_getaffinity(0))[rank]
    os.sched_setaffinity(0, {mine})
    with pytest.raises(fm.ArgumentError, match=r"1 \(the cores that this process may use\), found 2"):
        fm.Comm(backend="cpu", threads=1 + rank)
    with fm.Comm(backend="cpu") as comm:
        return [*found, (comm.threads, comm._meeting.watch.has_core)]


@pytest.mark.mpi
@pytest.mark.skipif(available_cores() < 2, reason="binds two ranks to a core each")
def test_ranks_of_a_node() -> None:
    """Bound ranks keep their cores: each rank learns which cores the others of its node may use."""
    names = [name for name, (cores, _) in NODES.items() if len(cores) == 2]
    environment = dict.fromkeys(["NUMBA_NUM_THREADS", "OMP_NUM_THREADS"], "8")
    results: list[Any] = run_ranks(2, "unit.backends.test_cores:on_node", names, environment=environment)
    for rank, result in enumerate(results):
        assert result == [*[(int(NODES[name][1][rank]), True) for name in names], (1 + rank, True), (1, True)]
