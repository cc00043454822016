"""Linear operators between vectors, their arithmetic and the dot test, which do not depend on `Matrix`."""

from .accuracy import Accuracy
from .base import AdjointOperator, CheckedOperator, LinearOperator, ProductOperator, SumOperator
from .causal import CausalFilter
from .diagonal import Diagonal, Identity
from .dot_test import dot_test
from .stack import VerticalStack

__all__ = [
    "Accuracy",
    "AdjointOperator",
    "CausalFilter",
    "CheckedOperator",
    "Diagonal",
    "Identity",
    "LinearOperator",
    "ProductOperator",
    "SumOperator",
    "VerticalStack",
    "dot_test",
]
