"""Conjugate gradients in mixed precision: cheap products in the iterations, true residuals by an exact operator."""

from __future__ import annotations

from typing import Any, ClassVar

from ..errors import ArgumentError
from ..operators import LinearOperator
from ..vector import Vector
from ..vector.data import check_operand
from .base import Control, Measure, Solution, check_operator
from .cg import ConjugateGradients
from .frame import run

# A true residual that a cycle leaves larger than this fraction of the one before counts as no progress.
LEAST_REDUCTION = 0.5
CYCLES_WITHOUT_PROGRESS = 2


def refine(
    A_cheap: LinearOperator,
    A_exact: LinearOperator,
    b: Vector,
    x0: Vector | None = None,
    *,
    preconditioner: LinearOperator | None = None,
    reduction: float = 0.1,
    **options: Any,
) -> Solution:
    """Solve ``A_exact x = b`` by conjugate gradients whose products are those of a cheaper operator. Collective.

    This is iterative refinement with reliable updates [1]_, which keeps the Krylov space from one cycle to the next. A
    cycle ends when the recursive residual has fallen by the factor `reduction` since the last true residual. The true
    residual ``b - A_exact x`` then replaces it. The stopping rule is that of `cg`, with the true residual, so the
    result has the same accuracy as one of `cg` with `A_exact`.

    The cycles converge if ``u cond(A)`` is less than about `reduction`, with the unit roundoff u of the cheap products.

    Parameters
    ----------
    A_cheap : LinearOperator
        A self-adjoint positive definite approximation of `A_exact`, such as one with a matrix of lower precision.
    A_exact : LinearOperator
        The self-adjoint positive definite operator of the problem.
    b, x0, preconditioner
        See `cg`.
    reduction : float
        The reduction of the recursive residual in a cycle, less than 1.
    **options
        The options of `Control`.

    Returns
    -------
    Solution
        The solution; its history has the residual norms, true ones at the ends of cycles.

    Raises
    ------
    ConvergenceError, NotPositiveDefiniteError, NotSelfAdjointError, NonFiniteError
        See `cg`.

    References
    ----------
    .. [1] M. A. Clark, R. Babich, K. Barros, R. C. Brower and C. Rebbi, Comput. Phys. Commun. 181 (2010) 1517-1528.

    Examples
    --------
    >>> import numba_fftmatvec as fft
    >>> from numba_fftmatvec.solvers import refine
    >>> comm = fft.Comm(backend="cpu")
    >>> F = fft.Matrix(comm, cols=3, rows=5, block_size=4, global_sizes=True)
    >>> F.init_mat_doubles()
    >>> G = F.with_precision(fft.MatvecPrecisionConfig.from_code("ddhdd"))
    >>> exact, cheap = (M.T @ M + fft.Identity(comm, F.domain) for M in (F, G))
    >>> b = F.get_vec("input")
    >>> b.init_vec_ones()
    >>> x = refine(cheap, exact, b, tolerance=1e-12).x
    >>> (b - exact @ x).norm() <= 1e-12 * b.norm()
    True
    """

    def make(operator: LinearOperator, control: Control) -> Refinement:
        _check(operator, A_exact, b, reduction)
        return Refinement(operator, A_exact, control, b, x0, preconditioner, reduction)

    return run("refine", A_cheap, options, make)  # type: ignore[no-any-return]


def _check(A_cheap: LinearOperator, A_exact: object, b: Vector, reduction: float) -> None:
    """Raise an error unless the exact operator has the sizes of the cheap one and the reduction is in its range."""
    exact = check_operator(A_exact, "exact operator")
    check_operand(b, exact.comm, exact.range, "right-hand side of the exact operator")
    if exact.comm is not A_cheap.comm or exact.domain != A_cheap.domain:
        raise ArgumentError(
            f"exact operator: expected one of {A_cheap.domain} on the cheap one's Comm, found {exact.domain}"
        )
    if not 0 < reduction < 1:
        raise ArgumentError(f"reduction: expected a number between 0 and 1, found {reduction!r}")


class Refinement(ConjugateGradients):
    """The iteration of `refine`. The parameters are those of `refine`."""

    name: ClassVar[str] = "refine"

    def __init__(
        self,
        A: LinearOperator,
        exact: LinearOperator,
        control: Control,
        b: Vector,
        x0: Vector | None,
        preconditioner: LinearOperator | None,
        reduction: float,
    ) -> None:
        super().__init__(A, control, b, x0, preconditioner)
        self.exact = exact
        self.reduction = reduction
        #: Square of the last true residual norm, and the number of cycles since progress.
        self.last_square = self.idle = 0.0
        self.arrays = (*self.arrays, "last_square", "idle")

    def problem(self) -> dict[str, str]:
        """Return the parameters."""
        return {**super().problem(), "reduction": repr(float(self.reduction))}

    def start(self) -> Measure:
        """Set the initial guess and its residual."""
        measure = super().start()
        self.last_square = self.square
        return measure

    def step(self) -> Measure:
        """Do one iteration; end the cycle if the residual has fallen far enough."""
        measure = super().step()
        if measure.is_met or self.square > self.reduction**2 * self.last_square:
            return measure
        return self.verify()

    def verify(self) -> Measure:
        """End the cycle: the true residual replaces the recursive one."""
        measure = super().verify()
        self.idle = self.idle + 1 if self.square > LEAST_REDUCTION**2 * self.last_square else 0.0
        self.stagnated = self.idle >= CYCLES_WITHOUT_PROGRESS
        self.last_square = self.square
        return measure
