"""Randomised eigenvalues and singular values of Halko, Martinsson and Tropp, with power iterations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..arguments import natural_int, positive_int
from ..errors import ShapeError
from ..layout import VectorLayout
from ..operators import LinearOperator
from ..vector import Vector, combine, fill_normal, gram
from .base import Control, Floats, Measure, Method, Outcome, check_square, check_symmetry, new_block
from .frame import run
from .lanczos import EigenSolution
from .orthonormal import orthonormalise

# The estimate of the error is too small with a probability of FACTOR^-PROBES, which is 10^-6.
PROBES, FACTOR = 12, 10.0**0.5


@dataclass(frozen=True)
class SvdSolution(Outcome):
    """Singular triplets of an operator: ``A v = value u``.

    Parameters
    ----------
    values : ndarray, shape (k,)
        The singular values, the largest first.
    u, v : Vector
        The orthonormal left and right singular vectors, each in one Vector with ``num_vecs=k``.
    residuals : ndarray, shape (k,)
        The norms of ``A v - value u``; those of ``A* u - value v`` are rounding.
    error : float
        An estimate of the norm of A without its part in the computed subspace.
    """

    values: Floats
    u: Vector
    v: Vector
    residuals: Floats
    error: float


def randomised_eigenvalues(
    A: LinearOperator, k: int, *, oversampling: int = 10, seed: int = 0, **options: Any
) -> EigenSolution:
    """Return the k eigenpairs of largest magnitude of a self-adjoint operator, by random projections [1]_. Collective.

    All products are of ``k + oversampling`` vectors at once: two at the start, one for each power iteration, and one of
    twelve vectors for the estimate of the error. Two power iterations suffice if the eigenvalues decay.

    With a `tolerance`, the iterations stop when ``norm(A v - value v) <= tolerance * norm(A)`` for all k pairs, where
    norm(A) is the largest value found. Without one there are `max_iterations` power iterations, by default 2.

    Parameters
    ----------
    A : LinearOperator
        The operator, from a space to itself, which takes several vectors in one.
    k : int
        Number of eigenpairs.
    oversampling : int
        Number of additional vectors; fewer if the operator is smaller.
    seed : int
        The seed of the random vectors.
    **options
        The options of `Control`.

    Returns
    -------
    EigenSolution
        The eigenpairs, with the estimate of the error by random vectors [1]_: with a probability of 10^-6 it is less
        than the norm of A without its part in the subspace.

    Raises
    ------
    ConvergenceError
        A tolerance was given, and the iterations stopped before it.
    NotSelfAdjointError, NonFiniteError, ShapeError
        The operator is not self-adjoint, a product has a NaN, or `k` is larger than the operator.

    References
    ----------
    .. [1] N. Halko, P. G. Martinsson and J. A. Tropp, SIAM Rev. 53 (2011) 217-288.
    """

    def make(operator: LinearOperator, control: Control) -> RandomisedEigenvalues:
        return RandomisedEigenvalues(operator, control, k, oversampling, seed)

    return _run("randomised_eigenvalues", A, options, make)  # type: ignore[no-any-return]


def randomised_svd(A: LinearOperator, k: int, *, oversampling: int = 10, seed: int = 0, **options: Any) -> SvdSolution:
    """Return the k largest singular values of an operator and their vectors, by random projections. Collective.

    All products are of ``k + oversampling`` vectors at once: three at the start, two for each power iteration, and one
    of twelve vectors for the estimate of the error. With a `tolerance`, the iterations stop when
    ``norm(A v - value u) <= tolerance * norm(A)`` for all k triplets. Parameters and errors are those of
    `randomised_eigenvalues`, for an operator between any two spaces.

    Examples
    --------
    >>> import numba_fftmatvec as fft
    >>> from numba_fftmatvec.solvers import randomised_svd
    >>> comm = fft.Comm(backend="cpu")
    >>> F = fft.Matrix(comm, cols=6, rows=4, block_size=5, global_sizes=True)
    >>> F.init_mat_doubles()
    >>> found = randomised_svd(F, 3, tolerance=1e-6)
    >>> first = found.v.get_vector(0)
    >>> bool(abs((F @ first).norm() - found.values[0]) < 1e-6 * found.values[0])
    True
    """

    def make(operator: LinearOperator, control: Control) -> RandomisedSvd:
        return RandomisedSvd(operator, control, k, oversampling, seed)

    return _run("randomised_svd", A, options, make)  # type: ignore[no-any-return]


def _run(name: str, A: object, options: Mapping[str, Any], make: Any) -> Any:
    fixed = "tolerance" not in options
    return run(name, A, options, make, {"max_iterations": 2 if fixed else 100}, may_stop_early=fixed)


class RandomisedMethod(Method):
    """A method that iterates with a random block. The parameters are those of `randomised_eigenvalues`."""

    advice: ClassVar[str] = "more iterations (max_iterations), more oversampling, or a larger tolerance"

    def __init__(self, A: LinearOperator, control: Control, k: int, oversampling: int, seed: int) -> None:
        super().__init__(A, control)
        self.k, self.seed = positive_int(k, "k"), natural_int(seed, "seed")
        smallest = min(A.shape)
        if self.k > smallest:
            raise ShapeError(f"k: expected at most {smallest}, the smaller size of the operator, found {k}")
        self.count = min(self.k + natural_int(oversampling, "oversampling"), smallest)

    def block(self, layout: VectorLayout, count: int | None = None) -> Vector:
        """Return a new block of vectors of a layout."""
        return new_block(self.comm, layout, count or self.count)

    def problem(self) -> dict[str, str]:
        """Return the parameters."""
        return {"k": str(self.k), "vectors": str(self.count), "seed": str(self.seed)}

    def combined(self, x: Vector, coefficients: Floats) -> Vector:
        """Return linear combinations of the vectors of a block in a new block."""
        found = self.block(x.layout, coefficients.shape[1])
        combine(x, coefficients, found)
        return found

    def measure_of(self, residuals: Floats, values: Floats, rule: str) -> Measure:
        """Return the measure of the residuals of the k pairs, relative to the largest value."""
        norm, worst = float(abs(values).max()), float(residuals.max())
        ratio = worst / (self.control.tolerance * norm) if norm else (math.inf if worst else 0.0)
        return Measure(residuals, ratio, rule)

    def estimated_error(self, Q: Vector) -> float:
        """Return an estimate of the norm of A without its part in the span of Q: equation 4.3 of Halko et al."""
        probes, images = self.block(self.A.domain, PROBES), self.block(self.A.range, PROBES)
        fill_normal(probes, self.seed + 1)
        self.A.apply(probes, images)
        images.axpy(-1.0, self.combined(Q, gram(Q, images)))
        return float(FACTOR * math.sqrt(2 / math.pi) * images.norms().max())


class RandomisedEigenvalues(RandomisedMethod):
    """The iteration of `randomised_eigenvalues`; its parameters are those. The state is Q and its products W = A Q."""

    name: ClassVar[str] = "randomised_eigenvalues"
    vectors = ("Q", "W")
    arrays = ("projection",)

    def __init__(self, A: LinearOperator, control: Control, k: int, oversampling: int, seed: int) -> None:
        check_square(A)
        super().__init__(A, control, k, oversampling, seed)
        self.Q, self.W, self.scratch = (self.block(A.domain) for _ in range(3))
        self.projection: Floats = np.zeros((self.count, self.count))

    def start(self) -> Measure:
        """Project on the products of random vectors."""
        fill_normal(self.Q, self.seed)
        self.A.apply(self.Q, self.W)
        return self.step()

    def step(self) -> Measure:
        """Do one power iteration."""
        self.W.copy_to(self.Q)
        orthonormalise(self.Q, self.scratch)
        self.A.apply(self.Q, self.W)
        projection = gram(self.Q, self.W)
        self.finite(float(np.sum(projection)), "product")
        difference, scale = (float(abs(part).max()) for part in (projection - projection.T, projection))
        check_symmetry(difference, scale, self.A, self.name, "Q* A Q and its transpose")
        self.projection = (projection + projection.T) / 2
        return self.verify()

    def verify(self) -> Measure:
        """Return the measure of the residuals, which the products give."""
        values, coefficients = self._ritz()
        residuals = self.combined(self.W, coefficients)
        residuals.axpy(-1.0, self.combined(self.Q, coefficients * values))
        return self.measure_of(residuals.norms(), values, "norm(A v - value v) <= tolerance norm(A)")

    def outcome(self, outcome: Outcome) -> EigenSolution:
        """Return the eigenpairs."""
        values, coefficients = self._ritz()
        vectors, residuals = self.combined(self.Q, coefficients), self.verify().residuals
        error = self.estimated_error(self.Q)
        return EigenSolution(**vars(outcome), values=values, vectors=vectors, residuals=residuals, error=error)

    def _ritz(self) -> tuple[Floats, Floats]:
        """Return the k Ritz values of largest magnitude, and the coefficients of their vectors."""
        values, coefficients = np.linalg.eigh(self.projection)
        order = np.argsort(-abs(values), kind="stable")[: self.k]
        return values[order], coefficients[:, order]


class RandomisedSvd(RandomisedMethod):
    """The iteration of `randomised_svd`. The parameters are those of `randomised_svd`.

    The state is an orthonormal basis Q in the range, the factors of ``A* Q = V R``, and the products Y = A V.
    """

    name: ClassVar[str] = "randomised_svd"
    vectors = ("Q", "V", "Y")
    arrays = ("factor",)

    def __init__(self, A: LinearOperator, control: Control, k: int, oversampling: int, seed: int) -> None:
        super().__init__(A, control, k, oversampling, seed)
        self.Q, self.Y, self.range_scratch = (self.block(A.range) for _ in range(3))
        self.V, self.domain_scratch = (self.block(A.domain) for _ in range(2))
        self.factor: Floats = np.zeros((self.count, self.count))

    def start(self) -> Measure:
        """Project on the products of random vectors."""
        fill_normal(self.V, self.seed)
        self.A.apply(self.V, self.Y)
        return self.step()

    def step(self) -> Measure:
        """Do one power iteration."""
        self.Y.copy_to(self.Q)
        orthonormalise(self.Q, self.range_scratch)
        self.A.apply_adjoint(self.Q, self.V)
        self.factor = orthonormalise(self.V, self.domain_scratch)
        self.finite(float(np.sum(self.factor)), "product")
        self.A.apply(self.V, self.Y)
        return self.verify()

    def verify(self) -> Measure:
        """Return the measure of the residuals, which the products give."""
        left, values, right = self._triplets()
        residuals = self.combined(self.Y, right)
        residuals.axpy(-1.0, self.combined(self.Q, left * values))
        return self.measure_of(residuals.norms(), values, "norm(A v - value u) <= tolerance norm(A)")

    def outcome(self, outcome: Outcome) -> SvdSolution:
        """Return the singular triplets."""
        left, values, right = self._triplets()
        u, v = self.combined(self.Q, left), self.combined(self.V, right)
        residuals, error = self.verify().residuals, self.estimated_error(self.Q)
        return SvdSolution(**vars(outcome), values=values, u=u, v=v, residuals=residuals, error=error)

    def _triplets(self) -> tuple[Floats, Floats, Floats]:
        """Return the coefficients of the left vectors, the singular values, and those of the right vectors."""
        left, values, right = np.linalg.svd(self.factor.T)
        return left[:, : self.k], values[: self.k], right[: self.k].T
