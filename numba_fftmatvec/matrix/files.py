"""Matrices in files: the first rank of each row of the process grid writes whole block rows."""

from __future__ import annotations

from ..comm.collection import Parts
from ..comm.exclusive import exclusive
from ..errors import UninitializedError
from ..io import MatrixMeta, block_row_writer, remove_meta, write_meta
from ..layout import Space
from .description import MatrixDescription, Path_


class MatrixFiles(MatrixDescription):
    """The files of a `Matrix`."""

    @exclusive
    def save(self, path: Path_) -> None:
        """Write the matrix to a directory in the pyFFTMatvec format. Collective.

        The written values are those that the stored spectrum represents. They equal the loaded values up to the
        rounding of `p_config.sbgemv`. The metadata are removed first and written last. An incomplete directory, or one
        with rows of two matrices, therefore cannot be read.

        Parameters
        ----------
        path : path
            The directory; it is created if it does not exist.

        Raises
        ------
        UninitializedError
            The matrix has no values.
        FileError
            A file cannot be written.
        """
        comm, layout, phase = self.comm, self._layout, f"writing {path}"

        def write(row: int, parts: Parts) -> None:
            with block_row_writer(path, meta, row) as writer:
                for cols, values in parts:
                    writer.write(cols, values)

        with comm.agreement(phase):
            with comm.agreement(phase, {"sizes": layout.sizes}):
                self.check_open()
                if "F" not in self._spectra:
                    raise UninitializedError("save: expected an initialised matrix, found one without values")
                spectrum = self._spectra["F"]
                meta = MatrixMeta(*layout.sizes, is_p2q=self._is_p2q, checksum=self._checksum)
                if comm.world_rank == 0:
                    remove_meta(path)
            comm.collect(layout.vector(Space.COL), layout.block_rows, spectrum.block_row, write, phase)
            with comm.agreement(phase):
                if comm.world_rank == 0:
                    write_meta(path, meta)
