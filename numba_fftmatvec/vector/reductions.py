"""Reductions of vectors over all ranks: inner products and norms, of all values or of each of several vectors."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..backends.base import DOUBLE
from ..comm.exclusive import exclusive
from ..errors import ArgumentError
from ..kernels.reductions import PARTIALS, reduce_launcher
from .data import VectorData

# A sum of squares below this value may have lost terms to underflow. It is then computed from scaled values.
SMALLEST_SAFE_SQUARE = 2.0**-960

Floats = npt.NDArray[np.float64]


class VectorReductions(VectorData):
    """The reductions of a `Vector`. Results are the same on every rank and have the same bits in every run."""

    def dot(self, other: VectorReductions) -> float:
        """Return the global inner product with another vector, the same on every rank. Collective.

        Several vectors count as one long vector; `dots` returns one inner product for each of them.

        Parameters
        ----------
        other : Vector
            A vector of the same space, sizes and Comm.

        Raises
        ------
        ShapeError, SpaceError, ArgumentError, UninitializedError
            The vectors do not fit together, or one has no values.
        """
        return float(self._dots(other, 1, "dot")[0])

    def dots(self, other: VectorReductions) -> Floats:
        """Return the inner product of each vector with the one of the same index in `other`: `num_vecs` values.

        Collective; one exchange serves all vectors. Parameters and errors are those of `dot`.
        """
        return self._dots(other, self.num_vecs, "dots")

    def norm(self, order: float = 2) -> float:
        """Return a global norm, the same on every rank. Collective.

        Several vectors count as one long vector, so order 2 gives the Frobenius norm. `norms` returns one norm for each
        of them.

        Parameters
        ----------
        order : {2, 1, 0, -1, inf}
            2 is the Euclidean norm; values are scaled if their squares would overflow or underflow. 1 is the sum of
            magnitudes. 0, -1 and infinity are the largest magnitude. A NaN among the values makes every norm NaN.

        Raises
        ------
        ArgumentError
            `order` has another value.
        UninitializedError
            The vector has no values.
        """
        return float(self._norms(order, 1, "norm")[0])

    def norms(self, order: float = 2) -> Floats:
        """Return the norm of each vector: `num_vecs` values.

        Collective; one exchange serves all vectors. Parameters and errors are those of `norm`.
        """
        return self._norms(order, self.num_vecs, "norms")

    # These methods reduce equal runs of the values: one run of all values, or one for each vector.

    @exclusive
    def _dots(self, other: VectorReductions, runs: int, what: str) -> Floats:
        self.check_like(other, what)
        other.check_initialized(what)
        return _sums(self._reduce("dot", runs, other))

    @exclusive
    def _norms(self, order: float, runs: int, what: str) -> Floats:
        self.check_initialized(what)
        norms: dict[float, Callable[[int], Floats]] = {
            2: self._norms_2,
            1: lambda runs: _sums(self._reduce("sum_magnitude", runs)),
            0: self._norms_max,
            -1: self._norms_max,
            math.inf: self._norms_max,
        }
        if order not in norms:
            raise ArgumentError(f"{what}: expected one of the orders 2, 1, 0, -1, inf, found {order!r}")
        return norms[order](runs)

    def _norms_max(self, runs: int) -> Floats:
        largest: Floats = self._reduce("max_magnitude", runs).max(axis=0)
        return largest

    def _norms_2(self, runs: int) -> Floats:
        squares = _sums(self._reduce("sum_square", runs))
        norms = np.sqrt(squares)
        unsafe = (squares <= SMALLEST_SAFE_SQUARE) | (squares == math.inf)
        if not unsafe.any():
            return norms
        largest = self._norms_max(runs)
        scaled = unsafe & (largest > 0) & (largest < math.inf)
        exponents = np.minimum(-np.frexp(np.where(scaled, largest, 1.0))[1], 1000)  # powers of two do not round
        roots = np.sqrt(_sums(self._reduce("sum_square", runs, scales=np.ldexp(1.0, exponents))))
        with np.errstate(over="ignore"):  # the norm itself may be infinite
            return np.where(scaled, np.ldexp(roots, -exponents), np.where(unsafe, largest, norms))

    def _reduce(
        self, name: str, runs: int, other: VectorReductions | None = None, scales: Floats | None = None
    ) -> Floats:
        """Return each rank's partial result for every run, in the order of the ranks; 0 for ranks off the grid."""
        self.check_open()
        mine = np.zeros(runs)
        if self.on_grid():
            backend = self.comm.backend
            factors = np.ones(runs) if scales is None else scales
            partials = backend.empty((runs, PARTIALS + 1), DOUBLE)
            second = self if other is None else other
            for i, (x, y) in enumerate(zip(self._runs(runs), second._runs(runs), strict=True)):
                backend.launcher(reduce_launcher, name)(partials.view[i], x, y, factors[i])
            mine = backend.download(partials.array[:, PARTIALS])
        return self.comm.stack(mine)


def _sums(parts: Floats) -> Floats:
    """Return the exact sum of each column, rounded once."""
    return np.array([_sum(column) for column in parts.T.tolist()])


def _sum(values: list[float]) -> float:
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # fsum raises them for infinite sums and for inf - inf
        with np.errstate(over="ignore", invalid="ignore"):
            return float(np.sum(values))
