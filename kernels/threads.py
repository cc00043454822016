"""Numba's threads: the size of their pool, and the number of them that run the calling thread's kernels."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from numba import config, get_num_threads, set_num_threads
from numba.np.ufunc import parallel

# A launch whose arrays have fewer bytes runs on one thread. A second one takes longer to wake up than it saves, and if
# other programs use its core, the first one waits for it.
PARALLEL_BYTES = 4 << 20


def pool_size() -> int:
    """Return the number of threads in numba's pool, the largest number of a kernel."""
    return int(config.NUMBA_NUM_THREADS)


@cache
def accessors() -> tuple[Callable[[], int], Callable[[int], None]]:
    """Start numba's threads; return the functions that get and set the number of the calling thread.

    They are those behind numba's public functions, which take as long as a small kernel.
    """
    # Numba's pool reads this when it starts. By default its idle threads spin and slow other libraries' threads down.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    get_num_threads()
    return (
        getattr(parallel, "_get_num_threads", get_num_threads),
        getattr(parallel, "_set_num_threads", set_num_threads),
    )


def by_work(run: Callable[..., None], arrays: Sequence[int], least: int) -> Callable[..., None]:
    """Return a function that runs a loop nest on one thread if its arrays are small, else on the caller's threads.

    Parameters
    ----------
    run : callable
        The compiled loop nest.
    arrays : sequence of int
        The positions of the arrays among its arguments.
    least : int
        Bytes of the arrays from which it runs on all threads.
    """
    get, set_number = accessors()

    def launch(*arguments: Any) -> None:
        work = 0
        for i in arrays:
            work += arguments[i].nbytes
        if work >= least or (threads := get()) == 1:
            run(*arguments)
            return
        set_number(1)
        try:
            run(*arguments)
        finally:
            set_number(threads)

    return launch
