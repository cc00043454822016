"""Vector arithmetic: reductions over all ranks."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np

from .comm import Comm
from .distributed import DOUBLE, DistributedVector
from .errors import ArgumentError, ArgumentTypeError, ShapeError, SpaceError
from .kernels import Target
from .kernels.padding import copy_rows
from .kernels.reductions import PARTIALS, reduction

# A sum of squares below this may have lost terms to underflow; it is then taken of scaled values.
SMALLEST_SAFE_SQUARE = 2.0**-960


class VectorArithmetic(DistributedVector):
    """The arithmetic of a `Vector`."""

    # Reductions

    def dot(self, other: VectorArithmetic) -> float:
        """Return the global inner product with another vector, the same on every rank. Collective.

        Parameters
        ----------
        other : VectorArithmetic
            Of the same space, sizes and Comm.

        Raises
        ------
        ShapeError, SpaceError, ArgumentError, UninitializedError
            The vectors do not fit together, or one has no values.
        """
        self.check_like(other, "dot")
        other.check_initialized("dot")
        return _sum(self._reduce("dot", other))

    def norm(self, order: float = 2) -> float:
        """Return a global norm, the same on every rank. Collective.

        Parameters
        ----------
        order : {2, 1, 0, -1, inf}
            2: Euclidean, scaled where its squares would overflow or underflow. 1: sum of magnitudes. 0, -1 and
            infinity: the largest magnitude. A NaN among the values makes each of them NaN.

        Raises
        ------
        ArgumentError
            Another order.
        UninitializedError
            The vector has no values.
        """
        self.check_initialized("norm")
        norms: dict[float, Callable[[], float]] = {
            2: self._norm_2,
            1: lambda: _sum(self._reduce("sum_magnitude")),
            0: self._norm_max,
            -1: self._norm_max,
            math.inf: self._norm_max,
        }
        if order not in norms:
            raise ArgumentError(f"norm: expected one of the orders 2, 1, 0, -1, inf, found {order!r}")
        return norms[order]()

    def _norm_max(self) -> float:
        return float(np.max(self._reduce("max_magnitude")))

    def _norm_2(self) -> float:
        square = _sum(self._reduce("sum_square"))
        if math.isnan(square) or SMALLEST_SAFE_SQUARE < square < math.inf:
            return math.sqrt(square)
        largest = self._norm_max()
        if largest in (0.0, math.inf):
            return largest
        exponent = min(-math.frexp(largest)[1], 1000)  # a power of two scales without rounding
        scaled = _sum(self._reduce("sum_square", scale=math.ldexp(1.0, exponent)))
        return math.ldexp(math.sqrt(scaled), -exponent)

    def _reduce(self, name: str, other: VectorArithmetic | None = None, scale: float = 1.0) -> list[float]:
        """Return every rank's partial result, in the ranks' order; ranks off the grid contribute 0."""
        self.comm.check_open()
        value = 0.0
        if self._flat is not None:
            backend = self.comm.backend
            second = self._flat if other is None or other._flat is None else other._flat
            partials = backend.empty((PARTIALS + 1,), DOUBLE)
            _reduction(backend.target, name)(partials.view, self._flat.view, second.view, scale)
            value = float(backend.download(partials.array[PARTIALS:])[0])
        return self.comm.global_comm.allgather(value)

    def copy_to(self, other: VectorArithmetic) -> None:
        """Copy the values into another vector of the same space, sizes and Comm, and initialise it by that.

        Raises
        ------
        ShapeError, SpaceError, ArgumentError, UninitializedError
            The vectors do not fit together, or this one has no values.
        """
        self.check_like(other, "copy_to")
        if self._buffer is not None and other._buffer is not None:
            copy_rows(self.comm.backend.target, DOUBLE, DOUBLE, DOUBLE)(other._buffer.view, self._buffer.view)
        other.init_vec()

    def check_like(self, other: object, what: str) -> None:
        """Raise unless `other` is a vector of this one's Comm, space and sizes, and this one has values."""
        if not isinstance(other, DistributedVector):
            raise ArgumentTypeError(f"{what}: expected a Vector, found {type(other).__name__}")
        self.check_initialized(what)
        check_operand(other, self.comm, self._space, self.shape, what)


def check_operand(vector: object, comm: Comm, space: str, shape: tuple[int, int], what: str) -> None:
    """Raise unless `vector` is a Vector of the given Comm, space and global shape.

    Raises
    ------
    ArgumentTypeError
        Not a Vector.
    SpaceError
        The other space.
    ShapeError
        Other sizes.
    ArgumentError
        Another Comm.
    """
    if not isinstance(vector, DistributedVector):
        raise ArgumentTypeError(f"{what}: expected a Vector, found {type(vector).__name__}")
    if vector.row_or_col != space:
        raise SpaceError(f"{what}: expected a {space!r} vector, found a {vector.row_or_col!r} vector")
    if vector.shape != shape:
        raise ShapeError(
            f"{what}: expected {shape[0]} blocks of {shape[1]}, found {vector.shape[0]} of {vector.shape[1]}"
        )
    if vector.comm is not comm:
        raise ArgumentError(f"{what}: expected a vector on {comm!r}, found one on another Comm, {vector.comm!r}")


@cache
def _reduction(target: Target, name: str) -> Callable[..., None]:
    return reduction(target, name)


def _sum(values: list[float]) -> float:
    # fsum refuses inf - inf and overflows with an error; sums of magnitudes may be infinite.
    return math.fsum(values) if all(map(math.isfinite, values)) else float(np.sum(values))
