"""Vectors in files: each owner reads its own part, and one rank writes all of them, part by part."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .distributed import VectorData
from .io import read_vector, vector_writer
from .layout import block_ranges

if TYPE_CHECKING:
    from mpi4py import MPI


class VectorFiles(VectorData):
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
            The file cannot be read, is malformed, or has other sizes (including `num_vecs`) than the vector.
        """
        self.check_open()
        with self.comm.agreement(f"reading {filename}"):
            values = np.empty(self.layout.local_shape if self.on_grid() else 0)
            if self.on_grid():
                read_vector(filename, self.layout, values, checksum=checksum, qoi=QoI)
        self._assign(values)

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
        owners = world.allgather(mine is not None)
        ranks = [rank for rank, owns in enumerate(owners) if owns]
        parts = block_ranges(self.layout.num_blocks, len(ranks))
        if world.rank > 0:
            if mine is not None:
                world.Send(mine, 0)
            with self.comm.agreement(f"writing {filename}"):
                return
        with (
            self.comm.agreement(f"writing {filename}"),
            _received(world, ranks[1:], parts[1:], self.layout.shape_of) as more,
        ):
            assert mine is not None
            with vector_writer(filename, self.layout, checksum=checksum, qoi=QoI) as writer:
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
