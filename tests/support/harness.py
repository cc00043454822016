"""Run a function on several MPI ranks from a test and collect the results within a time limit.

``run_ranks(4, "support.tasks:everything", payload)`` starts mpiexec, imports the function in every rank, calls it with
the payload and returns the ranks' results. ``python -m mpi4py`` runs the ranks, so that one that dies ends the others.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
GRACE_SECONDS = 3.0
LONGEST_REPORT = 10_000  # characters

# With a launcher's variables, the child would act as one of that launcher's ranks.
_LAUNCHER_VARIABLES = re.compile(
    r"(PMI|PMIX|HYDI?|HYDRA|MPI_LOCAL|MPIEXEC|PRTE|PALS|OMPI_(?!ALLOW_RUN_AS_ROOT|MCA_)|OMPI_MCA_(orte|ess|pmix))_?"
)
_RANK_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    # More ranks than cores, for Open MPI 4 and 5.
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}


class RanksError(AssertionError):
    """The ranks failed or did not finish in time; the message contains their output."""


def run_ranks(
    ranks: int, task: str, payload: Any = None, timeout: float = 120.0, environment: Mapping[str, str] | None = None
) -> list[Any]:
    """Call a function on every rank of a fresh MPI job and return its results in the order of the ranks.

    Parameters
    ----------
    ranks : int
        Number of ranks.
    task : str
        ``"module:function"``, importable from the checkout or its tests; called with `payload`.
    payload : object
        Anything that can be pickled.
    timeout : float
        Seconds after which all processes of the job are killed.
    environment : mapping, optional
        Environment variables of the ranks that differ from the usual ones.

    Raises
    ------
    RanksError
        A rank failed, the job ran out of time, or a rank left no result.
    """
    with tempfile.TemporaryDirectory(prefix="ranks-") as name:
        folder = Path(name)
        (folder / "task").write_bytes(pickle.dumps((task, payload, timeout)))
        command = [mpiexec(), "-n", str(ranks), sys.executable, "-m", "mpi4py", "-m", "support.harness", name]
        with (folder / "output").open("wb") as output:
            status = _run_job(command, output, timeout, environment or {})
        if status != 0:
            reason = f"not finished after {timeout:g} s" if status is None else f"exit status {status}"
            printed = (folder / "output").read_text(errors="replace")[-LONGEST_REPORT:]
            raise RanksError(f"{task} on {ranks} ranks: {reason}; they printed:\n{printed}")
        return [pickle.loads((folder / f"rank{rank}").read_bytes()) for rank in range(ranks)]


def required(variable: str) -> bool:
    """Return whether an environment variable demands tests that would skip."""
    return os.environ.get(variable, "0") not in ("", "0")


def mpiexec() -> str:
    """Return the launcher of this environment, or else the one on the PATH."""
    own = Path(sys.executable).parent / "mpiexec"
    found = str(own) if own.exists() else shutil.which("mpiexec")
    if found is None:
        raise RanksError(f"expected mpiexec beside {sys.executable} or on the PATH, found none")
    return found


def clean_environment() -> dict[str, str]:
    """Return this process's environment without a launcher's variables, with the checkout importable."""
    env = {key: value for key, value in os.environ.items() if not _LAUNCHER_VARIABLES.match(key)}
    # The simulator replaces numba.cuda for the whole process: it is for kernel tests only.
    env.pop("NUMBA_ENABLE_CUDASIM", None)
    paths = [str(TESTS.parent), str(TESTS), env.get("PYTHONPATH", "")]
    return env | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _run_job(command: list[str], output: Any, timeout: float, environment: Mapping[str, str]) -> int | None:
    """Run a command in a new session; return its exit status, or None if it had to be killed."""
    env = {**clean_environment(), **_RANK_ENVIRONMENT, **environment}
    job = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, start_new_session=True
    )
    try:
        return job.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end_session(job)


def _end_session(job: subprocess.Popen[bytes]) -> None:
    """End every process of the job: first the launcher by SIGTERM, so that it ends its ranks, then the rest."""
    if job.poll() is None:
        job.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        while job.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
    for pid in _session_members(job.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    job.wait()


def _session_members(session: int) -> list[int]:
    """Return the processes of a session: ranks may be in another process group, but stay in the session."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[3]) == session:
            members.append(int(stat.parent.name))
    return members


def _rank_main(name: str) -> None:
    """Run one rank: load the task, call it and leave its result in the job's folder."""
    from mpi4py import MPI

    folder = Path(name)
    task, payload, timeout = pickle.loads((folder / "task").read_bytes())
    # Ranks may leave the launcher's session, so each ends itself if its launcher cannot.
    faulthandler.dump_traceback_later(timeout + 2 * GRACE_SECONDS, exit=True)
    module, _, function = task.partition(":")
    result = getattr(importlib.import_module(module), function)(payload)
    (folder / f"rank{MPI.COMM_WORLD.rank}").write_bytes(pickle.dumps(result))


if __name__ == "__main__":
    _rank_main(sys.argv[1])
