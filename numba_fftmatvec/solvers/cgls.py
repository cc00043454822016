"""Conjugate gradients for least squares: the normal equations without products of A* A."""

from __future__ import annotations

from typing import Any, ClassVar

from ..operators import LinearOperator
from ..vector import Vector, inner_products
from ..vector.data import check_operand
from .base import Control, Measure, Solution, new_vector
from .cg import LARGEST_GAP
from .frame import run
from .least_squares import LeastSquares


def cgls(A: LinearOperator, b: Vector, x0: Vector | None = None, *, damping: float = 0.0, **options: Any) -> Solution:
    """Minimise ``norm(b - A x)^2 + damping^2 norm(x)^2`` by conjugate gradients. Collective.

    With the residual ``r = (b - A x, -damping x)`` of the damped operator, the iterations stop by one of the rules of
    Paige and Saunders [1]_, for consistent and for inconsistent systems:

    - ``norm(r) <= tolerance (norm(b) + norm(A) norm(x))``
    - ``norm(A* r) <= tolerance norm(A) norm(r)``

    norm(A) is the estimate of the Frobenius norm by the iterations' bidiagonal matrix, as in `lsqr`. The true residual
    confirms the rule by two more products, or the iterations go on from it.

    Parameters
    ----------
    A : LinearOperator
        The operator.
    b : Vector
        The right-hand side, in the operator's range.
    x0 : Vector, optional
        The initial guess; zeros by default. It is not changed.
    damping : float
        The damping.
    **options
        The options of `Control`.

    Returns
    -------
    Solution
        The solution. The columns of its history are ``norm(r)`` and ``norm(A* r)``.

    Raises
    ------
    ConvergenceError, NonFiniteError
        See `cg`.

    References
    ----------
    .. [1] C. C. Paige and M. A. Saunders, ACM Trans. Math. Softw. 8 (1982) 43-71.

    Examples
    --------
    >>> import numba_fftmatvec as fft
    >>> from numba_fftmatvec.solvers import cgls
    >>> comm = fft.Comm(backend="cpu")
    >>> F = fft.Matrix(comm, cols=3, rows=5, block_size=4, global_sizes=True)
    >>> F.init_mat_doubles()
    >>> d = F.get_vec("output")
    >>> d.init_vec_ones()
    >>> solution = cgls(F, d, damping=0.1)
    >>> normal = F.T @ (d - F @ solution.x) - 0.01 * solution.x
    >>> bool(solution.converged and normal.norm() < 1e-6)
    True
    """

    def make(operator: LinearOperator, control: Control) -> Cgls:
        return Cgls(operator, control, b, x0, damping)

    return run("cgls", A, options, make)  # type: ignore[no-any-return]


class Cgls(LeastSquares):
    """The iteration of `cgls`. The parameters are those of `cgls`.

    Between two iterations the state is x, r, s = A* r - damping^2 x, the last direction p, the squares of norm(s) of
    this iteration and of the one before, and the last step.
    """

    name: ClassVar[str] = "cgls"

    def __init__(self, A: LinearOperator, control: Control, b: Vector, x0: Vector | None, damping: float) -> None:
        super().__init__(A, control, b, damping)
        if x0 is not None:
            check_operand(x0, A.comm, A.domain, "initial guess")
            x0.check_initialized("initial guess")
        self.x0, self.p = x0, new_vector(self.x)
        self.vectors = ("x", "r", "s", "p")
        self.arrays = ("normal", "previous_normal", "last_step", "square_A")
        self.normal = self.previous_normal = self.last_step = 0.0

    def start(self) -> Measure:
        """Set the initial guess and its residuals."""
        if self.x0 is None:
            self.x.init_vec_zeros()
            self.b.copy_to(self.r)
            self.compute_normal_residual()
        else:
            self.x0.copy_to(self.x)
            self.compute_residuals()
        self.normal, measure = self.true_measure()
        return measure

    def step(self) -> Measure:
        """Do one iteration."""
        ratio = self.normal / self.previous_normal if self.previous_normal else 0.0
        if ratio:
            self.p.axpby(ratio, 1.0, self.s)
        else:
            self.s.copy_to(self.p)
        self.A.apply(self.p, self.q)
        step = self.normal / self._curvature()
        self.x.axpy(step, self.p)
        self.r.axpy(-step, self.q)
        self.compute_normal_residual()
        # The trace of the tridiagonal matrix that the Lanczos process would have: the square of the Frobenius norm.
        self.square_A += 1 / step + (ratio / self.last_step if self.last_step else 0.0)
        self.last_step, self.previous_normal = step, self.normal
        self.normal, measure = self.true_measure()
        return measure

    def verify(self) -> Measure:
        """Return the measure of the true residuals, which replace the recursive ones."""
        recursive = self.normal
        self.compute_residuals()
        self.normal, measure = self.true_measure()
        if self.normal > LARGEST_GAP**2 * recursive:
            self.previous_normal = 0.0
        return measure

    def _curvature(self) -> float:
        """Return ``norm(A p)^2 + damping^2 norm(p)^2``."""
        if self.damping:
            image, size = inner_products((self.q, self.q), (self.p, self.p))
            curvature = float(image + self.damping**2 * size)
        else:
            curvature = float(inner_products((self.q, self.q))[0])
        if not self.finite(curvature, "norm of A p") > 0:
            raise self.wrong_adjoint(self.normal**0.5)
        return curvature
