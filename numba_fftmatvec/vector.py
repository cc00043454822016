"""Block vectors distributed over the process grid."""

from __future__ import annotations

from .arithmetic import VectorArithmetic
from .comm import Comm
from .errors import ArgumentTypeError
from .interop import VectorInterop


class Vector(VectorArithmetic, VectorInterop):
    """A vector of blocks of time steps, in parameter space (``"col"``) or in data space (``"row"``).

    A ``"col"`` vector is split over the grid's columns and owned by the ranks of its first row; a ``"row"`` vector is
    split over the grid's rows and owned by the ranks of its first column. The other ranks are off the vector's grid:
    they know its sizes and take part in its collective calls, but hold no data. Values are float64.

    Parameters
    ----------
    comm : Comm or Vector
        The process grid; or a vector to copy, and then `blocks` says whether its values are copied too (they are by
        default; without them the new vector is uninitialised).
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

    Raises
    ------
    ShapeError, GridError
        A size is not positive, or there are fewer blocks than ranks to own them.
    SpaceError
        `row_or_col` is neither.

    Examples
    --------
    >>> import numba_fftmatvec as pyFFTMatvec
    >>> comm = pyFFTMatvec.Comm()
    >>> x = pyFFTMatvec.Vector(comm, blocks=2, block_size=3, row_or_col="col", global_sizes=True)
    >>> x.init_vec_consecutive()
    >>> x.gather()
    array([[0., 1., 2.],
           [3., 4., 5.]])
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
    ) -> None:
        if not isinstance(comm, Vector):
            if not isinstance(comm, Comm):
                raise ArgumentTypeError(f"comm: expected a Comm or a Vector, found {type(comm).__name__}")
            super().__init__(comm, blocks, block_size, row_or_col, global_sizes, SOTI_ordering)  # type: ignore[arg-type]
            return
        self._allocate(comm.comm, comm.glob_num_blocks, comm.block_size, comm.row_or_col)
        if (blocks if deep_copy is None else deep_copy) and comm.is_initialized():
            comm.copy_to(self)
