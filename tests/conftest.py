"""Fixtures of all tests: the reference data, the machine's GPUs, and the results of each process grid."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("mpi.suites")

GridResults = Callable[..., list[dict[str, Any]]]


@functools.cache
def gpu_count() -> int:
    """Return the number of GPUs that CuPy can use."""
    try:
        import cupy
    except ImportError:
        return 0
    return int(cupy.cuda.runtime.getDeviceCount()) if cupy.cuda.is_available() else 0


def required(variable: str) -> bool:
    return os.environ.get(variable, "0") not in ("", "0")


@pytest.fixture(scope="session")
def two_gpus() -> None:
    """Skip unless two GPUs are visible."""
    if gpu_count() < 2:
        pytest.skip(f"needs 2 GPUs, found {gpu_count()}")


def reference_folder() -> Path | None:
    """Return the folder of the reference data, or None where it is not named."""
    folder = os.environ.get("FFTMATVEC_REFERENCE_DATA")
    return Path(folder).resolve() if folder else None


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """Folder of the reference data: `test_mat` and the vectors that belong to it."""
    folder = reference_folder()
    if folder is None:
        stop = pytest.fail if required("FFTMATVEC_REQUIRE_REFERENCE") else pytest.skip
        stop("FFTMATVEC_REFERENCE_DATA is not set")
    return folder


@pytest.fixture(scope="session")
def grid_results(tmp_path_factory: pytest.TempPathFactory) -> GridResults:
    """Return a function that runs all sections of `mpi.tasks` on a grid, once, and returns each rank's results."""
    from mpi import tasks
    from mpi.harness import run_ranks

    @functools.cache
    def run(grid: tuple[int, int], backend: str = "cpu", collectives: str = "mpi") -> list[dict[str, Any]]:
        folder = tmp_path_factory.mktemp(f"grid{grid[0]}x{grid[1]}-{backend}-{collectives}")
        tasks.prepare(folder)
        payload = tasks.Setting(grid, backend, collectives, folder, reference_folder())
        return run_ranks(grid[0] * grid[1], "mpi.tasks:everything", payload, timeout=300)

    return run


@pytest.fixture(scope="session")
def bad_input_results(tmp_path_factory: pytest.TempPathFactory) -> GridResults:
    """Return a function that runs all cases of `mpi.bad_input` on a grid, once, and returns each rank's errors."""
    from mpi import bad_input
    from mpi.harness import run_ranks

    @functools.cache
    def run(grid: tuple[int, int], backend: str = "cpu") -> list[dict[str, Any]]:
        folder = tmp_path_factory.mktemp(f"bad{grid[0]}x{grid[1]}-{backend}")
        bad_input.prepare(folder)
        return run_ranks(grid[0] * grid[1], "mpi.bad_input:run_cases", (grid, backend, folder), timeout=120)

    return run
