"""Vectors in files: each owner reads its own part, and one rank writes all of them, part by part."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .distributed import DistributedVector
from .io import read_vector, vector_writer
from .partition import block_counts

if TYPE_CHECKING:
    from mpi4py import MPI


class VectorFiles(DistributedVector):
    """The files of a `Vector`."""

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
            The file cannot be read, breaks the format or does not fit the vector, in `num_vecs` either.
        """
        self.check_open()
        with self.comm.agreement(f"reading {filename}"):
            values = np.empty(self._shape(len(self._blocks) if self.on_grid() else 0))
            if self.on_grid():
                read_vector(
                    filename,
                    space=self._space,
                    num_blocks=self._glob_num_blocks,
                    block_size=self._block_size,
                    blocks=self._blocks,
                    out=values,
                    checksum=checksum,
                    qoi=QoI,
                    num_vecs=self._num_vecs,
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
            _received(world, ranks[1:], parts[1:], self._shape) as more,
        ):
            assert mine is not None
            with vector_writer(
                filename,
                space=self._space,
                num_blocks=self._glob_num_blocks,
                block_size=self._block_size,
                checksum=checksum,
                qoi=QoI,
                num_vecs=self._num_vecs,
            ) as writer:
                writer.write(parts[0], mine)
                for part, values in more:
                    writer.write(part, values)


@contextmanager
def _received(
    world: MPI.Intracomm, ranks: list[int], parts: list[range], shape: Callable[[int], tuple[int, ...]]
) -> Iterator[Iterator[tuple[range, npt.NDArray[np.float64]]]]:
    """Receive the owners' parts one by one; what is not asked for is received at the end, so that no sender waits."""

    def receive() -> Iterator[tuple[range, npt.NDArray[np.float64]]]:
        for rank, part in zip(ranks, parts, strict=True):
            values = np.empty(shape(len(part)))
            world.Recv(values, rank)
            yield part, values

    pieces = receive()
    try:
        yield pieces
    finally:
        for _ in pieces:
            pass
