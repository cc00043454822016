"""Block vectors that are distributed over the process grid."""

from .vector import Vector

__all__ = ["Vector"]
