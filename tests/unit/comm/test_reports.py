"""An error of one rank on the others: the same type, message and attributes, whatever the error is."""

from __future__ import annotations

import errno
import os
import pickle
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec.comm import reports
from support.harness import run_ranks


class Unprintable(Exception):
    """An exception whose str raises."""

    def __str__(self) -> str:
        raise ValueError("no message")


class Unpicklable(Exception):
    """An exception that would run code if it were pickled."""

    def __reduce__(self) -> Any:
        return os.abort, ()


def _numpy_memory_error() -> None:
    np.empty(2**55)


def _missing_file() -> None:
    os.stat("/nowhere/at/all")


def _raise(error: BaseException) -> None:
    raise error


def file_error() -> fm.FileError:
    """Return an error of this package with the attributes of the operating system's."""
    error = fm.FileError("x.h5: cannot write the file: no space left")
    error.errno, error.filename = errno.ENOSPC, "x.h5"
    return error


FAILURES = {
    "key": lambda: {}["lost"],
    "key of a number": lambda: {}[3],
    "quoted key": lambda: _raise(KeyError("it's 'quoted'")),
    "memory of NumPy": _numpy_memory_error,
    "memory": lambda: _raise(MemoryError()),
    "capacity": lambda: _raise(fm.CapacityError("expected 3 bytes, found 2")),
    "missing file": _missing_file,
    "full disk": lambda: _raise(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a", None, "b")),
    "number of an error": lambda: _raise(OSError(errno.EIO, "input/output")),
    "named file error": lambda: _raise(file_error()),
    "undecodable name": lambda: _raise(FileNotFoundError(2, "gone", "a\udcffb")),
    "interrupt": lambda: _raise(KeyboardInterrupt()),
    "exit": lambda: _raise(SystemExit(3)),
    "division": lambda: 1 // 0,
    "two arguments": lambda: _raise(ValueError("one", 2)),
    "no arguments": lambda: _raise(fm.ShapeError()),
    "stop": lambda: _raise(StopIteration(4)),
    "array as argument": lambda: _raise(ValueError(np.arange(3))),
    "long": lambda: _raise(ValueError("x" * 200_000)),
}
REMOTE = {
    "unprintable": lambda: _raise(Unprintable()),
    "unpicklable": lambda: _raise(Unpicklable("a", "b")),
    "of NumPy": lambda: _raise(np.exceptions.AxisError("no axis 5")),
    "hostile name": lambda: _raise(type("eval", (Exception,), {"__module__": "builtins"})("1 + 1")),
}
TEXT = {"unprintable": "Unprintable", "unpicklable": "'a', 'b'", "of NumPy": "no axis 5", "hostile name": "eval: 1 + 1"}
OS_ATTRIBUTES = ("errno", "strerror", "filename", "filename2")


def outcome(act: Any) -> dict[str, Any]:
    """Return what an error shows to a caller; an empty dictionary without one."""
    try:
        act()
    except BaseException as error:
        found = {"type": type(error).__name__, "bases": [base.__name__ for base in type(error).__mro__]}
        found |= {"message": reports.message_of(error), "notes": error.__notes__}
        return found | {name: getattr(error, name) for name in OS_ATTRIBUTES if isinstance(error, OSError)}
    return {}


def on_rank(comm: fm.Comm, rank: int, act: Any) -> dict[str, Any]:
    """Return the outcome of an action on one rank."""

    def block() -> None:
        with comm.agreement("a phase"):
            if comm.world_rank == rank:
                act()

    return outcome(block)


def outcomes(payload: None) -> dict[Any, Any]:
    with fm.Comm(MPI.COMM_WORLD, backend="cpu") as comm:
        found = {
            (name, rank): on_rank(comm, rank, act) for name, act in (FAILURES | REMOTE).items() for rank in range(2)
        }
        with pytest.raises(fm.FileError) as caught, comm.agreement("a phase"):
            raise fm.FileError(f"rank {comm.world_rank}")
        found["both"] = str(caught.value)
        # The error of an earlier block is a new error in a later one.
        found["again"] = on_rank(comm, 1, lambda: _raise(caught.value))
        x = fm.Vector(comm, 2, 3, "col", global_sizes=True)
        x.init_vec_ones()
        found["afterwards"] = x.norm(1)
    return found


@pytest.fixture(scope="module")
def results() -> list[dict[Any, Any]]:
    return run_ranks(2, "unit.comm.test_reports:outcomes", timeout=90)


@pytest.mark.mpi
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", FAILURES)
def test_the_same_error_on_all_ranks(results: Any, name: str, rank: int) -> None:
    first, second = (found[name, rank] for found in results)
    assert first == second
    assert first["notes"] == [f"(on rank {rank}, while a phase)"]


@pytest.mark.mpi
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", REMOTE)
def test_other_errors_are_remote_errors_on_the_other_ranks(results: Any, name: str, rank: int) -> None:
    found = results[1 - rank][name, rank]
    assert found["type"] == "RemoteError"
    assert TEXT.get(name, "ValueError") in found["message"]


@pytest.mark.mpi
def test_types_and_messages(results: Any) -> None:
    for found in results:
        assert found["key", 1]["message"] == "'lost'"
        assert found["missing file", 1]["type"] == "FileNotFoundError"
        assert found["missing file", 1]["errno"] == errno.ENOENT
        assert found["missing file", 1]["filename"] == "/nowhere/at/all"
        assert found["named file error", 0]["errno"] == errno.ENOSPC
        for name in ("memory of NumPy", "memory"):
            assert found[name, 1]["type"] == "CapacityError"
            assert "MemoryError" in found[name, 1]["bases"]
            assert "a phase: expected enough memory, found" in found[name, 1]["message"]
        assert found["interrupt", 1]["type"] == "KeyboardInterrupt"
        assert found["both"] == "rank 0"
        assert found["again"]["message"] == "rank 0"
        assert found["again"]["notes"][-1] == "(on rank 1, while a phase)"
        assert found["afterwards"] == 6.0


def test_a_vector_that_does_not_fit_is_a_capacity_error() -> None:
    """Vectors raise the same error as matrices, in collective calls and in local ones."""
    with fm.Comm(MPI.COMM_SELF, backend="cpu") as comm:
        with pytest.raises(fm.CapacityError, match="expected enough memory, found: Unable to allocate"):
            fm.Vector(comm, 2**28, 2**28, "col", global_sizes=True)
        layout = comm.axis("col").layout(2**28, 2**28)
        with pytest.raises(fm.CapacityError, match="expected enough memory"):
            fm.Vector.from_layout(comm, layout)


def test_a_report_is_no_pickle() -> None:
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(reports.encode(ValueError("text")))
