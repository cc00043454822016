"""The products of a matrix with vectors."""

from __future__ import annotations

from typing import NamedTuple

from ..arguments import integer, positive_int
from ..backends import Buffer
from ..backends.workspace import Workspace
from ..errors import ArgumentError, UninitializedError
from ..layout import MatrixLayout, Space, VectorLayout
from ..plan import Timer
from ..plan.pipeline import Pipeline, Planner
from ..products import BY_FLAGS, PRODUCTS, Product
from ..vector import Vector
from ..vector.data import check_operand
from .description import MatrixDescription

# Right-hand sides that go through a product together: the spectrum is read once for all of them, and buffers hold as
# many. More gain little, since by then arithmetic costs as much as reading.
MAX_VECS = 16


class Ends(NamedTuple):
    """The layouts of a product's operand and result, and their names in messages."""

    operand: VectorLayout
    result: VectorLayout
    operand_name: str
    result_name: str

    @classmethod
    def of(cls, product: Product, layout: MatrixLayout, num_vecs: int) -> Ends:
        """Describe the vectors of a product of so many right-hand sides."""
        operand, result = (layout.vector(space, num_vecs) for space in (product.input_space, product.output_space))
        return cls(operand, result, f"operand of {product.name}", f"result of {product.name}")


class MatrixProducts(MatrixDescription):
    """The products of a `Matrix`, which sets the attributes."""

    _workspace: Workspace
    _known_ends: dict[tuple[str, int], Ends]
    _plans: dict[int, dict[str, Pipeline]]  # by the number of right-hand sides, and the product's name

    def matvec(
        self,
        x: Vector,
        y: Vector,
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
            Initialised ``"col"`` vector of (Nm, Nt).
        y : Vector
            ``"row"`` vector of (Nd, Nt), or with `full` ``"col"`` of (Nm, Nt); overwritten, and initialised by this.
        use_aux_mat, full : bool
            Which product.
        timer : Timer, optional
            Measures the phases.

        Raises
        ------
        SpaceError, ShapeError, ArgumentTypeError, ArgumentError
            An operand does not fit, or both are one vector.
        UninitializedError
            The matrix, the auxiliary matrix or `x` has no values.
        """
        self._apply(BY_FLAGS[False, bool(full), bool(use_aux_mat)], x, y, timer)

    def transpose_matvec(
        self,
        x: Vector,
        y: Vector,
        use_aux_mat: bool = False,
        full: bool = False,
        *,
        timer: Timer | None = None,
    ) -> None:
        """Compute ``y = F* x``; with `use_aux_mat` ``y = G* x``; with `full` ``y = F F* x``, with both ``y = F G* x``.

        As `matvec`, with the spaces exchanged.
        """
        self._apply(BY_FLAGS[True, bool(full), bool(use_aux_mat)], x, y, timer)

    def matmat(
        self, X: Vector, Y: Vector, use_aux_mat: bool = False, full: bool = False, *, timer: Timer | None = None
    ) -> None:
        """Compute ``Y = F X`` for all right-hand sides of `X`; the flags choose other products, as for `matvec`.

        The spectrum is read once for up to 16 of them, which makes a product of 16 several times faster than 16
        products. Memory for them is allocated the first time. A timer has one figure for each pass of up to 16.

        Parameters
        ----------
        X : Vector
            As for `matvec`, but with any ``num_vecs``.
        Y : Vector
            As for `matvec`, with the ``num_vecs`` of `X`.

        Raises
        ------
        SpaceError, ShapeError, ArgumentTypeError, ArgumentError, UninitializedError
            As for `matvec`.
        """
        self.apply_product(BY_FLAGS[False, bool(full), bool(use_aux_mat)], X, Y, timer=timer)

    def transpose_matmat(
        self, X: Vector, Y: Vector, use_aux_mat: bool = False, full: bool = False, *, timer: Timer | None = None
    ) -> None:
        """Compute ``Y = F* X`` for all right-hand sides of `X`: to `transpose_matvec` what `matmat` is to `matvec`."""
        self.apply_product(BY_FLAGS[True, bool(full), bool(use_aux_mat)], X, Y, timer=timer)

    def apply(self, x: Vector, y: Vector) -> None:
        """Compute ``y = F x`` for all right-hand sides of `x`: as an operator, `matmat`."""
        self.apply_product(PRODUCTS["F"], x, y)

    def apply_adjoint(self, y: Vector, x: Vector) -> None:
        """Compute ``x = F* y`` for all right-hand sides of `y`: as an operator, `transpose_matmat`."""
        self.apply_product(PRODUCTS["F*"], y, x)

    def apply_product(self, product: Product, X: Vector, Y: Vector, *, timer: Timer | None = None) -> None:
        """Compute a product for all right-hand sides of `X`, as `matmat` and `transpose_matmat` do.

        Parameters
        ----------
        product : Product
            One of `numba_fftmatvec.products.PRODUCTS`, such as ``PRODUCTS["G*F"]``.
        X, Y : Vector
            The operand, in the product's input space, and the result, in its output space.
        timer : Timer, optional
            Measures the phases.

        Raises
        ------
        SpaceError, ShapeError, ArgumentTypeError, ArgumentError, UninitializedError
            As for `matvec`.
        """
        self._check(product, X, Y, getattr(X, "num_vecs", 1))
        for first in range(0, X.num_vecs, MAX_VECS):
            count = min(MAX_VECS, X.num_vecs - first)
            self._run(product, count, _rows(X, first, count), _rows(Y, first, count), timer)
        Y.init_vec()

    def _apply(self, product: Product, x: Vector, y: Vector, timer: Timer | None) -> None:
        self._check(product, x, y, 1)
        self._run(product, 1, x.buffer, y.buffer, timer)
        y.init_vec()

    def _run(
        self, product: Product, count: int, operand: Buffer | None, result: Buffer | None, timer: Timer | None
    ) -> None:
        self._pipelines(count)[product.name].run(operand, result, timer)

    def _pipelines(self, count: int) -> dict[str, Pipeline]:
        """Return the pipelines for so many right-hand sides; collective where there are none yet."""
        if count not in self._plans:
            with self.comm.agreement(f"planning products of {count} vectors"):
                self._plans[count] = self._plan(count)
        return self._plans[count]

    def _check(self, product: Product, x: Vector, y: Vector, num_vecs: int) -> None:
        self.check_open()
        self._check_values(product)
        ends = self._ends(product, num_vecs)
        check_operand(x, self.comm, ends.operand, ends.operand_name)
        check_operand(y, self.comm, ends.result, ends.result_name)
        x.check_initialized(ends.operand_name)
        if x is y:
            raise ArgumentError(f"{product.name} x: expected two vectors, found one as operand and result")

    def _check_values(self, product: Product) -> None:
        if self._spectra.missing(product):
            missing = "auxiliary matrix" if "F" in self._spectra else "matrix"
            raise UninitializedError(f"{product.name} x: expected an initialised {missing}, found one without values")

    def plan(self, name: str) -> Pipeline:
        """Return the plan of a product with one right-hand side; ``print`` shows its stages and their buffers.

        Parameters
        ----------
        name : str
            F, F*, F*F, FF*, G, G*, G*F or FG*.

        Raises
        ------
        ArgumentError
            There is no such product.
        UninitializedError
            A matrix of the product has no values.
        """
        self.check_open()
        if name not in PRODUCTS:
            raise ArgumentError(f"plan: expected one of {', '.join(PRODUCTS)}, found {name!r}")
        self._check_values(PRODUCTS[name])
        return self._pipelines(1)[name]

    def _ends(self, product: Product, num_vecs: int) -> Ends:
        """Return what a product's vectors must be; put together once, since products are hot."""
        key = product.name, num_vecs
        if key not in self._known_ends:
            self._known_ends[key] = Ends.of(product, self._layout, num_vecs)
        return self._known_ends[key]

    def _plan(self, num_vecs: int) -> dict[str, Pipeline]:
        planner = Planner(self.comm, self._layout, self._config, self._workspace, self._spectra, num_vecs)
        return planner.pipelines()

    def get_vec(self, which: str, *, num_vecs: int = 1) -> Vector:
        """Return a new uninitialised vector: for ``"input"`` in parameter space, for ``"output"`` in data space.

        Parameters
        ----------
        which : str
            ``"input"`` or ``"output"``.
        num_vecs : int
            Right-hand sides of the vector.

        Raises
        ------
        ArgumentError
            `which` is neither.
        ShapeError, ArgumentTypeError
            `num_vecs` is not a positive integer.
        """
        spaces = {"input": Space.COL, "output": Space.ROW}
        if which not in spaces:
            raise ArgumentError(f"get_vec: expected 'input' or 'output', found {which!r}")
        self.comm.check_open()
        with self.comm.agreement("creating a vector"):
            count = positive_int(integer(num_vecs, "num_vecs"), "num_vecs")
        return Vector.from_layout(self.comm, self._layout.vector(spaces[which], count))


def _rows(vector: Vector, first: int, count: int) -> Buffer | None:
    """Return the blocks of `count` right-hand sides as rows, None where this rank owns none."""
    rows = vector.buffer
    if rows is None or count == vector.num_vecs:
        return rows
    blocks = vector.num_blocks
    return vector.comm.backend.wrap(rows.array[first * blocks : (first + count) * blocks])
