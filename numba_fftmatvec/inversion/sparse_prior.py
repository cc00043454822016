"""Gaussian fields given by a sparse precision matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ..backends import Backend
from ..errors import ArgumentTypeError, NotPositiveDefiniteError, ShapeError
from .checks import ASYMMETRY, asymmetry, check_finite, positive, positive_factor
from .prior import BoundPrior, Host, Prior


@dataclass(frozen=True, eq=False)
class SparsePrecisionPrior(Prior):
    """A Gaussian field of a sparse precision Q, such as a finite-element discretisation: ``Gamma = deviation^2 Q^-1``.

    Size, symmetry and the diagonal of Q are checked at once. `bind` factorises Q, and the factorisation shows whether Q
    is positive definite. Intrinsic fields, such as a Laplacian without a term of order zero, are not.

    Parameters
    ----------
    precision : sparse matrix
        Q, of shape (Nm, Nm), as a SciPy sparse array or matrix of any format.
    deviation : float
        A factor of the field, 1 by default.
    mean, time
        As for `Prior`.

    Raises
    ------
    ArgumentTypeError, ShapeError, NonFiniteError
        Q is not sparse, not square, not real, or not finite.
    NotPositiveDefiniteError
        Q is not symmetric, or a value on its diagonal is not positive; in `bind`, Q is not positive definite.

    Examples
    --------
    >>> import scipy.sparse
    >>> import numba_fftmatvec as fft
    >>> from numba_fftmatvec.inversion import SparsePrecisionPrior
    >>> prior = SparsePrecisionPrior(scipy.sparse.csc_array([[2.0, -1.0], [-1.0, 1.0]]))
    >>> prior.bind(fft.Comm(backend="cpu").backend).variances().round(12)
    array([1., 2.])
    """

    precision: Any
    deviation: float = 1.0

    def __post_init__(self) -> None:
        """Check the precision and the factor."""
        object.__setattr__(self, "precision", _checked(self.precision))
        object.__setattr__(self, "size", self.precision.shape[0])
        object.__setattr__(self, "deviation", float(positive(self.deviation, "prior: deviation", [0])))
        super().__post_init__()

    def bind(self, backend: Backend) -> BoundPrior:
        """Return the spatial covariance on a backend, with the factorisation of the precision.

        Raises
        ------
        NotPositiveDefiniteError
            The precision is not positive definite.
        """
        return SparsePrecisionCovariance(backend, self)

    def scaled(self, factor: float) -> Self:
        """Return the prior with another factor of the field."""
        return replace(self, deviation=self.deviation * positive_factor(factor, "prior: factor"))


class SparsePrecisionCovariance(BoundPrior):
    """The covariance ``deviation^2 Q^-1`` on a backend: ``C = deviation Q^-1 B`` with ``Q = B B^T``."""

    def __init__(self, backend: Backend, prior: SparsePrecisionPrior) -> None:
        super().__init__(backend, prior.size)
        self._deviation = prior.deviation
        with backend.calling_thread, backend.active():
            try:
                self._solver = backend.arrays.sparse_solver(prior.precision)
            except NotPositiveDefiniteError as error:
                raise error.named("prior: precision") from None
            self._precision = backend.arrays.sparse_matrix(prior.precision)

    def log_determinant(self) -> float:
        """Return the logarithm of the determinant, from that of the precision."""
        return 2 * self.size * math.log(self._deviation) - self._solver.log_determinant

    def _root(self, values: Any) -> Any:
        return self._deviation * self._solver(self._solver.factor @ values.T).T

    def _root_adjoint(self, values: Any) -> Any:
        return self._deviation * (self._solver.adjoint_factor @ self._solver(values.T)).T

    def _covariance(self, values: Any) -> Any:
        return self._deviation**2 * self._solver(values.T).T

    def _solve(self, values: Any) -> Any:
        return (self._precision @ values.T).T / self._deviation**2

    def _diagonal(self, units: Any, start: int) -> Host:
        """Return the variances of some sources, by one solve for each."""
        return self.backend.download(self.backend.arrays.numpy.diagonal(self._covariance(units), start))


def _checked(precision: Any) -> Any:
    """Return a copy of a sparse precision in doubles and compressed columns, after the checks of its values."""
    what = "prior: precision"
    if not hasattr(precision, "tocsc"):
        raise ArgumentTypeError(f"{what}: expected a SciPy sparse matrix, found {type(precision).__name__}")
    if precision.ndim != 2 or precision.shape[0] != precision.shape[1] or not precision.shape[0]:
        raise ShapeError(f"{what}: expected shape (Nm, Nm), found {precision.shape}")
    if precision.dtype.kind not in "buif":
        raise ArgumentTypeError(f"{what}: expected real numbers, found dtype {precision.dtype}")
    matrix = precision.tocsc(copy=True).astype(np.float64)
    matrix.sum_duplicates()
    check_finite(matrix.data, what)
    difference = abs(matrix - matrix.T).tocoo()
    if difference.nnz and difference.data.max() > ASYMMETRY * abs(matrix).max():
        worst = int(np.argmax(difference.data))
        row, column = int(difference.row[worst]), int(difference.col[worst])
        values = matrix[row, column], matrix[column, row]
        raise NotPositiveDefiniteError(asymmetry(what, (row, column), *values))
    diagonal = matrix.diagonal()
    if not (diagonal > 0).all():
        row = int(np.argmin(diagonal > 0))
        error = NotPositiveDefiniteError(
            f"{what}: expected positive values on the diagonal, found {diagonal[row]} at row {row}"
        )
        error.row = row
        raise error
    return matrix
