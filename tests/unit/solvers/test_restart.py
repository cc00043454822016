"""Restart files: bit-identical continuation of every method, after interrupts too, and files of other problems."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numba_fftmatvec as fm
from numba_fftmatvec import solvers
from support.solvers import Dense, interrupted, square, vector, with_eigenvalues

SHAPE = (7, 6)
SIZE = 42
MATRIX = with_eigenvalues(np.geomspace(1.0, 1e3, SIZE))


class Problem:
    """Operators and right-hand sides on one rank."""

    def __init__(self, comm: fm.Comm) -> None:
        rng = np.random.default_rng(4)
        self.comm = comm
        self.A = square(comm, MATRIX)
        self.rough = square(comm, MATRIX * (1 + 1e-4))
        self.M = square(comm, np.diag(1 / np.diagonal(MATRIX)))
        self.F = Dense(comm, rng.standard_normal((30, SIZE)), self.A.domain, comm.axis("row").layout(5, 6))
        self.b = vector(comm, self.A.domain, rng.standard_normal(SHAPE))
        self.B = vector(comm, self.A.domain, rng.standard_normal((3, *SHAPE)))
        self.d = vector(comm, self.F.range, rng.standard_normal((5, 6)))


@pytest.fixture(scope="module")
def p(comm: fm.Comm) -> Problem:
    return Problem(comm)


LINEAR: dict[str, Callable[..., Any]] = {
    "cg": lambda p, **o: solvers.cg(p.A, p.b, **o),
    "cg from a guess": lambda p, **o: solvers.cg(p.A, p.b, p.b, **o),
    "preconditioned cg": lambda p, **o: solvers.cg(p.A, p.b, preconditioner=p.M, **o),
    "refine": lambda p, **o: solvers.refine(p.rough, p.A, p.b, **o),
    "cgls": lambda p, **o: solvers.cgls(p.F, p.d, **o),
    "damped cgls": lambda p, **o: solvers.cgls(p.F, p.d, damping=0.5, **o),
    "lsqr": lambda p, **o: solvers.lsqr(p.F, p.d, **o),
    "damped lsqr": lambda p, **o: solvers.lsqr(p.F, p.d, damping=0.5, **o),
    "block_cg": lambda p, **o: solvers.block_cg(p.A, p.B, **o),
    "preconditioned block_cg": lambda p, **o: solvers.block_cg(p.A, p.B, preconditioner=p.M, **o),
}
EIGEN: dict[str, Callable[..., Any]] = {
    "lanczos": lambda p, **o: solvers.lanczos(p.A, 2, basis=5, **o),
    "randomised_eigenvalues": lambda p, **o: solvers.randomised_eigenvalues(p.A, 3, oversampling=1, **o),
    "randomised_svd": lambda p, **o: solvers.randomised_svd(p.F, 3, oversampling=1, **o),
}


@pytest.mark.parametrize("name", LINEAR)
def test_a_resumed_run_has_the_same_bits(p: Problem, tmp_path: Path, name: str) -> None:
    call = LINEAR[name]
    assert interrupted(lambda **o: call(p, **o), tmp_path / "state.h5", tolerance=1e-9) == (3, True)


@pytest.mark.parametrize("name", EIGEN)
def test_resumed_eigenvalues_have_the_same_bits(p: Problem, tmp_path: Path, name: str) -> None:
    call, path = EIGEN[name], tmp_path / "state.h5"
    whole = call(p, tolerance=1e-6)
    with pytest.raises(fm.ConvergenceError, match=f"{name.split()[0]}: expected norm.A v - value "):
        call(p, tolerance=1e-6, restart_file=path, restart_every=2, max_iterations=3)
    resumed = call(p, tolerance=1e-6, restart_file=path, resume=True)
    assert whole.iterations == resumed.iterations > 3
    assert np.array_equal(whole.values, resumed.values)
    assert np.array_equal(whole.history, resumed.history)
    vectors = "v" if name == "randomised_svd" else "vectors"
    assert np.array_equal(getattr(whole, vectors).gather(), getattr(resumed, vectors).gather())


def test_the_file_of_an_interrupted_run(p: Problem, tmp_path: Path) -> None:
    """After an interrupt the last file is there, and no temporary one."""

    def interrupt(iteration: int, state: solvers.State) -> None:
        if iteration == 7:
            raise KeyboardInterrupt

    path = tmp_path / "state.h5"
    whole = solvers.cg(p.A, p.b)
    with pytest.raises(KeyboardInterrupt):
        solvers.cg(p.A, p.b, restart_file=path, restart_every=3, callback=interrupt)
    assert [file.name for file in tmp_path.iterdir()] == ["state.h5"]
    seen: list[int] = []
    resumed = solvers.cg(p.A, p.b, restart_file=path, resume=True, callback=lambda i, state: seen.append(i))
    assert seen[0] == 7  # the file is that of iteration 6
    assert np.array_equal(resumed.x.gather(), whole.x.gather())
    assert np.array_equal(resumed.history, whole.history)


def test_a_block_that_became_narrower_is_resumed(p: Problem, tmp_path: Path) -> None:
    values = p.B.gather()
    B = vector(p.comm, p.A.domain, np.concatenate([values, values[:1] + values[1:2]]))
    assert interrupted(lambda **o: solvers.block_cg(p.A, B, **o), tmp_path / "state.h5", 1e-9) == (3, True)


def test_files_of_other_problems_are_refused(p: Problem, tmp_path: Path) -> None:
    path = tmp_path / "state.h5"
    options: dict[str, Any] = {"restart_file": path, "resume": True}
    with pytest.raises(fm.ConvergenceError):
        solvers.cg(p.A, p.b, restart_file=path, max_iterations=3)
    other = vector(p.comm, p.A.domain, -p.b.gather())
    small = square(p.comm, MATRIX[:36, :36], 6)
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: solvers.cgls(p.A, p.b, **options), "solver: expected cgls, found cg: the file of another problem"),
        (lambda: solvers.cg(p.A, other, **options), "digest of the right-hand side: expected"),
        (lambda: solvers.cg(p.A, p.b, preconditioner=p.M, **options), "preconditioner: expected True, found False"),
        (lambda: solvers.cg(1.001 * p.A, p.b, **options), "norm of a product: .* the file of another operator"),
        (
            lambda: solvers.cg(small, vector(p.comm, small.domain, np.ones((6, 6))), **options),
            "operator: expected col vectors of 6 blocks of 6 .* found col vectors of 7 blocks of 6",
        ),
    ]
    for call, text in cases:
        with pytest.raises(fm.FileFormatError, match=text):
            call()


def test_parameters_of_the_file_must_be_the_same(p: Problem, tmp_path: Path) -> None:
    path = tmp_path / "state.h5"
    with pytest.raises(fm.ConvergenceError):
        solvers.lsqr(p.F, p.d, damping=0.5, restart_file=path, max_iterations=3)
    with pytest.raises(fm.FileFormatError, match=r"damping: expected 0.25, found 0.5"):
        solvers.lsqr(p.F, p.d, damping=0.25, restart_file=path, resume=True)


def test_files_that_cannot_be_read(p: Problem, tmp_path: Path) -> None:
    path = tmp_path / "state.h5"
    options: dict[str, Any] = {"restart_file": path, "resume": True}
    with pytest.raises(fm.FileError, match="state.h5"):
        solvers.cg(p.A, p.b, **options)
    p.b.save(path)
    with pytest.raises(fm.FileFormatError, match="expected an attribute 'content'"):
        solvers.cg(p.A, p.b, **options)
    with pytest.raises(fm.ConvergenceError):
        solvers.cg(p.A, p.b, restart_file=path, max_iterations=3)
    content = bytearray(path.read_bytes())
    place = content.find(p.b.gather().tobytes()[:8])
    assert place == -1  # no vector of the state is b itself
    values = np.frombuffer(bytes(content), np.uint8)
    content[len(values) - 9] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises((fm.ChecksumError, fm.FileFormatError)):
        solvers.cg(p.A, p.b, **options)


def test_a_file_that_cannot_be_written(p: Problem, tmp_path: Path) -> None:
    with pytest.raises(fm.FileError, match="nowhere"):
        solvers.cg(p.A, p.b, restart_file=tmp_path / "nowhere" / "state.h5", restart_every=1)


def test_a_run_that_converges_before_its_first_file_leaves_none(p: Problem, tmp_path: Path) -> None:
    path = tmp_path / "state.h5"
    solvers.cg(p.A, p.b, tolerance=0.9, restart_file=path)
    assert not path.exists()
