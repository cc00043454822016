"""The kernel tests again, on CUDA kernels in numba's simulator; it must be chosen before numba is imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.machines import SIMULATED


@pytest.mark.skipif(SIMULATED, reason="this is the simulator's own run")
def test_every_kernel_in_the_simulator() -> None:
    names = ("test_jit.py", "test_kernels.py", "test_sbgemv.py", "test_encoding.py")
    tests = [str(Path(__file__).with_name(name)) for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None
    assert int(passed.group(1)) > 200
