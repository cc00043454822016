"""The kernel tests again, on CUDA kernels in numba's simulator; it must be chosen before numba is imported."""

from __future__ import annotations

import pytest

from support.harness import required
from support.machines import SIMULATED, run_kernel_tests


@pytest.mark.skipif(SIMULATED, reason="this is the simulator's own run")
def test_every_kernel_in_the_simulator() -> None:
    modules = ("jit", "kernels", "encoding", "tensor", "fft", "conversions")
    names = [f"test_{module}.py" for module in modules]
    if required("FFTMATVEC_SIMULATE_ALL"):  # SBGEMV takes most of the time
        names += ["test_sbgemv.py", "test_large.py"]
    assert run_kernel_tests(names, NUMBA_ENABLE_CUDASIM="1") > 200
