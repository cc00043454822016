"""Vectors as data: which rank owns which blocks, and how they get their values."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from ..arguments import integer, positive_int
from ..backends import Buffer
from ..comm import Comm
from ..errors import (
    ArgumentError,
    ArgumentTypeError,
    ClosedError,
    ShapeError,
    SpaceError,
    UninitializedError,
    VectorIndexError,
)
from ..kernels.elementwise import fill_launcher
from ..layout import Space, VectorLayout, global_blocks

DOUBLE = np.dtype(np.float64)


class Memory(NamedTuple):
    """One memory of a rank's values, wrapped once in each form that is used.

    Parameters
    ----------
    rows : Buffer
        As products take it: (num_vecs num_blocks, block_size).
    shaped : Buffer
        As `VectorData.array` shows it: (num_blocks, block_size), of several vectors with a leading axis.
    flat : Buffer
        As arithmetic takes it.
    """

    rows: Buffer
    shaped: Buffer
    flat: Buffer


class VectorData:
    """The sizes, the memory and the values of a `Vector`: the base that its other parts share."""

    comm: Comm
    layout: VectorLayout

    @classmethod
    def from_layout(cls, comm: Comm, layout: VectorLayout, rows: Any = None) -> Self:
        """Return an uninitialised vector of a layout. Local.

        Parameters
        ----------
        comm : Comm
            The process grid.
        layout : VectorLayout
            The vector's sizes and this rank's share of its blocks on that grid.
        rows : array, optional
            The memory, as (num_vecs num_blocks, block_size) on this rank; by default new memory is allocated.

        Raises
        ------
        ShapeError
            The layout's blocks are not this rank's share on the grid of `comm`.
        """
        share = comm.axis(layout.space).share(layout.num_blocks)
        if layout.blocks != share:
            raise ShapeError(f"layout: expected this rank's share of the blocks, {share}, found {layout.blocks}")
        vector = cls.__new__(cls)
        vector._allocate(comm, layout, rows)
        return vector

    def _allocate(self, comm: Comm, layout: VectorLayout, rows: Any = None) -> None:
        """Set the layout, and on the grid the memory."""
        self.comm = comm
        self.layout = layout
        self._initialized = False
        self._closed = False
        self._memory: Memory | None = None
        if comm.axis(layout.space).owns:
            backend = comm.backend
            buffer = backend.empty((layout.rows, layout.block_size), DOUBLE) if rows is None else backend.wrap(rows)
            shaped = buffer if layout.num_vecs == 1 else backend.wrap(buffer.array.reshape(layout.local_shape))
            self._memory = Memory(buffer, shaped, backend.wrap(buffer.array.reshape(-1)))

    # Sizes and state

    @property
    def num_blocks(self) -> int:
        """Number of blocks of this rank's share."""
        return len(self.layout.blocks)

    @property
    def glob_num_blocks(self) -> int:
        """Global number of blocks."""
        return self.layout.num_blocks

    @property
    def block_size(self) -> int:
        """Number of time steps of a block."""
        return self.layout.block_size

    @property
    def row_or_col(self) -> str:
        """The space: ``"row"`` or ``"col"``."""
        return self.layout.space.value

    @property
    def num_vecs(self) -> int:
        """Number of vectors, 1 unless several right-hand sides are kept in one."""
        return self.layout.num_vecs

    @property
    def shape(self) -> tuple[int, ...]:
        """Global (blocks, block_size); with several vectors (num_vecs, blocks, block_size)."""
        return self.layout.shape

    def is_initialized(self) -> bool:
        """Return whether the vector has values."""
        return self._initialized

    @property
    def blocks(self) -> range:
        """Global indices of this rank's share of blocks, also where it holds no data."""
        return self.layout.blocks

    @property
    def array(self) -> Any:
        """The rank's (blocks, block_size) array, NumPy's or CuPy's: the vector's own memory; None off the grid.

        With several vectors it is (num_vecs, blocks, block_size), C-contiguous.
        """
        return None if self._memory is None else self._memory.shaped.array

    @property
    def buffer(self) -> Buffer | None:
        """The rank's memory as products and kernels take it, (num_vecs num_blocks, block_size); None off the grid."""
        return None if self._memory is None else self._memory.rows

    def on_grid(self) -> bool:
        """Return whether this rank owns data of the vector."""
        return self._memory is not None

    def get_num_blocks(self) -> int:
        """Return this rank's share of the blocks."""
        return self.num_blocks

    def get_glob_num_blocks(self) -> int:
        """Return the global number of blocks."""
        return self.glob_num_blocks

    def get_block_size(self) -> int:
        """Return the number of time steps of a block."""
        return self.block_size

    def get_num_vecs(self) -> int:
        """Return the number of vectors."""
        return self.num_vecs

    def get_vector(self, index: int) -> Self:
        """Return one of the vectors as a `Vector` that shares its memory: a value written to one is seen in the other.

        Local. The memory lives as long as either. Whether there are values is copied now, and is each one's own later.

        Parameters
        ----------
        index : int
            0 .. num_vecs - 1.

        Raises
        ------
        VectorIndexError
            There is no such vector.
        ArgumentTypeError
            `index` is no integer.
        """
        self.check_open()
        index = integer(index, "get_vector: index")
        if not 0 <= index < self.num_vecs:
            raise VectorIndexError(f"get_vector: expected an index of 0 .. {self.num_vecs - 1}, found {index}")
        local = self.num_blocks
        rows = None if self._memory is None else self._memory.rows.array[index * local : (index + 1) * local]
        vector = self.from_layout(self.comm, replace(self.layout, num_vecs=1), rows)
        vector._initialized = self._initialized
        return vector

    # Checks

    def check_open(self) -> None:
        """Raise a ClosedError if `close` was called, here or on the Comm."""
        if self._closed:
            raise ClosedError("vector: expected an open one, found one that was closed")
        self.comm.check_open()

    def check_initialized(self, what: str) -> None:
        """Raise an UninitializedError that names `what` unless the vector has values, a ClosedError if it is closed."""
        self.check_open()
        if not self._initialized:
            raise UninitializedError(f"{what}: expected an initialised vector, found one without values")

    def check_like(self, other: object, what: str) -> None:
        """Raise unless `other` is a vector of this one's Comm and layout, and this one has values."""
        if not isinstance(other, VectorData):
            raise ArgumentTypeError(f"{what}: expected a Vector, found {type(other).__name__}")
        self.check_initialized(what)
        check_operand(other, self.comm, self.layout, what)

    def close(self) -> None:
        """Give the memory back; arrays and tensors that share it keep it alive. Local; safe to call twice."""
        self._closed = True
        self._initialized = False
        self._memory = None

    def __enter__(self) -> Self:
        """Return the vector itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    # Values

    def init_vec(self) -> None:
        """Mark the vector as initialised: its memory has been written through `array`."""
        self._initialized = True

    def init_vec_zeros(self) -> None:
        """Set every value to 0."""
        self._fill("constant", 0.0)

    def init_vec_ones(self) -> None:
        """Set every value to 1."""
        self._fill("constant", 1.0)

    def init_vec_consecutive(self) -> None:
        """Set every value to its global index, 0, 1, 2, ..., which counts on from one vector to the next."""
        self._fill("consecutive")

    def init_vec_doubles(self) -> None:
        """Set every value to `generate_double` of its global index: in [1, 2), representable by no float32."""
        self._fill("doubles")

    def _fill(self, formula: str, value: float = 0.0) -> None:
        self.check_open()
        layout = self.layout
        launch = fill_launcher(self.comm.backend.target, formula)
        for vector, run in enumerate(self._runs(layout.num_vecs)):
            launch(run, (vector * layout.num_blocks + layout.blocks.start) * layout.block_size, value)
        self._initialized = True

    def _runs(self, count: int) -> list[Any]:
        """Return the kernels' views of this rank's values in equal runs: 1 for all, `num_vecs` for one a vector."""
        if self._memory is None:
            return []
        flat = self._memory.flat
        size = flat.array.size // count
        return [flat.view[i * size : (i + 1) * size] for i in range(count)]

    def _assign(self, values: npt.NDArray[np.float64]) -> None:
        """Copy this rank's values from a host array of `array`'s shape, and initialise the vector by that. Local."""
        if self._memory is not None:
            self.comm.backend.upload(self._memory.shaped.array, values)
        self._initialized = True

    def scatter(self, array: npt.ArrayLike) -> None:
        """Set the values from a global array. Collective.

        Parameters
        ----------
        array : array_like
            The real values of shape `shape`, given on every rank; each rank copies its share. A flat array in the same
            order is taken too.

        Raises
        ------
        ShapeError
            The sizes differ.
        ArgumentTypeError
            The values are not real numbers.
        """
        self.check_open()
        with self.comm.agreement("scattering a vector"):
            values = np.asarray(array)
            if values.dtype.kind not in "buif":
                raise ArgumentTypeError(f"scattered array: expected real numbers, found dtype {values.dtype}")
            if values.shape not in (self.shape, (math.prod(self.shape),)):
                raise ShapeError(f"scattered array: expected shape {self.shape}, found {values.shape}")
        mine = values.reshape(self.shape)[..., self.blocks.start : self.blocks.stop, :]
        self._assign(np.ascontiguousarray(mine, DOUBLE))

    def to_numpy(self) -> npt.NDArray[np.float64] | None:
        """Return a host copy of this rank's values, of `array`'s shape; None off the grid.

        Raises
        ------
        UninitializedError
            The vector has no values.
        """
        self.check_initialized("to_numpy")
        return None if self._memory is None else self.comm.backend.download(self.array)

    def gather(self) -> npt.NDArray[np.float64]:
        """Return the global values, of shape `shape`, on every rank, as a NumPy array. Collective.

        Raises
        ------
        UninitializedError
            The vector has no values.
        """
        self.check_open()
        mine = self.to_numpy()
        vectors = np.empty((self.num_vecs, 0)) if mine is None else mine.reshape(self.num_vecs, -1)
        return self.comm.concatenate(vectors).reshape(self.shape)

    def __len__(self) -> int:
        """Return the global number of values."""
        return self.layout.size

    def __repr__(self) -> str:
        """Return kind, global shape, grid and ownership."""
        state = "" if self._initialized else ", uninitialised"
        owned = f"blocks {self.blocks.start}..{self.blocks.stop - 1}" if self.on_grid() else "off the grid"
        grid = f"grid {self.comm.proc_rows}x{self.comm.proc_cols}"
        return f"{type(self).__name__}({self.row_or_col!r}, {self.layout}, {grid}, {owned}{state})"


def checked_layout(
    comm: Comm,
    blocks: object,
    block_size: object,
    row_or_col: object,
    global_sizes: bool,
    SOTI_ordering: bool,
    num_vecs: object,
) -> VectorLayout:
    """Return the layout that the arguments of `Vector` describe. Collective, so that a bad one fails on every rank."""
    comm.check_open()
    with comm.agreement("creating a vector"):
        space = Space.of(row_or_col)
        if not SOTI_ordering:
            raise ArgumentError("SOTI_ordering: expected True, the order of every vector, found False")
        axis = comm.axis(space)
        total = global_blocks(blocks, axis.parts, global_sizes=global_sizes, what="blocks")
        count = positive_int(integer(num_vecs, "num_vecs"), "num_vecs")
        layout = axis.layout(total, positive_int(block_size, "block_size"), count)
    return layout


def check_operand(vector: object, comm: Comm, layout: VectorLayout, what: str) -> None:
    """Raise unless `vector` is a Vector of the given Comm and layout.

    Raises
    ------
    ArgumentTypeError
        Not a Vector.
    SpaceError
        The other space.
    ShapeError
        Other sizes.
    ArgumentError
        Another Comm.
    """
    if not isinstance(vector, VectorData):
        raise ArgumentTypeError(f"{what}: expected a Vector, found {type(vector).__name__}")
    vector.check_open()
    found = vector.layout
    if vector.comm is comm and (found is layout or found == layout):
        return
    if found.space != layout.space:
        raise SpaceError(f"{what}: expected a {layout.space!r} vector, found a {found.space!r} vector")
    if found.shape != layout.shape:
        raise ShapeError(f"{what}: expected {layout}, found {found}")
    raise ArgumentError(f"{what}: expected a vector on {comm!r}, found one on another Comm, {vector.comm!r}")
