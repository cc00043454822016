"""The products of a matrix with vectors."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..arguments import integer, positive_int
from ..backends import Buffer
from ..backends.workspace import Workspace
from ..comm.exclusive import exclusive
from ..errors import ArgumentError, ArgumentTypeError, UninitializedError
from ..layout import MatrixLayout, Space, VectorLayout
from ..operators.checks import remedy
from ..plan import Timer
from ..plan.pipeline import Pipeline, pipelines
from ..products import BY_FLAGS, PRODUCTS, Product, product_named
from ..vector import Vector
from ..vector.data import check_operand
from .description import MatrixDescription

# Largest number of right-hand sides of one pass, which reads the spectrum once; buffers hold this many. A larger number
# gains little, since arithmetic then costs as much as reading.
MAX_VECS = 16

# The default of a result: SciPy calls ``matvec(array)`` for a product, and the check of the operands names the remedy.
_MISSING: Any = None


class Ends(NamedTuple):
    """The layouts of a product's operand and result, and their names in messages."""

    operand: VectorLayout
    result: VectorLayout
    operand_name: str
    result_name: str

    @classmethod
    def of(cls, product: Product, layout: MatrixLayout, num_vecs: int) -> Ends:
        """Return the ends of a product with `num_vecs` right-hand sides."""
        operand, result = (layout.vector(space, num_vecs) for space in (product.input_space, product.output_space))
        return cls(operand, result, f"operand of {product.name}", f"result of {product.name}")


