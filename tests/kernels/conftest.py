"""The fixture that runs a kernel test on every target."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from numba_fftmatvec.kernels import elementwise, padding, pairs, reductions
from numba_fftmatvec.kernels.jit import clear
from numba_fftmatvec.kernels.sbgemv import cuda
from support.machines import SIMULATED, TARGETS, Machine


@pytest.fixture(params=TARGETS)
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Return a target. In the simulator blocks are small and few, since each CUDA thread is a Python thread."""
    if SIMULATED:
        for module in (padding, pairs, elementwise, reductions, cuda):
            monkeypatch.setattr(module, "THREADS", 8)
        monkeypatch.setattr(reductions, "PARTIALS", 3)
        monkeypatch.setattr(elementwise, "MAP_SHAPES", {1: (8, 2), 2: (8, 1), 3: (4, 3)})
        clear()
    yield Machine(request.param)
    if SIMULATED:
        clear()
