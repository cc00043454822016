"""The runner's re-execution under mpiexec: the detection of a launcher, the command, and the environment."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from numba_fftmatvec.cli import launcher
from numba_fftmatvec.errors import BackendError

STEP = {"SLURM_PROCID": "0", "SLURM_STEP_ID": "0"}


@pytest.mark.parametrize(
    ("environ", "rank"),
    [
        ({"PMI_RANK": "3", "PMI_SIZE": "4"}, 3),
        ({"PMI_RANK": "0", "PMI_SIZE": "4"}, 0),
        ({"PMIX_RANK": "2"}, 2),
        ({"PMIX_RANK": "0"}, 0),
        ({"PALS_RANKID": "1"}, 1),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, 1),
        ({"MV2_COMM_WORLD_RANK": "1", "MV2_COMM_WORLD_SIZE": "2"}, 1),
        ({"SLURM_PROCID": "5", "SLURM_STEP_ID": "0"}, 5),
        (STEP | {"SLURM_STEP_NUM_TASKS": "4"}, 0),
        (STEP | {"SLURM_STEP_NUM_TASKS": "4", "PMIX_RANK": "0"}, 0),
        (STEP | {"SLURM_STEP_NUM_TASKS": "1", "PMI_RANK": "2", "PMI_SIZE": "3"}, 2),
        ({"MPI_LOCALNRANKS": "2"}, 0),
    ],
)
def test_launchers_of_several_ranks_are_recognised(environ: dict[str, str], rank: int) -> None:
    assert launcher.is_launched(environ)
    assert launcher.launched_rank(environ) == rank


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"HOME": "/root"},
        {"SLURM_PROCID": "5", "SLURM_JOB_ID": "1"},
        {"PBS_JOBID": "1", "PBS_ENVIRONMENT": "PBS_BATCH"},
        STEP,
        STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8"},
        STEP | {"PMIX_RANK": "0"},
        {"PMI_RANK": "0", "PMI_SIZE": "1", "MPI_LOCALNRANKS": "1"},
        {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"},
    ],
)
def test_a_shell_and_a_process_alone_may_start_ranks(environ: dict[str, str]) -> None:
    assert not launcher.is_launched(environ)
    assert launcher.launched_rank(environ) == 0


def test_a_relaunched_rank_never_relaunches() -> None:
    assert launcher.is_launched(launcher.launch_environment({}, 1))


def test_ranks_share_the_cores_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Comm takes the rank's share by itself, so the launcher sets the numbers of BLAS alone."""
    monkeypatch.setattr(launcher, "available_cores", lambda: 8)
    environ = launcher.launch_environment({"HOME": "/root"}, 3)
    assert {name: value for name, value in environ.items() if name.endswith("_THREADS")} == {
        "OPENBLAS_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
    }
    assert launcher.launch_environment({}, 9)["OPENBLAS_NUM_THREADS"] == "1"
    assert environ["HOME"] == "/root"
    for given in ({"OMP_NUM_THREADS": "4"}, {"OPENBLAS_NUM_THREADS": "4", "MKL_NUM_THREADS": "3"}):
        kept = launcher.launch_environment(given | {"NUMBA_NUM_THREADS": "5"}, 3)
        threads = {name: value for name, value in kept.items() if name.endswith("_THREADS")}
        assert threads == given | {"NUMBA_NUM_THREADS": "5"}
    assert environ["OMPI_MCA_rmaps_base_oversubscribe"] == "1"
    assert environ["PRTE_MCA_rmaps_default_mapping_policy"] == ":oversubscribe"


def test_ranks_start_on_this_machine() -> None:
    ours = {"SLURMD_NODENAME", "SLURM_JOB_ID", "SRUN_DEBUG", "PBS_NODEFILE", "LSB_HOSTS", "PE_HOSTFILE", "PMI_FD"}
    ours |= {"PMIX_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_SIZE", "OMPI_MCA_ess", "HYDRA_HOST_FILE", "HYDRA_RMK"}
    others = {"HOME", "PATH", "OMPI_ALLOW_RUN_AS_ROOT", "OMPI_MCA_btl", "PRTE_MCA_rmaps_default_mapping_policy"}
    environ = launcher.launch_environment(dict.fromkeys(ours | others, "x") | {"HYDRA_LAUNCHER": "slurm"}, 2)
    assert not ours & environ.keys()
    assert all(environ[name] == "x" for name in others)
    assert environ["HYDRA_LAUNCHER"] == environ["I_MPI_HYDRA_BOOTSTRAP"] == "fork"
    assert environ["OMPI_MCA_plm_rsh_agent"] == environ["PRTE_MCA_plm_ssh_agent"] == "sh"


@pytest.mark.parametrize("stream", [None, "closed"])
def test_outputs_that_are_not_open_are_flushed_silently(monkeypatch: pytest.MonkeyPatch, stream: str | None) -> None:
    closed = io.StringIO()
    closed.close()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, closed if stream else None)
    launcher.flush()


def make_executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_mpiexec_beside_the_interpreter_comes_first(tmp_path: Path) -> None:
    elsewhere = make_executable(tmp_path / "path" / "mpiexec")
    python = make_executable(tmp_path / "venv" / "python")
    assert launcher.find_mpiexec(str(python), str(elsewhere.parent)) == str(elsewhere)
    own = make_executable(python.with_name("mpiexec"))
    assert launcher.find_mpiexec(str(python), str(elsewhere.parent)) == str(own)


def test_an_interpreter_that_is_a_link_keeps_its_folder(tmp_path: Path) -> None:
    real = make_executable(tmp_path / "usr" / "python")
    own = make_executable(tmp_path / "venv" / "mpiexec")
    link = own.with_name("python")
    link.symlink_to(real)
    assert launcher.find_mpiexec(str(link), str(tmp_path)) == str(own)


def test_no_mpiexec_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="expected mpiexec in .* found none"):
        launcher.find_mpiexec(str(tmp_path / "python"), str(tmp_path))


def test_relaunch_executes_the_same_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mpiexec = make_executable(tmp_path / "mpiexec")
    python = str(tmp_path / "python")
    calls: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr("sys.executable", python)
    monkeypatch.setattr(launcher, "finalize", lambda: None)  # later tests may use MPI
    monkeypatch.setattr(os, "execve", lambda *arguments: calls.append(arguments))
    launcher.relaunch(4, ["-n", "4", "-t"])
    ((path, command, environ),) = calls
    assert path == str(mpiexec)
    assert command == [path, "-n", "4", python, "-m", "mpi4py", "-m", "numba_fftmatvec", "-n", "4", "-t"]
    assert environ.get("OMP_NUM_THREADS") == os.environ.get("OMP_NUM_THREADS")
