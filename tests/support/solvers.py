"""Problems for the solvers, and one task that runs every solver on a process grid and returns each rank's results."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import numba_fftmatvec as fm
from numba_fftmatvec import solvers
from numba_fftmatvec.layout import VectorLayout
from numba_fftmatvec.vector import combine, fill_normal, gram, grams, inner_products, subset

Array = NDArray[np.float64]
Setting = tuple[tuple[int, int], str, Path]

NM, ND, NT = 7, 5, 5  # at least one block for each of three ranks; an odd number of values
DAMPING = 2.0
SEVERAL = 3
TOLERANCE = 1e-10


class Dense(fm.LinearOperator):
    """A dense matrix between vectors of any layouts, on any grid. Every rank computes the whole product on the host."""

    def __init__(self, comm: fm.Comm, matrix: Array, domain: VectorLayout, range_: VectorLayout) -> None:
        self.comm, self.matrix = comm, matrix
        self._domain, self._range = domain, range_

    @property
    def domain(self) -> VectorLayout:
        return self._domain

    @property
    def range(self) -> VectorLayout:
        return self._range

    def apply(self, x: fm.Vector, y: fm.Vector) -> None:
        self._multiply(self.matrix, x, y)

    def apply_adjoint(self, y: fm.Vector, x: fm.Vector) -> None:
        self._multiply(self.matrix.T, y, x)

    def _multiply(self, matrix: Array, x: fm.Vector, y: fm.Vector) -> None:
        y.scatter((x.gather().reshape(x.num_vecs, -1) @ matrix.T).reshape(y.shape))


class FailingOnTheLast(Dense):
    """An operator with the sizes of another one, whose second product fails on the last rank."""

    def __init__(self, operator: fm.LinearOperator) -> None:
        super().__init__(operator.comm, np.ones(operator.shape), operator.domain, operator.range)
        self._left = 2

    def apply(self, x: fm.Vector, y: fm.Vector) -> None:
        self._left -= 1
        if not self._left and self.comm.world_rank == self.comm.world_size - 1:
            raise fm.CapacityError("expected memory on the last rank, found none")
        super().apply(x, y)


def square(comm: fm.Comm, matrix: Array, blocks: int = NM) -> Dense:
    """Return an operator of col vectors."""
    layout = comm.axis("col").layout(blocks, len(matrix) // blocks)
    return Dense(comm, matrix, layout, layout)


def with_eigenvalues(values: Array, seed: int = 0) -> Array:
    """Return a symmetric matrix with these eigenvalues."""
    size = len(values)
    vectors = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]
    found: Array = (vectors * values) @ vectors.T
    return (found + found.T) / 2


def vector(comm: fm.Comm, layout: VectorLayout, values: Array) -> fm.Vector:
    """Return a vector, or several, with global values."""
    size = layout.num_blocks * layout.block_size
    made = fm.Vector.from_layout(comm, replace(layout, num_vecs=values.size // size))
    made.scatter(values.reshape(made.shape))
    return made


def toeplitz(first_column: Array) -> Array:
    """Return the dense matrix of a block-triangular Toeplitz matrix, in SOTI order on both sides."""
    nd, nm, nt = first_column.shape
    dense = np.zeros((nd, nt, nm, nt))
    for t in range(nt):
        for s in range(t + 1):
            dense[:, t, :, s] = first_column[:, :, t - s]
    return dense.reshape(nd * nt, nm * nt)


def first_column() -> Array:
    """Return the first block column of a matrix."""
    rng = np.random.default_rng(8)
    found: Array = rng.standard_normal((ND, NM, NT)) * np.exp(-np.arange(NT) / 3)
    return found


def right_hand_sides() -> dict[str, Array]:
    """Return global values of right-hand sides in parameter space, of several there, and of data."""
    rng = np.random.default_rng(9)
    return {
        "col": rng.standard_normal((NM, NT)),
        "several": rng.standard_normal((SEVERAL, NM, NT)),
        "row": rng.standard_normal((ND, NT)),
    }


class Problem:
    """The operators of a source inversion: F, its normal operator with damping, and the same in fixed point."""

    def __init__(self, comm: fm.Comm) -> None:
        self.comm = comm
        self.F = fm.Matrix(comm, NM, ND, NT, global_sizes=True)
        self.F.init_mat_from_array(first_column())
        cheap = self.F.with_precision(fm.MatvecPrecisionConfig.from_code("ddhdd"))
        identity = DAMPING**2 * fm.Identity(comm, self.F.domain)
        self.normal = self.F.T @ self.F + identity
        self.cheap = cheap.T @ cheap + identity
        values = right_hand_sides()
        self.b = vector(comm, self.F.domain, values["col"])
        self.B = vector(comm, self.F.domain, values["several"])
        self.d = vector(comm, self.F.range, values["row"])
        diagonal = np.diagonal(toeplitz(first_column()).T @ toeplitz(first_column())) + DAMPING**2
        self.jacobi = fm.Diagonal(vector(comm, self.F.domain, 1 / diagonal))


def named(call: Callable[[], object]) -> tuple[str, str]:
    """Return the type and message of the error of a call."""
    try:
        call()
    except fm.FFTMatvecError as error:
        return type(error).__name__, str(error)
    return "", ""


def everything(setting: Setting) -> dict[str, Any]:
    """Run all solvers on a grid; return what this rank found."""
    grid, backend, folder = setting
    with fm.Comm(None, *grid, backend=backend) as comm:
        problem = Problem(comm)
        return {
            "solutions": solutions(problem),
            "eigen": eigen(problem),
            "errors": errors(problem),
            "restart": restart(problem, folder),
            "callback": callback(problem),
            "blocks": blocks(comm),
        }


def solutions(p: Problem) -> dict[str, Any]:
    """Return global values, reason and number of iterations of each solver of linear systems."""
    found = {
        "cg": solvers.cg(p.normal, p.b, tolerance=TOLERANCE),
        "cg from x0": solvers.cg(p.normal, p.b, p.b, tolerance=TOLERANCE),
        "preconditioned cg": solvers.cg(p.normal, p.b, preconditioner=p.jacobi, tolerance=TOLERANCE),
        "refine": solvers.refine(p.cheap, p.normal, p.b, tolerance=TOLERANCE),
        "cgls": solvers.cgls(p.F, p.d, damping=DAMPING, tolerance=TOLERANCE),
        "lsqr": solvers.lsqr(p.F, p.d, damping=DAMPING, tolerance=TOLERANCE),
        "block_cg": solvers.block_cg(p.normal, p.B, tolerance=TOLERANCE),
        "preconditioned block_cg": solvers.block_cg(p.normal, p.B, preconditioner=p.jacobi, tolerance=TOLERANCE),
    }
    return {name: (s.x.gather(), s.reason, s.converged, s.iterations, s.history) for name, s in found.items()}


def eigen(p: Problem) -> dict[str, Any]:
    """Return the eigenvalues and singular values, with their vectors."""
    a = solvers.lanczos(p.normal, 3, tolerance=1e-10)
    r = solvers.randomised_eigenvalues(p.normal, 3, tolerance=1e-9)
    s = solvers.randomised_svd(p.F, 3, tolerance=1e-9)
    return {
        "lanczos": (a.values, a.vectors.gather(), a.residuals, a.history),
        "randomised": (r.values, r.vectors.gather(), r.residuals, r.error),
        "svd": (s.values, s.u.gather(), s.v.gather(), s.residuals, s.error),
    }


def errors(p: Problem) -> dict[str, Any]:
    """Return the errors that each rank raises."""
    negative, nan = -1.0 * p.normal, p.b.copy()
    if nan.on_grid() and 0 in nan.blocks:
        nan.array[0, 0] = np.nan
    found: dict[str, Any] = {
        "indefinite": named(lambda: solvers.cg(negative, p.b)),
        "indefinite block": named(lambda: solvers.block_cg(negative, p.B)),
        "NaN": named(lambda: solvers.cg(p.normal, nan)),
        "one rank": named(lambda: solvers.cg(p.normal, p.b, callback=_fails_on_the_last)),
        "product on one rank": named(lambda: solvers.lsqr(FailingOnTheLast(p.F), p.d)),
        "different options": named(lambda: solvers.cg(p.normal, p.b, tolerance=0.1 + p.comm.world_rank)),
    }
    for name, call in {
        "cg": lambda: solvers.cg(p.normal, p.b, max_iterations=2),
        "block_cg": lambda: solvers.block_cg(p.normal, p.B, max_iterations=1),
        "lsqr": lambda: solvers.lsqr(p.F, p.d, max_iterations=2),
    }.items():
        with suppress(fm.ConvergenceError):
            call()
        try:
            call()
        except fm.ConvergenceError as error:
            solution = error.solution
            found[f"not converged {name}"] = str(error), solution.iterations, solution.x.gather(), solution.reason
    return found


def _fails_on_the_last(iteration: int, state: solvers.State) -> None:
    assert state.x is not None
    if iteration == 1 and state.x.comm.world_rank == state.x.comm.world_size - 1:
        raise fm.ArgumentError("expected a callback without errors, found this one")


def restart(p: Problem, folder: Path) -> dict[str, Any]:
    """Return the results of `interrupted` for some solvers, and the error of a file for another right-hand side."""
    calls: dict[str, Callable[..., Any]] = {
        "cg": lambda **o: solvers.cg(p.normal, p.b, **o),
        "lsqr": lambda **o: solvers.lsqr(p.F, p.d, damping=DAMPING, **o),
        "block_cg": lambda **o: solvers.block_cg(p.normal, p.B, **o),
    }
    found: dict[str, Any] = {name: interrupted(call, folder / f"{name}.h5") for name, call in calls.items()}
    other = p.b + 1.0
    found["other data"] = named(lambda: solvers.cg(p.normal, other, restart_file=folder / "cg.h5", resume=True))
    return found


def interrupted(call: Callable[..., Any], path: Path, tolerance: float = 1e-6) -> tuple[int, bool]:
    """Return the iterations of a run that stops early, and whether a resumed run has the bits of one without a stop."""
    whole = call(tolerance=tolerance)
    try:
        call(tolerance=tolerance, restart_file=path, restart_every=2, max_iterations=3)
    except fm.ConvergenceError as error:
        stopped: int = error.solution.iterations
    resumed = call(tolerance=tolerance, restart_file=path, resume=True)
    same = np.array_equal(whole.x.gather(), resumed.x.gather()) and np.array_equal(whole.history, resumed.history)
    return stopped, same and resumed.reason == whole.reason


def callback(p: Problem) -> list[Any]:
    """Return the iterations that a callback saw, which stops at the second on one rank alone."""
    seen: list[int] = []

    def stop(iteration: int, state: solvers.State) -> bool:
        assert state.x is not None
        seen.append(iteration)
        return iteration == 2 and state.x.norm() > 0 and p.comm.world_rank == p.comm.world_size - 1

    solution = solvers.cg(p.normal, p.b, callback=stop)
    return [seen, solution.iterations, solution.reason, solution.converged, len(solution.history)]


def blocks(comm: fm.Comm) -> dict[str, Any]:
    """Return products of blocks of vectors, in both spaces, as global arrays."""
    found: dict[str, Any] = {}
    for space, number in (("col", NM), ("row", ND)):
        x = fm.Vector(comm, number, NT, space, global_sizes=True, num_vecs=SEVERAL)
        y = fm.Vector(comm, number, NT, space, global_sizes=True, num_vecs=2)
        fill_normal(x, 1)
        fill_normal(y, 2)
        out = fm.Vector.from_layout(comm, y.layout)
        combine(x, np.arange(6.0).reshape(3, 2), out)
        found[space] = {
            "x": x.gather(),
            "y": y.gather(),
            "gram": gram(x, y),
            "grams": grams((x, x), (y, x)),
            "combine": out.gather(),
            "subset": subset(x, 1, 3).gather(),
            "inner_products": inner_products((x, x), (y, out)),
        }
    return found
