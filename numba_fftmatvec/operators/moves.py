"""The movement of blocks between the vectors of the parts of a stack and the vector of the whole stack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..comm import Comm
from ..comm.exchange import exchange
from ..layout import Space, VectorLayout, block_ranges
from ..vector import Vector


class Move(NamedTuple):
    """Blocks that one rank owns in a part and one rank, possibly another, owns in the whole.

    Parameters
    ----------
    part : int
        Index of the part.
    owners : tuple of int
        World ranks of the owner in the part and of the owner in the whole.
    places : tuple of slice
        The blocks in the memory of each owner.
    """

    part: int
    owners: tuple[int, int]
    places: tuple[slice, slice]


class BlockMoves:
    """The moves between vectors with consecutive blocks and one vector of all these blocks.

    Each rank computes all moves from the layouts alone. Blocks that stay on their rank are copied on the device, the
    others pass through the host in one exchange among all ranks.

    Parameters
    ----------
    comm : Comm
        The process grid.
    parts : sequence of VectorLayout
        The layouts of the parts, of either space.
    whole : VectorLayout
        The layout of all blocks.
    """

    def __init__(self, comm: Comm, parts: Sequence[VectorLayout], whole: VectorLayout) -> None:
        self._comm = comm
        self._block_size = whole.block_size
        mine = comm.world_rank
        moves = list(_moves(comm, parts, whole))
        #: Whether any rank sends blocks to another one.
        self.exchanges = any(move.owners[0] != move.owners[1] for move in moves)
        self._kept = [move for move in moves if move.owners == (mine, mine)]
        self._travelling = [move for move in moves if move.owners[0] != move.owners[1] and mine in move.owners]

    def join(self, parts: Sequence[Vector], whole: Vector) -> None:
        """Copy the values of all parts into the whole, which is then initialised. Collective if blocks travel."""
        self._run(parts, whole, to_whole=True)
        whole.init_vec()

    def split(self, whole: Vector, parts: Sequence[Vector]) -> None:
        """Copy the values of the whole into all parts, which are then initialised. Collective if blocks travel."""
        self._run(parts, whole, to_whole=False)
        for part in parts:
            part.init_vec()

    def _run(self, parts: Sequence[Vector], whole: Vector, *, to_whole: bool) -> None:
        with self._comm.backend.active():
            for move in self._kept:
                in_part, in_whole = _values(parts[move.part]), _values(whole)
                source, target = (in_part, in_whole) if to_whole else (in_whole, in_part)
                here, there = move.places if to_whole else move.places[::-1]
                target[:, there] = source[:, here]
        if self.exchanges:
            self._exchange(parts, whole, to_whole=to_whole)

    def _exchange(self, parts: Sequence[Vector], whole: Vector, *, to_whole: bool) -> None:
        """Send the values of the blocks that travel. The order of the moves is the same on all ranks."""
        comm, backend = self._comm, self._comm.backend
        source, target = (0, 1) if to_whole else (1, 0)

        def values(move: Move, end: int) -> Any:
            return _values((parts[move.part], whole)[end])[:, move.places[end]]

        outgoing: list[list[np.ndarray]] = [[] for _ in range(comm.world_size)]
        with comm.agreement("moving blocks"):
            for move in self._travelling:
                if move.owners[source] == comm.world_rank:
                    with backend.active():
                        contiguous = np.ascontiguousarray(values(move, source))
                    outgoing[move.owners[target]].append(backend.download(contiguous).reshape(-1))
            arriving = [move for move in self._travelling if move.owners[target] == comm.world_rank]
            counts = np.zeros(comm.world_size, np.int64)
            for move in arriving:
                counts[move.owners[source]] += values(move, target).size
        incoming = exchange(comm, [np.concatenate([*sent, np.empty(0)]) for sent in outgoing], counts, "moving blocks")
        with comm.agreement("moving blocks"):
            used = np.zeros(comm.world_size, np.int64)
            for move in arriving:
                place, sender = values(move, target), move.owners[source]
                found = incoming[sender][used[sender] : used[sender] + place.size].reshape(place.shape)
                used[sender] += place.size
                received = backend.empty(place.shape, np.float64)
                backend.upload(received.array, found)
                with backend.active():
                    place[...] = received.array


def _values(vector: Vector) -> Any:
    """Return this rank's values as a (num_vecs, blocks, Nt) array."""
    return vector.array.reshape(vector.num_vecs, vector.num_blocks, vector.block_size)


def _moves(comm: Comm, parts: Sequence[VectorLayout], whole: VectorLayout) -> list[Move]:
    """Return the moves of all ranks, in the order of the blocks."""
    found = []
    owners = shares(comm, whole)
    first = 0  # of the part's blocks, in the whole
    for index, part in enumerate(parts):
        for part_owner, own in shares(comm, part):
            for whole_owner, share in owners:
                start, stop = max(own.start + first, share.start), min(own.stop + first, share.stop)
                if start < stop:
                    in_part = slice(start - first - own.start, stop - first - own.start)
                    in_whole = slice(start - share.start, stop - share.start)
                    found.append(Move(index, (part_owner, whole_owner), (in_part, in_whole)))
        first += part.num_blocks
    return found


def shares(comm: Comm, layout: VectorLayout) -> list[tuple[int, range]]:
    """Return the world rank and the blocks of each owner of a vector: the grid's first row or first column."""
    stride = {Space.COL: comm.proc_rows, Space.ROW: 1}[layout.space]
    ranges = block_ranges(layout.num_blocks, comm.axis(layout.space).parts)
    return [(i * stride, blocks) for i, blocks in enumerate(ranges)]
