"""The class `Vector`, composed of its data, arithmetic, reductions, files and interoperation."""

from __future__ import annotations

from ..comm import Comm
from ..errors import ArgumentTypeError, ShapeError
from .arithmetic import VectorArithmetic
from .data import checked_layout
from .files import VectorFiles
from .interop import VectorInterop
from .reductions import VectorReductions


class Vector(VectorArithmetic, VectorReductions, VectorFiles, VectorInterop):
    """A vector of blocks of time steps, in parameter space (``"col"``) or in data space (``"row"``).

    A ``"col"`` vector is split over the columns of the process grid, and the ranks of the grid's first row own it. A
    ``"row"`` vector is split over the rows, and the ranks of the first column own it. The other ranks are off the
    vector's grid: they have its sizes and take part in collective calls, but hold no data. Values are float64.

    Parameters
    ----------
    comm : Comm or Vector
        The process grid; or a vector to copy. In a copy, `blocks` is a flag: whether the values are copied too, as by
        default. Without them the new vector is uninitialised.
    blocks : int
        Number of blocks: global, or of each owning rank.
    block_size : int
        Time steps of a block.
    row_or_col : {"row", "col"}
        The space.
    global_sizes : bool
        Whether `blocks` is the global number.
    SOTI_ordering : bool
        Must be True: blocks outer, time inner is the order of every vector and file.
    deep_copy : bool, optional
        Whether a copy includes the values; it takes precedence over `blocks`.
    num_vecs : int
        Number of vectors, which are right-hand sides of one product. With more than one, arrays have a leading axis of
        that length, and arithmetic is elementwise on all of them. A copy has as many vectors as its original.

    Raises
    ------
    ShapeError, GridError
        A size is not positive, or there are fewer blocks than ranks to own them.
    ArgumentTypeError
        `num_vecs` is not an integer, or `comm` is neither a Comm nor a Vector.
    SpaceError
        `row_or_col` is neither ``"row"`` nor ``"col"``.
    ArgumentError
        `SOTI_ordering` is False.

    Examples
    --------
    >>> import numba_fftmatvec as pyFFTMatvec
    >>> comm = pyFFTMatvec.Comm()
    >>> x = pyFFTMatvec.Vector(comm, blocks=2, block_size=3, row_or_col="col", global_sizes=True)
    >>> x.init_vec_consecutive()
    >>> x.gather()
    array([[0., 1., 2.],
           [3., 4., 5.]])
    >>> several = pyFFTMatvec.Vector(comm, 2, 3, "col", global_sizes=True, num_vecs=4)
    >>> several.shape, several.get_vector(0).shape
    ((4, 2, 3), (2, 3))
    """

    def __init__(
        self,
        comm: Comm | Vector,
        blocks: int | bool = True,
        block_size: int | None = None,
        row_or_col: str | None = None,
        global_sizes: bool = False,
        SOTI_ordering: bool = True,
        *,
        deep_copy: bool | None = None,
        num_vecs: int = 1,
    ) -> None:
        if isinstance(comm, Vector):
            if num_vecs not in (1, comm.num_vecs):
                raise ShapeError(f"num_vecs: expected {comm.num_vecs}, that of the vector to copy, found {num_vecs!r}")
            self._allocate(comm.comm, comm.layout)
            if (blocks if deep_copy is None else deep_copy) and comm.is_initialized():
                comm.copy_to(self)
            return
        if not isinstance(comm, Comm):
            raise ArgumentTypeError(f"comm: expected a Comm or a Vector, found {type(comm).__name__}")
        arguments = {
            "blocks": blocks,
            "block_size": block_size,
            "row_or_col": row_or_col,
            "global_sizes": bool(global_sizes),
            "num_vecs": num_vecs,
        }
        with comm.agreement("creating a vector", arguments):
            layout = checked_layout(comm, blocks, block_size, row_or_col, global_sizes, SOTI_ordering, num_vecs)
            self._allocate(comm, layout)
