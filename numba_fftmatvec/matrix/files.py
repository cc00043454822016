"""Matrices in files: the first rank of each row of the process grid writes whole block rows."""

from __future__ import annotations

from ..comm.collection import Parts
from ..comm.exclusive import exclusive
from ..errors import UninitializedError
from ..io import MatrixMeta, Replacement, block_row_writer, file_path, write_manifest, write_meta
from ..layout import Space
from .description import MatrixDescription, Path_


class MatrixFiles(MatrixDescription):
    """The files of a `Matrix`."""

    @exclusive
    def save(self, path: Path_) -> None:
        """Write the matrix to a directory in the pyFFTMatvec format. Collective.

        The written values are those that the stored spectrum represents. They equal the loaded values up to the
        rounding of `p_config.sbgemv`. The block rows are new files, and the metadata are replaced last. At any time the
        directory therefore has the old matrix or the new one. The files of the old one are removed at the end.

        Parameters
        ----------
        path : path
            The directory; it is created if it does not exist.

        Raises
        ------
        UninitializedError
            The matrix has no values.
        FileError
            A file cannot be written. The directory has the old matrix.
        """
        comm, first, begun = self.comm, self.comm.world_rank == 0, None
        with comm.agreement("writing a matrix"):
            with comm.agreement("writing a matrix", {"sizes": self._layout.sizes}):
                self.check_open()
                if "F" not in self._spectra:
                    raise UninitializedError("save: expected an initialised matrix, found one without values")
                phase = f"writing {file_path(path)}"
                meta = MatrixMeta(*self._layout.sizes, is_p2q=self._is_p2q, checksum=self._checksum)
            with comm.agreement(phase):
                if first:
                    begun = Replacement.begin(path, meta)
            new: Replacement = comm.bcast(begun, phase)  # type: ignore[assignment]
            try:
                digests = self._write_rows(new, phase)
                with comm.agreement(phase):
                    if first:
                        write_manifest(new.directory, new.meta, digests, new.like(0))
                        write_meta(new.directory, new.meta)
                        new.end()
            except BaseException:
                if first:  # no other rank may remove files that this one is about to name
                    new.abandon()
                raise

    def _write_rows(self, new: Replacement, phase: str) -> list[bytes]:
        """Write all block rows of a matrix; return their digests on every rank. Collective."""
        layout, spectrum = self._layout, self._spectra["F"]
        mine: dict[int, bytes] = {}
        threads = self.comm.threads

        def write(row: int, parts: Parts) -> None:
            with block_row_writer(new.directory, new.meta, row, new.like(row), threads=threads) as writer:
                for cols, values in parts:
                    writer.write(cols, values)
            mine[row] = writer.digest

        self.comm.collect(layout.vector(Space.COL), layout.block_rows, spectrum.block_row, write, phase)
        digests = {row: digest for part in self.comm.allgather(mine, phase) for row, digest in part.items()}
        return [digests[row] for row in range(layout.Nd)]
