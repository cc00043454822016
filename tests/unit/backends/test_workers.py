"""Threads that share the work of one call."""

from __future__ import annotations

import sys
import threading
import time
from functools import partial
from traceback import walk_stack

import pytest

from numba_fftmatvec.backends.workers import Workers, _Job, _work


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_each_function_runs_once(count: int) -> None:
    workers, ran = Workers(3), []
    for _ in range(50):
        workers.run([partial(ran.append, i) for i in range(count)])
        assert sorted(ran) == list(range(count))
        ran.clear()


def test_the_first_error_is_raised_after_all_functions_ended() -> None:
    ended = threading.Event()

    def slow() -> None:
        time.sleep(0.1)
        ended.set()

    with pytest.raises(ZeroDivisionError):
        Workers(2).run([slow, lambda: 1 // 0, slow])
    assert ended.is_set()


@pytest.mark.parametrize("interrupts", [1, 2])
def test_interrupts_of_the_wait_leave_no_function_running(monkeypatch: pytest.MonkeyPatch, interrupts: int) -> None:
    """The caller waits for all threads, in spite of further interrupts, before it raises."""
    pending = [KeyboardInterrupt() for _ in range(interrupts)]
    wait, ended = _Job.wait, threading.Event()

    def interrupted(job: _Job) -> None:
        if pending:
            raise pending.pop()
        wait(job)

    def slow() -> None:
        time.sleep(0.2)
        ended.set()

    monkeypatch.setattr(_Job, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Workers(2).run([lambda: None, slow])
    assert ended.is_set()


def test_a_job_that_is_queued_twice_runs_once() -> None:
    ran: list[int] = []
    job = _Job(partial(ran.append, 1))
    job.run()
    job.run()
    job.wait()
    assert ran == [1]


def test_threads_end_with_their_object() -> None:
    workers = Workers(4)
    queue = workers._queue
    workers.run([partial(time.sleep, 0.05)] * 5)
    assert _threads_of(queue) == 4
    del workers
    for _ in range(1000):
        if _threads_of(queue) == 0:
            break
        time.sleep(0.01)
    assert _threads_of(queue) == 0


def _threads_of(queue: object) -> int:
    """Threads that take jobs from the queue: those of `_thread` are in no list, but their frames are.

    A count of all threads would include those of other objects that end meanwhile.
    """
    outermost = (list(walk_stack(frame))[-1][0] for frame in sys._current_frames().values())
    return sum(f.f_code is _work.__code__ and f.f_locals["queue"] is queue for f in outermost)
