"""Block conjugate gradients for several right-hand sides, without breakdown when directions become dependent."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..errors import NotPositiveDefiniteError
from ..operators import LinearOperator
from ..vector import Vector, combine, gram, grams, subset
from ..vector.data import check_operand
from .base import (
    Control,
    Floats,
    Measure,
    Method,
    Outcome,
    Solution,
    check_operator,
    check_right_hand_side,
    check_square,
    check_symmetry,
    checked_norm,
    new_vector,
)
from .cg import LARGEST_GAP
from .frame import run
from .small import cholesky_solve, independent_combinations, positive_definite_factor


def block_cg(A: LinearOperator, B: Vector, *, preconditioner: LinearOperator | None = None, **options: Any) -> Solution:
    """Solve ``A X = B`` for several right-hand sides with one product of all of them in an iteration. Collective.

    All right-hand sides share one block Krylov space, so the iterations are fewer than those of `cg` for each of them.
    The method is the breakdown-free block CG of Ji and Li [1]_: the directions are an orthonormal basis of their span,
    and the block becomes narrower when they are dependent, such as those of dependent right-hand sides.

    The iterations stop when each residual satisfies the rule of `cg`. The true residuals confirm it.

    Parameters
    ----------
    A : LinearOperator
        The self-adjoint positive definite operator, which takes several vectors in one.
    B : Vector
        The right-hand sides, in one Vector with ``num_vecs``.
    preconditioner : LinearOperator, optional
        An approximation of the inverse of A, self-adjoint and positive definite.
    **options
        The options of `Control`.

    Returns
    -------
    Solution
        The solutions in one Vector. The history has a column for each right-hand side.

    Raises
    ------
    ConvergenceError, NotPositiveDefiniteError, NotSelfAdjointError, NonFiniteError
        See `cg`.

    References
    ----------
    .. [1] H. Ji and Y. Li, BIT Numer. Math. 57 (2017) 379-403.

    Examples
    --------
    >>> import numba_fftmatvec as fft
    >>> from numba_fftmatvec.solvers import block_cg
    >>> comm = fft.Comm(backend="cpu")
    >>> B = fft.Vector(comm, 2, 2, "col", global_sizes=True, num_vecs=3)
    >>> B.init_vec_consecutive()
    >>> A = 2.0 * fft.Identity(comm, comm.axis("col").layout(2, 2))
    >>> block_cg(A, B).x.gather()[2].round(6)
    array([[4. , 4.5],
           [5. , 5.5]])
    """

    def make(operator: LinearOperator, control: Control) -> BlockConjugateGradients:
        return BlockConjugateGradients(operator, control, B, preconditioner)

    return run("block_cg", A, options, make)  # type: ignore[no-any-return]


class BlockConjugateGradients(Method):
    """The iteration of `block_cg`. The parameters are those of `block_cg`.

    Between two iterations the state is X, R, Z = M R, the last directions P, and the coefficients of P in the next
    ones. A rank of the block is the number of its independent directions.
    """

    name: ClassVar[str] = "block_cg"
    rule: ClassVar[str] = "relative residual"

    def __init__(
        self, A: LinearOperator, control: Control, B: Vector, preconditioner: LinearOperator | None = None
    ) -> None:
        super().__init__(A, control)
        check_square(A)
        check_right_hand_side(B, A, getattr(B, "num_vecs", 1), "right-hand sides")
        if preconditioner is not None:
            check_square(check_operator(preconditioner, "preconditioner"), "preconditioner")
            check_operand(subset(B, 0, 1), preconditioner.comm, preconditioner.range, "range of the preconditioner")
        self.B, self.M = B, preconditioner
        self.X, self.R, self.P, self.scratch = (new_vector(B) for _ in range(4))
        self.Z = self.R if preconditioner is None else new_vector(B)
        self._P, self._Q = self.P, new_vector(B)
        #: Directions and their products by their number, which share the memory of the widest.
        self._narrower: dict[int, tuple[Vector, Vector]] = {B.num_vecs: (self._P, self._Q)}
        self.vectors = ("X", "R", "P") if preconditioner is None else ("X", "R", "P", "Z")
        self.arrays = ("coefficients", "norms")
        #: Coefficients of the last directions; without rows there are none.
        self.coefficients: Floats = np.zeros((0, B.num_vecs))
        self.norms: Floats = np.zeros(B.num_vecs)
        self.limits: Floats = np.zeros(B.num_vecs)

    @property
    def iterate(self) -> Vector:
        """The present iterates."""
        return self.X

    def right_hand_side(self) -> Vector:
        """Return the right-hand sides."""
        return self.B

    def problem(self) -> dict[str, str]:
        """Return the number of right-hand sides, and whether there is a preconditioner."""
        return {"right-hand sides": str(self.B.num_vecs), "preconditioner": str(self.M is not None)}

    def begin(self) -> None:
        """Compute the limits of the residuals."""
        norms = [checked_norm(norm, self.name, f"right-hand side {i}") for i, norm in enumerate(self.B.norms())]
        self.limits = self.control.tolerance * np.array(norms)

    def start(self) -> Measure:
        """Set X = 0."""
        self.X.init_vec_zeros()
        self.P.init_vec_zeros()
        self.B.copy_to(self.R)
        self._precondition()
        return self._measure(gram(self.R, self.R))

    def step(self) -> Measure:
        """Do one iteration."""
        Q = self._directions()
        P = self.P
        self.A.apply(P, Q)
        projection, right = grams((P, Q), (P, self.R))
        self._check(projection, "product P* A P")
        rest, scale = (float(abs(part).max()) for part in (projection - projection.T, projection))
        check_symmetry(rest, scale, self.A, self.name, "P* A P and its transpose")
        factor = positive_definite_factor((projection + projection.T) / 2, self.name, self.iteration)
        steps = cholesky_solve(factor, right)
        combine(P, steps, self.scratch)
        self.X.axpy(1.0, self.scratch)
        combine(Q, steps, self.scratch)
        self.R.axpy(-1.0, self.scratch)
        self._precondition()
        overlap, squares = grams((Q, self.Z), (self.R, self.R))
        self._check(overlap, "product of the preconditioner")
        self.coefficients = -cholesky_solve(factor, overlap)
        return self._measure(squares)

    def verify(self) -> Measure:
        """Return the measure of the true residuals, which replace the recursive ones."""
        recursive = self.norms
        self.A.apply(self.X, self.scratch)
        self.B.copy_to(self.R)
        self.R.axpy(-1.0, self.scratch)
        self._precondition()
        measure = self._measure(gram(self.R, self.R))
        if (self.norms > LARGEST_GAP * recursive).any():
            self.coefficients = self.coefficients[:0]
        return measure

    def outcome(self, outcome: Outcome) -> Solution:
        """Return the result."""
        return Solution(**vars(outcome), x=self.X)

    def _directions(self) -> Vector:
        """Set P to an orthonormal basis of ``Z + P coefficients``; return the memory of its products."""
        if len(self.coefficients):
            combine(self.P, self.coefficients, self.scratch)
            self.scratch.axpy(1.0, self.Z)
        else:
            self.Z.copy_to(self.scratch)
        products = gram(self.scratch, self.scratch)
        self._check(products, "direction")
        combinations = independent_combinations(products)
        rank = combinations.shape[1]
        if not rank:
            raise NotPositiveDefiniteError(
                f"{self.name}: expected a positive definite preconditioner M, found M R = 0 for residuals of up to "
                f"{self.norms.max():.3e} in iteration {self.iteration}"
            )
        if rank not in self._narrower:
            self._narrower[rank] = subset(self._P, 0, rank), subset(self._Q, 0, rank)
        self.P, Q = self._narrower[rank]
        combine(self.scratch, combinations, self.P)
        return Q

    def _precondition(self) -> None:
        if self.M is not None:
            self.M.apply(self.R, self.Z)

    def _measure(self, squares: Floats) -> Measure:
        self._check(squares, "square of a residual norm")
        self.norms = np.sqrt(np.diagonal(squares))
        ratios = np.divide(self.norms, self.limits, out=np.zeros_like(self.norms), where=self.limits > 0)
        return Measure(self.norms, float(ratios.max()), self.rule)

    def _check(self, values: Floats, what: str) -> None:
        """Raise unless all values are finite."""
        if not np.isfinite(values).all():
            self.finite(float(values[~np.isfinite(values)][0]), what)
