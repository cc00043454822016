"""The process grid: its axes, agreement on errors, and all messages between ranks."""

from .comm import Comm

__all__ = ["Comm"]
