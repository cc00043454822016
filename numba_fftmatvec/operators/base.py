"""Linear operators between block vectors, their adjoints, and their lazy sums, products and multiples.

The base class does not depend on its implementations, so adjoints and the dot test work with every operator. Its
arithmetic makes the composites, which are therefore in the same module.
"""

from __future__ import annotations

import functools
import itertools
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, NoReturn, overload

from ..comm.exclusive import exclusive
from ..errors import ArgumentError, ArgumentTypeError
from ..layout import VectorLayout
from ..vector import Vector
from ..vector.data import check_operand
from .accuracy import Accuracy
from .checks import check_layout, check_part, finite, finite_factor, overlap, remedy, sizes, wrong_type
from .interface import OperatorInterface
from .temporaries import Temporaries, several


class LinearOperator(OperatorInterface):
    """A linear map between vectors on one process grid.

    An implementation sets `comm` and defines `domain`, `range`, `apply` and `apply_adjoint`. Operators form lazy
    expressions: ``A + B``, ``A - B``, ``-A``, ``a * A``, ``A / a``, ``A @ B`` and ``A.T``. An expression is an operator
    that holds its parts and computes nothing until it is applied. Making one is collective, except for ``A.T``: the
    layouts, Comms and scalars are compared on all ranks.

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
    >>> A = Twice(comm, x.layout)
    >>> (A.T @ x).gather()
    array([[ 0.,  2.,  4.],
           [ 6.,  8., 10.]])
    >>> ((A @ A - A / 2) @ x).gather()
    array([[ 0.,  3.,  6.],
           [ 9., 12., 15.]])
    """

    # NumPy's operators leave ``array @ A`` and ``numpy.float64(2) * A`` to the operator.
    __array_ufunc__ = None

    @property
    def T(self) -> LinearOperator:
        """The adjoint, as an operator: ``A.T @ y`` is A* y, and ``A.T.T`` is A."""
        return AdjointOperator(self)

    # Arithmetic

    @overload
    def __matmul__(self, other: Vector) -> Vector: ...

    @overload
    def __matmul__(self, other: LinearOperator) -> LinearOperator: ...

    def __matmul__(self, other: Vector | LinearOperator) -> Vector | LinearOperator:
        """Return ``A x`` in a new vector, for one operand or several; or the composition ``A B`` with an operator."""
        if isinstance(other, LinearOperator):
            return ProductOperator(self, other)
        if not isinstance(other, Vector):
            raise wrong_type("@", "a Vector or a LinearOperator", other)
        y = Vector.from_layout(self.comm, several(self.range, other.num_vecs))
        self.apply(other, y)
        return y

    def __rmatmul__(self, other: object) -> NoReturn:
        """Raise an ArgumentTypeError: an operand stands on the right."""
        raise wrong_type("@", "a LinearOperator on the left", other)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        """Return the sum ``A + B``."""
        return SumOperator(self, other)

    def __radd__(self, other: object) -> NoReturn:
        """Raise an ArgumentTypeError: the other summand is no operator."""
        raise wrong_type("+", "a LinearOperator", other)

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        """Return the difference ``A - B``."""
        if not isinstance(other, LinearOperator):
            raise wrong_type("-", "a LinearOperator", other)
        return SumOperator(self, -other)

    def __rsub__(self, other: object) -> NoReturn:
        """Raise an ArgumentTypeError: the minuend is no operator."""
        raise wrong_type("-", "a LinearOperator", other)

    def __neg__(self) -> LinearOperator:
        """Return ``-A``."""
        return self * -1.0

    def __mul__(self, factor: float) -> LinearOperator:
        """Return the multiple ``a A`` with a real number."""
        return SumOperator(self, factor=factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> LinearOperator:
        """Return ``A / a``, the multiple with the reciprocal."""
        return SumOperator(self, factor=divisor, divide=True)


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
    def num_products(self) -> int:
        """Number of products of which one product consists, that of the operator."""
        return self._operator.num_products

    def accuracy(self) -> Accuracy | None:
        """Return the bounds of the operator, which hold for its adjoint. Collective."""
        return self._operator.accuracy()

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


class CheckedOperator(LinearOperator):
    """An operator that checks its operands, takes its turn on the Comm, and leaves no values after an error.

    An implementation defines `compute` and `compute_adjoint`, which write to a result apart from the operand. The
    checks are those of a matrix's products: local, or among all ranks if ``comm.checks_products``.
    """

    @abstractmethod
    def compute(self, x: Vector, y: Vector) -> None:
        """Compute ``y = A x`` for checked vectors."""

    @abstractmethod
    def compute_adjoint(self, y: Vector, x: Vector) -> None:
        """Compute ``x = A* y`` for checked vectors."""

    def apply(self, x: Vector, y: Vector) -> None:
        """Compute ``y = A x`` for all operands in `x`."""
        self._run(self.compute, x, y, (self.domain, self.range), "")

    def apply_adjoint(self, y: Vector, x: Vector) -> None:
        """Compute ``x = A* y`` for all operands in `y`."""
        self._run(self.compute_adjoint, y, x, (self.range, self.domain), "adjoint ")

    @exclusive
    def _run(self, compute: Any, source: Vector, target: Vector, ends: Sequence[VectorLayout], kind: str) -> None:
        name = f"{kind}{type(self).__name__}"
        if self.comm.checks_products:
            with self.comm.agreement(f"product {name}", {"num_vecs": getattr(source, "num_vecs", 1)}):
                self._check(source, target, ends, name)
        else:
            self._check(source, target, ends, name)
        target.drop_values()
        try:
            compute(source, target)
        except BaseException:
            target.drop_values()
            raise

    def _check(self, source: Vector, target: Vector, ends: Sequence[VectorLayout], name: str) -> None:
        self.comm.check_open()
        num_vecs = getattr(source, "num_vecs", 1)
        try:
            check_operand(source, self.comm, several(ends[0], num_vecs), f"operand of {name}")
            check_operand(target, self.comm, several(ends[1], num_vecs), f"result of {name}")
        except ArgumentTypeError as error:
            raise ArgumentTypeError(f"{error}{remedy(source) or remedy(target)}") from None
        source.check_initialized(f"operand of {name}")
        if source is target or overlap(source.array, target.array):
            raise ArgumentError(f"{name}: expected two vectors, found operand and result in the same memory")


class Term(NamedTuple):
    """A summand: an operator and its factor."""

    factor: float
    operator: LinearOperator

    def accuracy(self) -> Accuracy | None:
        """Return the bounds of the multiple."""
        found = self.operator.accuracy()
        return found and found.scaled(self.factor, 0.0 if abs(self.factor) == 1.0 else 2.0**-53)

    def __str__(self) -> str:
        """Return the summand as it is written."""
        return repr(self.operator) if self.factor == 1.0 else f"{self.factor:g} * {self.operator!r}"


class CompositeOperator(CheckedOperator):
    """An operator that consists of others; the base class of multiples, sums and products."""

    _parts: tuple[LinearOperator, ...]

    @property
    def unit_roundoff(self) -> float:
        """The largest unit roundoff of the parts."""
        return max(part.unit_roundoff for part in self._parts)

    @property
    def num_products(self) -> int:
        """Number of products of which one product consists."""
        return sum(part.num_products for part in self._parts)


class SumOperator(CompositeOperator):
    """The sum of operators with the same layouts, each with a factor; a multiple is a sum of one term.

    Parameters
    ----------
    *operators : LinearOperator
        The summands. The terms of sums among them become terms of this sum.
    factor : float
        A finite real number, by which all summands are multiplied.
    divide : bool
        Whether `factor` divides them instead.
    """

    def __init__(self, *operators: LinearOperator, factor: float = 1.0, divide: bool = False) -> None:
        first = operators[0]
        with first.comm.agreement("combining operators", {"factor": factor, **sizes(operators)}):
            for operator in operators:
                check_part(operator, first.comm, "+")
                check_layout(operator.domain, first.domain, "domain of a summand")
                check_layout(operator.range, first.range, "range of a summand")
            value = finite_factor(factor, divide=divide)
            terms = [term for operator in operators for term in _terms(operator)]
            self._set([Term(finite(value * old, "product of the factors"), part) for old, part in terms])

    def _set(self, terms: Sequence[Term], temporaries: Temporaries | None = None) -> None:
        self.comm = terms[0].operator.comm
        self.terms = tuple(terms)
        self._parts = tuple(term.operator for term in terms)
        self._temporaries = temporaries or Temporaries(self.comm)

    @property
    def domain(self) -> VectorLayout:
        """Layout of one operand."""
        return self._parts[0].domain

    @property
    def range(self) -> VectorLayout:
        """Layout of one result."""
        return self._parts[0].range

    def accuracy(self) -> Accuracy | None:
        """Return the bounds of the sum; None if those of a term are unknown. Collective."""
        found = known(term.accuracy() for term in self.terms)
        return Accuracy.of_sum(found) if found else None

    @property
    def T(self) -> SumOperator:
        """The sum of the adjoints."""
        return self._adjoint

    @functools.cached_property
    def _adjoint(self) -> SumOperator:
        adjoint = SumOperator.__new__(SumOperator)
        adjoint._set([Term(factor, operator.T) for factor, operator in self.terms], self._temporaries)
        return adjoint

    def compute(self, x: Vector, y: Vector) -> None:
        """Add the products of the terms."""
        for i, (factor, operator) in enumerate(self.terms):
            if i > 0:
                product = self._temporaries.get(0, self.range, x.num_vecs)
                operator.apply(x, product)
                y.axpy(factor, product)
                continue
            operator.apply(x, y)
            if factor != 1.0:
                y.scale(factor)

    def compute_adjoint(self, y: Vector, x: Vector) -> None:
        """Add the products of the adjoint terms."""
        self._adjoint.compute(y, x)

    def __repr__(self) -> str:
        """Return the terms, joined by plus signs."""
        return f"({' + '.join(map(str, self.terms))})"


class ProductOperator(CompositeOperator):
    """The composition of operators, applied from right to left.

    Parameters
    ----------
    *operators : LinearOperator
        The factors, at least two. Products among them become factors of this one.
    """

    def __init__(self, *operators: LinearOperator) -> None:
        first = operators[0]
        with first.comm.agreement("composing operators", sizes(operators)):
            for left, right in itertools.pairwise(operators):
                check_part(right, first.comm, "@")
                check_layout(right.range, left.domain, "range of the right factor of @")
            self._set([factor for operator in operators for factor in _factors(operator)])

    def _set(self, factors: Sequence[LinearOperator], temporaries: Temporaries | None = None) -> None:
        self.comm = factors[0].comm
        self.factors = self._parts = tuple(factors)
        self._temporaries = temporaries or Temporaries(self.comm)

    @property
    def domain(self) -> VectorLayout:
        """Layout of one operand: the domain of the last factor."""
        return self.factors[-1].domain

    @property
    def range(self) -> VectorLayout:
        """Layout of one result: the range of the first factor."""
        return self.factors[0].range

    def accuracy(self) -> Accuracy | None:
        """Return the bounds of the product; None if those of a factor are unknown. Collective."""
        found = known(factor.accuracy() for factor in self.factors)
        return functools.reduce(Accuracy.after, found) if found else None

    @property
    def T(self) -> ProductOperator:
        """The product of the adjoints in the reverse order."""
        return self._adjoint

    @functools.cached_property
    def _adjoint(self) -> ProductOperator:
        adjoint = ProductOperator.__new__(ProductOperator)
        adjoint._set([factor.T for factor in reversed(self.factors)], self._temporaries)
        return adjoint

    def compute(self, x: Vector, y: Vector) -> None:
        """Apply the factors one after another, from right to left."""
        source = x
        for i in reversed(range(1, len(self.factors))):
            # Neighbours have different indices, so that they are two vectors even if their layouts are the same.
            result = self._temporaries.get(i % 2, self.factors[i].range, x.num_vecs)
            self.factors[i].apply(source, result)
            source = result
        self.factors[0].apply(source, y)

    def compute_adjoint(self, y: Vector, x: Vector) -> None:
        """Apply the adjoint factors one after another, from left to right."""
        self._adjoint.compute(y, x)

    def __repr__(self) -> str:
        """Return the factors, joined by ``@``."""
        return f"({' @ '.join(map(repr, self.factors))})"


def known(accuracies: Iterable[Accuracy | None]) -> list[Accuracy] | None:
    """Return the bounds of all parts, or None if those of one part are unknown."""
    found = list(accuracies)  # of every part, since finding one may be collective
    return None if None in found else [accuracy for accuracy in found if accuracy is not None]


def _terms(operator: LinearOperator) -> tuple[Term, ...]:
    return operator.terms if isinstance(operator, SumOperator) else (Term(1.0, operator),)


def _factors(operator: LinearOperator) -> tuple[LinearOperator, ...]:
    return operator.factors if isinstance(operator, ProductOperator) else (operator,)