class MatrixProducts(MatrixDescription):
    """The products of a `Matrix`, which sets the attributes."""

    _workspace: Workspace
    _known_ends: dict[tuple[str, int], Ends]
    _plans: dict[int, dict[str, Pipeline]]  # by number of right-hand sides, then by product name

    def matvec(
        self,
        x: Vector,
        y: Vector = _MISSING,
        use_aux_mat: bool = False,
        full: bool = False,
        *,
        timer: Timer | None = None,
    ) -> None:
        """Compute ``y = F x``; with `use_aux_mat` ``y = G x``; with `full` ``y = F* F x``, with both ``y = G* F x``.

        The work is queued on the Comm's stream; reading `y` waits for it.

        Parameters
        ----------
        x : Vector
            Initialised ``"col"`` vector of shape (Nm, Nt).
        y : Vector
            ``"row"`` vector of shape (Nd, Nt), or with `full` ``"col"`` vector of shape (Nm, Nt). The product
            overwrites and initialises it. It cannot be left out.
        use_aux_mat, full : bool
            The flags that choose the product.
        timer : Timer, optional
            A timer that measures the phases.

        Raises
        ------
        SpaceError, ShapeError, ArgumentTypeError, ArgumentError
            A vector does not fit the product, or `x` and `y` are the same vector.
        UninitializedError
            The matrix, the auxiliary matrix or `x` has no values.
        """
        self._apply(BY_FLAGS[False, bool(full), bool(use_aux_mat)], x, y, timer)

    def transpose_matvec(
        self,
        x: Vector,
        y: Vector = _MISSING,
        use_aux_mat: bool = False,
        full: bool = False,
        *,
        timer: Timer | None = None,
    ) -> None:
        """Compute ``y = F* x``; with `use_aux_mat` ``y = G* x``; with `full` ``y = F F* x``, with both ``y = F G* x``.

        Parameters and errors are those of `matvec`, with the spaces exchanged.
        """
        self._apply(BY_FLAGS[True, bool(full), bool(use_aux_mat)], x, y, timer)

    def matmat(
        self, X: Vector, Y: Vector, use_aux_mat: bool = False, full: bool = False, *, timer: Timer | None = None
    ) -> None:
        """Compute ``Y = F X`` for all right-hand sides of `X`; the flags choose other products, as for `matvec`.

        One pass takes up to 16 right-hand sides and reads the spectrum once, so it is several times faster than 16
        products. The first pass of each width allocates its buffers. A timer measures each pass as one product.

        Parameters
        ----------
        X : Vector
            The operand, as for `matvec`, with any ``num_vecs``.
        Y : Vector
            The result, as for `matvec`, with the ``num_vecs`` of `X`.
        use_aux_mat, full : bool
            The flags that choose the product.
        timer : Timer, optional
            A timer that measures the phases.

        Raises
        ------
        SpaceError, ShapeError, ArgumentTypeError, ArgumentError, UninitializedError
            As for `matvec`.
        """
        self.apply_product(BY_FLAGS[False, bool(full), bool(use_aux_mat)], X, Y, timer=timer)

    def transpose_matmat(
        self, X: Vector, Y: Vector, use_aux_mat: bool = False, full: bool = False, *, timer: Timer | None = None
    ) -> None:
        """Compute ``Y = F* X`` for all right-hand sides of `X`; the flags choose products as for `transpose_matvec`.

        Parameters and errors are those of `matmat`, with the spaces exchanged.
        """
        self.apply_product(BY_FLAGS[True, bool(full), bool(use_aux_mat)], X, Y, timer=timer)

    def apply(self, x: Vector, y: Vector) -> None:
        """Compute ``y = F x`` for all right-hand sides of `x`, as `matmat` does."""
        self.apply_product(PRODUCTS["F"], x, y)

    def apply_adjoint(self, y: Vector, x: Vector) -> None:
        """Compute ``x = F* y`` for all right-hand sides of `y`, as `transpose_matmat` does."""
        self.apply_product(PRODUCTS["F*"], y, x)

    @exclusive
    def apply_product(self, product: Product | str, X: Vector, Y: Vector, *, timer: Timer | None = None) -> None:
        """Compute a product for all right-hand sides of `X`, as `matmat` and `transpose_matmat` do.

        Parameters
        ----------
        product : Product or str
            One of the eight products or its name, such as ``"G*F"``.
        X, Y : Vector
            The operand, in the product's input space, and the result, in its output space.
        timer : Timer, optional
            A timer that measures the phases.

        Raises
        ------
        ArgumentError
            `product` is not one of the eight.
        SpaceError, ShapeError, ArgumentTypeError, ArgumentError, UninitializedError
            As for `matvec`.
        """
        product = product_named(product.name if isinstance(product, Product) else product)
        self._check(product, X, Y, getattr(X, "num_vecs", 1))
        for first in range(0, X.num_vecs, MAX_VECS):
            count = min(MAX_VECS, X.num_vecs - first)
            pipeline = self._pipelines(count)[product.name]
            Y.drop_values()
            pipeline.run(_part(X, first, count), _part(Y, first, count), timer)
        Y.init_vec()

    @exclusive
    def _apply(self, product: Product, x: Vector, y: Vector, timer: Timer | None) -> None:
        self._check(product, x, y, 1)
        pipeline = self._pipelines(1)[product.name]
        y.drop_values()
        pipeline.run(x.buffer, y.buffer, timer)
        y.init_vec()

    def _pipelines(self, count: int) -> dict[str, Pipeline]:
        """Return the pipelines for `count` right-hand sides. Collective if they are not built yet."""
        if count not in self._plans:
            with self.comm.agreement(f"planning products of {count} vectors"):
                self._plans[count] = self._plan(count)
        return self._plans[count]

    def _check(self, product: Product, x: Vector, y: Vector, num_vecs: int) -> None:
        """Check the operands on this rank; on all ranks together if the Comm's `checks_products` is true."""
        if not self.comm.checks_products:
            self._check_operands(product, x, y, num_vecs)
            return
        arguments = {"num_vecs": num_vecs, "sizes": self._layout.sizes, "p_config": self._config.code}
        with self.comm.agreement(f"product {product.name}", arguments):
            self._check_operands(product, x, y, num_vecs)

    def _check_operands(self, product: Product, x: Vector, y: Vector, num_vecs: int) -> None:
        self.check_open()
        self._check_values(product)
        ends = self._ends(product, num_vecs)
        try:
            check_operand(x, self.comm, ends.operand, ends.operand_name)
            check_operand(y, self.comm, ends.result, ends.result_name)
        except ArgumentTypeError as error:
            raise ArgumentTypeError(f"{error}{remedy(x) or remedy(y)}") from None
        if not x.is_initialized():
            x.check_initialized(ends.operand_name)
        if x is y:
            raise ArgumentError(f"{product.name} x: expected two vectors, found one as operand and result")

    def _check_values(self, product: Product) -> None:
        if self._spectra.missing(product):
            missing = "auxiliary matrix" if "F" in self._spectra else "matrix"
            raise UninitializedError(f"{product.name} x: expected an initialised {missing}, found one without values")

    @exclusive
    def plan(self, name: str, *, num_vecs: int = 1) -> Pipeline:
        """Return the plan of a product; ``print`` shows its stages and their buffers.

        Parameters
        ----------
        name : str
            The product: F, F*, F*F, FF*, G, G*, G*F or FG*.
        num_vecs : int
            Right-hand sides, at most 16: products of more vectors run several times.

        Raises
        ------
        ArgumentError
            `name` is not the name of a product, or `num_vecs` is above 16.
        ShapeError, ArgumentTypeError
            `num_vecs` is not a positive integer.
        UninitializedError
            A matrix of the product has no values.
        """
        self.check_open()
        self._check_values(product_named(name))
        count = positive_int(integer(num_vecs, "num_vecs"), "num_vecs")
        if count > MAX_VECS:
            raise ArgumentError(f"num_vecs: expected at most {MAX_VECS} right-hand sides of a plan, found {count}")
        return self._pipelines(count)[name]

    def _ends(self, product: Product, num_vecs: int) -> Ends:
        """Return the ends of a product. They are cached, because every product checks its vectors against them."""
        key = product.name, num_vecs
        if key not in self._known_ends:
            self._known_ends[key] = Ends.of(product, self._layout, num_vecs)
        return self._known_ends[key]

    def _plan(self, num_vecs: int) -> dict[str, Pipeline]:
        return pipelines(self.comm, self._layout, self._config, self._workspace, self._spectra, num_vecs)

    @exclusive
    def get_vec(self, which: str, *, num_vecs: int = 1) -> Vector:
        """Return a new uninitialised vector: for ``"input"`` in parameter space, for ``"output"`` in data space.

        Parameters
        ----------
        which : str
            ``"input"`` or ``"output"``.
        num_vecs : int
            Number of right-hand sides.

        Raises
        ------
        ArgumentError
            `which` has another value.
        ShapeError, ArgumentTypeError
            `num_vecs` is not a positive integer.
        """
        spaces = {"input": Space.COL, "output": Space.ROW}
        with self.comm.agreement("creating a vector", {"which": which, "num_vecs": num_vecs}):
            self.comm.check_open()
            if which not in spaces:
                raise ArgumentError(f"get_vec: expected 'input' or 'output', found {which!r}")
            count = positive_int(integer(num_vecs, "num_vecs"), "num_vecs")
            vector = Vector.from_layout(self.comm, self._layout.vector(spaces[which], count))
        return vector


def _part(vector: Vector, first: int, count: int) -> Buffer | None:
    """Return the blocks of `count` right-hand sides from `first` on, or None if this rank owns no blocks."""
    values = vector.buffer
    if values is None or count == vector.num_vecs:
        return values
    blocks = vector.num_blocks
    return vector.comm.backend.wrap(values.array[first * blocks : (first + count) * blocks])
