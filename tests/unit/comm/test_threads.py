"""Threads that share a Comm: each result is that of one thread, and every method that needs a turn waits for it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numba_fftmatvec as fm
from numba_fftmatvec.products import PRODUCTS
from support.harness import clean_environment

SIZES = (30, 12, 64)  # Nm, Nd, Nt: long enough for threads to overlap


@pytest.fixture
def matrix(comm: fm.Comm) -> fm.Matrix:
    return filled(comm)


def filled(comm: fm.Comm) -> fm.Matrix:
    F = fm.Matrix(comm, *SIZES, global_sizes=True)
    F.init_mat_doubles()
    F.init_mat_doubles(aux_mat=True)
    return F


@pytest.fixture
def comm() -> fm.Comm:
    return fm.Comm(backend="cpu")


def drawn(F: fm.Matrix, space: str, seed: int, num_vecs: int = 1) -> fm.Vector:
    vector = fm.Vector.from_layout(F.comm, F.layout.vector(space, num_vecs))
    vector.scatter(np.random.default_rng(seed).standard_normal(vector.shape))
    return vector


def product(F: fm.Matrix, name: str, num_vecs: int, seed: int) -> Any:
    found = PRODUCTS[name]
    x = drawn(F, found.input_space, seed, num_vecs)
    y = fm.Vector.from_layout(F.comm, F.layout.vector(found.output_space, num_vecs))
    F.apply_product(found, x, y)
    return y.gather()


def arithmetic(F: fm.Matrix, name: str, num_vecs: int, seed: int) -> Any:
    x, y = drawn(F, "col", seed, num_vecs), drawn(F, "col", seed + 1, num_vecs)
    x.axpy(2.0, y)
    z = x * y + 1.0
    return [z.norm(), z.dot(x), z.norm(1), *z.extend(100).gather().ravel()]


WORK: dict[str, Callable[[fm.Matrix, str, int, int], Any]] = {name: product for name in PRODUCTS}
WORK["arithmetic"] = arithmetic


def wrong_results(F: fm.Matrix, threads: int, seeds: int) -> tuple[int, list[tuple[str, int, int]]]:
    """Run products and arithmetic in several threads; return their number, and those that one thread computes else."""
    cases = [(name, num_vecs, seed) for seed in range(seeds) for name in WORK for num_vecs in (1, 3)]

    def run(case: tuple[str, int, int]) -> Any:
        name, num_vecs, seed = case
        return np.array(WORK[name](F, name, num_vecs, seed))

    expected = [run(case) for case in cases]
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(run, cases))
    wrong = [case for case, a, b in zip(cases, found, expected, strict=True) if not np.array_equal(a, b)]
    return len(cases), wrong


@pytest.mark.parametrize("threads", [2, 4])
def test_threads_get_the_results_of_one_thread(matrix: fm.Matrix, threads: int) -> None:
    _, wrong = wrong_results(matrix, threads, 6)
    assert not wrong


# The public methods that wait for other threads, each with a call; LOCAL ones touch neither memory nor messages.

# Methods of a vector without arguments, with another vector, and with a number.
ALONE = """
copy elementwise_inverse elementwise_inverse_inplace gather init_vec_consecutive init_vec_doubles init_vec_ones
init_vec_zeros norm norms to_numpy
"""
WITH_VECTOR = """
copy_to dot dots elementwise_divide elementwise_divide_inplace elementwise_multiply elementwise_multiply_inplace
from_dlpack
"""
WITH_NUMBER = "add_scalar add_scalar_inplace pow pow_inplace scale wscale shrink"
LOCAL = """
array block_size blocks buffer check_initialized check_like check_open close drop_values get_block_size
get_glob_num_blocks get_num_blocks get_num_vecs glob_num_blocks init_vec is_initialized num_blocks num_vecs on_grid
row_or_col shape
"""

VECTOR_CALLS: dict[str, Callable[[fm.Vector, fm.Vector, Path], Any]] = {
    **{name: lambda x, y, path, name=name: getattr(x, name)() for name in ALONE.split()},
    **{name: lambda x, y, path, name=name: getattr(x, name)(y) for name in WITH_VECTOR.split()},
    **{name: lambda x, y, path, name=name: getattr(x, name)(2) for name in WITH_NUMBER.split()},
    **{name: lambda x, y, path, name=name: getattr(x, name)(2.0, y) for name in ("axpy", "waxpy")},
    **{name: lambda x, y, path, name=name: getattr(x, name)(2.0, 3.0, y) for name in ("axpby", "waxpby")},
    **{
        name: lambda x, y, path, name=name: getattr(x, name)(y, y)
        for name in ("elementwise_multiply_add", "elementwise_multiply_add_inplace")
    },
    "extend": lambda x, y, path: x.extend(70),
    "resize": lambda x, y, path: x.resize(70),
    "get_vector": lambda x, y, path: x.get_vector(0),
    "from_numpy": lambda x, y, path: x.from_numpy(np.ones(x.shape)),
    "scatter": lambda x, y, path: x.scatter(np.ones(x.shape)),
    "from_layout": lambda x, y, path: x.from_layout(x.comm, x.layout),
    "save": lambda x, y, path: x.save(path / "x.h5"),
    "init_vec_from_file": lambda x, y, path: x.init_vec_from_file(path / "y.h5"),
    "to_torch": lambda x, y, path: pytest.importorskip("torch") and x.to_torch(),
    "from_torch": lambda x, y, path: x.from_torch(pytest.importorskip("torch").ones(x.shape)),
}
MATRIX_CALLS: dict[str, Callable[[fm.Matrix, fm.Vector, fm.Vector, Path], Any]] = {
    **{name: lambda F, x, y, path, name=name: getattr(F, name)(x, y) for name in ("matvec", "matmat", "apply")},
    **{
        name: lambda F, x, y, path, name=name: getattr(F, name)(y, x)
        for name in ("transpose_matvec", "transpose_matmat", "apply_adjoint")
    },
    "apply_product": lambda F, x, y, path: F.apply_product("F", x, y),
    "plan": lambda F, x, y, path: F.plan("F"),
    "get_vec": lambda F, x, y, path: F.get_vec("input"),
    "init_mat_ones": lambda F, x, y, path: F.init_mat_ones(),
    "init_mat_doubles": lambda F, x, y, path: F.init_mat_doubles(),
    "init_mat_from_array": lambda F, x, y, path: F.init_mat_from_array(np.ones(F.layout.sizes)),
    "init_mat_from_file": lambda F, x, y, path: F.init_mat_from_file(path / "F"),
    "from_array": lambda F, x, y, path: F.from_array(F.comm, np.ones((2, 2, 2))),
    "save": lambda F, x, y, path: F.save(path / "G"),
    "with_precision": lambda F, x, y, path: F.with_precision(fm.MatvecPrecisionConfig()),
    "accuracy": lambda F, x, y, path: F.accuracy(),
    "todense": lambda F, x, y, path: F.todense(),
    "memory_usage": lambda F, x, y, path: F.memory_usage(),
    "close": lambda F, x, y, path: F.close(),
}


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_the_tables_are_complete() -> None:
    assert public(fm.Vector) == {*VECTOR_CALLS, *LOCAL.split()}
    described = {name for name in public(fm.Matrix) if name not in MATRIX_CALLS}
    waiting = {name for name in described if hasattr(getattr(fm.Matrix, name), "__wrapped__")}
    assert not waiting
    assert not [name for name in described if callable(getattr(fm.Matrix, name)) and not is_local(name)]


def is_local(name: str) -> bool:
    """Tell whether a method of a matrix only returns a fact of its description."""
    return name.startswith(("get_", "is_", "has_", "check_", "nbytes", "as_linear_operator"))


def waits(comm: fm.Comm, call: Callable[[], Any]) -> bool:
    """Return whether a call does not end while another thread has its turn, and ends afterwards."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    with comm.lock:
        thread.start()
        thread.join(0.03)
        waited = thread.is_alive()
    thread.join(60)
    assert not thread.is_alive()
    if errors:
        raise errors[0]
    return waited


