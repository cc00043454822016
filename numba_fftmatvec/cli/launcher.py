"""Starts the command-line runner on several ranks, and finds out whether a launcher already did.

It reads environment variables and the cores of this process only, so it works before MPI is initialised.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from ..backends.cores import available_cores
from ..errors import BackendError

# Set for the re-executed processes, so that they are recognised under an mpiexec with unknown variables.
_MARK = "FFTMATVEC_LAUNCHED"

# The variables of a process's rank and of the number of ranks (PMI: MPICH and Intel; PMIX: Open MPI and PRRTE; PALS:
# HPE). PALS and PMIX set the number in other variables, or not at all.
_LAUNCHERS = {
    "PMI_RANK": "PMI_SIZE",
    "PMIX_RANK": None,
    "OMPI_COMM_WORLD_RANK": "OMPI_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_RANK": "MV2_COMM_WORLD_SIZE",
    "PALS_RANKID": None,
}
_SIZES = (*filter(None, _LAUNCHERS.values()), "MPI_LOCALNRANKS")

# The variables of a process that srun started. A batch job's shell has SLURM_PROCID too. SLURM_NTASKS is no substitute
# for the number of ranks: in an interactive step it is that of the whole allocation.
_STEP = {"SLURM_PROCID", "SLURM_STEP_ID"}
_STEP_SIZE = "SLURM_STEP_NUM_TASKS"

# The variables that place a launcher's ranks on other machines, or make them a part of another launcher's job: those of
# the batch systems SLURM, PBS, LSF, Grid Engine, LoadLeveler, Cobalt, OAR and Flux, and those of launchers.
_PLACES = re.compile(
    r"(SLURMD?|SRUN|PBS|LSB|LOADL|COBALT|OAR|FLUX|PMIX?|HYDI|PALS|MV2_COMM|OMPI_(COMM|UNIVERSE))_|MPI_LOCAL"
    r"|(OMPI|PRTE)_MCA_(orte|ess|pmix|plm|ras)|(PE_HOSTFILE|SGE_ROOT|HYDRA_HOST_FILE|HYDRA_RMK)$"
)

# MPICH and Intel MPI start ranks on this machine, whatever a site's settings say. Open MPI (4, then 5) does not start
# without a program that could reach other machines. It never runs this one, and a container often has no ssh.
_LOCAL = {
    **dict.fromkeys(("HYDRA_LAUNCHER", "HYDRA_BOOTSTRAP", "I_MPI_HYDRA_BOOTSTRAP"), "fork"),
    **dict.fromkeys(("OMPI_MCA_plm_rsh_agent", "PRTE_MCA_plm_ssh_agent"), "sh"),
}

# A Comm takes the rank's share of the cores. The pools of BLAS do not: without a number each takes all cores.
_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# Open MPI (4, then 5) refuses more ranks than cores unless a variable allows them.
_OVERSUBSCRIBE = {"OMPI_MCA_rmaps_base_oversubscribe": "1", "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}

# A launcher takes this long to forward an error output. After an abort it forwards nothing more.
_FORWARD_SECONDS = 0.5


def is_launched(environ: Mapping[str, str]) -> bool:
    """Return whether an MPI launcher started this process as one of several ranks, or of an unknown number.

    An interactive step of SLURM, or ``mpiexec -n 1``, starts a process alone, which may start ranks itself.
    """
    if _MARK in environ:
        return True
    counts = [count for name in _SIZES if (count := _integer(environ, name)) is not None]
    if environ.keys() >= _STEP:
        counts.append(_integer(environ, _STEP_SIZE) or 1)
    started = bool(counts) or any(name in environ for name in _LAUNCHERS)
    return started and (not counts or max(*counts, launched_rank(environ) + 1) > 1)


def launched_rank(environ: Mapping[str, str]) -> int:
    """Return the rank that the launcher gave this process; 0 if no launcher started it or its variable is unknown."""
    names = (*_LAUNCHERS, *(["SLURM_PROCID"] if environ.keys() >= _STEP else []))
    return next((rank for name in names if (rank := _integer(environ, name)) is not None), 0)


def _integer(environ: Mapping[str, str], name: str) -> int | None:
    """Return the value of a variable, None if it is absent or no number."""
    value = environ.get(name, "")
    return int(value) if value.isdecimal() else None


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


def launch_environment(environ: Mapping[str, str], ranks: int) -> dict[str, str]:
    """Return the environment of a number of ranks: this machine, a share of the cores each, more ranks than cores.

    The variables of batch systems and of other launchers are left out. Other values of `environ` have precedence over
    the defaults; OMP_NUM_THREADS is a number for BLAS too.
    """
    kept = {name: value for name, value in environ.items() if not _PLACES.match(name)}
    share = str(max(1, available_cores() // ranks))
    blas = {} if "OMP_NUM_THREADS" in kept else dict.fromkeys(_BLAS_THREADS, share)
    return blas | _OVERSUBSCRIBE | kept | _LOCAL | {_MARK: "1"}


def finalize() -> None:
    """Finalize MPI if it is initialised; collective. No communication is possible afterwards."""
    if (mpi := _initialized_mpi()) is not None:
        mpi.Finalize()


def abort_ranks(error: BaseException) -> None:
    """Print an error with its traceback and end the processes of all ranks; do nothing on a single rank."""
    if (mpi := _initialized_mpi()) is not None and mpi.COMM_WORLD.size > 1:
        with suppress(Exception):  # without an error output the ranks must end nevertheless
            traceback.print_exception(error)
        flush()
        time.sleep(_FORWARD_SECONDS)
        mpi.COMM_WORLD.Abort(1)


def _initialized_mpi() -> Any:
    """Return the module mpi4py.MPI while it may communicate, else None."""
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized() else None


def flush() -> None:
    """Flush the outputs, if they are open. Neither `os.execve` nor an abort does it."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # None, a lost reader, a closed stream
            stream.flush()


def relaunch(ranks: int, argv: Sequence[str]) -> NoReturn:
    """Replace this process by an mpiexec that runs `ranks` ranks of the runner with the same arguments."""
    command = launch_command(find_mpiexec(sys.executable), sys.executable, ranks, argv)
    finalize()  # under `python -m mpi4py`, for example, this process is an MPI program
    flush()
    os.execve(command[0], command, launch_environment(os.environ, ranks))
