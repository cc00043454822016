"""The number of threads of a launch."""

from __future__ import annotations

import numpy as np
import pytest

from numba_fftmatvec.kernels.threads import accessors, by_work, pool_size


@pytest.mark.skipif(pool_size() < 2, reason="compares one thread with two")
def test_small_launches_take_one_thread() -> None:
    get, set_number = accessors()
    usual, found = get(), []

    def run(first: np.ndarray, number: int, second: np.ndarray) -> None:
        found.append(get())
        if number:
            raise ZeroDivisionError

    launch = by_work(run, [0, 2], least=1000)
    half = np.empty(500, np.int8)
    try:
        for caller in (2, 1):
            set_number(caller)
            launch(half, 0, half[1:])
            launch(half, 0, half)
            for second in (half[1:], half):
                with pytest.raises(ZeroDivisionError):
                    launch(half, 1, second)
            assert get() == caller
    finally:
        set_number(usual)
    assert found == [1, 2, 1, 2, 1, 1, 1, 1]
