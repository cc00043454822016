"""The parts that the solvers of least squares share: their stopping rules and the true residuals."""

from __future__ import annotations

import math
import numbers
from typing import ClassVar

import numpy as np

from ..errors import ArgumentError
from ..operators import LinearOperator
from ..vector import Vector, inner_products
from .base import (
    LARGEST_NORM,
    SMALLEST_NORM,
    Control,
    Measure,
    Method,
    Outcome,
    Solution,
    check_right_hand_side,
    checked_norm,
)

CONSISTENT = "norm(r) <= tolerance (norm(b) + norm(A) norm(x))"
LEAST_SQUARES = "norm(A* r) <= tolerance norm(A) norm(r)"


class LeastSquares(Method):
    """A method that minimises ``norm(b - A x)^2 + damping^2 norm(x)^2``.

    Parameters
    ----------
    A, control
        See `Method`.
    b : Vector
        The right-hand side.
    damping : float
        The damping, not negative.
    """

    advice: ClassVar[str] = "more iterations (max_iterations), a larger tolerance, or more damping"

    def __init__(self, A: LinearOperator, control: Control, b: Vector, damping: float) -> None:
        super().__init__(A, control)
        check_right_hand_side(b, A)
        self.check_damping(damping)
        self.b, self.damping = b, float(damping)
        self.x, self.s = (Vector.from_layout(A.comm, A.domain) for _ in range(2))
        self.r, self.q = (Vector.from_layout(A.comm, A.range) for _ in range(2))
        self.norm_b = 0.0
        #: Square of the estimate of the Frobenius norm of A with the damping below it.
        self.square_A = 0.0

    @staticmethod
    def check_damping(damping: object) -> None:
        """Raise an ArgumentError unless the damping is 0 or a positive number whose square keeps its digits."""
        number = isinstance(damping, numbers.Real) and not isinstance(damping, bool)
        if not number or (damping != 0 and not SMALLEST_NORM <= float(damping) <= LARGEST_NORM):  # type: ignore[arg-type]
            expected = f"0 or a number of {SMALLEST_NORM} .. {LARGEST_NORM}"
            raise ArgumentError(f"damping: expected {expected}, found {damping!r}")

    @property
    def iterate(self) -> Vector:
        """The present iterate."""
        return self.x

    def right_hand_side(self) -> Vector:
        """Return the right-hand side."""
        return self.b

    def problem(self) -> dict[str, str]:
        """Return the damping."""
        return {"damping": repr(self.damping)}

    def begin(self) -> None:
        """Compute the norm of the right-hand side."""
        self.norm_b = checked_norm(self.b.norm(), self.name, "right-hand side")

    def outcome(self, outcome: Outcome) -> Solution:
        """Return the result."""
        return Solution(**vars(outcome), x=self.x)

    def wrong_adjoint(self, norm: float) -> ArgumentError:
        """Return the error of a direction ``p = A* r`` of a norm with ``A p = 0``, which no operator has."""
        return ArgumentError(
            f"{self.name}: expected A p other than 0 for p = A* r, found 0 and norm(A* r) = {norm:.3e} in iteration "
            f"{self.iteration}: apply_adjoint is not the adjoint of apply; see dot_test"
        )

    def compute_residuals(self) -> None:
        """Set ``r = b - A x`` and ``s = A* r - damping^2 x``."""
        self.A.apply(self.x, self.q)
        self.b.copy_to(self.r)
        self.r.axpy(-1.0, self.q)
        self.compute_normal_residual()

    def compute_normal_residual(self) -> None:
        """Set ``s = A* r - damping^2 x``."""
        self.A.apply_adjoint(self.r, self.s)
        if self.damping:
            self.s.axpy(-(self.damping**2), self.x)

    def true_measure(self) -> tuple[float, Measure]:
        """Return the square of norm(s) and the measure, from the vectors r, s and x."""
        squares = inner_products((self.s, self.s), (self.r, self.r), (self.x, self.x))
        normal, misfit, size = (self.finite(float(square), "square of a norm") for square in squares)
        if normal < SMALLEST_NORM**2:  # either zero, or the square has lost digits
            checked_norm(self.s.norm(), self.name, "A* r")
        norms = math.sqrt(misfit + self.damping**2 * size), math.sqrt(normal), math.sqrt(size)
        return normal, self.measure_of(*norms)

    def measure_of(self, residual: float, normal: float, size: float) -> Measure:
        """Return the measure of the norms of the damped residual, of ``A* r - damping^2 x``, and of x.

        The rules are S1 and S2 of Paige and Saunders (1982), with one tolerance for A and b.
        """
        self.finite(residual, "residual norm")
        self.finite(normal, "norm of A* r")
        norm_A = math.sqrt(self.finite(self.square_A, "square of the norm of A"))
        tolerance = self.control.tolerance
        limits = {CONSISTENT: tolerance * (self.norm_b + norm_A * size), LEAST_SQUARES: tolerance * norm_A * residual}
        ratios = {
            rule: value / limit if limit else (math.inf if value else 0.0)
            for (rule, limit), value in zip(limits.items(), (residual, normal), strict=True)
        }
        rule = min(ratios, key=ratios.__getitem__)
        return Measure(np.array([residual, normal]), ratios[rule], rule)