@pytest.mark.parametrize("name", VECTOR_CALLS)
def test_a_method_of_a_vector_waits(comm: fm.Comm, tmp_path: Path, name: str) -> None:
    x, y = (fm.Vector(comm, 3, 64, "col", global_sizes=True) for _ in range(2))
    x.init_vec_doubles()
    y.init_vec_doubles()
    y.save(tmp_path / "y.h5")
    assert waits(comm, lambda: VECTOR_CALLS[name](x, y, tmp_path))


@pytest.mark.parametrize("name", MATRIX_CALLS)
def test_a_method_of_a_matrix_waits(matrix: fm.Matrix, tmp_path: Path, name: str) -> None:
    x, y = drawn(matrix, "col", 0), drawn(matrix, "row", 1)
    matrix.save(tmp_path / "F")
    assert waits(matrix.comm, lambda: MATRIX_CALLS[name](matrix, x, y, tmp_path))


@pytest.mark.parametrize("name", ["synchronize", "close"])
def test_a_method_of_a_comm_waits(comm: fm.Comm, name: str) -> None:
    assert waits(comm, getattr(comm, name))


def test_reading_a_timer_waits(matrix: fm.Matrix) -> None:
    timer = fm.PhaseTimer(matrix.comm)
    matrix.matvec(drawn(matrix, "col", 0), drawn(matrix, "row", 1), timer=timer)
    assert waits(matrix.comm, timer.seconds)


WORKQUEUE = """
from concurrent.futures import ThreadPoolExecutor
import numba
import numba_fftmatvec as fm

def work(_):
    with fm.Comm(backend="cpu") as comm:
        F = fm.Matrix(comm, 40, 20, 64, global_sizes=True)
        F.init_mat_ones()
        x = F.get_vec("input")
        x.init_vec_ones()
        return [float((F @ x).norm()) for _ in range(50)]

work(0)
assert numba.threading_layer() == "workqueue"
with ThreadPoolExecutor(4) as pool:
    found = list(pool.map(work, range(8)))
assert len({value for values in found for value in values}) == 1
"""


def test_workqueue_threads_take_turns() -> None:
    """Numba's layer "workqueue" ends the process if two threads use it at a time, here on two Comms."""
    environment = clean_environment() | {"NUMBA_THREADING_LAYER": "workqueue", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", WORKQUEUE], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
