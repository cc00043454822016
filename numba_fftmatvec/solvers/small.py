"""Small dense matrices on the host, the same on every rank: bases from Gram matrices, and checks of projections."""

from __future__ import annotations

import numpy as np

from ..errors import NotPositiveDefiniteError
from .base import Floats

# Directions of a scaled Gram matrix with smaller eigenvalues, relative to the largest, count as dependent.
DEPENDENT = 1e-12


def independent_combinations(gram: Floats) -> Floats:
    """Return coefficients that combine vectors to an orthonormal basis of their numerical span.

    The vectors are scaled to length 1 first, so the result does not depend on their lengths. Dependent directions and
    vectors of zeros are left out.

    Parameters
    ----------
    gram : ndarray, shape (k, k)
        The Gram matrix of the vectors.

    Returns
    -------
    ndarray, shape (k, rank)
    """
    lengths = np.sqrt(np.diagonal(gram))
    scales = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    values, vectors = np.linalg.eigh(scales[:, None] * gram * scales)
    kept = values > DEPENDENT * values[-1]
    combinations: Floats = scales[:, None] * vectors[:, kept] / np.sqrt(values[kept])
    return combinations


def cholesky(matrix: Floats) -> Floats:
    """Return the lower Cholesky factor; a LinAlgError says that the matrix is not positive definite."""
    return np.asarray(np.linalg.cholesky(matrix), np.float64)


def positive_definite_factor(projection: Floats, name: str, iteration: int) -> Floats:
    """Return the Cholesky factor of ``P* A P``; raise a NotPositiveDefiniteError if it has none."""
    try:
        return cholesky(projection)
    except np.linalg.LinAlgError:
        least = float(np.linalg.eigvalsh(projection)[0])
        raise NotPositiveDefiniteError(
            f"{name}: expected a positive definite operator A, found P* A P with the eigenvalue {least:.3e} in "
            f"iteration {iteration}; a regularisation, such as a prior's precision, makes F* F definite"
        ) from None


def cholesky_solve(factor: Floats, values: Floats) -> Floats:
    """Solve with a matrix by its Cholesky factor."""
    solution: Floats = np.linalg.solve(factor.T, np.linalg.solve(factor, values))
    return solution
