"""Starts the command-line runner on several ranks, and finds out whether a launcher already did.

It reads environment variables only, so it works before MPI is initialised.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from ..errors import BackendError

# Set for the re-executed processes, so that they are recognised under an mpiexec with unknown variables.
_MARK = "FFTMATVEC_LAUNCHED"

# The variables that hold a process's rank (PMI: MPICH and Intel; PMIX: Open MPI and PRRTE; SLURM: srun).
_RANK_VARIABLES = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "PALS_RANKID")

# The variables that show that a launcher started this process; some of them do not hold its rank.
_LAUNCHER_VARIABLES = (*_RANK_VARIABLES, "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS", _MARK)

# Each rank gets one thread, since the thread pools of several ranks would compete for the cores.
_THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# Open MPI (4, then 5) refuses more ranks than cores unless a variable allows them.
_OVERSUBSCRIBE = {"OMPI_MCA_rmaps_base_oversubscribe": "1", "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}


def is_launched(environ: Mapping[str, str]) -> bool:
    """Return whether an MPI launcher started this process.

    A batch job's shell has SLURM's variables too; only a step, which srun starts, makes this process a rank.
    """
    return any(name in environ for name in _LAUNCHER_VARIABLES) or {"SLURM_PROCID", "SLURM_STEP_ID"} <= environ.keys()


def launched_rank(environ: Mapping[str, str]) -> int:
    """Return the rank that the launcher gave this process; 0 if no launcher started it or its variable is unknown."""
    names = (*_RANK_VARIABLES, "SLURM_PROCID") if is_launched(environ) else ()
    return next((int(environ[name]) for name in names if environ.get(name, "").isdigit()), 0)


def find_mpiexec(executable: str, search_path: str | None = None) -> str:
    """Return the mpiexec in the interpreter's folder, else the first one on PATH.

    Parameters
    ----------
    executable : str
        The interpreter. Links are not followed, since a virtual environment's interpreter is a link out of it.
    search_path : str, optional
        Folders to search next, in the form of PATH; by default PATH.

    Raises
    ------
    BackendError
        No mpiexec is in these folders.
    """
    beside = Path(executable).parent
    found = shutil.which("mpiexec", path=str(beside)) or shutil.which("mpiexec", path=search_path)
    if found is None:
        raise BackendError(
            f"-n: expected mpiexec in {beside} or on PATH, found none; pip install 'numba-fftmatvec[mpich]' adds one"
        )
    return found


def launch_command(mpiexec: str, executable: str, ranks: int, argv: Sequence[str]) -> list[str]:
    """Return the command that runs the runner with arguments `argv` on `ranks` ranks.

    It uses ``-m mpi4py``, which ends the other ranks when an exception ends one.
    """
    return [mpiexec, "-n", str(ranks), executable, "-m", "mpi4py", "-m", "numba_fftmatvec", *argv]


def launch_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the ranks' environment: one thread per rank, more ranks than cores; `environ` has precedence."""
    return dict.fromkeys(_THREADS, "1") | _OVERSUBSCRIBE | dict(environ) | {_MARK: "1"}


def finalize() -> None:
    """Finalize MPI if it is initialised; collective. No communication is possible afterwards."""
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized():
        mpi.Finalize()


def relaunch(ranks: int, argv: Sequence[str]) -> NoReturn:
    """Replace this process by an mpiexec that runs `ranks` ranks of the runner with the same arguments."""
    command = launch_command(find_mpiexec(sys.executable), sys.executable, ranks, argv)
    finalize()  # importing the package made this process an MPI program of one rank
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, launch_environment(os.environ))
