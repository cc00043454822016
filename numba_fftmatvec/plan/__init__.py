"""Plans of products, which are stages that are built once and run many times, and timers of their phases."""

from .timing import PHASES, PhaseTimer, Timer, time_runs

__all__ = ["PHASES", "PhaseTimer", "Timer", "time_runs"]
