"""The command `fftmatvec doctor`, and its probes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from numba_fftmatvec import cli
from numba_fftmatvec.backends.cores import ENVIRONMENT_VARIABLE, Threads
from numba_fftmatvec.cli import probes
from numba_fftmatvec.cli.probes import BROKEN, MISSING, OK, Probe, State
from numba_fftmatvec.errors import BackendError

STATES = {
    "fine": State(OK, "1.0 [beta]", "works"),
    "absent": State(MISSING, "none", "optional", "pip install it"),
    "bad": State(BROKEN, "an error", "does not work", "repair it"),
}


def fail(*arguments: object, **options: object) -> object:
    raise OSError(95, "Operation not supported")


@pytest.mark.mpi
def test_this_installation(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["doctor", "--json"]) == 0
    output = capsys.readouterr()
    found = json.loads(output.out)
    parts = {part.pop("part"): part for part in found["parts"]}
    assert (found["works"], output.err, list(tmp_path.iterdir())) == (True, "", [])
    assert {part["state"] for part in parts.values()} <= {OK, MISSING, BROKEN}
    for name in ("numpy", "MPI library", "mpiexec", "products on the CPU", "file locks", "cores", "threads"):
        assert parts[name]["state"] == OK, parts[name]
    assert all(part["meaning"] and (part["advice"] or part["state"] == OK) for part in parts.values())


@pytest.mark.parametrize(
    ("names", "needed", "status"),
    [(["fine"], True, 0), (["fine", "absent", "bad"], False, 0), (["bad"], True, 1), (["absent"], True, 1)],
)
def test_the_status_is_that_of_the_needed_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], names: list[str], needed: bool, status: int
) -> None:
    made = [Probe(name, lambda name=name: STATES[name], needed) for name in names]  # type: ignore[misc]
    monkeypatch.setattr(probes, "probes", lambda folder: made)
    assert cli.main(["doctor"]) == status
    text = capsys.readouterr().out
    for name in names:
        (line,) = [line for line in text.splitlines() if line.split()[:1] == [name]]
        state = STATES[name]
        assert all(word in line for word in (state.state, state.found, state.meaning, state.advice))


@pytest.mark.parametrize("error", [ValueError("odd"), SystemError("worse"), OSError(5, "no disk")])
def test_an_error_of_a_probe_is_a_broken_part(error: Exception) -> None:
    def look() -> State:
        raise error

    found = Probe("part", look).run()
    assert found.state == BROKEN and type(error).__name__ in found.found


def test_a_folder_that_is_absent(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--dir", "absent", "--json"]) == 2
    assert capsys.readouterr() == ("", "fftmatvec: error: --dir: expected a folder that exists, found absent\n")


def answers(**texts: tuple[bool, str]) -> Callable[..., tuple[bool, str]]:
    """Return a stand-in for processes, which answers by a word of the command."""

    def run(command: list[str], environment: object = None) -> tuple[bool, str]:
        line = " ".join(command)
        return next((answer for word, answer in texts.items() if word in line), (False, "exit status 1: no"))

    return run


GPU = {"query": (True, "NVIDIA H100, 81559 MiB, 570.1"), "smi": (True, "GPU 0")}
LOST = {"smi": (False, "[Errno 2] No such file or directory: 'nvidia-smi'")}


@pytest.mark.parametrize(
    ("probe", "texts", "state", "found"),
    [
        (probes._mpi, {"MPI": (True, "MPICH Version: 5")}, OK, "MPICH Version: 5"),
        (probes._mpi, {"MPI": (False, "exit status 1: no libmpi.so")}, BROKEN, "exit status 1: no libmpi.so"),
        (probes._mpiexec, {"allreduce": (True, "ranks 2")}, OK, "two ranks"),
        (probes._mpiexec, {"allreduce": (True, "ranks 1\nranks 1")}, BROKEN, "ranks 1"),
        (probes._mpiexec, {"allreduce": (False, "no answer within 120 s")}, BROKEN, "no answer"),
        (lambda: probes._products("cpu"), {"run": (False, "exit status 1: wrong")}, BROKEN, "wrong"),
        (lambda: probes._products("cuda"), LOST, MISSING, "no device"),
        (lambda: probes._products("cuda"), GPU | {"run": (True, "")}, OK, "F and F* checked"),
        (lambda: probes._products("cuda"), GPU | {"run": (False, "status 2")}, BROKEN, "status 2"),
        (probes._driver, GPU, OK, "NVIDIA H100, 81559 MiB, 570.1"),
        (probes._driver, LOST, MISSING, "no nvidia-smi"),
        (probes._cupy, GPU | {"cupy": (True, "")}, OK, "1.2.3"),
        (probes._cupy, GPU | {"cupy": (False, "ImportError: libcufft")}, BROKEN, "1.2.3; ImportError: libcufft"),
        (probes._numba_cuda, LOST | {"cuda": (False, "no driver")}, MISSING, "1.2.3; no driver"),
        (probes._tensor_cores, {"capability": (True, "9 0")}, OK, "compute capability 9.0"),
        (probes._tensor_cores, {"capability": (True, "8 6")}, MISSING, "compute capability 8.6"),
        (probes._tensor_cores, {"capability": (False, "no driver")}, MISSING, "no driver"),
        (probes._nccl, {"nccl": (True, "22703")}, OK, "2.27.3"),
        (probes._nccl, {"nccl": (False, "ImportError: nccl")}, MISSING, "ImportError: nccl"),
    ],
)
def test_processes_that_answer(
    monkeypatch: pytest.MonkeyPatch,
    probe: Callable[[], State],
    texts: dict[str, tuple[bool, str]],
    state: str,
    found: str,
) -> None:
    monkeypatch.setattr(probes, "_run", answers(**texts))
    monkeypatch.setattr(probes, "_version", lambda *names: "1.2.3")
    looked = probe()
    assert looked.state == state and found in looked.found
    assert bool(looked.advice) == (state != OK)


def test_packages_that_are_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_version", lambda *names: None)
    assert probes._package("numpy").state == BROKEN
    for probe in (probes._cupy, probes._numba_cuda, probes._nccl):
        assert probe().state == MISSING
    extra = probes._extra("torch", "torch", "products", "numba-fftmatvec[torch]")
    assert (extra.state, extra.advice) == (MISSING, "pip install 'numba-fftmatvec[torch]'")


def test_a_machine_without_mpiexec_locks_or_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*arguments: object) -> str:
        raise BackendError("none")

    def uncached() -> str:
        raise RuntimeError("cannot cache function")

    monkeypatch.setattr(probes.launcher, "find_mpiexec", refuse)
    monkeypatch.setattr(probes.fcntl, "flock", fail)
    monkeypatch.setattr(probes, "cache_folder", uncached)
    assert probes._mpiexec().state == MISSING
    assert probes._locks(tmp_path) == State(
        MISSING,
        f"{tmp_path}: Operation not supported",
        "readers do not notice that another program writes a file",
        "do not read files here while another program writes them",
    )
    assert probes._cache().advice == "set NUMBA_CACHE_DIR to a folder that can be written"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("threads", "advice"),
    [
        (Threads(2, "OMP_NUM_THREADS"), "for one rank, unset OMP_NUM_THREADS"),
        (Threads(8, "OMP_NUM_THREADS"), ""),
        (Threads(8, "the rank's share of the cores"), ""),
    ],
)
def test_threads_and_their_origin(monkeypatch: pytest.MonkeyPatch, threads: Threads, advice: str) -> None:
    """Fewer threads than cores are no fault, but one rank could have more."""
    monkeypatch.setattr(probes, "available_cores", lambda: 8)
    monkeypatch.setattr(probes, "present_threads", lambda backend: threads)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    looked = probes._threads()
    assert (looked.state, looked.found, looked.advice) == (OK, f"{threads.number}, by {threads.origin}", advice)


def test_threads_that_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "1")
    assert probes._threads().found == f"1, by {ENVIRONMENT_VARIABLE}"
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "none")
    looked = probes._threads()
    assert looked.state == BROKEN and looked.advice == f"correct or unset {ENVIRONMENT_VARIABLE}"
    assert f"{ENVIRONMENT_VARIABLE}: expected an integer" in looked.found and "found 'none'" in looked.found


def test_processes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    python = sys.executable
    assert probes._run([python, "-c", "print(' a   b ')"]) == (True, "a b")
    assert probes._run([python, "-c", "raise ValueError('odd')"]) == (False, "exit status 1: ValueError: odd")
    assert probes._run([os.fspath("/absent")])[0] is False
    monkeypatch.setattr(probes, "_SECONDS", 0.2)
    assert probes._run([python, "-c", "import time; time.sleep(9)"]) == (False, "no answer within 0.2 s")
