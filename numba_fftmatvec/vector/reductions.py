"""Reductions of vectors over all ranks: inner products and norms, of all values or of each of several vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..backends.reduced import reduced
from ..comm.exclusive import exclusive
from ..errors import ArgumentError
from .data import VectorData, check_operand

# A sum of squares below this value may have lost terms to underflow. It is then computed from scaled values.
SMALLEST_SAFE_SQUARE = 2.0**-960

Floats = npt.NDArray[np.float64]

# The local reduction of each order of a norm.
_REDUCTIONS = {2: "sum_square", 1: "sum_magnitude", 0: "max_magnitude", -1: "max_magnitude", math.inf: "max_magnitude"}


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

    # These methods reduce equal runs of the values: one run of all values, or one for each vector. The local work and
    # the exchange of the partial results are one agreement, so that an error on one rank is an error on all.

    @exclusive
    def _dots(self, other: VectorReductions, runs: int, what: str) -> Floats:
        with self.comm.agreement(what, self._arguments(runs)) as agreed:
            self.check_like(other, what)
            other.check_initialized(what)
            agreed.share(self._partials("dot", runs, other))
        return exact_sums(agreed.stacked)

    @exclusive
    def _norms(self, order: float, runs: int, what: str) -> Floats:
        with self.comm.agreement(what, self._arguments(runs, order)) as agreed:
            self.check_initialized(what)
            if order not in _REDUCTIONS:
                raise ArgumentError(f"{what}: expected one of the orders 2, 1, 0, -1, inf, found {order!r}")
            agreed.share(self._partials(_REDUCTIONS[order], runs))
        if order == 2:
            return self._norms_2(exact_sums(agreed.stacked), runs, what)
        return exact_sums(agreed.stacked) if order == 1 else agreed.stacked.max(axis=0)

    def _norms_2(self, squares: Floats, runs: int, what: str) -> Floats:
        """Return the roots of the sums of squares; sums that over- or underflowed are computed from scaled values."""
        norms = np.sqrt(squares)
        unsafe = (squares <= SMALLEST_SAFE_SQUARE) | (squares == math.inf)
        if not unsafe.any():
            return norms
        with self.comm.agreement(what, self._arguments(runs)) as agreed:
            agreed.share(self._partials("max_magnitude", runs))
        largest = agreed.stacked.max(axis=0)
        with self.comm.agreement(what, self._arguments(runs)) as agreed:
            scaled = unsafe & (largest > 0) & (largest < math.inf)
            exponents = np.minimum(-np.frexp(np.where(scaled, largest, 1.0))[1], 1000)  # powers of two do not round
            agreed.share(self._partials("sum_square", runs, scales=np.ldexp(1.0, exponents)))
        roots = np.sqrt(exact_sums(agreed.stacked))
        with np.errstate(over="ignore"):  # the norm itself may be infinite
            return np.where(scaled, np.ldexp(roots, -exponents), np.where(unsafe, largest, norms))

    def _arguments(self, runs: int, order: object = None) -> dict[str, object]:
        return {"order": order, "results": runs, "space": self.layout.space, "shape": self.layout.shape}

    def _partials(
        self, name: str, runs: int, other: VectorReductions | None = None, scales: Floats | None = None
    ) -> Floats:
        """Return this rank's partial result for every run; 0 on ranks off the grid."""
        self.check_open()
        if not self.on_grid():
            return np.zeros(runs)
        backend = self.comm.backend
        if scales is not None:
            return reduced(backend, name, [(run, run) for run in self._runs(runs)], scales=scales.tolist())
        second = self if other is None else other
        return reduced(backend, name, [(self._flat, second._flat)], runs=runs)


def inner_products(*pairs: tuple[VectorReductions, VectorReductions]) -> Floats:
    """Return the global inner product of each pair of vectors in one exchange, the same on every rank. Collective.

    The vectors of a pair have the same layout. The pairs may have different layouts on one Comm. Several vectors in one
    object count as one long vector, as in `Vector.dot`.

    Parameters
    ----------
    *pairs : tuple of two Vectors
        At least one pair of initialised vectors.

    Raises
    ------
    ShapeError, SpaceError, ArgumentError, UninitializedError
        The vectors of a pair do not fit together, or one has no values.

    Examples
    --------
    >>> import numba_fftmatvec as fft
    >>> from numba_fftmatvec.vector import inner_products
    >>> comm = fft.Comm(backend="cpu")
    >>> x = fft.Vector(comm, 2, 3, "col", global_sizes=True)
    >>> x.init_vec_consecutive()
    >>> inner_products((x, x), (x, x + 1.0))
    array([55., 70.])
    """
    comm, what = pairs[0][0].comm, "inner products"
    with comm.lock, comm.backend.calling_thread:
        arguments = {"pairs": [{"space": x.layout.space, "shape": x.layout.shape} for x, _ in pairs]}
        with comm.agreement(what, arguments) as agreed:
            for x, y in pairs:
                check_operand(x, comm, x.layout, what)
                x.check_like(y, what)
                y.check_initialized(what)
            agreed.share(_partial_products(pairs))
        return exact_sums(agreed.stacked)


def _partial_products(pairs: Sequence[tuple[VectorReductions, VectorReductions]]) -> Floats:
    """Return this rank's part of each inner product, with one copy from the device; 0 on ranks off the grid."""
    backend = pairs[0][0].comm.backend
    products, owned = np.zeros(len(pairs)), [i for i, (x, _) in enumerate(pairs) if x.on_grid()]
    if owned:
        operands = [(x._flat, y._flat) for x, y in (pairs[i] for i in owned)]
        products[owned] = reduced(backend, "dot", operands)
    return products


def exact_sums(parts: Floats) -> Floats:
    """Return the exact sum of each column, rounded once."""
    return np.array([_sum(column) for column in parts.T.tolist()])


def _sum(values: list[float]) -> float:
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # fsum raises them for infinite sums and for inf - inf
        with np.errstate(over="ignore", invalid="ignore"):
            return float(np.sum(values))
