"""Fixtures of all tests: the reference data, the machine's GPUs, and the results of each process grid."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.harness import required

pytest.register_assert_rewrite("support.hdf5", "support.spectra", "support.suites", "support.tensors")

# Enough to compile every kernel on a slow machine; a grid takes some ten seconds once they are cached.
GRID_SECONDS = 240
GridResults = Callable[..., list[dict[str, Any]]]


@functools.cache
def gpu_count() -> int:
    """Return the number of GPUs that CuPy can use."""
    try:
        import cupy
    except ImportError:
        return 0
    return int(cupy.cuda.runtime.getDeviceCount()) if cupy.cuda.is_available() else 0


@pytest.fixture(scope="session")
def gpu_each() -> Callable[[tuple[int, int]], None]:
    """Return a function that skips a test unless each rank of a process grid has its own GPU."""

    def check(grid: tuple[int, int]) -> None:
        ranks = grid[0] * grid[1]
        if gpu_count() < ranks:
            pytest.skip(f"grid {grid[0]}x{grid[1]} needs {ranks} GPUs, found {gpu_count()}")

    return check


def reference_folder() -> Path | None:
    """Return the folder of the reference data, or None if it is not set."""
    folder = os.environ.get("FFTMATVEC_REFERENCE_DATA")
    return Path(folder).resolve() if folder else None


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """Folder of the reference data: `test_mat` and its vectors."""
    folder = reference_folder()
    if folder is None:
        stop = pytest.fail if required("FFTMATVEC_REQUIRE_REFERENCE") else pytest.skip
        stop("FFTMATVEC_REFERENCE_DATA is not set")
    return folder


def once(job: Callable[..., Any]) -> GridResults:
    """Return a function that runs a job once for each set of arguments; if it fails, so does every later call."""
    from support.harness import RanksError

    @functools.cache
    def attempt(*args: Any) -> Any:
        try:
            return job(*args)
        except RanksError as error:
            return error

    def result(*args: Any) -> Any:
        found = attempt(*args)
        if isinstance(found, RanksError):
            pytest.fail(str(found), pytrace=False)
        return found

    return result


@pytest.fixture(scope="session")
def grid_results(tmp_path_factory: pytest.TempPathFactory) -> GridResults:
    """Return a function that runs all sections of `support.tasks` on a grid, once, and returns each rank's results."""
    from support import tasks
    from support.harness import run_ranks

    @once
    def run(grid: tuple[int, int], backend: str, collectives: str) -> list[dict[str, Any]]:
        folder = tmp_path_factory.mktemp(f"grid{grid[0]}x{grid[1]}-{backend}-{collectives}")
        tasks.prepare(folder)
        payload = tasks.Setting(grid, backend, collectives, folder, reference_folder())
        return run_ranks(grid[0] * grid[1], "support.tasks:everything", payload, timeout=GRID_SECONDS)

    return run


@pytest.fixture(scope="session")
def bad_input_results(tmp_path_factory: pytest.TempPathFactory) -> GridResults:
    """Return a function that runs all cases of `support.bad_input` on a grid, once, and returns each rank's errors."""
    from support.bad_files import prepare
    from support.harness import run_ranks

    @once
    def run(grid: tuple[int, int], backend: str) -> list[dict[str, Any]]:
        folder = tmp_path_factory.mktemp(f"bad{grid[0]}x{grid[1]}-{backend}")
        prepare(folder)
        return run_ranks(
            grid[0] * grid[1], "support.bad_input:run_cases", (grid, backend, folder), timeout=GRID_SECONDS / 2
        )

    return run
