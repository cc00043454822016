"""The two axes of the process grid: how vectors of each space are split over it, and how they travel along it."""

from __future__ import annotations

from typing import Any

from mpi4py import MPI

from ..layout import Space, VectorLayout, block_range
from .collectives import Collectives


class Axis:
    """How the vectors of one space are split over the ranks, and what they travel along.

    The blocks of a ``"col"`` vector are split over the grid's columns. Each part is owned by a rank of the first row.
    It travels down its column to the ranks that need a copy; their partial results are summed on the way back. For a
    ``"row"`` vector rows and columns are exchanged.

    Parameters
    ----------
    space : Space
        The space of the vectors.
    parts : mpi4py.MPI.Intracomm
        The ranks that hold different parts: a row of the grid for ``"col"``.
    copies : mpi4py.MPI.Intracomm
        The ranks that need the same part, the owner first: a column of the grid for ``"col"``.
    collectives : Collectives
        The library that arrays travel by, among the ranks of `copies`.
    """

    def __init__(self, space: Space, parts: MPI.Intracomm, copies: MPI.Intracomm, collectives: Collectives) -> None:
        self.space = space
        self.parts_comm = parts
        self._collectives = collectives
        #: Number of parts that the blocks are split into, and the index of this rank's.
        self.parts: int = parts.size
        self.index: int = parts.rank
        #: Number of ranks that need this rank's part.
        self.size: int = copies.size
        #: Whether this rank owns its part.
        self.owns: bool = copies.rank == 0
        #: Whether arrays travel in the order of the backend's stream, so that a graph can hold their journeys.
        self.queued: bool = self.size == 1 or collectives.queued

    def share(self, num_blocks: int) -> range:
        """Return the global indices of this rank's share of so many blocks."""
        return block_range(num_blocks, self.parts, self.index)

    def layout(self, num_blocks: int, block_size: int, num_vecs: int = 1) -> VectorLayout:
        """Return the layout of a vector of these global sizes."""
        return VectorLayout(self.space, num_blocks, block_size, num_vecs, self.share(num_blocks))

    def broadcast(self, array: Any) -> None:
        """Copy the owner's contiguous float32 or float64 array into that of every rank that needs the part."""
        self._collectives.broadcast(array, 0)

    def reduce(self, send: Any, receive: Any) -> None:
        """Sum the `send` arrays of these ranks into the owner's `receive`, which is None elsewhere."""
        self._collectives.reduce(send, receive, 0)

    def close(self) -> None:
        """Free what the library of the collectives holds."""
        self._collectives.close()
