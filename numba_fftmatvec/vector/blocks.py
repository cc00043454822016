"""Blocks of vectors: products of the vectors of one object with small matrices, and their Gram matrices.

A `Vector` with ``num_vecs=k`` is a block X of k long vectors. The backend's matrix product (BLAS, cuBLAS) does the
local work. Small matrices are NumPy arrays, the same on every rank.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..errors import ArgumentError, ArgumentTypeError, ShapeError
from .data import VectorData, check_operand
from .reductions import exact_sums
from .vector import Vector

Floats = npt.NDArray[np.float64]


def gram(x: Vector, y: Vector) -> Floats:
    """Return the inner products of all pairs of vectors of two blocks: ``g[i, j] = <x_i, y_j>``. Collective.

    The result is the same on every rank. Parameters and errors are those of `grams`, for one pair.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_fftmatvec as fft
    >>> from numba_fftmatvec.vector import combine, gram
    >>> comm = fft.Comm(backend="cpu")
    >>> x = fft.Vector(comm, 1, 2, "col", global_sizes=True, num_vecs=2)
    >>> x.scatter([[[1, 2]], [[3, 4]]])
    >>> gram(x, x)
    array([[ 5., 11.],
           [11., 25.]])
    >>> total = fft.Vector(comm, 1, 2, "col", global_sizes=True)
    >>> combine(x, np.ones((2, 1)), total)
    >>> total.gather()
    array([[4., 6.]])
    """
    return grams((x, y))[0]


def grams(*pairs: tuple[Vector, Vector]) -> list[Floats]:
    """Return the Gram matrix of each pair of blocks, all in one exchange. Collective.

    Parameters
    ----------
    *pairs : tuple of two Vectors
        Initialised vectors on one Comm. Those of a pair have the same space and sizes, but may differ in ``num_vecs``.

    Returns
    -------
    list of ndarray
        A (num_vecs, num_vecs) array for each pair, the same on every rank.

    Raises
    ------
    ShapeError, SpaceError, ArgumentError, ArgumentTypeError, UninitializedError
        The vectors of a pair do not fit together, or one has no values.
    """
    comm, what = pairs[0][0].comm, "Gram matrix"
    shapes = [(x.num_vecs, y.num_vecs) for x, y in pairs]
    with comm.lock, comm.backend.calling_thread:
        arguments = {"pairs": [{"shape": x.layout.shape, "other": y.layout.shape} for x, y in pairs]}
        with comm.agreement(what, arguments) as agreed:
            for x, y in pairs:
                _check(x, y, what)
            agreed.share(np.concatenate([_local_gram(x, y).ravel() for x, y in pairs]))
    totals = exact_sums(agreed.stacked)
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    return [total.reshape(shape) for total, shape in zip(np.split(totals, ends), shapes, strict=True)]


def combine(x: Vector, coefficients: npt.ArrayLike, out: Vector) -> None:
    """Set each vector of a block to a linear combination: ``out_j = sum_i coefficients[i, j] x_i``. Local.

    Parameters
    ----------
    x : Vector
        Initialised block.
    coefficients : array_like, shape (x.num_vecs, out.num_vecs)
        The same on every rank.
    out : Vector
        Block of the same space and sizes, which shares no memory with `x`. The call overwrites and initialises it.

    Raises
    ------
    ShapeError, SpaceError, ArgumentError, ArgumentTypeError, UninitializedError
        The blocks or the coefficients do not fit together, or `x` has no values.
    """
    what, comm = "combination of vectors", x.comm
    with comm.lock, comm.backend.calling_thread:
        _check(x, out, what, initialized=False)
        factors = np.ascontiguousarray(np.asarray(coefficients, np.float64).T)
        if factors.shape != (out.num_vecs, x.num_vecs):
            expected = x.num_vecs, out.num_vecs
            raise ShapeError(f"{what}: expected coefficients of shape {expected}, found {factors.T.shape}")
        backend = comm.backend
        if x.on_grid() and backend.arrays.numpy.may_share_memory(x.array, out.array):
            raise ArgumentError(f"{what}: expected a result with memory of its own, found that of the operand")
        out.drop_values()
        if x.on_grid():
            small = backend.empty(factors.shape, np.float64).array
            backend.upload(small, factors)
            with backend.active():
                backend.arrays.numpy.matmul(small, _rows(x), out=_rows(out))
        out.init_vec()


def subset(x: Vector, start: int, stop: int) -> Vector:
    """Return the vectors ``start .. stop - 1`` of a block as a `Vector` that shares their memory. Local.

    Raises
    ------
    ShapeError
        The block has no such vectors.
    """
    x.check_open()
    if not 0 <= start < stop <= x.num_vecs:
        raise ShapeError(f"subset: expected 0 <= start < stop <= {x.num_vecs}, found {start} and {stop}")
    with x.comm.lock, x.comm.backend.calling_thread:
        local = x.num_blocks
        values = None if x.buffer is None else x.buffer.array[start * local : stop * local]
        part = type(x).from_layout(x.comm, replace(x.layout, num_vecs=stop - start), values)
    if x.is_initialized():
        part.init_vec()
    return part


def _check(x: VectorData, y: object, what: str, *, initialized: bool = True) -> None:
    """Raise unless both are vectors of one Comm, space and size; `y` may have another number of vectors."""
    for vector in (x, y):
        if not isinstance(vector, VectorData):
            raise ArgumentTypeError(f"{what}: expected a Vector, found {type(vector).__name__}")
        check_operand(vector, x.comm, replace(x.layout, num_vecs=vector.num_vecs), what)
    x.check_initialized(what)
    if initialized:
        y.check_initialized(what)  # type: ignore[attr-defined]


def _local_gram(x: Vector, y: Vector) -> Floats:
    if not x.on_grid():
        return np.zeros((x.num_vecs, y.num_vecs))
    backend = x.comm.backend
    with backend.active():
        product = backend.arrays.numpy.matmul(_rows(x), _rows(y).T)
    return backend.download(product)


def _rows(x: Vector) -> npt.NDArray[np.float64]:
    """Return this rank's values, one row for each vector."""
    return x.array.reshape(x.num_vecs, -1)  # type: ignore[no-any-return]
