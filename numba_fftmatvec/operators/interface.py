"""The interface of a linear operator, without its arithmetic."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ..comm import Comm
from ..comm.exclusive import exclusive
from ..errors import ArgumentTypeError
from ..layout import VectorLayout
from ..vector import Vector
from .accuracy import Accuracy
from .dense import dense

LARGEST_DENSE = 1 << 25  # values, 256 MiB

# The remedy in messages about an array that is given as a vector.
ARRAYS = "A.as_linear_operator(library='scipy') takes NumPy's arrays, library='cupy' CuPy's"


def refused(name: str) -> Any:
    """Return a property that stands for a method of another library and raises an ArgumentTypeError.

    SciPy and PyLops take any object with some of these methods for an operator between arrays. They look for the
    methods first, so the error comes before a product.
    """

    def refuse(operator: OperatorInterface) -> NoReturn:
        raise ArgumentTypeError(
            f"{name}: expected an operator between arrays, found {type(operator).__name__} between vectors; {ARRAYS}"
        )

    return property(refuse, doc=f"Raises an ArgumentTypeError: `{name}` is a method of `as_linear_operator()`.")


class OperatorInterface(ABC):
    """The methods of a `LinearOperator` that need no other operator."""

    comm: Comm

    matvec = refused("matvec")
    rmatvec = refused("rmatvec")
    rmatmat = refused("rmatmat")
    _matvec = refused("matvec")
    _rmatvec = refused("rmatvec")

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
    def num_products(self) -> int:
        """Number of products of which one product consists: 1, or that of all parts of a composite."""
        return 1

    def accuracy(self) -> Accuracy | None:
        """Return bounds of the gain and the rounding error; None if they are unknown. Collective.

        The dot test takes its tolerance from them. The bounds of a composite follow from those of its parts, and are
        unknown if those of one part are. An implementation should override this method.
        """
        return None

    @exclusive
    def todense(self, *, limit: int = LARGEST_DENSE) -> npt.NDArray[np.float64]:
        """Return the dense matrix on every rank. Collective; each product takes several columns.

        Parameters
        ----------
        limit : int
            The largest number of values of the matrix, 2^25 by default.

        Returns
        -------
        (rows, cols) array of float64
            Entry (i, j) belongs to value i of the result and value j of the operand, both in SOTI order.

        Raises
        ------
        CapacityError
            The matrix has more values than `limit`.
        """
        return dense(self.comm, self.domain, self.range, self.apply, limit)

    def as_linear_operator(self, library: str = "scipy", **options: Any) -> Any:
        """Return the operator in the form of another library, which is imported by this call. Collective.

        Parameters
        ----------
        library : {"scipy", "cupy", "pylops", "pylops_mpi", "petsc", "cuqi"}
            The library. docs/howto/adapters has a page for each.
        **options
            Options of the library's adapter.

        Raises
        ------
        ArgumentError
            There is no such library.
        BackendError
            The library is not installed, or the Comm's backend does not fit it.
        """
        adapters = importlib.import_module(f"{__package__}.adapters")
        return adapters.adapted(self, library, **options)
