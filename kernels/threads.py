"""Numba's threads: the size of their pool, and the number of them that run the calling thread's kernels."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

from numba import config, get_num_threads, set_num_threads
from numba.np.ufunc import parallel


def pool_size() -> int:
    """Return the number of threads in numba's pool, the largest number of a kernel."""
    return int(config.NUMBA_NUM_THREADS)


@cache
def accessors() -> tuple[Callable[[], int], Callable[[int], None]]:
    """Start numba's threads; return the functions that get and set the number of the calling thread.

    They are those behind numba's public functions, which take as long as a small kernel.
    """
    # Numba's pool reads this when it starts. By default its idle threads spin and slow transforms down.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    get_num_threads()
    return (
        getattr(parallel, "_get_num_threads", get_num_threads),
        getattr(parallel, "_set_num_threads", set_num_threads),
    )
