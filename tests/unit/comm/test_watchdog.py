"""Ranks that stop, die or are late: the others name them within the time limit; interrupts while waiting."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec.comm import watchdog
from support.harness import RanksError, run_ranks
from support.interrupts import alarm

TIMEOUT = 2.0
STOPPED = 1


def block(comm: fm.Comm, act: Callable[[], Any]) -> Any:
    """Return the error of an action and its seconds."""
    started = time.monotonic()
    try:
        act()
    except BaseException as error:
        return type(error).__name__, str(error), time.monotonic() - started
    return None, "", time.monotonic() - started


def stop() -> None:
    """Stop this process until another one continues it."""
    os.kill(os.getpid(), signal.SIGSTOP)


def agreement_of_a_stopped_rank(comm: fm.Comm) -> Any:
    def act() -> None:
        with comm.agreement("a phase"):
            if comm.world_rank == STOPPED:
                stop()

    return act


def norm_of_a_stopped_rank(comm: fm.Comm) -> Any:
    x = fm.Vector(comm, 6, 2, "col", global_sizes=True)
    x.init_vec_ones()

    def act() -> None:
        if comm.world_rank == STOPPED:
            stop()
        x.norm()

    return act


def collection_of_a_stopped_rank(comm: fm.Comm) -> Any:
    layout = comm.axis("col").layout(6, 2)

    def local(item: int) -> np.ndarray:
        if comm.world_rank == STOPPED:
            stop()
        return np.ones(layout.local_shape)

    return lambda: comm.collect(layout, [0], local, lambda item, parts: list(parts) and None, "collecting")


STOPS = {
    "agreement": (agreement_of_a_stopped_rank, "a phase: expected a message of every rank within 2 s"),
    "norm": (norm_of_a_stopped_rank, "norm: expected a message of every rank within 2 s"),
    "collection": (collection_of_a_stopped_rank, "collecting: expected a message of every rank within 2 s"),
}


def stopped(name: str) -> Any:
    """Return the errors of the survivors, of their next call, and the seconds; continue the stopped rank at last."""
    comm = fm.Comm(MPI.COMM_WORLD, backend="cpu", timeout=TIMEOUT)
    pids = MPI.COMM_WORLD.allgather(os.getpid())
    first = block(comm, STOPS[name][0](comm))
    later = block(comm, comm.barrier), block(comm, comm.check_open), block(comm, comm.close)
    if comm.world_rank == 0:
        time.sleep(0.5)  # the other survivors reach their limit too
        os.kill(pids[STOPPED], signal.SIGCONT)
    return first, later


@pytest.mark.mpi
@pytest.mark.parametrize("name", STOPS)
def test_a_stopped_rank_is_named(name: str) -> None:
    results = run_ranks(3, "unit.comm.test_watchdog:stopped", name, timeout=60)
    for rank in (0, 2):
        (kind, message, seconds), later = results[rank]
        assert kind == "CollectiveTimeout"
        assert STOPS[name][1] in message
        # The first rank asks for the parts in turn, so in a collection the last rank waits for the first.
        missing = 0 if (name, rank) == ("collection", 2) else STOPPED
        assert message.endswith(f"found none of rank {missing}")
        assert TIMEOUT <= seconds < 10
        assert [outcome[0] for outcome in later] == ["ClosedError", "ClosedError", None]
        assert "gave up a message while" in later[0][1]
        assert all(outcome[2] < 1 for outcome in later)


def killed(payload: None) -> None:
    comm = fm.Comm(MPI.COMM_WORLD, backend="cpu", timeout=TIMEOUT)
    comm.barrier()
    if comm.world_rank == STOPPED:
        os.kill(os.getpid(), signal.SIGKILL)
    comm.barrier()


@pytest.mark.mpi
def test_a_killed_rank_ends_the_others() -> None:
    started = time.monotonic()
    with pytest.raises(RanksError, match="exit status"):
        run_ranks(3, "unit.comm.test_watchdog:killed", timeout=60)
    assert time.monotonic() - started < 20  # with the start of three processes


def interrupted(payload: None) -> Any:
    """Return outcomes of rank 0, which is interrupted while it waits for the late rank 1, and of rank 1."""
    comm = fm.Comm(MPI.COMM_WORLD, backend="cpu", timeout=30)
    first = comm.world_rank == 0

    def late(seconds: float) -> None:
        time.sleep(0 if first else seconds)
        comm.barrier()

    def in_a_block(seconds: float) -> None:
        with comm.agreement("a phase"):
            late(seconds)

    found = []
    for act in (late, in_a_block):
        with alarm(0.3) if first else alarm(100):
            found.append(block(comm, lambda act=act: act(1.0)))
    found.append(block(comm, comm.barrier))  # the ranks are in step
    watchdog._GRACE = 0.5
    with alarm(0.3) if first else alarm(100):
        found.append(block(comm, lambda: late(3.0)))
    found.append(block(comm, comm.check_open))
    return found


@pytest.mark.mpi
def test_interrupts_while_waiting() -> None:
    first, second = run_ranks(2, "unit.comm.test_watchdog:interrupted", timeout=60)
    # The message arrives soon after the interrupt, so that both ranks stay in step.
    assert [outcome[0] for outcome in first] == [
        "KeyboardInterrupt",
        "KeyboardInterrupt",
        None,
        *first[3][:1],
        "ClosedError",
    ]
    assert [outcome[0] for outcome in second[:4]] == [None, "KeyboardInterrupt", None, None]
    # It does not arrive in time, so that the rank gives it up.
    assert first[3][0] == "KeyboardInterrupt"
    assert first[3][2] < 2.5


def late(payload: None) -> list[float]:
    """Return the seconds of agreements that a rank reaches late, for long and with answers to the others' questions."""
    comm = fm.Comm(MPI.COMM_WORLD, backend="cpu", timeout=2.0)
    seconds = []
    for delay in (0.0, 0.5, 1.6):
        for rank in range(comm.world_size):
            started = time.monotonic()
            time.sleep(delay if rank == comm.world_rank else 0)
            comm.barrier()
            seconds.append(time.monotonic() - started)
    comm.close()
    return seconds


