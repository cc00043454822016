"""In a forked child process every use of a Comm is a named error, and closing does nothing."""

from __future__ import annotations

import subprocess
import sys

from support.harness import clean_environment

CALLS = """
import os, threading
import numba_fftmatvec as fm

comm = fm.Comm(backend="cpu")
F = fm.Matrix(comm, 30, 12, 64, global_sizes=True)
F.init_mat_ones()
x, y = F.get_vec("input"), F.get_vec("output")
x.init_vec_ones()
F.matvec(x, y)
before = y.norm()

calls = {
    "product": lambda: F.matvec(x, y),
    "arithmetic": lambda: x.scale(2.0),
    "norm": lambda: x.norm(),
    "values": lambda: x.to_numpy(),
    "new vector": lambda: F.get_vec("input"),
    "new matrix": lambda: fm.Matrix(comm, 2, 2, 2),
    "new Comm": lambda: fm.Comm(backend="cpu"),
}


def outcome(call):
    try:
        call()
    except fm.ForkedError as error:
        return "ForkedError" if "spawn" in str(error) else str(error)
    except BaseException as error:
        return repr(error)
    return "no error"


held = threading.Event()


def hold():  # as a thread in the middle of a product does
    with comm.lock:
        held.set()
        threading.Event().wait(1)


threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    found = {name: outcome(call) for name, call in calls.items()}
    found["close"] = outcome(lambda: (x.close(), F.close(), comm.close()))
    print(found, flush=True)
    os._exit(0)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
F.matvec(x, y)
assert y.norm() == before
comm.close()
"""


def test_a_forked_child() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALLS], env=clean_environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = eval(done.stdout)
    assert found.pop("close") == "no error"
    assert set(found.values()) == {"ForkedError"}, found


BEFORE_MPI = """
import os
import numba_fftmatvec as fm

child = os.fork()
if child:
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
fm.Comm(backend="cpu").close()
"""


def test_a_comm_in_a_child_that_was_forked_before() -> None:
    """The parent has not started MPI, so the child may."""
    done = subprocess.run(
        [sys.executable, "-c", BEFORE_MPI], env=clean_environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
