"""Block vectors that are distributed over the process grid."""

from .blocks import combine, gram, grams, subset
from .random import fill_normal
from .reductions import inner_products
from .vector import Vector

__all__ = ["Vector", "combine", "fill_normal", "gram", "grams", "inner_products", "subset"]
