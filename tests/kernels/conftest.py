"""The fixture that runs a kernel test on every target."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from numba_fftmatvec.kernels import elementwise, encoding, padding, pairs, reductions, substitution
from numba_fftmatvec.kernels.jit import clear
from numba_fftmatvec.kernels.sbgemv import cuda
from support.machines import INTERPRETED, SIMULATED, TARGETS, Machine, interpret


@pytest.fixture(scope="session", autouse=True)
def _interpreter() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if INTERPRETED:
            interpret(patch)
        yield
    clear()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In the simulator blocks are small and few, since each CUDA thread is a Python thread."""
    if SIMULATED:
        for module in (padding, pairs, elementwise, reductions, cuda):
            monkeypatch.setattr(module, "THREADS", 8)
        for module in (padding, pairs, encoding, cuda):
            monkeypatch.setattr(module, "MAX_GRID_Y", 2)
        monkeypatch.setattr(reductions, "PARTIALS", 3)
        monkeypatch.setattr(substitution, "THREADS", 8)
        monkeypatch.setattr(substitution, "LANES", 2)
        monkeypatch.setattr(elementwise, "MAX_BLOCKS", 3)
        monkeypatch.setattr(elementwise, "MAP_SHAPES", {1: (8, 2), 2: (8, 3), 3: (4, 3)})
        clear()
    yield
    if SIMULATED:
        clear()


@pytest.fixture(params=TARGETS)
def machine(request: pytest.FixtureRequest, small_blocks: None) -> Machine:
    """Return a target."""
    return Machine(request.param)
