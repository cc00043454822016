"""The kernel tests again, on the CPU's loop nests as Python functions, where an index beyond an array is an error."""

from __future__ import annotations

import pytest

from support.machines import INTERPRETED, SIMULATED, run_kernel_tests


@pytest.mark.skipif(INTERPRETED or SIMULATED, reason="this is an interpreter's own run")
def test_every_loop_nest_in_the_interpreter() -> None:
    names = ["test_jit.py", "test_kernels.py", "test_encoding.py", "test_sbgemv_cpu.py", "test_transforms.py"]
    assert run_kernel_tests(names, FFTMATVEC_INTERPRET="1") > 200
