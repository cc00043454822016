"""Kernels on arrays with more than 2^31 elements, on a device with 40 GB of free memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.large import CHECKS, GIGABYTES, ON_DEVICES, Machine

pytestmark = pytest.mark.gpu


@pytest.fixture
def machine() -> Iterator[Machine]:
    cupy = pytest.importorskip("cupy")
    free, _ = cupy.cuda.runtime.memGetInfo()
    if free < GIGABYTES * 10**9:
        pytest.skip(f"needs {GIGABYTES} GB of free device memory, found {free / 1e9:.1f}")
    yield Machine("cuda")
    cupy.get_default_memory_pool().free_all_blocks()


@pytest.mark.parametrize("check", CHECKS | ON_DEVICES)
def test_more_than_two_to_the_31(machine: Machine, check: str) -> None:
    (CHECKS | ON_DEVICES)[check](machine)
