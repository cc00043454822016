"""Operators as SciPy takes them."""

from __future__ import annotations

from scipy.sparse.linalg import LinearOperator

from ..interface import OperatorInterface
from .products import FlatMethods, Products


class ScipyOperator(FlatMethods, LinearOperator):  # type: ignore[misc, unused-ignore]
    """An operator between flat NumPy arrays in SOTI order, the same on all ranks. Its products are collective.

    Parameters
    ----------
    operator : LinearOperator
        The operator.
    """

    def __init__(self, operator: OperatorInterface) -> None:
        super().__init__(operator.dtype, operator.shape)
        self.products = Products(operator)


def adapt(operator: OperatorInterface) -> ScipyOperator:
    """Return the operator."""
    return ScipyOperator(operator)
