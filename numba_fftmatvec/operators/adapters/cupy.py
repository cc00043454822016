"""Operators as CuPy's solvers take them."""

from __future__ import annotations

from cupyx.scipy.sparse.linalg import LinearOperator

from ...errors import BackendError
from ..interface import OperatorInterface
from .products import FlatMethods, Products


class CupyOperator(FlatMethods, LinearOperator):  # type: ignore[misc, unused-ignore]
    """An operator between flat CuPy arrays in SOTI order, on one rank. Arrays are not copied.

    Parameters
    ----------
    operator : LinearOperator
        The operator.
    """

    def __init__(self, operator: OperatorInterface) -> None:
        super().__init__(operator.dtype, operator.shape)
        self.products = Products(operator)


def adapt(operator: OperatorInterface) -> CupyOperator:
    """Return the operator; raise a BackendError unless it is on one GPU."""
    comm = operator.comm
    if comm.backend.name != "cuda" or comm.world_size != 1:
        raise BackendError(
            f"cupy: expected the backend 'cuda' and one rank, found {comm.backend.name!r} and {comm.world_size} ranks"
        )
    return CupyOperator(operator)
