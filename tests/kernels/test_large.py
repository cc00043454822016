"""Kernels on arrays with more than 2^31 elements: on the CPU, and the same checks in small in the simulator."""

from __future__ import annotations

import pytest

from support.large import CHECKS, ON_DEVICES, Machine
from support.machines import INTERPRETED, SIMULATED


@pytest.mark.skipif(SIMULATED or INTERPRETED, reason="the arrays are too long for an interpreter")
@pytest.mark.parametrize("check", CHECKS)
def test_cpu(check: str) -> None:
    CHECKS[check](Machine("cpu"))


@pytest.mark.skipif(not SIMULATED, reason="test_simulator runs it")
@pytest.mark.parametrize("check", CHECKS | ON_DEVICES)
def test_checks_in_small(small_blocks: None, check: str) -> None:
    (CHECKS | ON_DEVICES)[check](Machine("simulator"))
