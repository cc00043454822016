"""The harness itself: results in order, a failing rank's message, and no process left behind."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from support.harness import RanksError, clean_environment, run_ranks

pytestmark = pytest.mark.mpi


def report(payload: Any) -> Any:
    from mpi4py import MPI

    return MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size, payload, os.environ["NUMBA_NUM_THREADS"]


def fail_on_last(payload: Any) -> None:
    from mpi4py import MPI

    if MPI.COMM_WORLD.rank == MPI.COMM_WORLD.size - 1:
        raise ValueError(f"rank {MPI.COMM_WORLD.rank} has {payload}")
    MPI.COMM_WORLD.barrier()


def hang(payload: str) -> None:
    from mpi4py import MPI

    Path(payload, f"{os.getpid()}.pid").touch()
    if MPI.COMM_WORLD.rank == 0:
        MPI.COMM_WORLD.recv(source=1)
    time.sleep(3600)


def test_results_come_in_rank_order() -> None:
    assert run_ranks(3, "grids.test_harness:report", {"a": 1}) == [(rank, 3, {"a": 1}, "1") for rank in range(3)]


def test_failing_rank_ends_the_others() -> None:
    start = time.monotonic()
    with pytest.raises(RanksError, match="ValueError: rank 1 has no luck"):
        run_ranks(2, "grids.test_harness:fail_on_last", "no luck")
    assert time.monotonic() - start < 30


def test_timeout_leaves_no_process(tmp_path: Path) -> None:
    with pytest.raises(RanksError, match="not finished after 4 s"):
        run_ranks(2, "grids.test_harness:hang", str(tmp_path), timeout=4)
    pids = [path.stem for path in tmp_path.glob("*.pid")]
    assert len(pids) == 2
    assert [pid for pid in pids if Path("/proc", pid).exists() and not _is_zombie(pid)] == []


def _is_zombie(pid: str) -> bool:
    return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_launcher_variables_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "HYDI_CONTROL_FD", "NUMBA_ENABLE_CUDASIM"):
        monkeypatch.setenv(name, "1")
    for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_MCA_btl"):
        monkeypatch.setenv(name, "kept")
    env = clean_environment()
    assert not {"PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "HYDI_CONTROL_FD", "NUMBA_ENABLE_CUDASIM"} & set(env)
    assert env["OMPI_ALLOW_RUN_AS_ROOT"] == env["OMPI_MCA_btl"] == "kept"
