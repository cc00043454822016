"""Vectors as data: their layout, the memory of each rank, and the methods that set and return values."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn, Self

import numpy as np
import numpy.typing as npt

from ..arguments import integer, positive_int, real_array
from ..backends import Buffer
from ..backends.base import DOUBLE
from ..comm import Comm
from ..comm.exclusive import exclusive
from ..errors import (
    ArgumentError,
    ArgumentTypeError,
    ClosedError,
    ShapeError,
    SpaceError,
    UninitializedError,
    VectorIndexError,
    named_error,
)
from ..kernels.elementwise import fill_launcher
from ..layout import Space, VectorLayout, global_blocks


class Memory(NamedTuple):
    """The memory of a rank's values, wrapped once in each of the shapes that are used.

    Parameters
    ----------
    blocks : Buffer
        Shape (num_vecs num_blocks, block_size), for products.
    shaped : Buffer
        The shape of `VectorData.array`: (num_blocks, block_size), with a leading axis for several vectors.
    flat : Buffer
        One dimension, for arithmetic.
    """

    blocks: Buffer
    shaped: Buffer
    flat: Buffer


class VectorData:
    """The layout, memory and values of a `Vector`; the base class of its other parts."""

    comm: Comm
    layout: VectorLayout

    @classmethod
    def from_layout(cls, comm: Comm, layout: VectorLayout, values: Any = None) -> Self:
        """Return an uninitialised vector of a layout. Local.

        Parameters
        ----------
        comm : Comm
            The process grid.
        layout : VectorLayout
            The vector's sizes and this rank's share of its blocks on that grid.
        values : array, optional
            This rank's memory, a float64 array of shape (num_vecs num_blocks, block_size), which the vector shares. By
            default new memory is allocated.

        Raises
        ------
        ShapeError
            The layout's blocks are not this rank's share on the grid of `comm`.
        """
        share = comm.axis(layout.space).share(layout.num_blocks)
        if layout.blocks != share:
            raise ShapeError(f"layout: expected this rank's share of the blocks, {share}, found {layout.blocks}")
        vector = cls.__new__(cls)
        vector._allocate(comm, layout, values)
        return vector

    def _allocate(self, comm: Comm, layout: VectorLayout, values: Any = None) -> None:
        """Set the layout and, on the grid, the memory."""
        self.comm = comm
        self.layout = layout
        self._initialized = False
        self._closed = False
        self._memory: Memory | None = None
        self._take_memory(values)

    @exclusive
    def _take_memory(self, values: Any) -> None:
        """Allocate this rank's memory, or take `values`, if the rank owns a part."""
        comm, layout = self.comm, self.layout
        if comm.axis(layout.space).owns:
            backend = comm.backend
            shape = layout.rows, layout.block_size
            try:
                buffer = backend.empty(shape, DOUBLE) if values is None else backend.wrap(values)
            except MemoryError as error:
                raise named_error(error, f"vector of {layout}") from error
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
        """Number of vectors; more than 1 if the object holds several right-hand sides."""
        return self.layout.num_vecs

    @property
    def shape(self) -> tuple[int, ...]:
        """Global shape: (blocks, block_size), or (num_vecs, blocks, block_size) with several vectors."""
        return self.layout.shape

    def is_initialized(self) -> bool:
        """Return whether the vector has values."""
        return self._initialized

    @property
    def blocks(self) -> range:
        """Global indices of this rank's share of the blocks, whether or not the rank owns their values."""
        return self.layout.blocks

    @property
    def array(self) -> Any:
        """NumPy or CuPy array of this rank's values, which shares the vector's memory; None off the grid.

        The array is C-contiguous. Its shape is (blocks, block_size), or (num_vecs, blocks, block_size) with several
        vectors.
        """
        return None if self._memory is None else self._memory.shaped.array

    @property
    def buffer(self) -> Buffer | None:
        """Buffer of this rank's memory, of shape (num_vecs num_blocks, block_size); None off the grid."""
        return None if self._memory is None else self._memory.blocks

    def on_grid(self) -> bool:
        """Return whether this rank owns data of the vector."""
        return self._memory is not None

    def get_num_blocks(self) -> int:
        """Return the number of blocks of this rank's share."""
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

    @exclusive
    def get_vector(self, index: int) -> Self:
        """Return one of the vectors as a `Vector` that shares its memory: a value written to one changes the other.

        Local. The memory is freed when neither object uses it. The new object copies the state, initialised or not;
        later changes of the state of one object do not affect the other.

        Parameters
        ----------
        index : int
            0 .. num_vecs - 1.

        Raises
        ------
        VectorIndexError
            `index` is outside this range.
        ArgumentTypeError
            `index` is not an integer.
        """
        self.check_open()
        index = integer(index, "get_vector: index")
        if not 0 <= index < self.num_vecs:
            raise VectorIndexError(f"get_vector: expected an index of 0 .. {self.num_vecs - 1}, found {index}")
        local = self.num_blocks
        values = None if self._memory is None else self._memory.blocks.array[index * local : (index + 1) * local]
        vector = self.from_layout(self.comm, replace(self.layout, num_vecs=1), values)
        vector._initialized = self._initialized
        return vector

    def __reduce__(self) -> NoReturn:
        """Raise an ArgumentTypeError, since a vector belongs to a Comm."""
        raise ArgumentTypeError("pickle: expected its values (gather, to_numpy) or a file (save), found a Vector")

    # Checks

    def check_open(self) -> None:
        """Raise a ClosedError if this vector or its Comm is closed."""
        if self._closed:
            raise ClosedError("vector: expected an open one, found one that was closed")
        self.comm.check_open()

    def check_initialized(self, what: str) -> None:
        """Raise an UninitializedError that names `what` if the vector has no values; a ClosedError if it is closed."""
        self.check_open()
        if not self._initialized:
            raise UninitializedError(f"{what}: expected an initialised vector, found one without values")

    def check_like(self, other: object, what: str) -> None:
        """Raise an error unless `other` is a vector of the same Comm and layout, and this vector has values."""
        if not isinstance(other, VectorData):
            raise ArgumentTypeError(f"{what}: expected a Vector, found {type(other).__name__}")
        self.check_initialized(what)
        check_operand(other, self.comm, self.layout, what)

    def close(self) -> None:
        """Release the memory; arrays and tensors that share it keep it alive. Local; safe to call twice."""
        self._closed = True
        self._initialized = False
        self._memory = None

    def __enter__(self) -> Self:
        """Return the vector itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the vector."""
        self.close()

    # Values

    def init_vec(self) -> None:
        """Mark the vector as initialised, after its memory was written through `array`."""
        self._initialized = True

    def drop_values(self) -> None:
        """Mark the vector as uninitialised. Writers do so first: no interrupted write may pass for values."""
        self._initialized = False

    def init_vec_zeros(self) -> None:
        """Set every value to 0."""
        self._fill("constant", 0.0)

    def init_vec_ones(self) -> None:
        """Set every value to 1."""
        self._fill("constant", 1.0)

    def init_vec_consecutive(self) -> None:
        """Set every value to its global index 0, 1, 2, ...; the count continues from one vector to the next."""
        self._fill("consecutive")

    def init_vec_doubles(self) -> None:
        """Set every value to `generate_double` of its global index: a value in [1, 2) that no float32 represents."""
        self._fill("doubles")

    @exclusive
    def _fill(self, formula: str, value: float = 0.0) -> None:
        self.check_open()
        self.drop_values()
        layout = self.layout
        launch = self.comm.backend.launcher(fill_launcher, formula)
        for vector, run in enumerate(self._runs(layout.num_vecs)):
            launch(run, (vector * layout.num_blocks + layout.blocks.start) * layout.block_size, value)
        self._initialized = True

    @property
    def _flat(self) -> Any:
        """The values of this rank in one dimension, as kernels take them; on the grid only."""
        assert self._memory is not None
        return self._memory.flat.view

    def _runs(self, count: int) -> list[Any]:
        """Return kernel views of this rank's values in `count` equal runs: 1, or `num_vecs` for a run per vector."""
        if self._memory is None:
            return []
        flat = self._memory.flat
        size = flat.array.size // count
        return [flat.view[i * size : (i + 1) * size] for i in range(count)]

    @exclusive
    def _assign(self, values: npt.NDArray[np.float64]) -> None:
        """Copy this rank's values from a host array of the shape of `array`; the vector is then initialised. Local."""
        self.drop_values()
        if self._memory is not None:
            self.comm.backend.upload(self._memory.shaped.array, values)
        self._initialized = True

    @exclusive
    def scatter(self, array: npt.ArrayLike) -> None:
        """Set the values from a global array. Collective.

        Parameters
        ----------
        array : array_like
            Real values of shape `shape`, given on every rank; each rank copies its share. A flat array in the same
            order is accepted too.

        Raises
        ------
        ShapeError
            The sizes differ.
        ArgumentTypeError
            The values are not real numbers.
        """
        with self.comm.agreement("scattering a vector", self.layout.description):
            self.check_open()
            values = real_array(array, "scattered array")
            if values.shape not in (self.shape, (math.prod(self.shape),)):
                raise ShapeError(f"scattered array: expected shape {self.shape}, found {values.shape}")
            mine = values.reshape(self.shape)[..., self.blocks.start : self.blocks.stop, :]
            self._assign(np.ascontiguousarray(mine, DOUBLE))

    @exclusive
    def to_numpy(self) -> npt.NDArray[np.float64] | None:
        """Return a host copy of this rank's values, of the shape of `array`; None off the grid.

        Raises
        ------
        UninitializedError
            The vector has no values.
        """
        self.check_initialized("to_numpy")
        return None if self._memory is None else self.comm.backend.download(self.array)

    @exclusive
    def gather(self) -> npt.NDArray[np.float64]:
        """Return the global values on every rank, as a NumPy array of shape `shape`. Collective.

        Raises
        ------
        UninitializedError
            The vector has no values.
        """
        phase = "gathering a vector"
        with self.comm.agreement(phase, self.layout.description):
            mine = self.to_numpy()
            vectors = np.empty((self.num_vecs, 0)) if mine is None else mine.reshape(self.num_vecs, -1)
            values = self.comm.concatenate(vectors, phase).reshape(self.shape)
        return values

    def __len__(self) -> int:
        """Return the global number of values."""
        return self.layout.size

    def __repr__(self) -> str:
        """Return the class, the global sizes, the grid, this rank's blocks and the state."""
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
    """Return the layout that the arguments of `Vector` describe."""
    comm.check_open()
    space = Space.of(row_or_col)
    if not SOTI_ordering:
        raise ArgumentError("SOTI_ordering: expected True, the order of every vector, found False")
    axis = comm.axis(space)
    total = global_blocks(blocks, axis.parts, global_sizes=global_sizes, what="blocks")
    count = positive_int(integer(num_vecs, "num_vecs"), "num_vecs")
    return axis.layout(total, positive_int(block_size, "block_size"), count)


def check_operand(vector: object, comm: Comm, layout: VectorLayout, what: str) -> None:
    """Raise an error that names `what` unless `vector` is an open Vector of the given Comm and layout.

    Raises
    ------
    ArgumentTypeError
        `vector` is not a Vector.
    ClosedError
        The vector or its Comm is closed.
    SpaceError
        The vector is in the other space.
    ShapeError
        The vector has other sizes.
    ArgumentError
        The vector belongs to another Comm.
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
