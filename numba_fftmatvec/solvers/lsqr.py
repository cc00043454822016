"""LSQR of Paige and Saunders: least squares by the bidiagonalisation of Golub and Kahan."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ..operators import LinearOperator
from ..vector import Vector
from .base import Control, Measure, Solution, checked_norm, new_vector
from .frame import run
from .least_squares import LeastSquares


def lsqr(A: LinearOperator, b: Vector, *, damping: float = 0.0, **options: Any) -> Solution:
    """Minimise ``norm(b - A x)^2 + damping^2 norm(x)^2`` by LSQR. Collective.

    In exact arithmetic the iterates are those of `cgls`; LSQR is more accurate for ill-conditioned operators. The
    stopping rules are those of `cgls`, with the estimates of the norms by Paige and Saunders [1]_. Two more products
    confirm the rule by the true residuals.

    Parameters
    ----------
    A : LinearOperator
        The operator.
    b : Vector
        The right-hand side, in the operator's range.
    damping : float
        The damping.
    **options
        The options of `Control`.

    Returns
    -------
    Solution
        The solution. The columns of its history are ``norm(r)`` and ``norm(A* r)`` of the damped operator.

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
    >>> from numba_fftmatvec.solvers import cgls, lsqr
    >>> comm = fft.Comm(backend="cpu")
    >>> F = fft.Matrix(comm, cols=3, rows=5, block_size=4, global_sizes=True)
    >>> F.init_mat_doubles()
    >>> d = F.get_vec("output")
    >>> d.init_vec_ones()
    >>> one, two = lsqr(F, d, damping=0.1).x, cgls(F, d, damping=0.1).x
    >>> (one - two).norm() < 1e-5 * one.norm()
    True
    """

    def make(operator: LinearOperator, control: Control) -> Lsqr:
        return Lsqr(operator, control, b, damping)

    return run("lsqr", A, options, make)  # type: ignore[no-any-return]


class Lsqr(LeastSquares):
    """The iteration of `lsqr`, with the names of Paige and Saunders. The parameters are those of `lsqr`."""

    name: ClassVar[str] = "lsqr"

    def __init__(self, A: LinearOperator, control: Control, b: Vector, damping: float) -> None:
        super().__init__(A, control, b, damping)
        self.u = new_vector(self.r)
        self.v, self.w = (new_vector(self.x) for _ in range(2))
        self.vectors = ("x", "u", "v", "w")
        self.arrays = (
            *("alpha", "rho_bar", "phi_bar", "square_A", "damped"),
            *("cosine", "sine", "z", "square_x", "slack"),
        )
        self.alpha = self.rho_bar = self.phi_bar = 0.0
        #: Square of the part of the residual that the damping adds.
        self.damped = 0.0
        #: The rotation, and the sum of squares, of the estimate of norm(x).
        self.cosine, self.sine, self.z, self.square_x = -1.0, 0.0, 0.0, 0.0
        #: Factor of the measure, which grows when the true residuals do not confirm it.
        self.slack = 1.0

    def start(self) -> Measure:
        """Set x = 0 and the first vectors of the bidiagonalisation."""
        self.x.init_vec_zeros()
        self.b.copy_to(self.u)
        self.phi_bar = beta = self._normalise(self.u, self.norm_b)
        if beta:
            self.A.apply_adjoint(self.u, self.v)
            norm = self.finite(self.v.norm(), "norm of A* u")
            self.alpha = self._normalise(self.v, checked_norm(norm, self.name, "A* b / norm(b)"))
        else:
            self.v.init_vec_zeros()
        self.v.copy_to(self.w)
        self.rho_bar = self.alpha
        return self.measure_of(beta, self.alpha * beta, 0.0)

    def step(self) -> Measure:
        """Do one iteration: extend the bidiagonalisation, rotate, update x and w."""
        beta = self._extend()
        rho_bar, phi_bar = self.rho_bar, self.phi_bar
        if self.damping:
            rho_bar = math.hypot(self.rho_bar, self.damping)
            self.damped += _square(self.damping / rho_bar * phi_bar)
            phi_bar *= self.rho_bar / rho_bar
        if not (rho := math.hypot(rho_bar, beta)):
            raise self.wrong_adjoint(self.alpha)
        cosine, sine = rho_bar / rho, beta / rho
        theta, self.rho_bar = sine * self.alpha, -cosine * self.alpha
        phi, self.phi_bar = cosine * phi_bar, sine * phi_bar
        self.x.axpy(phi / rho, self.w)
        self.w.axpby(-theta / rho, 1.0, self.v)
        residual = math.sqrt(_square(self.phi_bar) + self.damped)
        return self._relaxed(self.measure_of(residual, self.alpha * abs(sine * phi), self._norm_x(rho, phi, theta)))

    def verify(self) -> Measure:
        """Return the measure of the true residuals. If they do not confirm the rule, the next one must fall further."""
        self.compute_residuals()
        measure = self.true_measure()[1]
        if not measure.is_met:
            self.slack *= 2 * measure.ratio
        return measure

    def _extend(self) -> float:
        """Extend the bidiagonalisation: ``beta u = A v - alpha u`` and ``alpha v = A* u - beta v``; return beta."""
        self.A.apply(self.v, self.q)
        self.u.axpby(-self.alpha, 1.0, self.q)
        beta = self._normalise(self.u, self.finite(self.u.norm(), "norm of A v"))
        self.square_A += _square(self.alpha) + _square(beta) + _square(self.damping)
        if beta:
            self.A.apply_adjoint(self.u, self.s)
            self.v.axpby(-beta, 1.0, self.s)
            self.alpha = self._normalise(self.v, self.finite(self.v.norm(), "norm of A* u"))
        else:
            self.alpha = 0.0
        return beta

    def _norm_x(self, rho: float, phi: float, theta: float) -> float:
        """Return the estimate of norm(x), by another rotation from the right."""
        delta, gamma_bar = self.sine * rho, -self.cosine * rho
        right = phi - delta * self.z
        norm = math.sqrt(self.square_x + _square(right / gamma_bar))
        gamma = math.hypot(gamma_bar, theta)
        self.cosine, self.sine, self.z = gamma_bar / gamma, theta / gamma, right / gamma
        self.square_x += _square(self.z)
        return norm

    def _relaxed(self, measure: Measure) -> Measure:
        return Measure(measure.residuals, measure.ratio * self.slack, measure.rule)

    @staticmethod
    def _normalise(vector: Vector, norm: float) -> float:
        """Divide a vector by its norm, unless that is 0; return the norm."""
        if norm:
            vector.scale(1.0 / norm)
        return norm


def _square(value: float) -> float:
    """Return the square, which may be infinite; Python's power raises an OverflowError."""
    return value * value
