"""Threads that share the work of one call. An interrupt of the caller leaves none of them running, and none stuck."""

from __future__ import annotations

import _thread
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any
from weakref import finalize


class _Job:
    """A function that one of the threads runs once, even if it is queued twice.

    `claim` is taken by the thread that runs the job, and `running` is held until the function has ended.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._claim = _thread.allocate_lock()
        self._running = _thread.allocate_lock()
        self._running.acquire()
        self.error: BaseException | None = None

    def run(self) -> None:
        """Run the function, unless a thread has done so."""
        if self._claim.acquire(False):
            try:
                self._function()
            except BaseException as error:
                self.error = error
            finally:
                self._running.release()

    def wait(self) -> None:
        """Wait until the function has ended."""
        with self._running:
            pass


class Workers:
    """Threads that run functions for a caller.

    Python raises a KeyboardInterrupt between any two instructions of the main thread. The classes of
    concurrent.futures and threading are written in Python, and such an interrupt can leave their locks held for ever.
    This class uses primitives that are written in C and that an interrupt cannot divide.

    Parameters
    ----------
    threads : int
        Number of threads that run beside the caller; they start at the first call that needs them, and end with this
        object.
    """

    def __init__(self, threads: int) -> None:
        self._threads = max(1, threads)
        self._started = 0
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        finalize(self, self._queue.put, None)

    def run(self, functions: Sequence[Callable[[], object]]) -> None:
        """Run the first function in the calling thread and the others in the threads of this object.

        After an error or an interrupt, however many follow, the call raises when all functions have ended: a thread
        that still ran would write into memory that the next call uses.
        """
        first, *others = functions
        if not others:
            first()
            return
        while self._started < min(self._threads, len(others)):
            _thread.start_new_thread(_work, (self._queue,))
            self._started += 1
        jobs = [_Job(function) for function in others]
        try:
            for job in jobs:
                self._queue.put(job)
            first()
            for job in jobs:
                job.wait()
        except BaseException:
            self._end(jobs)
            raise
        errors = [job.error for job in jobs if job.error is not None]
        try:
            if errors:
                raise errors[0]
        finally:
            del job, jobs, errors  # in the frame of an error's traceback they would keep the arrays alive

    def _end(self, jobs: list[_Job]) -> None:
        """Wait for all jobs in spite of interrupts, then raise the last interrupt if there was one."""
        interrupt: BaseException | None = None
        while True:
            try:
                for job in jobs:
                    self._queue.put(job)  # the interrupted call may not have done so; the job runs once only
                for job in jobs:
                    job.wait()
                break
            except BaseException as caught:
                interrupt = caught
        if interrupt is not None:
            raise interrupt


def _work(queue: SimpleQueue[Any]) -> None:
    while (job := queue.get()) is not None:
        job.run()
        del job  # its function refers to arrays
    queue.put(None)  # for the next thread
