"""Vectors in files: each owner reads its part, and rank 0 writes the parts of all owners, one after another."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from ..comm.collection import Parts
from ..comm.exclusive import exclusive
from ..io import read_vector, vector_writer
from .data import VectorData


class VectorFiles(VectorData):
    """The files of a `Vector`."""

    @exclusive
    def init_vec_from_file(self, filename: str | os.PathLike[str], checksum: int = 0, QoI: bool = False) -> None:
        """Set the values from a file in the pyFFTMatvec format. Collective; each owner reads its part.

        Parameters
        ----------
        filename : path
            The file.
        checksum : int
            The expected checksum of the file; 0 skips the check.
        QoI : bool
            Whether the file must hold quantities of interest.

        Raises
        ------
        FileError, FileFormatError, ChecksumError
            The file cannot be read, is malformed, or has other sizes (including `num_vecs`) than the vector.
        """
        arguments = {**self.layout.description, "checksum": checksum, "QoI": bool(QoI)}
        with self.comm.agreement(f"reading {filename}", arguments):
            self.check_open()
            values = np.empty(self.layout.local_shape if self.on_grid() else 0)
            if self.on_grid():
                read_vector(filename, self.layout, values, checksum=checksum, qoi=QoI)
            self._assign(values)

    @exclusive
    def save(self, filename: str | os.PathLike[str], QoI: bool = False, *, checksum: int = 0) -> None:
        """Write the values to a file in the pyFFTMatvec format. Collective; rank 0 writes, one owner's part at a time.

        Parameters
        ----------
        filename : path
            The file. An existing file is replaced in one step, when the new one is complete.
        QoI : bool
            Whether the file marks the values as quantities of interest.
        checksum : int
            The checksum to store; 0 for none.

        Raises
        ------
        UninitializedError
            The vector has no values.
        FileError
            The file cannot be written.
        """

        def write(vector: VectorData, parts: Parts) -> None:
            with vector_writer(filename, vector.layout, checksum=checksum, qoi=QoI) as writer:
                for blocks, values in parts:
                    writer.write(blocks, values)

        def host_values(vector: VectorData) -> npt.NDArray[np.float64]:
            return vector.comm.backend.download(vector.array)

        phase, arguments = f"writing {filename}", {"checksum": checksum, "QoI": bool(QoI)}
        with self.comm.agreement(phase, arguments):
            with self.comm.agreement(phase, arguments):  # before the values travel
                self.check_initialized("save")
            vectors: tuple[VectorData, ...] = (self,) if self.on_grid() else ()
            self.comm.collect(self.layout, vectors, host_values, write, phase)
