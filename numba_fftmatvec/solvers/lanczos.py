"""Eigenpairs of self-adjoint operators by the Lanczos process with full reorthogonalisation and thick restarts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..arguments import natural_int, positive_int
from ..errors import ArgumentError, ShapeError
from ..operators import LinearOperator
from ..vector import Vector, combine, fill_normal, gram, subset
from .base import Control, Floats, Measure, Method, Outcome, check_square, check_symmetry, new_block
from .frame import run

# The order of the Ritz values, the wanted ones first, as sort keys.
ORDERS: dict[str, Callable[[Floats], Floats]] = {
    "largest": lambda values: -values,
    "smallest": lambda values: values,
    "magnitude": lambda values: -abs(values),
}
# A new direction shorter than this fraction of the operator's norm is rounding: the basis is an invariant subspace.
INVARIANT = 1e-14
# Number of vectors that search for missing pairs.
SEARCHED = 10
# Estimated residuals are so many times smaller than the limit before the true ones are computed. The residuals that
# the search ignores then leave the true ones below the limit.
SAFETY = 4.0


@dataclass(frozen=True)
class EigenSolution(Outcome):
    """Eigenpairs of an operator.

    Parameters
    ----------
    values : ndarray, shape (k,)
        The eigenvalues, the wanted ones first.
    vectors : Vector
        The orthonormal eigenvectors, in one Vector with ``num_vecs=k``.
    residuals : ndarray, shape (k,)
        The norms of ``A v - value v``. Each bounds the distance of the value to an eigenvalue.
    error : float or None
        Of randomised methods: an estimate of the norm of A without its part in the computed subspace.
    """

    values: Floats
    vectors: Vector
    residuals: Floats
    error: float | None = None


def lanczos(
    A: LinearOperator, k: int, *, which: str = "largest", basis: int | None = None, seed: int = 0, **options: Any
) -> EigenSolution:
    """Return k eigenpairs of a self-adjoint operator. Collective.

    An iteration extends the basis of Lanczos vectors to its full size, orthogonalises each vector twice against all
    others, and keeps the wanted half of the Ritz vectors for the next iteration. The iterations stop when
    ``norm(A v - value v) <= tolerance * norm(A)`` for all k pairs. norm(A) is the largest Ritz value. One product of
    all pairs confirms the rule.

    A Krylov space has one vector of each eigenspace. Ten more vectors, from a random one that is orthogonal to the
    converged pairs, therefore search for missing copies of multiple eigenvalues. If they find a wanted pair, the
    iterations go on.

    Parameters
    ----------
    A : LinearOperator
        The operator, from a space to itself.
    k : int
        Number of eigenpairs.
    which : {"largest", "smallest", "magnitude"}
        The wanted end of the spectrum, or both by magnitude.
    basis : int, optional
        Number of vectors that the basis may have, more than k; by default ``2 k + 10``, at most the operator's size. As
        many vectors and half as many temporary ones are held in memory.
    seed : int
        The seed of the first vector.
    **options
        The options of `Control`; by default 100 iterations.

    Returns
    -------
    EigenSolution
        The eigenpairs. The history has a column for each of them.

    Raises
    ------
    ConvergenceError, NotSelfAdjointError, NonFiniteError
        See `cg`.
    ShapeError, ArgumentError
        `k` or `basis` does not fit the operator, or `which` is unknown.

    Examples
    --------
    >>> import numba_fftmatvec as fft
    >>> from numba_fftmatvec.solvers import lanczos
    >>> comm = fft.Comm(backend="cpu")
    >>> weights = fft.Vector(comm, 10, 10, "col", global_sizes=True)
    >>> weights.init_vec_consecutive()
    >>> lanczos(fft.Diagonal(weights), 3).values.round(6)
    array([99., 98., 97.])
    """

    def make(operator: LinearOperator, control: Control) -> Lanczos:
        return Lanczos(operator, control, k, which, basis, seed)

    return run("lanczos", A, options, make, {"max_iterations": 100})  # type: ignore[no-any-return]


class Lanczos(Method):
    """The iteration of `lanczos`. The parameters are those of `lanczos`.

    Between two iterations the state is the basis V, of which the first `kept` vectors and one more are in use, and the
    projection ``V* A V`` of the kept ones with the coupling to that one more. It has the projection of the full basis
    and its Ritz pairs, too.
    """

    name: ClassVar[str] = "lanczos"
    advice: ClassVar[str] = "more iterations (max_iterations), a larger basis, or a larger tolerance"
    vectors = ("V",)
    arrays = ("projection", "kept", "used", "ignored", "restarts", "ritz_values", "ritz_vectors")

    def __init__(self, A: LinearOperator, control: Control, k: int, which: str, basis: int | None, seed: int) -> None:
        super().__init__(A, control)
        check_square(A)
        size = A.domain.size
        self.k, self.seed = positive_int(k, "k"), natural_int(seed, "seed")
        self.m = min(size, 2 * self.k + 10) if basis is None else positive_int(basis, "basis")
        if not self.k <= self.m <= size or (self.k == self.m < size):
            raise ShapeError(
                f"lanczos: expected k < basis <= {size}, the operator's size, found k = {k} and basis = {self.m}"
            )
        if which not in ORDERS:
            raise ArgumentError(f"which: expected one of {', '.join(ORDERS)}, found {which!r}")
        self.which = which
        self.V = new_block(A.comm, A.domain, self.m + 1)
        self._keep = min(self.m - 1, self.k + (self.m - self.k) // 2)
        self._scratch = new_block(A.comm, A.domain, max(self.k, self._keep))
        self._v, self._w = (Vector.from_layout(A.comm, A.domain) for _ in range(2))
        self._leading: dict[int, Vector] = {}
        self.projection: Floats = np.zeros((self.m + 1, self.m + 1))
        #: Number of kept Ritz vectors, and number of random vectors so far.
        self.kept = self.restarts = 0.0
        #: Norm of the residuals of kept vectors that the projection does not have, since the last search.
        self.ignored = 0.0
        #: Number of vectors of the basis of which the projection is known.
        self.used = float(self.m)
        #: All Ritz values, the wanted ones first, and the coefficients of their vectors in the basis.
        self.ritz_values: Floats = np.zeros(0)
        self.ritz_vectors: Floats = np.zeros((0, 0))

    def problem(self) -> dict[str, str]:
        """Return the parameters."""
        return {"k": str(self.k), "which": self.which, "basis": str(self.m), "seed": str(self.seed)}

    def start(self) -> Measure:
        """Set the first vector; extend the basis once."""
        self.V.init_vec_zeros()
        self._set_random(0)
        self._extend(self.m)
        return self._measure(self._estimates(), SAFETY)

    def step(self) -> Measure:
        """Keep the wanted Ritz vectors and the last vector of the basis, and extend it again."""
        used, keep = int(self.used), min(self._keep, int(self.used) - 1)
        coupling = self.projection[used, used - 1] * self.ritz_vectors[-1, :keep]
        self._keep_ritz_vectors(keep)
        self._vector(used).copy_to(self._vector(keep))
        self.projection[keep, :keep] = self.projection[:keep, keep] = coupling
        self._extend(self.m)
        return self._measure(self._estimates(), SAFETY)

    def verify(self) -> Measure:
        """Return the measure of the true residuals, if no pair is missing."""
        measure = self._measure(self._pairs()[1])
        if not measure.is_met or self.used == self.A.domain.size:
            return measure
        found = self.ritz_values[: self.k].copy()
        self._keep_ritz_vectors(self.k)
        self._set_random(self.k)
        self.ignored = float(np.linalg.norm(measure.residuals))
        self._extend(min(self.m, self.k + SEARCHED))
        change = float(abs(self.ritz_values[: self.k] - found).max())
        if change > self.control.tolerance * abs(self.ritz_values).max():
            return Measure(self._estimates(), np.inf, measure.rule)
        return self._measure(self._pairs()[1])

    def outcome(self, outcome: Outcome) -> EigenSolution:
        """Return the eigenpairs."""
        vectors, residuals = self._pairs()
        return EigenSolution(
            **vars(outcome), values=self.ritz_values[: self.k].copy(), vectors=vectors, residuals=residuals
        )

    def _keep_ritz_vectors(self, count: int) -> None:
        """Replace the basis by its first Ritz vectors; set the projection on them."""
        part = subset(self._scratch, 0, count)
        combine(self._basis(int(self.used)), self.ritz_vectors[:, :count], part)
        part.copy_to(self._basis(count))
        self.projection = np.zeros_like(self.projection)
        self.projection[range(count), range(count)] = self.ritz_values[:count]
        self.kept = float(count)

    def _extend(self, size: int) -> None:
        """Extend the basis to a size, and compute all Ritz pairs, the wanted ones first."""
        for j in range(int(self.kept), size):
            self._append(j)
        self.used = float(size)
        values, vectors = np.linalg.eigh(self.projection[:size, :size])
        order = np.argsort(ORDERS[self.which](values), kind="stable")
        self.ritz_values, self.ritz_vectors = values[order], vectors[:, order]

    def _estimates(self) -> Floats:
        """Return the norms of the residuals of the wanted Ritz pairs, by the projection."""
        used = int(self.used)
        estimates: Floats = abs(self.projection[used, used - 1] * self.ritz_vectors[-1, : self.k])
        return estimates

    def _append(self, j: int) -> None:
        """Set vector j + 1 of the basis to A times vector j, orthogonalised against all before and normalised."""
        self._vector(j).copy_to(self._v)
        self.A.apply(self._v, self._w)
        length = self.finite(self._w.norm(), "norm of a product")
        coefficients = self._orthogonalise(j + 1)
        scale = max(length, float(abs(self.projection).max()))
        difference = max(0.0, float(np.linalg.norm(coefficients[:j] - self.projection[j, :j])) - self.ignored)
        check_symmetry(difference, scale, self.A, self.name, "<v, A w> and <A v, w>")
        self.projection[: j + 1, j] = self.projection[j, : j + 1] = coefficients
        norm = self._w.norm()
        if norm > INVARIANT * scale:
            self._w.scale(1.0 / norm)
            self._w.copy_to(self._vector(j + 1))
            self.projection[j + 1, j] = self.projection[j, j + 1] = norm
        elif j + 1 < self.A.domain.size:
            self._set_random(j + 1)
        else:
            self._vector(j + 1).init_vec_zeros()

    def _orthogonalise(self, count: int) -> Floats:
        """Subtract from w its part in the first vectors of the basis, twice; return the coefficients."""
        total: Floats = np.zeros(count)
        for _ in range(2):
            coefficients = gram(self._basis(count), self._w)
            combine(self._basis(count), coefficients, self._v)
            self._w.axpy(-1.0, self._v)
            total += coefficients[:, 0]
        return total

    def _set_random(self, j: int) -> None:
        """Set vector j of the basis to a random direction that is orthogonal to those before."""
        fill_normal(self._w, self.seed + int(self.restarts))
        self.restarts += 1
        if j:
            self._w.scale(1.0 / self._w.norm())
            self._orthogonalise(j)
        self._w.scale(1.0 / self._w.norm())
        self._w.copy_to(self._vector(j))

    def _measure(self, residuals: Floats, safety: float = 1.0) -> Measure:
        norm = float(abs(self.ritz_values).max())
        worst = float(residuals.max())
        ratio = safety * worst / (self.control.tolerance * norm) if norm else (np.inf if worst else 0.0)
        return Measure(residuals.copy(), ratio, "norm(A v - value v) <= tolerance norm(A)")

    def _pairs(self) -> tuple[Vector, Floats]:
        """Return the wanted Ritz vectors and the norms of their true residuals."""
        vectors, products = (new_block(self.comm, self.A.domain, self.k) for _ in range(2))
        combine(self._basis(int(self.used)), self.ritz_vectors[:, : self.k], vectors)
        self.A.apply(vectors, products)
        scaled = subset(self._scratch, 0, self.k)
        combine(vectors, np.diag(self.ritz_values[: self.k]), scaled)
        products.axpy(-1.0, scaled)
        return vectors, products.norms()

    def _basis(self, count: int) -> Vector:
        """Return the first vectors of the basis."""
        if count not in self._leading:
            self._leading[count] = subset(self.V, 0, count)
        return self._leading[count]

    def _vector(self, j: int) -> Vector:
        """Return one vector of the basis."""
        if -j - 1 not in self._leading:
            self._leading[-j - 1] = subset(self.V, j, j + 1)
        return self._leading[-j - 1]
