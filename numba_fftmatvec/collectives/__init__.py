"""Broadcast and sum of device arrays along the rows and columns of the process grid."""

from .base import Collectives, select_collectives

__all__ = ["Collectives", "select_collectives"]
