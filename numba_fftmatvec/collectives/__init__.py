"""Broadcast and sum of device arrays along the rows and columns of the process grid."""

from .base import Collectives

__all__ = ["Collectives"]
