"""The process grid: its axes, agreement on errors, and all messages between ranks."""

from .comm import Comm
from .grids import best_grid

__all__ = ["Comm", "best_grid"]
