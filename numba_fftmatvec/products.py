"""The eight products of a matrix F and its auxiliary matrix G, each written once: as the factors that it applies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

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
        """Such as ``"F*"``."""
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
    """Factors in the order in which they are applied: of ``"G*F"`` F, then G*."""

    factors: tuple[Factor, ...]

    @classmethod
    def of(cls, *names: str) -> Product:
        """Return the product of the factors of these names."""
        return cls(tuple(Factor(name[0], name.endswith("*")) for name in names))

    @cached_property
    def name(self) -> str:
        """The product in the field's notation, where the last factor stands first."""
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
        """The matrices whose values it needs."""
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


@dataclass(frozen=True)
class MatvecConfig:
    """The flags that choose one of a matrix's eight products.

    Parameters
    ----------
    transpose : bool
        F* instead of F; with `full`, F F* instead of F* F.
    full : bool
        The product followed by its adjoint.
    use_aux_mat : bool
        The auxiliary matrix G for F; with `full`, G* F, or F G* where `transpose`.
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
        """The product in the field's notation: F, F*, F*F, FF*, G, G*, G*F, FG*."""
        return self.product.name


# By (transpose, full, use_aux_mat).
BY_FLAGS = {
    (product.factors[0].is_adjoint, len(product.factors) > 1, "G" in product.matrices): product
    for product in PRODUCTS.values()
}
