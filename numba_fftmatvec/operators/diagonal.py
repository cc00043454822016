"""Operators that act on each value alone: the identity and elementwise weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..comm import Comm
from ..errors import ArgumentTypeError, NonFiniteError, ShapeError
from ..layout import VectorLayout
from ..vector import Vector
from .accuracy import Accuracy
from .base import CheckedOperator


class SelfAdjointOperator(CheckedOperator):
    """An operator between vectors of one layout that is its own adjoint; `compute` is its product in both directions.

    Parameters
    ----------
    comm : Comm
        The process grid.
    layout : VectorLayout
        The layout of operands and results.
    """

    def __init__(self, comm: Comm, layout: VectorLayout) -> None:
        self.comm = comm
        self._layout = checked_layout(comm, layout)

    @property
    def domain(self) -> VectorLayout:
        """Layout of one operand."""
        return self._layout

    @property
    def range(self) -> VectorLayout:
        """Layout of one result."""
        return self._layout

    @property
    def T(self) -> SelfAdjointOperator:
        """The operator itself."""
        return self

    def compute_adjoint(self, y: Vector, x: Vector) -> None:
        """Compute ``x = A y``."""
        self.compute(y, x)


class Identity(SelfAdjointOperator):
    """The identity of vectors of a layout.

    Parameters
    ----------
    comm : Comm
        The process grid.
    layout : VectorLayout
        The layout, such as ``F.domain`` or ``vector.layout``.

    Examples
    --------
    >>> import numba_fftmatvec as fft
    >>> comm = fft.Comm(backend="cpu")
    >>> fft.Identity(comm, comm.axis("col").layout(1, 2)).todense()
    array([[1., 0.],
           [0., 1.]])
    """

    def accuracy(self) -> Accuracy:
        """Return the bounds: a copy has no error."""
        return Accuracy(1.0, 0.0)

    def compute(self, x: Vector, y: Vector) -> None:
        """Copy the values."""
        x.copy_to(y)

    def __repr__(self) -> str:
        """Return the class and the sizes."""
        return f"Identity({self._layout.space.value!r}, {self._layout})"


class Diagonal(SelfAdjointOperator):
    """The multiplication of each value by a weight. Collective.

    Parameters
    ----------
    weights : Vector
        The weights, one initialised vector of either space. They are copied. An operand of several vectors has the same
        weights for each.

    Raises
    ------
    NonFiniteError
        A weight is NaN or infinite.
    ShapeError, ArgumentTypeError, UninitializedError
        `weights` is not a single vector with values.

    Examples
    --------
    >>> import numba_fftmatvec as fft
    >>> comm = fft.Comm(backend="cpu")
    >>> weights = fft.Vector(comm, 1, 3, "row", global_sizes=True)
    >>> weights.init_vec_consecutive()
    >>> (fft.Diagonal(weights) @ weights).gather()
    array([[0., 1., 4.]])
    """

    def __init__(self, weights: Vector) -> None:
        if not isinstance(weights, Vector):
            raise ArgumentTypeError(f"weights: expected a Vector, found {type(weights).__name__}")
        with weights.comm.agreement("creating a diagonal operator", weights.layout.description):
            weights.check_initialized("weights")
            if weights.num_vecs != 1:
                raise ShapeError(f"weights: expected one vector, found {weights.num_vecs}")
            self._largest = weights.norm(np.inf)
            if not np.isfinite(self._largest):
                raise NonFiniteError(f"weights: expected finite numbers, found {self._largest} among them")
            super().__init__(weights.comm, weights.layout)
            self._weights = weights.copy()

    def accuracy(self) -> Accuracy:
        """Return the bounds: the largest magnitude of a weight, and one rounding."""
        return Accuracy(self._largest, self._largest * self.unit_roundoff)

    def compute(self, x: Vector, y: Vector) -> None:
        """Multiply the values of each vector by the weights."""
        if y.array is not None:
            backend = self.comm.backend
            with backend.active():
                backend.arrays.numpy.multiply(x.array, self._weights.array, out=y.array)
        y.init_vec()

    def __repr__(self) -> str:
        """Return the class and the sizes."""
        return f"Diagonal({self._layout.space.value!r}, {self._layout})"


def checked_layout(comm: object, layout: object) -> VectorLayout:
    """Return the layout of one vector; raise an error unless it is a layout of this rank on the Comm's grid."""
    if not isinstance(comm, Comm):
        raise ArgumentTypeError(f"comm: expected a Comm, found {type(comm).__name__}")
    if not isinstance(layout, VectorLayout):
        raise ArgumentTypeError(f"layout: expected a VectorLayout, found {type(layout).__name__}")
    share = comm.axis(layout.space).share(layout.num_blocks)
    if layout.blocks != share:
        raise ShapeError(f"layout: expected this rank's share of the blocks, {share}, found {layout.blocks}")
    return replace(layout, num_vecs=1)
