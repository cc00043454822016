"""Operators as PyLops takes them."""

from __future__ import annotations

import pylops

from ..interface import OperatorInterface
from .products import FlatMethods, Products


class PylopsOperator(FlatMethods, pylops.LinearOperator):  # type: ignore[misc, unused-ignore]
    """An operator between arrays of (blocks, steps), or flat ones in SOTI order, the same on all ranks.

    Arrays are NumPy's, or on one GPU CuPy's. Products are collective.

    Parameters
    ----------
    operator : LinearOperator
        The operator.
    """

    def __init__(self, operator: OperatorInterface) -> None:
        super().__init__(dtype=operator.dtype, dims=operator.domain.shape, dimsd=operator.range.shape)
        self.products = Products(operator)


def adapt(operator: OperatorInterface) -> PylopsOperator:
    """Return the operator."""
    return PylopsOperator(operator)
