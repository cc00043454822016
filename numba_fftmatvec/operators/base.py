"""Linear operators between block vectors, and their adjoints.

The base class does not depend on its implementations, so adjoints and the dot test work with every operator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np

from ..comm import Comm
from ..layout import VectorLayout
from ..vector import Vector


class LinearOperator(ABC):
    """A linear map between vectors on one process grid.

    An implementation sets `comm` and defines `domain`, `range`, `apply` and `apply_adjoint`.

    Attributes
    ----------
    comm : Comm
        The process grid.

    Examples
    --------
    >>> import numba_fftmatvec as fft
    >>> class Twice(fft.LinearOperator):
    ...     def __init__(self, comm, layout):
    ...         self.comm, self.layout = comm, layout
    ...     @property
    ...     def domain(self):
    ...         return self.layout
    ...     @property
    ...     def range(self):
    ...         return self.layout
    ...     def apply(self, x, y):
    ...         x.copy_to(y)
    ...         y.scale(2.0)
    ...     def apply_adjoint(self, y, x):
    ...         self.apply(y, x)
    >>> comm = fft.Comm(backend="cpu")
    >>> x = fft.Vector(comm, 2, 3, "col", global_sizes=True)
    >>> x.init_vec_consecutive()
    >>> (Twice(comm, x.layout).T @ x).gather()
    array([[ 0.,  2.,  4.],
           [ 6.,  8., 10.]])
    """

    comm: Comm

    @property
    @abstractmethod
    def domain(self) -> VectorLayout:
        """Layout of one operand."""

    @property
    @abstractmethod
    def range(self) -> VectorLayout:
        """Layout of one result."""

    @abstractmethod
    def apply(self, x: Vector, y: Vector) -> None:
        """Compute ``y = A x``.

        Parameters
        ----------
        x : Vector
            Initialised vector of the layout `domain`, or several such vectors in one.
        y : Vector
            Vector of the layout `range` with as many vectors as `x`, and not `x` itself. The call overwrites and
            initialises it.
        """

    @abstractmethod
    def apply_adjoint(self, y: Vector, x: Vector) -> None:
        """Compute ``x = A* y``. The parameters are those of `apply` with the spaces exchanged."""

    @property
    def shape(self) -> tuple[int, int]:
        """Global shape: the number of values of a result and that of an operand."""
        return self.range.size, self.domain.size

    @property
    def dtype(self) -> np.dtype[np.float64]:
        """Dtype of operands and results."""
        return np.dtype(np.float64)

    @property
    def unit_roundoff(self) -> float:
        """Unit roundoff of the operator's arithmetic, that of double unless an implementation overrides it."""
        return 2.0**-53

    @property
    def T(self) -> LinearOperator:
        """The adjoint, as an operator: ``A.T @ y`` is A* y, and ``A.T.T`` is A."""
        return AdjointOperator(self)

    def __matmul__(self, x: Vector) -> Vector:
        """Return ``A x`` in a new vector, for one operand or several."""
        y = Vector.from_layout(self.comm, replace(self.range, num_vecs=getattr(x, "num_vecs", 1)))
        self.apply(x, y)
        return y


class AdjointOperator(LinearOperator):
    """The adjoint of an operator.

    Parameters
    ----------
    operator : LinearOperator
        The operator; it is not copied.
    """

    def __init__(self, operator: LinearOperator) -> None:
        self.comm = operator.comm
        self._operator = operator

    @property
    def domain(self) -> VectorLayout:
        """Layout of one operand: the operator's range."""
        return self._operator.range

    @property
    def range(self) -> VectorLayout:
        """Layout of one result: the operator's domain."""
        return self._operator.domain

    @property
    def unit_roundoff(self) -> float:
        """Unit roundoff of the operator's arithmetic."""
        return self._operator.unit_roundoff

    @property
    def T(self) -> LinearOperator:
        """The operator itself."""
        return self._operator

    def apply(self, x: Vector, y: Vector) -> None:
        """Compute ``y = A* x``."""
        self._operator.apply_adjoint(x, y)

    def apply_adjoint(self, y: Vector, x: Vector) -> None:
        """Compute ``x = A y``."""
        self._operator.apply(y, x)

    def __repr__(self) -> str:
        """Return the operator's representation, followed by ``.T``."""
        return f"{self._operator!r}.T"
