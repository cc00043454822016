"""Linear operators between vectors, their adjoints and the dot test, which do not depend on `Matrix`."""

from .base import AdjointOperator, LinearOperator
from .dot_test import dot_test

__all__ = ["AdjointOperator", "LinearOperator", "dot_test"]
