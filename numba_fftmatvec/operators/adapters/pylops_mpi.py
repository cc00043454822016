"""Operators as PyLops-MPI takes them."""

from __future__ import annotations

from typing import Any

from pylops_mpi import DistributedArray, MPILinearOperator, Partition

from ...errors import ShapeError
from ...layout import Space, VectorLayout
from ...vector import Vector
from ..interface import OperatorInterface
from ..moves import shares
from .products import Products


class PylopsMpiOperator(MPILinearOperator):  # type: ignore[misc, unused-ignore]
    """An operator between distributed arrays, each rank with its own blocks of the vectors.

    Arrays are scattered with the local sizes `domain_sizes` and `range_sizes`: ranks that own no blocks of a vector
    have no values. `distributed` makes such an array of a vector, `vector` the reverse. Products do not copy values.

    Parameters
    ----------
    operator : LinearOperator
        The operator.

    Attributes
    ----------
    domain_sizes, range_sizes : list of (int,)
        The number of values on each rank, as `DistributedArray` takes them as `local_shapes`.
    """

    def __init__(self, operator: OperatorInterface) -> None:
        super().__init__(
            shape=operator.shape,
            dims=operator.domain.shape,
            dimsd=operator.range.shape,
            dtype=operator.dtype,
            base_comm=operator.comm.global_comm,
        )
        self.products = Products(operator)
        self.domain_sizes = _local_sizes(operator, operator.domain)
        self.range_sizes = _local_sizes(operator, operator.range)

    def _matvec(self, x: Any) -> Any:
        return self._product(x, self.domain_sizes, self.range_sizes, adjoint=False)

    def _rmatvec(self, x: Any) -> Any:
        return self._product(x, self.range_sizes, self.domain_sizes, adjoint=True)

    def _product(self, x: Any, given: list[tuple[int]], made: list[tuple[int]], *, adjoint: bool) -> Any:
        comm = self.products.comm
        with comm.agreement("checking a distributed array"):
            expected = given[comm.world_rank]
            if x.partition is not Partition.SCATTER or x.local_shape != expected:
                raise ShapeError(
                    f"distributed array: expected Partition.SCATTER with local_shapes={given}, "
                    f"found {x.partition} with {x.local_shape} on rank {comm.world_rank}"
                )
        values = self.products.share(x.local_array, adjoint=adjoint)
        return self._array(values, made, x.base_comm)

    def _array(self, values: Any, sizes: list[tuple[int]], base_comm: Any) -> Any:
        return DistributedArray(
            global_shape=sum(size for (size,) in sizes), base_comm=base_comm, local_shapes=sizes, local_array=values
        )

    def distributed(self, vector: Vector) -> Any:
        """Return a `DistributedArray` with a copy of the host values of a vector in the domain or the range."""
        operator = self.products.operator
        sizes = self.domain_sizes if vector.layout == operator.domain else self.range_sizes
        values = vector.to_numpy()
        made = DistributedArray(sum(size for (size,) in sizes), self.base_comm, local_shapes=sizes)
        made[:] = 0.0 if values is None else values.reshape(-1)
        return made

    def vector(self, array: Any, space: str = "col") -> Vector:
        """Return a vector with a copy of the values of a distributed array: in the domain by default."""
        operator = self.products.operator
        layout = operator.domain if operator.domain.space == Space.of(space) else operator.range
        made = Vector.from_layout(operator.comm, layout)
        made.from_numpy(array.local_array)
        return made


def _local_sizes(operator: OperatorInterface, layout: VectorLayout) -> list[tuple[int]]:
    """Return the number of values of a vector on each rank: 0 on ranks that own no blocks."""
    sizes = [0] * operator.comm.world_size
    for rank, blocks in shares(operator.comm, layout):
        sizes[rank] = len(blocks) * layout.block_size
    return [(size,) for size in sizes]


def adapt(operator: OperatorInterface) -> PylopsMpiOperator:
    """Return the operator."""
    return PylopsMpiOperator(operator)
