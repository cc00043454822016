"""Products of an operator with arrays of other libraries: with each rank's share, or with global arrays."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import numpy as np

from ...comm.exclusive import exclusive
from ...errors import ArgumentTypeError, ShapeError
from ...layout import VectorLayout
from ...vector import Vector
from ..interface import OperatorInterface


class Products:
    """The products of an operator with arrays. Collective.

    Host arrays are NumPy's. With the backend ``"cuda"`` arrays may be on this rank's GPU, in CuPy or another library
    with DLPack. Arrays on the backend's device are used without a copy, others are copied once each way.

    Parameters
    ----------
    operator : LinearOperator
        The operator.
    """

    def __init__(self, operator: OperatorInterface) -> None:
        self.operator = operator
        self.comm = operator.comm

    @exclusive
    def share(self, values: Any, *, adjoint: bool = False) -> Any:
        """Return this rank's share of a product.

        Parameters
        ----------
        values : array
            This rank's blocks of one operand, flat and in SOTI order; without values on ranks that own none.
        adjoint : bool
            Whether the product is that with the adjoint.
        """
        source, target = self._ends(adjoint)
        x = self._vector(values, source)
        return self._array(self._product(x, target, adjoint), values)

    @exclusive
    def whole(self, values: Any, *, adjoint: bool = False) -> Any:
        """Return a product with global values, which all ranks have and get.

        Parameters
        ----------
        values : array
            Operands in SOTI order: (n,) or (n, 1) for one, (n, k) for several. On several ranks a host array, the
            same on all of them.
        adjoint : bool
            Whether the product is that with the adjoint.

        Returns
        -------
        array
            The results: (m,), or (m, k) for `values` of two dimensions.
        """
        source, target = self._ends(adjoint)
        if values.ndim > 2 or values.shape[0] != source.size:
            raise ShapeError(f"array: expected shape ({source.size},) or ({source.size}, k), found {values.shape}")
        count = 1 if values.ndim == 1 else values.shape[1]
        columns = values.reshape(-1) if count == 1 else values.T.reshape(-1)
        several = replace(source, num_vecs=count), replace(target, num_vecs=count)
        if self.comm.world_size == 1:
            x = self._vector(columns, several[0])
            result = self._array(self._product(x, several[1], adjoint), columns)
        else:
            x = self._scattered(columns, several[0])
            result = self._product(x, several[1], adjoint).gather()
        return result.reshape(-1) if values.ndim == 1 else result.reshape(count, -1).T

    def _ends(self, adjoint: bool) -> tuple[VectorLayout, VectorLayout]:
        domain, range_ = self.operator.domain, self.operator.range
        return (range_, domain) if adjoint else (domain, range_)

    def _product(self, x: Vector, target: VectorLayout, adjoint: bool) -> Vector:
        y = Vector.from_layout(self.comm, target)
        if adjoint:
            self.operator.apply_adjoint(x, y)
        else:
            self.operator.apply(x, y)
        return y

    def _vector(self, values: Any, layout: VectorLayout) -> Vector:
        """Return a vector with this rank's values, which shares their memory if it is the backend's."""
        size = local_size(self.operator, layout)
        if values.size != size:
            raise ShapeError(f"array: expected {size} values of this rank, found {values.size}")
        values = _doubles(values)
        backend = self.comm.backend
        if size and not _on_host(values):
            memory = backend.from_dlpack(values)
        elif size and backend.name == "cpu":
            memory = values
        else:
            x = Vector.from_layout(self.comm, layout)
            x.from_numpy(values)
            return x
        x = Vector.from_layout(self.comm, layout, memory.reshape(layout.rows, layout.block_size))
        x.init_vec()
        return x

    def _array(self, y: Vector, like: Any) -> Any:
        """Return this rank's values as a flat array of the library of `like`."""
        if y.array is None:
            return np.empty(0) if _on_host(like) else like[:0]
        if self.comm.backend.name == "cpu":
            return y.array.reshape(-1)
        if _on_host(like):
            return y.to_numpy().reshape(-1)  # type: ignore[union-attr]
        library = importlib.import_module(type(like).__module__.partition(".")[0])
        return library.from_dlpack(y).reshape(-1)

    def _scattered(self, values: Any, layout: VectorLayout) -> Vector:
        """Return a vector with this rank's share of values that all ranks have; raise an error if they differ."""
        if not _on_host(values):
            raise ArgumentTypeError(
                f"array: expected a host array on {self.comm.world_size} ranks, found {type(values).__name__}"
            )
        values = _doubles(values)
        bits = int(values.view(np.uint64).sum())  # they wrap; a difference of two arrays changes the sum
        with self.comm.agreement("product with an array", {"sum of the array's bits": bits}):
            x = Vector.from_layout(self.comm, layout)
            mine = values.reshape(layout.num_vecs, layout.num_blocks, layout.block_size)[:, layout.blocks.start :]
            x.from_numpy(mine[:, : x.num_blocks].reshape(layout.local_shape))
        return x


class FlatMethods:
    """The methods that SciPy's interface of a linear operator, and those like it, expect of an implementation."""

    products: Products

    def _matvec(self, x: Any) -> Any:
        return self.products.whole(x)

    def _rmatvec(self, y: Any) -> Any:
        return self.products.whole(y, adjoint=True)

    def _matmat(self, X: Any) -> Any:
        return self.products.whole(X)

    def _rmatmat(self, Y: Any) -> Any:
        return self.products.whole(Y, adjoint=True)


def local_size(operator: OperatorInterface, layout: VectorLayout) -> int:
    """Return the number of values of a vector that this rank owns."""
    return layout.rows * layout.block_size if operator.comm.axis(layout.space).owns else 0


def _on_host(values: Any) -> bool:
    return isinstance(values, np.ndarray)


def _doubles(values: Any) -> Any:
    """Return real values as contiguous float64 in the same library."""
    if values.dtype.kind not in "buif":
        raise ArgumentTypeError(f"array: expected real numbers, found dtype {values.dtype}")
    values = values.astype(np.float64, copy=False)
    return values if values.flags.c_contiguous else values.copy()