@pytest.mark.mpi
def test_a_late_rank_is_waited_for() -> None:
    for seconds in run_ranks(3, "unit.comm.test_watchdog:late", timeout=60):
        assert all(value < 2.0 for value in seconds)


def test_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with fm.Comm(MPI.COMM_SELF, backend="cpu") as comm:
        assert comm.timeout == 300.0
    monkeypatch.setenv("NUMBA_FFTMATVEC_TIMEOUT", "12.5")
    with fm.Comm(MPI.COMM_SELF, backend="cpu") as comm:
        assert comm.timeout == 12.5
    with fm.Comm(MPI.COMM_SELF, backend="cpu", timeout=math.inf) as comm:
        assert comm.timeout == math.inf
    for value in ("0", "-3", "nan", "soon", ""):
        monkeypatch.setenv("NUMBA_FFTMATVEC_TIMEOUT", value)
        with pytest.raises(fm.ArgumentError, match="NUMBA_FFTMATVEC_TIMEOUT: expected a positive number, found"):
            fm.Comm(MPI.COMM_SELF, backend="cpu")
    for value in (0, -1.0, math.nan, "3", True):
        with pytest.raises(fm.ArgumentError, match="timeout: expected a positive number, found"):
            fm.Comm(MPI.COMM_SELF, backend="cpu", timeout=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["receive", "gather"])
def test_memory_of_a_message_that_was_given_up_is_kept(kind: str) -> None:
    """The message may still arrive, and MPI then writes it there."""
    results = run_ranks(2, "unit.comm.test_watchdog:given_up", kind, timeout=60)
    assert results == [(True, 7.0), (True, 7.0)]


