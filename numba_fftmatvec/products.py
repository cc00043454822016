"""The eight products of a matrix F and its auxiliary matrix G, each defined by its factors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .errors import ArgumentError
from .layout import Space


@dataclass(frozen=True)
class Factor:
    """One matrix of a product, or its adjoint.

    Parameters
    ----------
    matrix : {"F", "G"}
        The primary or the auxiliary matrix.
    is_adjoint : bool
        Whether the adjoint is applied.
    """

    matrix: str
    is_adjoint: bool

    @property
    def name(self) -> str:
        """Name of the factor, such as ``"F*"``."""
        return f"{self.matrix}{'*' if self.is_adjoint else ''}"

    @property
    def input_space(self) -> Space:
        """Space of the operand."""
        return Space.ROW if self.is_adjoint else Space.COL

    @property
    def output_space(self) -> Space:
        """Space of the result."""
        return Space.COL if self.is_adjoint else Space.ROW

    @property
    def adjoint(self) -> Factor:
        """The adjoint factor."""
        return Factor(self.matrix, not self.is_adjoint)


@dataclass(frozen=True)
class Product:
    """One product, as a sequence of factors.

    Parameters
    ----------
    factors : tuple of Factor
        The factors in the order of application: for ``"G*F"``, F and then G*.
    """

    factors: tuple[Factor, ...]

    @classmethod
    def of(cls, *names: str) -> Product:
        """Return the product of factors, by their names in the order of application."""
        return cls(tuple(Factor(name[0], name.endswith("*")) for name in names))

    @cached_property
    def name(self) -> str:
        """Name of the product in the usual notation, in which the factor that is applied last stands first."""
        return "".join(factor.name for factor in reversed(self.factors))

    @cached_property
    def input_space(self) -> Space:
        """Space of the operand."""
        return self.factors[0].input_space

    @cached_property
    def output_space(self) -> Space:
        """Space of the result."""
        return self.factors[-1].output_space

    @cached_property
    def matrices(self) -> frozenset[str]:
        """Names of the matrices that the product needs."""
        return frozenset(factor.matrix for factor in self.factors)

    @cached_property
    def adjoint(self) -> Product:
        """The adjoint product."""
        return Product(tuple(factor.adjoint for factor in reversed(self.factors)))


PRODUCTS = {
    product.name: product
    for product in (
        Product.of("F"),
        Product.of("F*"),
        Product.of("F", "F*"),
        Product.of("F*", "F"),
        Product.of("G"),
        Product.of("G*"),
        Product.of("F", "G*"),
        Product.of("G*", "F"),
    )
}


def product_named(name: object) -> Product:
    """Return the product of a name.

    Raises
    ------
    ArgumentError
        `name` is not the name of a product.
    """
    if not isinstance(name, str) or name not in PRODUCTS:
        raise ArgumentError(f"product: expected one of {', '.join(PRODUCTS)}, found {name!r}")
    return PRODUCTS[name]


@dataclass(frozen=True)
class MatvecConfig:
    """The flags that choose one of a matrix's eight products.

    Parameters
    ----------
    transpose : bool
        Whether to apply F* instead of F; with `full`, FF* instead of F*F.
    full : bool
        Whether to apply the adjoint after the product.
    use_aux_mat : bool
        Whether to apply the auxiliary matrix G instead of F. With `full` the product is G*F, or FG* with `transpose`.
    """

    transpose: bool = False
    full: bool = False
    use_aux_mat: bool = False

    @property
    def product(self) -> Product:
        """The product that the flags choose."""
        return BY_FLAGS[self.transpose, self.full, self.use_aux_mat]

    @property
    def input_space(self) -> str:
        """Space of the operand: ``"col"`` or ``"row"``."""
        return self.product.input_space.value

    @property
    def output_space(self) -> str:
        """Space of the result."""
        return self.product.output_space.value

    @property
    def name(self) -> str:
        """Name of the product: F, F*, F*F, FF*, G, G*, G*F or FG*."""
        return self.product.name


# The products by their flags (transpose, full, use_aux_mat).
BY_FLAGS = {
    (product.factors[0].is_adjoint, len(product.factors) > 1, "G" in product.matrices): product
    for product in PRODUCTS.values()
}
