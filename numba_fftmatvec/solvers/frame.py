"""The frame of all solvers: checks, history, callback, progress, restart files and the end of the iterations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import ConvergenceError
from ..operators import LinearOperator
from ..progress import show_steps
from .base import Control, Floats, Measure, Method, Outcome, State, check_operator
from .restart import Restart

# A verified residual that falls by less than this factor between two verifications has stagnated.
LEAST_PROGRESS = 0.5


def run(
    name: str,
    A: object,
    options: Mapping[str, Any],
    make: Callable[[LinearOperator, Control], Method],
    defaults: Mapping[str, Any] | None = None,
    *,
    may_stop_early: bool = False,
) -> Any:
    """Run a method and return its result. Collective; other threads wait while it runs.

    Parameters
    ----------
    name : str
        The solver.
    A : LinearOperator
        The operator.
    options : mapping
        The caller's options; see `Control`.
    make : callable
        ``make(A, control)`` checks the operands and returns the method. It is local.
    defaults : mapping, optional
        Options that differ from the defaults of `Control`.
    may_stop_early : bool
        Whether a stop at the largest number of iterations is no error.

    Raises
    ------
    ConvergenceError
        The method stopped before it reached the tolerance. The error is raised on every rank, with the result as its
        attribute `solution`.
    """
    operator = check_operator(A)
    comm = operator.comm
    with comm.lock, comm.backend.calling_thread:
        with comm.agreement(f"starting {name}", {"options": dict(options), "shape": operator.shape}):
            control = Control.of(name, options, defaults or {})
            method = make(operator, control)
        with comm.agreement(f"running {name}"):
            found, outcome, measure = Iterations(method).run()
        if found.converged or found.reason == "callback" or (may_stop_early and found.reason == "max_iterations"):
            return outcome
        raise _not_converged(method, found, outcome, measure)


class Iterations:
    """The iterations of a method.

    Parameters
    ----------
    method : Method
        The method.
    """

    def __init__(self, method: Method) -> None:
        self._method, self._control = method, method.control
        self._history: list[Floats] = []
        self._restart = Restart(method) if method.control.restart_file is not None else None
        self._verified = np.inf  # the ratio at the last verification
        self._done = 0

    def run(self) -> tuple[Outcome, Outcome, Measure]:
        """Iterate until there is a reason to stop; return the outcome, the method's result and the last measure."""
        method, comm = self._method, self._method.comm
        with show_steps(self._control.max_iterations, enabled=self._control.progress and comm.world_rank == 0) as show:
            measure, reason = self._begin()
            while reason is None:
                show(method.iteration, f"{method.name}: {measure.ratio:.2e} x limit")
                measure, reason = self._reason(measure)
                if reason is not None:
                    break
                method.iteration += 1
                measure = method.step()
                self._record(measure)
                if self._stopped_by_callback(measure):
                    reason = "callback"
                if method.iteration % self._control.restart_every == 0:
                    self._write(measure)
        converged = measure.is_met and reason != "callback"
        if not converged:
            self._write(measure)
        history = np.array(self._history)
        found = Outcome(method.iteration, history[:, 0] if history.shape[1] == 1 else history, reason, converged)
        return found, method.outcome(found), measure

    def _begin(self) -> tuple[Measure, str | None]:
        """Return the first measure, of the initial state or of the restart file."""
        method = self._method
        method.begin()
        if self._restart is not None:
            self._restart.describe()
        if self._restart is not None and self._control.resume:
            measure, self._verified, self._history = self._restart.read()
            self._done = method.iteration
            return measure, None
        measure = method.start()
        self._record(measure)
        return measure, "callback" if self._stopped_by_callback(measure) else None

    def _reason(self, measure: Measure) -> tuple[Measure, str | None]:
        """Return the measure, after a verification if it satisfies the rule, and the reason to stop if there is one."""
        method = self._method
        if measure.is_met:
            measure = method.verify()
            self._check(measure)
            self._history[-1] = measure.residuals
            if measure.is_met:
                return measure, measure.rule
            if LEAST_PROGRESS * self._verified < measure.ratio < np.inf:
                return measure, "stagnation"
            self._verified = measure.ratio
        if method.stagnated:
            return measure, "stagnation"
        return measure, "max_iterations" if method.iteration >= self._control.max_iterations else None

    def _record(self, measure: Measure) -> None:
        self._check(measure)
        self._history.append(measure.residuals)

    def _check(self, measure: Measure) -> None:
        for value in measure.residuals:
            self._method.finite(value, "residual")

    def _stopped_by_callback(self, measure: Measure) -> bool:
        """Call the callback on every rank; return whether it is true on any."""
        callback, method = self._control.callback, self._method
        if callback is None:
            return False
        with method.comm.agreement(f"callback of {method.name}") as agreed:
            agreed.share([bool(callback(method.iteration, State(method.iterate, measure.residuals, measure.ratio)))])
        return bool(agreed.stacked.any())

    def _write(self, measure: Measure) -> None:
        if self._restart is not None and self._done < self._method.iteration:
            self._restart.write(measure, self._verified, self._history)
            self._done = self._method.iteration


def _not_converged(method: Method, found: Outcome, outcome: Outcome, measure: Measure) -> ConvergenceError:
    """Return the error of a stop without convergence, with the result so far. Every rank raises it."""
    control = method.control
    worst = float(np.max(measure.residuals))
    why, advice = f"after {found.iterations} iterations", method.advice
    if found.reason == "stagnation":
        why += ", where rounding in the operator's products ends its progress"
        advice = "a larger tolerance, products of a higher precision, or a better conditioned problem"
    error = ConvergenceError(
        f"{method.name}: expected {measure.rule} with tolerance {control.tolerance:.1e}, found {measure.ratio:.3e} "
        f"times the limit (residual norm {worst:.3e}) {why}; try {advice}"
    )
    error.solution = outcome
    error.agreed = True  # type: ignore[attr-defined]  # a runner of ranks need not abort the others
    return error
