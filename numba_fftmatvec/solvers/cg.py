"""The conjugate gradient method, with a preconditioner, for self-adjoint positive definite operators."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..errors import NotPositiveDefiniteError
from ..operators import LinearOperator
from ..vector import Vector, inner_products
from ..vector.data import check_operand
from .base import (
    Control,
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
from .frame import run

# The directions are kept when the true residual is at most this many times as large as the recursive one.
LARGEST_GAP = 2.0


def cg(
    A: LinearOperator,
    b: Vector,
    x0: Vector | None = None,
    *,
    preconditioner: LinearOperator | None = None,
    **options: Any,
) -> Solution:
    """Solve ``A x = b`` for a self-adjoint positive definite operator by conjugate gradients. Collective.

    The iterations stop when ``norm(b - A x) <= tolerance * norm(b)``. The recursive residual is measured in each
    iteration. When it satisfies the rule, the true residual is computed by one more product. If that does not satisfy
    the rule, it replaces the recursive one, and the iterations go on.

    Parameters
    ----------
    A : LinearOperator
        The operator, from a space to itself.
    b : Vector
        The right-hand side.
    x0 : Vector, optional
        The initial guess; zeros by default. It is not changed.
    preconditioner : LinearOperator, optional
        An approximation of the inverse of A, self-adjoint and positive definite.
    **options
        The options of `Control`.

    Returns
    -------
    Solution
        The solution; its history has the norm of the residual at the start and after each iteration.

    Raises
    ------
    ConvergenceError
        The iterations stopped before the tolerance; the error's `solution` is the last iterate, the one with the
        smallest error in the norm of A.
    NotPositiveDefiniteError
        The operator or the preconditioner is not what it must be.
    NonFiniteError
        The right-hand side or a product has a NaN or an infinity.

    Examples
    --------
    >>> import numba_fftmatvec as fft
    >>> from numba_fftmatvec.solvers import cg
    >>> comm = fft.Comm(backend="cpu")
    >>> b = fft.Vector(comm, 1, 4, "col", global_sizes=True)
    >>> b.init_vec_consecutive()
    >>> A = 3.0 * fft.Identity(comm, b.layout)
    >>> solution = cg(A, b, tolerance=1e-12)
    >>> (A @ solution.x).gather().round(12), solution.iterations, solution.reason
    (array([[0., 1., 2., 3.]]), 1, 'relative residual')
    """

    def make(operator: LinearOperator, control: Control) -> ConjugateGradients:
        return ConjugateGradients(operator, control, b, x0, preconditioner)

    return run("cg", A, options, make)  # type: ignore[no-any-return]


class ConjugateGradients(Method):
    """The iteration of `cg`. The parameters are those of `cg`.

    The directions are updated at the beginning of an iteration. Between two iterations the state is x, r, z = M r, the
    last direction p, rho = <r, z> of this residual and of the one before, and the square of the residual norm.
    """

    name: ClassVar[str] = "cg"
    rule: ClassVar[str] = "relative residual"

    def __init__(
        self,
        A: LinearOperator,
        control: Control,
        b: Vector,
        x0: Vector | None = None,
        preconditioner: LinearOperator | None = None,
    ) -> None:
        super().__init__(A, control)
        check_square(A)
        check_right_hand_side(b, A)
        if x0 is not None:
            check_operand(x0, A.comm, A.domain, "initial guess")
            x0.check_initialized("initial guess")
        if preconditioner is not None:
            check_square(check_operator(preconditioner, "preconditioner"), "preconditioner")
            check_operand(b, preconditioner.comm, preconditioner.range, "right-hand side of the preconditioner")
        self.b, self.x0, self.M = b, x0, preconditioner
        #: The operator of true residuals.
        self.exact = A
        self.x, self.r, self.p, self.q = (new_vector(b) for _ in range(4))
        self.z = self.r if preconditioner is None else new_vector(b)
        self.vectors = ("x", "r", "p") if preconditioner is None else ("x", "r", "p", "z")
        self.arrays = ("rho", "previous_rho", "square")
        self.rho = self.previous_rho = self.square = self.limit = 0.0

    @property
    def iterate(self) -> Vector:
        """The present iterate."""
        return self.x

    def right_hand_side(self) -> Vector:
        """Return the right-hand side."""
        return self.b

    def problem(self) -> dict[str, str]:
        """Return whether there is a preconditioner."""
        return {"preconditioner": str(self.M is not None)}

    def begin(self) -> None:
        """Compute the limit of the residual."""
        self.limit = self.control.tolerance * checked_norm(self.b.norm(), self.name, "right-hand side")

    def start(self) -> Measure:
        """Set the initial guess and its residual."""
        if self.x0 is None or not self.limit:
            self.x.init_vec_zeros()
            self.b.copy_to(self.r)
        else:
            self.x0.copy_to(self.x)
            self.compute_residual()
        return self.measure()

    def step(self) -> Measure:
        """Do one iteration."""
        if self.previous_rho:
            self.p.axpby(self.rho / self.previous_rho, 1.0, self.z)
        else:
            self.z.copy_to(self.p)
        self.A.apply(self.p, self.q)
        step = self.rho / self.curvature()
        self.x.axpy(step, self.p)
        self.r.axpy(-step, self.q)
        self.previous_rho = self.rho
        return self.measure()

    def verify(self) -> Measure:
        """Return the measure of the true residual, which replaces the recursive one.

        If the true residual is larger by far, the directions start anew: they belong to the recursive one.
        """
        recursive = self.square
        self.compute_residual()
        measure = self.measure()
        if self.square > LARGEST_GAP**2 * recursive:
            self.previous_rho = 0.0
        return measure

    def outcome(self, outcome: Outcome) -> Solution:
        """Return the result."""
        return Solution(**vars(outcome), x=self.x)

    def compute_residual(self) -> None:
        """Set ``r = b - A x``, by the exact operator."""
        self.exact.apply(self.x, self.q)
        self.b.copy_to(self.r)
        self.r.axpy(-1.0, self.q)

    def measure(self) -> Measure:
        """Apply the preconditioner to the residual; return the measure of the residual."""
        if self.M is None:
            self.rho = self.square = float(inner_products((self.r, self.r))[0])
        else:
            self.M.apply(self.r, self.z)
            self.square, self.rho = map(float, inner_products((self.r, self.r), (self.r, self.z)))
            self.finite(self.rho, "product with the preconditioner")
        norm = self.finite(self.square, "square of the residual norm") ** 0.5
        if norm and not self.rho > 0:
            raise NotPositiveDefiniteError(
                f"{self.name}: expected a positive definite preconditioner M, found <r, M r> = {self.rho:.3e} in "
                f"iteration {self.iteration}"
            )
        return Measure(np.array([norm]), norm / self.limit if self.limit else 0.0, self.rule)

    def curvature(self) -> float:
        """Return <p, A p>; raise an error if it is not positive, or if A is not self-adjoint by the second product."""
        if self.iteration == 2:
            return self._first_curvature()
        return self._checked(float(inner_products((self.p, self.q))[0]))

    def _first_curvature(self) -> float:
        """Return <p, A p> of the second direction after a test of symmetry.

        With p = z + beta p_1, a self-adjoint A has <z, A p> = <p, A p>, since p and A p_1 are orthogonal.
        """
        p, q, z = self.p, self.q, self.z
        curvature, mixed, *squares = map(float, inner_products((p, q), (z, q), (p, p), (q, q), (z, z)))
        lengths = np.sqrt(squares)
        check_symmetry(
            abs(curvature - mixed), lengths[1] * (lengths[0] + lengths[2]), self.A, self.name, "<p, A p> and <z, A p>"
        )
        return self._checked(curvature)

    def _checked(self, curvature: float) -> float:
        if not self.finite(curvature, "product <p, A p>") > 0:
            raise NotPositiveDefiniteError(
                f"{self.name}: expected a positive definite operator A, found <p, A p> = {curvature:.3e} in "
                f"iteration {self.iteration}; a regularisation, such as a prior's precision, makes F* F definite"
            )
        return curvature
