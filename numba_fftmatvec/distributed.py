"""Vectors as data: which rank owns which blocks, and how they get their values."""

from __future__ import annotations

import math
import numbers
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from .backends import Buffer
from .comm import Comm
from .errors import (
    ArgumentError,
    ArgumentTypeError,
    ClosedError,
    ShapeError,
    SpaceError,
    UninitializedError,
    VectorIndexError,
)
from .kernels.elementwise import fill
from .partition import block_range, global_blocks, positive_int

DOUBLE = np.dtype(np.float64)
SPACES = ("col", "row")


class DistributedVector:
    """The data of a `Vector`: see there for the parameters."""

    def __init__(
        self,
        comm: Comm,
        blocks: int,
        block_size: int,
        row_or_col: str,
        global_sizes: bool = False,
        SOTI_ordering: bool = True,
        *,
        num_vecs: int = 1,
    ) -> None:
        if not isinstance(comm, Comm):
            raise ArgumentTypeError(f"comm: expected a Comm or a Vector, found {type(comm).__name__}")
        comm.check_open()
        with comm.agreement("creating a vector"):
            if row_or_col not in SPACES:
                raise SpaceError(f"row_or_col: expected 'row' or 'col', found {row_or_col!r}")
            if not SOTI_ordering:
                raise ArgumentError("SOTI_ordering: expected True, the order of every vector, found False")
            parts = comm.proc_cols if row_or_col == "col" else comm.proc_rows
            total = global_blocks(blocks, parts, global_sizes=global_sizes, what="blocks")
            count = positive_int(_integer(num_vecs, "num_vecs"), "num_vecs")
            self._allocate(comm, total, positive_int(block_size, "block_size"), row_or_col, count)

    def _allocate(self, comm: Comm, blocks: int, block_size: int, space: str, num_vecs: int, rows: Any = None) -> None:
        """Set the sizes, and on the grid the memory: `rows`, a 2-D array of all vectors' local blocks, or a new one."""
        self.comm = comm
        self._glob_num_blocks = blocks
        self._block_size = block_size
        self._space = space
        parts, index = (comm.proc_cols, comm.col_color) if space == "col" else (comm.proc_rows, comm.row_color)
        self._parts = parts
        self._blocks = block_range(blocks, parts, index)
        self._num_vecs = num_vecs
        self._initialized = False
        self._closed = False
        # One memory, wrapped once in each form: as products take it, as `array` shows it, and as arithmetic takes it.
        self._rows: Buffer | None = None
        self._buffer: Buffer | None = None
        self._flat: Buffer | None = None
        if comm.collectives(space)[0].rank == 0:
            backend, local = comm.backend, len(self._blocks)
            self._rows = backend.empty((num_vecs * local, block_size), DOUBLE) if rows is None else backend.wrap(rows)
            memory = self._rows.array
            self._buffer = self._rows if num_vecs == 1 else backend.wrap(memory.reshape(self._shape(local)))
            self._flat = backend.wrap(memory.reshape(-1))

    # Sizes and state

    @property
    def num_blocks(self) -> int:
        """Number of blocks of this rank's share."""
        return len(self._blocks)

    @property
    def glob_num_blocks(self) -> int:
        """Global number of blocks."""
        return self._glob_num_blocks

    @property
    def block_size(self) -> int:
        """Number of time steps of a block."""
        return self._block_size

    @property
    def row_or_col(self) -> str:
        """The space: ``"row"`` or ``"col"``."""
        return self._space

    @property
    def num_vecs(self) -> int:
        """Number of vectors, 1 unless several right-hand sides are kept in one."""
        return self._num_vecs

    @property
    def shape(self) -> tuple[int, ...]:
        """Global (blocks, block_size); with several vectors (num_vecs, blocks, block_size)."""
        return self._shape(self._glob_num_blocks)

    def _shape(self, blocks: int) -> tuple[int, ...]:
        """Return the shape of that many blocks of every vector."""
        vectors = () if self._num_vecs == 1 else (self._num_vecs,)
        return *vectors, blocks, self._block_size

    def is_initialized(self) -> bool:
        """Return whether the vector has values."""
        return self._initialized

    @property
    def blocks(self) -> range:
        """Global indices of this rank's share of blocks, also where it holds no data."""
        return self._blocks

    @property
    def array(self) -> Any:
        """The rank's (blocks, block_size) array, NumPy's or CuPy's: the vector's own memory; None off the grid.

        With several vectors it is (num_vecs, blocks, block_size), C-contiguous.
        """
        return None if self._buffer is None else self._buffer.array

    def on_grid(self) -> bool:
        """Return whether this rank owns data of the vector."""
        return self._buffer is not None

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
        """Return one of the vectors as a `Vector` that shares its memory: what is written to one is seen in the other.

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
        index = _integer(index, "get_vector: index")
        if not 0 <= index < self._num_vecs:
            raise VectorIndexError(f"get_vector: expected an index of 0 .. {self._num_vecs - 1}, found {index}")
        local = len(self._blocks)
        rows = None if self._rows is None else self._rows.array[index * local : (index + 1) * local]
        vector = type(self).__new__(type(self))
        vector._allocate(self.comm, self._glob_num_blocks, self._block_size, self._space, 1, rows)
        vector._initialized = self._initialized
        return vector

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

    def close(self) -> None:
        """Give the memory back; arrays and tensors that share it keep it alive. Local; safe to call twice."""
        self._closed = True
        self._initialized = False
        self._rows = self._buffer = self._flat = None

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
        first = self._blocks.start * self._block_size
        for vector, run in enumerate(self._runs(self._num_vecs)):
            start = vector * self._glob_num_blocks * self._block_size + first
            fill(self.comm.backend.target, formula)(run, start, value)
        self._initialized = True

    def _runs(self, count: int) -> list[Any]:
        """Return the kernels' views of this rank's values in equal runs: 1 for all, `num_vecs` for one a vector."""
        if self._flat is None:
            return []
        size = self._flat.array.size // count
        return [self._flat.view[i * size : (i + 1) * size] for i in range(count)]

    def _set(self, values: npt.NDArray[np.float64]) -> None:
        """Take this rank's values, once every rank has accepted its own."""
        if self._buffer is not None:
            self.comm.backend.upload(self._buffer.array, values)
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
        mine = values.reshape(self.shape)[..., self._blocks.start : self._blocks.stop, :]
        self._set(np.ascontiguousarray(mine, DOUBLE))

    def to_numpy(self) -> npt.NDArray[np.float64] | None:
        """Return a host copy of this rank's values, of `array`'s shape; None off the grid.

        Raises
        ------
        UninitializedError
            The vector has no values.
        """
        self.check_initialized("to_numpy")
        return None if self._buffer is None else self.comm.backend.download(self._buffer.array)

    def gather(self) -> npt.NDArray[np.float64]:
        """Return the global values, of shape `shape`, on every rank, as a NumPy array. Collective.

        Raises
        ------
        UninitializedError
            The vector has no values.
        """
        self.check_open()
        mine = self.to_numpy()
        result = np.empty(self.shape)
        vectors = np.empty((self._num_vecs, 0)) if mine is None else mine.reshape(self._num_vecs, -1)
        world = self.comm.global_comm
        counts = world.allgather(vectors.shape[1])
        for send, receive in zip(vectors, result.reshape(self._num_vecs, -1), strict=True):
            world.Allgatherv(send, (receive, counts))
        return result

    def __len__(self) -> int:
        """Return the global number of values."""
        return math.prod(self.shape)

    def __repr__(self) -> str:
        """Return kind, global shape, grid and ownership."""
        state = "" if self._initialized else ", uninitialised"
        owned = f"blocks {self._blocks.start}..{self._blocks.stop - 1}" if self.on_grid() else "off the grid"
        grid = f"grid {self.comm.proc_rows}x{self.comm.proc_cols}"
        return f"Vector({self._space!r}, {sizes(self.shape)}, {grid}, {owned}{state})"


def sizes(shape: tuple[int, ...]) -> str:
    """Return a global shape in words, for messages."""
    *vectors, blocks, block_size = shape
    return "".join(f"{count} vectors of " for count in vectors) + f"{blocks} blocks of {block_size}"


def _integer(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ArgumentTypeError(f"{what}: expected an integer, found {value!r}")
    return int(value)
