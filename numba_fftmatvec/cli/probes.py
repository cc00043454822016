"""The probes of ``fftmatvec doctor``. Each looks at one part of the installation and returns the part's state.

Libraries that may end the process, such as MPI and CUDA, are tried in processes of their own.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from ..backends.cores import ENVIRONMENT_VARIABLE, Place, available_cores, present_threads
from ..backends.select import select_backend
from ..errors import ArgumentError, FFTMatvecError
from ..kernels.jit import cache_folder
from ..kernels.tensor import HEIGHTS
from . import launcher

OK, MISSING, BROKEN = "ok", "missing", "broken"

_SECONDS = 120.0  # for a process; the first product compiles its kernels
_LONGEST = 300  # characters of an error

_CORE = ("numpy", "scipy", "numba", "h5py", "mpi4py", "rich")
_CUPY = ("cupy-cuda13x", "cupy-cuda12x", "cupy")
# The distribution of each optional package, its module, its use, and its installation.
_EXTRAS = (
    ("matplotlib", "matplotlib", "pictures", "numba-fftmatvec[plot]"),
    ("torch", "torch", "differentiable products", "numba-fftmatvec[torch]"),
    ("pylops", "pylops", "operators in PyLops", "numba-fftmatvec[pylops]"),
    ("pylops-mpi", "pylops_mpi", "operators in PyLops-MPI", "numba-fftmatvec[pylops]"),
    ("petsc4py", "petsc4py", "operators in PETSc", "numba-fftmatvec[petsc]"),
    ("cuqipy", "cuqi", "operators in CUQIpy", "numba-fftmatvec[cuqi]"),
    ("zarr", "zarr", "fftmatvec convert from Zarr", "numba-fftmatvec[zarr]"),
    ("nvmath-python", "nvmath", "sparse priors on a GPU, with cuDSS", "nvmath-python[cu13]"),
)

_MPI = "from mpi4py import MPI; print(MPI.Get_library_version().split(chr(10))[0].strip(chr(0)))"
# One rank prints, since a launcher may mix the lines of two. Ranks that do not meet print two lines.
_TWO_RANKS = "from mpi4py import MPI; c = MPI.COMM_WORLD; n = c.allreduce(1); c.rank or print('ranks', n)"
_CAPABILITY = "from numba import cuda; print(*cuda.get_current_device().compute_capability)"
_NCCL = "from cupy.cuda import nccl; print(nccl.get_version())"


@dataclass(frozen=True)
class State:
    """The state of a part.

    Parameters
    ----------
    state : str
        OK, MISSING or BROKEN.
    found : str
        The version, the folder, or the error.
    meaning : str
        The consequence of the state.
    advice : str
        The remedy; empty if nothing has to be done.
    """

    state: str
    found: str
    meaning: str
    advice: str = ""


@dataclass(frozen=True)
class Probe:
    """A part of the installation.

    Parameters
    ----------
    name : str
        The part.
    look : callable
        Returns its state.
    needed : bool
        Whether products on the CPU need it.
    """

    name: str
    look: Callable[[], State]
    needed: bool = False

    def run(self) -> State:
        """Return the state; any error of the probe is a broken part."""
        try:
            return self.look()
        except Exception as error:  # a report is of use in every environment
            text = f"{type(error).__name__}: {error}"
            return State(BROKEN, text[:_LONGEST], "the part could not be examined", "read the error under 'found'")


def probes(folder: Path) -> list[Probe]:
    """Return all probes; that of file locks tries a folder."""
    return [
        *(Probe(name, lambda name=name: _package(name), needed=True) for name in _CORE),  # type: ignore[misc]
        Probe("cores", _cores),
        Probe("threads", _threads),
        Probe("memory", _memory),
        Probe("numba's cache", _cache),
        Probe("file locks", lambda: _locks(folder)),
        Probe("MPI library", _mpi, needed=True),
        Probe("mpiexec", _mpiexec),
        Probe("products on the CPU", lambda: _products("cpu"), needed=True),
        Probe("GPU driver", _driver),
        Probe("CuPy", _cupy),
        Probe("numba-cuda", _numba_cuda),
        Probe("tensor cores", _tensor_cores),
        Probe("NCCL", _nccl),
        Probe("products on the GPU", lambda: _products("cuda")),
        *(Probe(extra[0], lambda extra=extra: _extra(*extra)) for extra in _EXTRAS),  # type: ignore[misc]
    ]


def _version(*distributions: str) -> str | None:
    """Return the version of the first distribution that is installed."""
    for name in distributions:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return None


def _run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[bool, str]:
    """Run a process; return whether it succeeded, and its output or the last line of its errors."""
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {_SECONDS:g} s"
    except OSError as error:
        return False, str(error)
    if done.returncode == 0:
        return True, "\n".join(" ".join(line.split()) for line in done.stdout.strip().splitlines())
    lines = (done.stderr or done.stdout).strip().splitlines() or [""]
    return False, f"exit status {done.returncode}: {lines[-1]}"[:_LONGEST]


def _package(name: str) -> State:
    version = _version(name)
    if version is None:
        return State(BROKEN, "no distribution", "the library does not work", f"pip install {name}")
    return State(OK, version, "needed by every product")


def _cores() -> State:
    found = f"{available_cores()} of {os.cpu_count() or 1} cores"
    return State(OK, found, "this process may use them; the ranks of a node share them")


def _threads() -> State:
    """Return the number of threads of a Comm of one rank on the CPU, and its origin."""
    try:
        number, origin = present_threads("cpu")
    except ArgumentError as error:
        return State(
            BROKEN, str(error), "no Comm can be made without threads=", f"correct or unset {ENVIRONMENT_VARIABLE}"
        )
    found = f"{number}, by {origin}"
    if number < available_cores() and origin in os.environ:
        meaning = "a Comm has fewer threads than cores: right for several ranks, slow for one"
        return State(OK, found, meaning, f"for one rank, unset {origin}")
    return State(OK, found, "the threads of a Comm of one rank, for kernels, transforms and files")


def _memory() -> State:
    free = select_backend("cpu", Place.alone()).free_bytes()
    if free is None:
        return State(
            MISSING, "unknown", "matrices that do not fit are not refused in advance", "compare sizes yourself"
        )
    return State(OK, f"{free / 1e9:.1f} GB free", "matrices on the CPU may be as large: see 'fftmatvec info DIR'")


def _cache() -> State:
    try:
        folder = cache_folder()
    except RuntimeError as error:
        advice = "set NUMBA_CACHE_DIR to a folder that can be written"
        return State(MISSING, str(error)[:_LONGEST], "every process compiles the kernels again", advice)
    return State(OK, folder, "kernels are compiled once and loaded from here afterwards")


def _locks(folder: Path) -> State:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        advice = "do not read files here while another program writes them"
        meaning = "readers do not notice that another program writes a file"
        return State(MISSING, f"{folder}: {error.strerror}", meaning, advice)
    return State(OK, str(folder.resolve()), "a file that another program writes is refused")


def _mpi() -> State:
    works, text = _run([sys.executable, "-c", _MPI], launcher.launch_environment(os.environ, 1))
    if works:
        return State(OK, text, "a Comm can be made")
    return State(BROKEN, text, "no Comm can be made", "pip install 'numba-fftmatvec[mpich]', or load the site's MPI")


def _mpiexec() -> State:
    try:
        mpiexec = launcher.find_mpiexec(sys.executable)
    except FFTMatvecError:
        return State(
            MISSING, "no mpiexec", "-n starts no ranks; a scheduler may", "pip install 'numba-fftmatvec[mpich]'"
        )
    command = [mpiexec, "-n", "2", sys.executable, "-m", "mpi4py", "-c", _TWO_RANKS]
    works, text = _run(command, launcher.launch_environment(os.environ, 2))
    if works and text == "ranks 2":
        return State(OK, f"{mpiexec}: two ranks", "-n starts ranks on this machine")
    advice = "use the mpiexec of the MPI library that mpi4py is built for"
    return State(BROKEN, f"{mpiexec}: {text}"[:_LONGEST], "ranks do not start, or do not meet", advice)


def _products(backend: str) -> State:
    """Return whether products have the exact result for ones, in a process of their own."""
    if backend == "cuda" and not _has_device():
        return State(MISSING, "no device", "backend 'cuda' is refused; 'auto' takes the CPU", "see the rows above")
    line = ["run", "--backend", backend, "-N", "1", "-raw", "-t"]
    works, text = _run([sys.executable, "-m", "numba_fftmatvec", *line], launcher.launch_environment(os.environ, 1))
    if works:
        return State(OK, "F and F* checked", f"backend '{backend}' computes right results")
    return State(BROKEN, text, f"backend '{backend}' does not work", "report the error with this table")


def _driver() -> State:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    works, text = _run(query)
    if works and text:
        return State(OK, "; ".join(text.splitlines()), "these GPUs are visible")
    found = "no nvidia-smi" if "No such file" in text else text or "no GPU"
    advice = "install NVIDIA's driver; in a container, start it with access to the GPU"
    return State(MISSING, found, "backend 'cuda' is refused; 'auto' takes the CPU", advice)


def _has_device() -> bool:
    return _run(["nvidia-smi", "-L"])[0]


def _cuda_package(name: str, version: str | None, command: str) -> State:
    """Return the state of a package for GPUs, which is broken if its import fails."""
    advice = "pip install 'numba-fftmatvec[cuda13]', or [cuda12] for an older driver"
    if version is None:
        return State(MISSING, "no distribution", "backend 'cuda' is refused; 'auto' takes the CPU", advice)
    works, text = _run([sys.executable, "-c", command])
    if works:
        return State(OK, version, "needed by backend 'cuda'")
    return State(BROKEN if _has_device() else MISSING, f"{version}; {text}", f"{name} does not load here", advice)


def _cupy() -> State:
    return _cuda_package("CuPy", _version(*_CUPY), "import cupy; cupy.cuda.runtime.getDeviceCount()")


def _numba_cuda() -> State:
    return _cuda_package("numba-cuda", _version("numba-cuda"), "from numba import cuda; cuda.current_context()")


def _tensor_cores() -> State:
    """Return whether products of several vectors use tensor cores in double precision."""
    works, text = _run([sys.executable, "-c", _CAPABILITY])
    if not works:
        return State(MISSING, text, "backend 'cuda' is refused; 'auto' takes the CPU", "see the rows above")
    found = f"compute capability {text.replace(' ', '.')}"
    if tuple(map(int, text.split())) in HEIGHTS:
        return State(OK, found, "products of several vectors use them in double precision")
    known = " and ".join(f"{major}.{minor}" for major, minor in HEIGHTS)
    return State(
        MISSING, found, "products of several vectors do without them", f"compute capabilities {known} have them"
    )


def _nccl() -> State:
    if _version(*_CUPY) is None:
        return State(MISSING, "no CuPy", "ranks communicate through MPI", "install CuPy first")
    works, text = _run([sys.executable, "-c", _NCCL])
    if works:
        number = int(text)
        return State(OK, f"{number // 10000}.{number // 100 % 100}.{number % 100}", "ranks with own GPUs use it")
    advice = "pip install nvidia-nccl-cu13, or nvidia-nccl-cu12"
    return State(MISSING, text, "ranks with GPUs communicate through the host, which is slower", advice)


def _extra(distribution: str, module: str, use: str, install: str) -> State:
    version = _version(distribution)
    if version is None or util.find_spec(module) is None:
        return State(MISSING, "no distribution", f"optional: {use}", f"pip install '{install}'")
    return State(OK, version, use)
