"""The axes of the process grid: the split of each space's vectors, and the communication of their parts."""

from __future__ import annotations

from typing import Any

from ..layout import Space, VectorLayout, block_range
from .collectives import Collectives
from .library import MPI


class Axis:
    """The split of one space's vectors over the process grid, and the communication of their parts.

    The blocks of a ``"col"`` vector are split over the grid's columns. The owner of each part is the rank of its column
    in the first row. The other ranks of the column receive a copy, and their partial results are summed on the owner.
    For a ``"row"`` vector rows and columns are exchanged.

    Parameters
    ----------
    space : Space
        The space of the vectors.
    parts : mpi4py.MPI.Intracomm
        The ranks that hold different parts: a row of the grid for ``"col"``.
    copies : mpi4py.MPI.Intracomm
        The ranks that need the same part, the owner first: a column of the grid for ``"col"``.
    collectives : Collectives
        The collective operations among the ranks of `copies`.
    """

    def __init__(self, space: Space, parts: MPI.Intracomm, copies: MPI.Intracomm, collectives: Collectives) -> None:
        self.space = space
        self.parts_comm = parts
        self._collectives = collectives
        #: Number of parts of a vector, and the index of this rank's part.
        self.parts: int = parts.size
        self.index: int = parts.rank
        #: Number of ranks that need this rank's part.
        self.size: int = copies.size
        #: Whether this rank owns its part.
        self.owns: bool = copies.rank == 0
        #: Whether a CUDA graph can contain the communication: it is queued on the current stream, or unnecessary.
        self.queued: bool = self.size == 1 or collectives.queued

    def share(self, num_blocks: int) -> range:
        """Return the global indices of this rank's part of `num_blocks` blocks."""
        return block_range(num_blocks, self.parts, self.index)

    def layout(self, num_blocks: int, block_size: int, num_vecs: int = 1) -> VectorLayout:
        """Return the layout of a vector of these global sizes."""
        return VectorLayout(self.space, num_blocks, block_size, num_vecs, self.share(num_blocks))

    def broadcast(self, array: Any) -> None:
        """Copy the owner's contiguous float32 or float64 array into the array of every rank that needs the part."""
        self._collectives.broadcast(array, 0)

    def reduce(self, send: Any, receive: Any) -> None:
        """Sum the `send` arrays of all ranks of a part into the owner's `receive`, which is None elsewhere."""
        self._collectives.reduce(send, receive, 0)

    def close(self) -> None:
        """Close the collectives."""
        self._collectives.close()
