"""The dot test of an operator A and its adjoint A*: <A x, y> = <x, A* y>."""

from __future__ import annotations

import math

import numpy as np

from ..errors import ArgumentTypeError, VerificationError
from ..layout import VectorLayout
from ..vector import Vector
from .base import LinearOperator


def dot_test(
    operator: LinearOperator, x: Vector | None = None, y: Vector | None = None, *, tolerance: float | None = None
) -> float:
    """Return the difference of <A x, y> and <x, A* y>, relative to |A x| |y| + |x| |A* y|. Collective.

    The default tolerance follows from `LinearOperator.accuracy`: it is ``2 error |x| |y|``, relative to the same size,
    where `error` bounds the rounding error of A x and that of A* y. It holds for every operand, and for sums with
    cancellation.

    The accuracy of an operator that does not define it is unknown. Then the tolerance is
    ``8 sqrt(3) u (1 + log2 2Nt) n``, with the unit roundoff u, the block size Nt of the domain and n products. It is
    the sum of the bounds of two FFT-based products, 2 u (1 + log2 2Nt) S each (see `testing.ones_tolerance`). For
    blocks and vectors with entries in [1, 2], S = sqrt(Nd) Nm (2 Nt) (2 sqrt(Nt)) is at most 4 sqrt(3) times the norm
    of A x, and likewise for A* y. Such an operator with cancellation in its products may need a larger tolerance.

    The inner products are accumulated in extended precision and add no error.

    Parameters
    ----------
    operator : LinearOperator
        The operator A.
    x, y : Vector, optional
        Initialised vectors of the operator's domain and range, with the same ``num_vecs``. By default each is one
        vector that `init_vec_doubles` fills.
    tolerance : float, optional
        The largest difference that passes; by default the one above.

    Returns
    -------
    float
        The relative difference, the same on every rank.

    Raises
    ------
    VerificationError
        The difference exceeds the tolerance.

    Examples
    --------
    >>> import numba_fftmatvec as fft
    >>> comm = fft.Comm(backend="cpu")
    >>> F = fft.Matrix(comm, cols=3, rows=2, block_size=4, global_sizes=True)
    >>> F.init_mat_doubles()
    >>> fft.dot_test(F) < 1e-15
    True
    """
    if not isinstance(operator, LinearOperator):
        raise ArgumentTypeError(f"dot test: expected a LinearOperator, found {type(operator).__name__}")
    x = _doubles(operator, x, operator.domain)
    y = _doubles(operator, y, operator.range)
    forward, adjoint = operator @ x, operator.T @ y
    left, right = _inner(forward, y), _inner(x, adjoint)
    norms = x.norm() * y.norm()
    size = forward.norm() * y.norm() + x.norm() * adjoint.norm()
    error = float(abs(left - right) / size) if size else float(left != right)
    if tolerance is None:
        tolerance = _tolerance(operator, norms / size if size else 0.0)
    with x.comm.agreement("comparing the inner products"):
        if not error <= tolerance:
            raise VerificationError(f"dot test: expected <F x, y> = <x, F* y> to {tolerance:.2e}, found {error:.2e}")
    return error


def _tolerance(operator: LinearOperator, norms: float) -> float:
    """Return the default tolerance for operands with |x| |y| of `norms` sizes."""
    accuracy = operator.accuracy()
    if accuracy is not None:
        return 2 * accuracy.error * norms
    stages = 1 + math.log2(2 * operator.domain.block_size)
    return 8 * math.sqrt(3) * operator.unit_roundoff * stages * operator.num_products


def _doubles(operator: LinearOperator, given: Vector | None, layout: VectorLayout) -> Vector:
    if given is not None:
        return given
    vector = Vector.from_layout(operator.comm, layout)
    vector.init_vec_doubles()
    return vector


def _inner(x: Vector, y: Vector) -> np.longdouble:
    """Return the inner product, accumulated in extended precision."""
    with x.comm.agreement("dot test"):
        a, b = x.to_numpy(), y.to_numpy()
        share = np.longdouble(0) if a is None or b is None else np.sum(np.multiply(a, b, dtype=np.longdouble))
        shares = x.comm.allgather(share, "dot test")
    return sum(shares, np.longdouble(0))
