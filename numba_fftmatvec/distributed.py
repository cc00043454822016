"""Vectors as data: which rank owns which blocks, how they get their values, and how they are stored in files."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from .backends import Buffer
from .comm import Comm
from .errors import ArgumentError, ArgumentTypeError, ClosedError, ShapeError, SpaceError, UninitializedError
from .io import read_vector, vector_writer
from .kernels.elementwise import fill
from .partition import block_counts, block_range, global_blocks, positive_int

if TYPE_CHECKING:
    from mpi4py import MPI

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
            self._allocate(comm, total, positive_int(block_size, "block_size"), row_or_col)

    def _allocate(self, comm: Comm, blocks: int, block_size: int, space: str) -> None:
        self.comm = comm
        self._glob_num_blocks = blocks
        self._block_size = block_size
        self._space = space
        parts, index = (comm.proc_cols, comm.col_color) if space == "col" else (comm.proc_rows, comm.row_color)
        self._parts = parts
        self._blocks = block_range(blocks, parts, index)
        self._initialized = False
        self._closed = False
        owner = comm.collectives(space)[0].rank == 0
        self._buffer: Buffer | None = comm.backend.empty((len(self._blocks), block_size), DOUBLE) if owner else None
        self._flat = None if self._buffer is None else comm.backend.wrap(self._buffer.array.reshape(-1))

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
    def shape(self) -> tuple[int, int]:
        """Global number of blocks and block size."""
        return self._glob_num_blocks, self._block_size

    def is_initialized(self) -> bool:
        """Return whether the vector has values."""
        return self._initialized

    @property
    def blocks(self) -> range:
        """Global indices of this rank's share of blocks, also where it holds no data."""
        return self._blocks

    @property
    def array(self) -> Any:
        """The rank's (blocks, block_size) array, NumPy's or CuPy's: the vector's own memory; None off the grid."""
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
        self._buffer = self._flat = None

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
        """Set every value to its global index: 0, 1, 2, ..."""
        self._fill("consecutive")

    def init_vec_doubles(self) -> None:
        """Set every value to `generate_double` of its global index: in [1, 2), representable by no float32."""
        self._fill("doubles")

    def _fill(self, formula: str, value: float = 0.0) -> None:
        self.check_open()
        if self._flat is not None:
            fill(self.comm.backend.target, formula)(self._flat.view, self._blocks.start * self._block_size, value)
        self._initialized = True

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
            The (blocks, block_size) real values, given on every rank; each rank copies its share. A flat array in the
            same order is taken too.

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
        mine = values.reshape(self.shape)[self._blocks.start : self._blocks.stop]
        self._set(np.ascontiguousarray(mine, DOUBLE))

    def to_numpy(self) -> npt.NDArray[np.float64] | None:
        """Return a host copy of this rank's (blocks, block_size) values, None off the grid.

        Raises
        ------
        UninitializedError
            The vector has no values.
        """
        self.check_initialized("to_numpy")
        return None if self._buffer is None else self.comm.backend.download(self._buffer.array)

    def gather(self) -> npt.NDArray[np.float64]:
        """Return the global (blocks, block_size) values on every rank, as a NumPy array. Collective.

        Raises
        ------
        UninitializedError
            The vector has no values.
        """
        self.check_open()
        mine = self.to_numpy()
        result = np.empty(self.shape)
        send = np.empty(0) if mine is None else mine.reshape(-1)
        world = self.comm.global_comm
        counts = world.allgather(send.size)
        world.Allgatherv(send, (result, counts))
        return result

    # Files

    def init_vec_from_file(self, filename: str | os.PathLike[str], checksum: int = 0, QoI: bool = False) -> None:
        """Set the values from a file in the pyFFTMatvec format. Collective; each owner reads its own part.

        Parameters
        ----------
        filename : path
            The file.
        checksum : int
            What the file's checksum must be; 0 checks nothing.
        QoI : bool
            Whether the file must hold quantities of interest.

        Raises
        ------
        FileError, FileFormatError, ChecksumError
            The file cannot be read, breaks the format or does not fit the vector.
        """
        self.check_open()
        values = np.empty((len(self._blocks), self._block_size))
        with self.comm.agreement(f"reading {filename}"):
            if self._buffer is not None:
                read_vector(
                    filename,
                    space=self._space,
                    num_blocks=self._glob_num_blocks,
                    block_size=self._block_size,
                    blocks=self._blocks,
                    out=values,
                    checksum=checksum,
                    qoi=QoI,
                )
        self._set(values)

    def save(self, filename: str | os.PathLike[str], QoI: bool = False, *, checksum: int = 0) -> None:
        """Write the values to a file in the pyFFTMatvec format. Collective; rank 0 writes, one owner's part at a time.

        Parameters
        ----------
        filename : path
            The file; replaced in one step, when the new one is complete.
        QoI : bool
            Mark the values as quantities of interest.
        checksum : int
            An identifier to store, 0 for none.

        Raises
        ------
        UninitializedError
            The vector has no values.
        FileError
            The file cannot be written.
        """
        self.check_initialized("save")
        self.check_open()
        mine = self.to_numpy()
        world = self.comm.global_comm
        starts = np.cumsum([0, *block_counts(self._glob_num_blocks, self._parts)])
        owners = world.allgather(mine is not None)
        ranks = [rank for rank, owns in enumerate(owners) if owns]
        parts = [range(a, b) for a, b in pairwise(starts)]
        if world.rank > 0:
            if mine is not None:
                world.Send(mine, 0)
            with self.comm.agreement(f"writing {filename}"):
                return
        with (
            self.comm.agreement(f"writing {filename}"),
            _received(world, ranks[1:], parts[1:], self._block_size) as more,
        ):
            assert mine is not None
            with vector_writer(
                filename,
                space=self._space,
                num_blocks=self._glob_num_blocks,
                block_size=self._block_size,
                checksum=checksum,
                qoi=QoI,
            ) as writer:
                writer.write(parts[0], mine)
                for part, values in more:
                    writer.write(part, values)

    def __len__(self) -> int:
        """Return the global number of values."""
        return math.prod(self.shape)

    def __repr__(self) -> str:
        """Return kind, global shape, grid and ownership."""
        state = "" if self._initialized else ", uninitialised"
        owned = f"blocks {self._blocks.start}..{self._blocks.stop - 1}" if self.on_grid() else "off the grid"
        sizes = f"{self._glob_num_blocks} blocks of {self._block_size}"
        return f"Vector({self._space!r}, {sizes}, grid {self.comm.proc_rows}x{self.comm.proc_cols}, {owned}{state})"


@contextmanager
def _received(
    world: MPI.Intracomm, ranks: list[int], parts: list[range], block_size: int
) -> Iterator[Iterator[tuple[range, npt.NDArray[np.float64]]]]:
    """Receive the owners' parts one by one; what is not asked for is received at the end, so that no sender waits."""

    def receive() -> Iterator[tuple[range, npt.NDArray[np.float64]]]:
        for rank, part in zip(ranks, parts, strict=True):
            values = np.empty((len(part), block_size))
            world.Recv(values, rank)
            yield part, values

    pieces = receive()
    try:
        yield pieces
    finally:
        for _ in pieces:
            pass
