"""The process grid, its axes, agreement on errors, and every message between ranks."""

from .comm import Comm

__all__ = ["Comm"]