def given_up(kind: str) -> tuple[bool, float]:
    """Return whether an array is kept after its message was given up, and the value that arrives later."""
    ranks = MPI.COMM_WORLD.Dup()
    watch, array = watchdog.Watch(ranks, 0.2), np.zeros(100)
    kept, address = weakref.ref(array), array.ctypes.data
    if kind == "receive":
        start, message = partial(ranks.Irecv, source=1 - ranks.rank, tag=1), array
    else:  # the array is an argument of the function, not the message
        start, message = partial(ranks.Iallgather, recvbuf=array), np.full(50, 7.0)
    if kind == "receive" or ranks.rank == 0:
        with pytest.raises(fm.CollectiveTimeout):
            watch.complete("a phase", watchdog.Operation(start, message))
    else:
        time.sleep(1)
        watch.timeout = 30
        watch.complete("a phase", watchdog.Operation(start, message))
        return True, float(array[-1])
    del array, start, message, watch
    gc.collect()
    alive = kept() is not None
    if kind == "receive":
        time.sleep(1)  # the other rank gives up as well
        ranks.Send(np.full(100, 7.0), 1 - ranks.rank, tag=1)
    if not alive:
        return False, 0.0
    ends = time.monotonic() + 10
    values = np.ctypeslib.as_array((ctypes.c_double * 100).from_address(address))
    while values[-1] != 7.0 and time.monotonic() < ends:
        ranks.Iprobe()  # MPI makes progress
        time.sleep(0.01)
    return alive, float(values[-1])


@pytest.mark.parametrize(("place", "printed"), [("_under_way", ""), ("others", "freed")])
def test_memory_of_a_message_that_was_given_up_is_kept_until_the_process_ends(place: str, printed: str) -> None:
    """MPI ends after Python has freed what its modules hold."""
    program = f"""
import os
from numba_fftmatvec.comm import watchdog

class Message:
    def __del__(self, write=os.write):
        write(1, b"freed")

watchdog.others = set()
watchdog.{place}.add(Message())
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == printed


class Communicator:
    """An NCCL communicator that reports an error at one of its questions, or never."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.questions = 0
        self.fails_at = fails_at
        self.aborted = False

    def check_async_error(self) -> None:
        self.questions += 1
        if self.questions == self.fails_at:
            raise RuntimeError("remote process exited")

    def abort(self) -> None:
        self.aborted = True


def device_watch(timeout: float, fails_at: int | None = None) -> tuple[watchdog.Watch, list[Communicator]]:
    watch = watchdog.Watch(MPI.COMM_SELF, timeout)
    communicators = [Communicator(), Communicator(fails_at)]
    watch.communicators = list(communicators)
    return watch, communicators


def test_a_device_that_ends_in_time() -> None:
    watch, communicators = device_watch(60)
    answers = iter([False] * 5 + [True])
    watch.complete_device("a product", lambda: next(answers))
    ends = time.monotonic() + 0.1
    watch.complete_device("a product", lambda: time.monotonic() > ends)
    assert watch.given_up is None
    assert [communicator.aborted for communicator in communicators] == [False, False]
    assert all(communicator.questions > 3 for communicator in communicators)


def test_a_device_that_waits_for_another_rank() -> None:
    watch, communicators = device_watch(0.2)
    before: list[bool] = []
    watch.before_abort.append(lambda: before.extend(communicator.aborted for communicator in communicators))
    with pytest.raises(fm.CollectiveTimeout, match="a product: expected the device's work within 0.2 s, found it"):
        watch.complete_device("a product", lambda: False)
    assert before == [False, False]  # graphs are dropped first: NCCL waits for them
    assert all(communicator.aborted for communicator in communicators)
    with pytest.raises(fm.ClosedError, match="gave up a message while a product"):
        watch.complete_device("a norm", lambda: True)


def test_an_error_of_nccl() -> None:
    watch, communicators = device_watch(60, fails_at=3)
    with pytest.raises(
        fm.BackendError, match="a product: expected NCCL without an error, found: remote process exited"
    ):
        watch.complete_device("a product", lambda: False)
    assert all(communicator.aborted for communicator in communicators)


def test_an_interrupt_while_a_device_works() -> None:
    watch, _ = device_watch(60)
    with pytest.raises(KeyboardInterrupt), alarm(0.2):
        watch.complete_device("a product", lambda: False)
    assert watch.given_up is None


def test_a_call_that_waits_for_other_ranks() -> None:
    watch, _ = device_watch(0.2)
    assert watch.complete_call("creating", lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        watch.complete_call("creating", lambda: 1 // 0)
    with pytest.raises(fm.CollectiveTimeout, match="creating: expected the device's work within 0.2 s"):
        watch.complete_call("creating", lambda: time.sleep(1))
