"""Orthonormal bases of blocks of vectors, by Gram matrices and their Cholesky factors."""

from __future__ import annotations

import numpy as np

from ..errors import VerificationError
from ..vector import Vector, combine, fill_normal, gram, subset
from .base import Floats
from .small import cholesky

_PASSES = 8
_SHIFT = 1e-13  # for each vector; above the rounding of a Gram matrix of vectors of length 1
_SMALLEST_PIVOT = 1e-6


def orthonormalise(x: Vector, scratch: Vector) -> Floats:
    """Replace a block of vectors X by an orthonormal basis Q of their span; return R with ``X = Q R``. Collective.

    This is the Cholesky QR method, repeated until the vectors are orthonormal, with a shift [1]_ while they are nearly
    dependent. Dependent vectors become arbitrary directions, with rows of R that are rounding.

    Parameters
    ----------
    x : Vector
        The block.
    scratch : Vector
        A block of the same layout, which is overwritten.

    References
    ----------
    .. [1] T. Fukaya, R. Kannan, Y. Nakatsukasa, Y. Yamamoto and Y. Yanagisawa, SIAM J. Sci. Comput. 42 (2020) A477.
    """
    k = x.num_vecs
    total: Floats = np.eye(k)
    for attempt in range(_PASSES):
        products = gram(x, x)
        lengths = np.sqrt(np.diagonal(products))
        if (zeros := np.flatnonzero(lengths == 0.0)).size:
            for i in zeros:
                fill_normal(subset(x, int(i), int(i) + 1), seed=attempt * k + int(i))
            total[zeros] = 0.0
            continue
        if np.abs(products - np.eye(k)).max() <= 4 * k * np.finfo(float).eps or not np.isfinite(products).all():
            return total
        scaled = products / lengths / lengths[:, None]
        factor = _factor(scaled)
        combine(x, np.linalg.solve(factor, np.diag(1.0 / lengths)).T, scratch)
        scratch.copy_to(x)
        total = factor.T @ (lengths[:, None] * total)
    error = np.abs(products - np.eye(k)).max()
    raise VerificationError(f"basis: expected orthonormal vectors, found inner products off by {error:.1e}")


def _factor(products: Floats) -> Floats:
    """Return the Cholesky factor of a Gram matrix of vectors of length 1, with a shift if they are nearly dependent."""
    shift = _SHIFT * len(products) * np.eye(len(products))
    try:
        factor = cholesky(products)
    except np.linalg.LinAlgError:
        return cholesky(products + shift)
    return factor if np.diagonal(factor).min() > _SMALLEST_PIVOT else cholesky(products + shift)
