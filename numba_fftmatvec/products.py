"""The products of a matrix with vectors."""

from __future__ import annotations

from typing import NamedTuple

from .arithmetic import check_operand
from .backends import Buffer
from .comm import Comm
from .errors import ArgumentError, ClosedError, UninitializedError
from .pipeline import LegBuilder, Pipeline, build_pipelines
from .precision import MatvecConfig
from .sizes import MatrixSizes
from .spectrum import Spectrum
from .timing import Timer
from .vector import Vector
from .workspace import Workspace

# Right-hand sides that go through a product together: the spectrum is read once for all of them, and buffers hold as
# many. More gain little, since by then arithmetic costs as much as reading.
MAX_VECS = 16


class Product(NamedTuple):
    """A product's config with what is said and asked of it, put together once since products are hot."""

    config: MatvecConfig
    name: str
    input_space: str
    output_space: str
    operand: str
    result: str

    @classmethod
    def of(cls, config: MatvecConfig) -> Product:
        """Describe a product."""
        name = config.name
        return cls(config, name, config.input_space, config.output_space, f"operand of {name}", f"result of {name}")


PRODUCTS = {
    (transpose, full, aux): Product.of(MatvecConfig(transpose, full, aux))
    for transpose in (False, True)
    for full in (False, True)
    for aux in (False, True)
}


class MatrixProducts(MatrixSizes):
    """The products of a `Matrix`, which sets the attributes."""

    comm: Comm
    _closed: bool
    _spectra: list[Spectrum]
    _workspace: Workspace
    _pipelines: dict[int, dict[str, Pipeline]]  # by the number of right-hand sides, and the product's name

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
        self._apply(PRODUCTS[False, bool(full), bool(use_aux_mat)], x, y, timer)

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
        self._apply(PRODUCTS[True, bool(full), bool(use_aux_mat)], x, y, timer)

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
        self._apply_several(PRODUCTS[False, bool(full), bool(use_aux_mat)], X, Y, timer)

    def transpose_matmat(
        self, X: Vector, Y: Vector, use_aux_mat: bool = False, full: bool = False, *, timer: Timer | None = None
    ) -> None:
        """Compute ``Y = F* X`` for all right-hand sides of `X`: to `transpose_matvec` what `matmat` is to `matvec`."""
        self._apply_several(PRODUCTS[True, bool(full), bool(use_aux_mat)], X, Y, timer)

    def _apply(self, product: Product, x: Vector, y: Vector, timer: Timer | None) -> None:
        self._check(product, x, y, 1)
        self._pipelines[1][product.name].run(x._rows, y._rows, timer)
        y.init_vec()

    def _apply_several(self, product: Product, x: Vector, y: Vector, timer: Timer | None) -> None:
        self._check(product, x, y, getattr(x, "num_vecs", 1))
        for first in range(0, x.num_vecs, MAX_VECS):
            count = min(MAX_VECS, x.num_vecs - first)
            if count not in self._pipelines:
                with self.comm.agreement(f"planning products of {count} vectors"):
                    self._pipelines[count] = self._plan(count)
            self._pipelines[count][product.name].run(_rows(x, first, count), _rows(y, first, count), timer)
        y.init_vec()

    def _check(self, product: Product, x: Vector, y: Vector, num_vecs: int) -> None:
        self.check_open()
        if len(self._spectra) <= product.config.use_aux_mat:
            missing = "auxiliary matrix" if self._spectra else "matrix"
            raise UninitializedError(f"{product.name} x: expected an initialised {missing}, found one without values")
        check_operand(x, self.comm, product.input_space, self._shape(product.input_space, num_vecs), product.operand)
        check_operand(y, self.comm, product.output_space, self._shape(product.output_space, num_vecs), product.result)
        x.check_initialized(product.operand)
        if x is y:
            raise ArgumentError(f"{product.name} x: expected two vectors, found one as operand and result")

    def _plan(self, num_vecs: int) -> dict[str, Pipeline]:
        builder = LegBuilder(self.comm, self._layout, self._config, self._workspace, num_vecs)
        return build_pipelines(builder, self.comm, self._spectra)

    def _shape(self, space: str, num_vecs: int) -> tuple[int, ...]:
        layout = self._layout
        shape = (layout.num_cols if space == "col" else layout.num_rows), layout.block_size
        return shape if num_vecs == 1 else (num_vecs, *shape)

    def check_open(self) -> None:
        """Raise a ClosedError if `close` was called, here or on the Comm."""
        if self._closed:
            raise ClosedError("matrix: expected an open one, found one that was closed")
        self.comm.check_open()

    def __matmul__(self, x: Vector) -> Vector:
        """Return ``F x`` in a new vector, for one right-hand side or several."""
        y = self.get_vec("output", num_vecs=getattr(x, "num_vecs", 1))
        self.matmat(x, y)
        return y

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
        spaces = {"input": "col", "output": "row"}
        if which not in spaces:
            raise ArgumentError(f"get_vec: expected 'input' or 'output', found {which!r}")
        *_, blocks, block_size = self._shape(spaces[which], 1)
        return Vector(self.comm, blocks, block_size, spaces[which], global_sizes=True, num_vecs=num_vecs)


def _rows(vector: Vector, first: int, count: int) -> Buffer | None:
    """Return the blocks of `count` right-hand sides as rows, None where this rank owns none."""
    rows = vector._rows
    if rows is None or count == vector.num_vecs:
        return rows
    blocks = vector.num_blocks
    return vector.comm.backend.wrap(rows.array[first * blocks : (first + count) * blocks])
