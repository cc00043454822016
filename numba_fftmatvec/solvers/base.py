"""The parts that all solvers share: options, measures, states, results, and the base class of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from ..arguments import natural_int, positive_int, positive_number
from ..comm import Comm
from ..errors import ArgumentError, ArgumentTypeError, NonFiniteError, NotSelfAdjointError
from ..io import FilePath
from ..layout import VectorLayout
from ..operators import LinearOperator
from ..vector import Vector
from ..vector.data import check_operand

Floats = npt.NDArray[np.float64]

# Norms outside this range are refused: the square of a residual 1e-16 times as large would lose terms to underflow.
SMALLEST_NORM, LARGEST_NORM = 1e-120, 1e120
# The least relative asymmetry that is an error: rounding in the products of most operators stays below.
LEAST_ASYMMETRY = 1e-6


@dataclass(frozen=True)
class Measure:
    """The state of convergence after an iteration.

    Parameters
    ----------
    residuals : ndarray
        The values that the history keeps.
    ratio : float
        The measured value over its limit: the rule is satisfied at 1 or less.
    rule : str
        The rule, in words.
    """

    residuals: Floats
    ratio: float
    rule: str

    @property
    def is_met(self) -> bool:
        """Whether the rule is satisfied."""
        return self.ratio <= 1.0


@dataclass(frozen=True)
class State:
    """The argument of a callback.

    Parameters
    ----------
    x : Vector or None
        The present iterate, which later iterations overwrite; None for eigenvalues.
    residuals : ndarray
        The new row of the history.
    ratio : float
        The measured value of the stopping rule over its limit.
    """

    x: Vector | None
    residuals: Floats
    ratio: float


Callback = Callable[[int, State], object]


@dataclass(frozen=True)
class Control:
    """The options of every solver, with the same values on every rank.

    Parameters
    ----------
    tolerance : float
        The tolerance of the solver's stopping rule.
    max_iterations : int
        The largest number of iterations.
    callback : callable, optional
        ``callback(iteration, state)`` is called at the start, with iteration 0, and after each iteration, on every
        rank. The solver stops if the result is true on any rank. The callback may make collective calls.
    progress : bool
        Whether rank 0 shows a bar after two seconds, if the error output is a terminal.
    restart_file : path, optional
        A file that is replaced in one step after every `restart_every` iterations, and at a stop without convergence.
    restart_every : int
        Number of iterations between two files.
    resume : bool
        Whether to continue from the restart file, which must exist.
    """

    tolerance: float = 1e-8
    max_iterations: int = 1000
    callback: Callback | None = None
    progress: bool = True
    restart_file: FilePath | None = None
    restart_every: int = 100
    resume: bool = False

    def __post_init__(self) -> None:
        """Check the options."""
        object.__setattr__(self, "tolerance", positive_number(self.tolerance, "tolerance"))
        natural_int(self.max_iterations, "max_iterations")
        positive_int(self.restart_every, "restart_every")
        if self.callback is not None and not callable(self.callback):
            raise ArgumentTypeError(f"callback: expected a callable, found {self.callback!r}")
        if self.resume and self.restart_file is None:
            raise ArgumentError("resume: expected a restart_file to resume from, found None")

    @classmethod
    def of(cls, solver: str, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> Control:
        """Return the options of a call; an ArgumentTypeError names an unknown one."""
        names = [field.name for field in fields(cls)]
        for name in options:
            if name not in names:
                raise ArgumentTypeError(f"{solver}: expected options of {', '.join(names)}, found {name!r}")
        return cls(**{**defaults, **options})


@dataclass(frozen=True)
class Outcome:
    """The end of a solver's iterations.

    Parameters
    ----------
    iterations : int
        Number of iterations.
    history : ndarray
        The measured residuals: one row at the start and one after each iteration.
    reason : str
        The reason of the stop: the satisfied rule, ``"callback"``, ``"max_iterations"`` or ``"stagnation"``.
    converged : bool
        Whether the stopping rule is satisfied.
    """

    iterations: int
    history: Floats
    reason: str
    converged: bool


@dataclass(frozen=True)
class Solution(Outcome):
    """The result of a solver of linear systems.

    Parameters
    ----------
    x : Vector
        The solution.
    """

    x: Vector


AnyOutcome = TypeVar("AnyOutcome", bound=Outcome)


class Method(ABC):
    """One solver's iteration. The frame `run` calls it, on all ranks in step.

    An implementation makes its vectors in its constructor, which is local. The other methods are collective and take
    all decisions by values that are the same on every rank.

    Parameters
    ----------
    A : LinearOperator
        The operator.
    control : Control
        The options.
    """

    name: ClassVar[str]
    #: Names of the attributes that a restart file keeps.
    vectors: tuple[str, ...]
    arrays: tuple[str, ...]
    #: Remedies for a stop without convergence.
    advice: ClassVar[str] = "more iterations (max_iterations), a larger tolerance, or a preconditioner"

    def __init__(self, A: LinearOperator, control: Control) -> None:
        self.comm: Comm = A.comm
        self.A = A
        self.control = control
        self.iteration = 0
        #: Whether the method has found that rounding ends its progress.
        self.stagnated = False

    @abstractmethod
    def start(self) -> Measure:
        """Set the initial state."""

    @abstractmethod
    def step(self) -> Measure:
        """Do one iteration. The frame has already counted it in `iteration`."""

    @abstractmethod
    def verify(self) -> Measure:
        """Return the measure of the true residual, when the measure of `step` satisfies the rule."""

    @abstractmethod
    def outcome(self, outcome: Outcome) -> Outcome:
        """Return the result."""

    def begin(self) -> None:
        """Compute the norms of the right-hand side, before `start` and also before a resumed run."""
        self.iteration = 0

    def problem(self) -> dict[str, str]:
        """Return the parameters that a restart file must share, besides solver, operator and right-hand side."""
        return {}

    def right_hand_side(self) -> Vector | None:
        """Return the right-hand side, whose values a restart file must share."""
        return None

    @property
    def iterate(self) -> Vector | None:
        """The present iterate."""
        return None

    def finite(self, value: float, what: str) -> float:
        """Return a global value; raise a NonFiniteError if it is not finite."""
        if not np.isfinite(value):
            raise NonFiniteError(f"{self.name}: expected a finite {what}, found {value} in iteration {self.iteration}")
        return float(value)


def new_vector(like: Vector) -> Vector:
    """Return an uninitialised vector of the layout of another one."""
    return Vector.from_layout(like.comm, like.layout)


def new_block(comm: Comm, layout: VectorLayout, count: int) -> Vector:
    """Return an uninitialised block of vectors, each of a layout."""
    return Vector.from_layout(comm, replace(layout, num_vecs=count))


def check_operator(A: object, what: str = "operator") -> LinearOperator:
    """Return an operator; raise an ArgumentTypeError unless it is a LinearOperator."""
    if not isinstance(A, LinearOperator):
        raise ArgumentTypeError(f"{what}: expected a LinearOperator, found {type(A).__name__}")
    return A


def check_symmetry(difference: float, scale: float, A: LinearOperator, name: str, what: str) -> None:
    """Raise a NotSelfAdjointError unless the difference of equal values is rounding.

    Parameters
    ----------
    difference, scale : float
        The difference, and the size of terms of which rounding is a small fraction.
    A : LinearOperator
        The operator; its unit roundoff bounds the asymmetry of its products.
    name, what : str
        The solver, and the values that a self-adjoint operator makes equal.
    """
    least = max(LEAST_ASYMMETRY, A.unit_roundoff**0.5)
    if not difference <= least * scale:
        raise NotSelfAdjointError(
            f"{name}: expected a self-adjoint operator A, found {what} that differ by {difference:.3e}, with "
            f"terms of {scale:.3e}; for least squares, cgls and lsqr take any operator"
        )


def check_square(A: LinearOperator, what: str = "operator") -> None:
    """Raise an ArgumentError unless the domain and the range of an operator are the same."""
    if A.domain != A.range:
        raise ArgumentError(
            f"{what}: expected one from a space to itself, found one from {A.domain.space!r} vectors of {A.domain} to "
            f"{A.range.space!r} vectors of {A.range}; for least squares, cgls and lsqr take it"
        )


def check_right_hand_side(b: Vector, A: LinearOperator, num_vecs: int = 1, what: str = "right-hand side") -> None:
    """Raise an error unless a vector has values and the layout of the operator's range."""
    check_operand(b, A.comm, replace(A.range, num_vecs=num_vecs), what)
    b.check_initialized(what)


def checked_norm(value: float, name: str, what: str) -> float:
    """Return a norm; raise if it is not finite, or if squares near it would over- or underflow."""
    if not np.isfinite(value):
        raise NonFiniteError(f"{name}: {what}: expected finite values, found a norm of {value}")
    if value and not SMALLEST_NORM <= value <= LARGEST_NORM:
        expected = f"0 or a norm of {SMALLEST_NORM} .. {LARGEST_NORM}"
        raise ArgumentError(f"{name}: {what}: expected {expected}, found {value:.3e}; scale the problem")
    return float(value)
