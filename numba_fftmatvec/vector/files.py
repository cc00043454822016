"""Vectors in files: each owner reads its part, and rank 0 writes the parts of all owners, one after another."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from ..comm.collection import Parts
from ..comm.exclusive import exclusive
from ..errors import FileError
from ..io import FilePath, file_path, read_vector, vector_writer
from .data import VectorData

# How often a vector is read anew if the ranks find different versions of its file.
_ATTEMPTS = 50


class VectorFiles(VectorData):
    """The files of a `Vector`."""

    @exclusive
    def init_vec_from_file(
        self, filename: FilePath, checksum: int = 0, QoI: bool = False, *, allow_nonfinite: bool = False
    ) -> None:
        """Set the values from a file in the pyFFTMatvec format. Collective; each owner reads its part.

        Parameters
        ----------
        filename : path
            The file.
        checksum : int
            The expected checksum of the file; 0 skips the check.
        QoI : bool
            Whether the file must hold quantities of interest.
        allow_nonfinite : bool
            Whether NaN and infinities are accepted. `save` writes them, since a result may overflow.

        Raises
        ------
        FileError, FileFormatError, ChecksumError
            The file cannot be read, is malformed, or has other sizes (including `num_vecs`) than the vector.
        """
        arguments = {**self.layout.description, "checksum": checksum, "QoI": bool(QoI)}
        comm, version, what = self.comm, None, "reading a vector"
        options: dict[str, Any] = {"checksum": checksum, "qoi": QoI, "allow_nonfinite": allow_nonfinite}
        options["threads"] = comm.threads
        with comm.agreement(what):
            with comm.agreement(what, arguments | {"allow_nonfinite": bool(allow_nonfinite)}):
                self.check_open()
                path = file_path(filename)
            phase = f"reading {path}"
            for attempt in count(1):
                with comm.agreement(phase):
                    values = np.empty(self.layout.local_shape if self.on_grid() else 0)
                    if self.on_grid():
                        version = read_vector(path, self.layout, values, **options)
                versions = {found for found in comm.allgather(version, phase) if found is not None}
                if len(versions) == 1:
                    break
                if attempt == _ATTEMPTS:
                    found = f"found {len(versions)} of them"
                    raise FileError(f"{path}: expected one version of the file on all ranks, {found}")
            self._assign(values)

    @exclusive
    def save(self, filename: FilePath, QoI: bool = False, *, checksum: int = 0) -> None:
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
            threads = vector.comm.threads
            with vector_writer(path, vector.layout, checksum=checksum, qoi=QoI, threads=threads) as writer:
                for blocks, values in parts:
                    writer.write(blocks, values)

        def host_values(vector: VectorData) -> npt.NDArray[np.float64]:
            return vector.comm.backend.download(vector.array)

        what, arguments = "writing a vector", {"checksum": checksum, "QoI": bool(QoI)}
        with self.comm.agreement(what):
            with self.comm.agreement(what, arguments):  # before the values travel
                self.check_initialized("save")
                path = file_path(filename)
            vectors: tuple[VectorData, ...] = (self,) if self.on_grid() else ()
            self.comm.collect(self.layout, vectors, host_values, write, f"writing {path}")
