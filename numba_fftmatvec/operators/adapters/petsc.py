"""Operators as PETSc takes them."""

from __future__ import annotations

from typing import Any

from petsc4py import PETSc

from ...errors import ArgumentTypeError
from ..interface import OperatorInterface
from .products import Products, local_size


class PetscContext:
    """The products of a shell matrix between PETSc's vectors, each rank with its own blocks.

    Parameters
    ----------
    operator : LinearOperator
        The operator.
    """

    def __init__(self, operator: OperatorInterface) -> None:
        self.products = Products(operator)

    def mult(self, matrix: Any, x: Any, y: Any) -> None:
        """Compute ``y = A x``."""
        y.array[:] = self.products.share(x.getArray(readonly=True))

    def multTranspose(self, matrix: Any, x: Any, y: Any) -> None:
        """Compute ``y = A* x``."""
        y.array[:] = self.products.share(x.getArray(readonly=True), adjoint=True)

    multHermitian = multTranspose


def adapt(operator: OperatorInterface) -> Any:
    """Return a `petsc4py.PETSc.Mat` of type python on the operator's ranks.

    Ranks that own no blocks of a vector have no entries of it; ``mat.createVecs()`` makes vectors of these sizes.
    """
    if PETSc.ScalarType != operator.dtype:
        raise ArgumentTypeError(f"petsc: expected a PETSc with scalars of {operator.dtype}, found {PETSc.ScalarType}")
    sizes = [(local_size(operator, layout), layout.size) for layout in (operator.range, operator.domain)]
    matrix = PETSc.Mat().createPython(sizes, context=PetscContext(operator), comm=operator.comm.global_comm)
    matrix.setUp()
    return matrix
