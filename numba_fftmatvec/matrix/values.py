"""The values of a matrix: methods that fill the spectra of F and G from memory, formulas and files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ..arguments import check_shape
from ..backends.exchange import real_values
from ..comm.agreement import Arguments
from ..comm.exclusive import exclusive
from ..errors import ChecksumError, FFTMatvecError, FileError, FileFormatError, UninitializedError
from ..io import MatrixMeta, check_block_row, file_path, read_meta
from ..progress import show_progress
from ..spectrum import Spectrum
from ..spectrum.capacity import check_capacity
from ..spectrum.sources import BlockRowSource, filled, from_directory, from_rows
from .description import Path_
from .products import MatrixProducts

# How often a matrix is read anew if it is replaced while it is read.
_ATTEMPTS = 50

Blocks = npt.ArrayLike | Callable[[int], npt.ArrayLike]


class MatrixValues(MatrixProducts):
    """The values of a `Matrix`. All `init_mat_*` are collective."""

    @exclusive
    def init_mat_ones(self, aux_mat: bool = False) -> None:
        """Set every value of the first block column to 1."""
        self._fill(aux_mat, "constant", 1.0)

    @exclusive
    def init_mat_doubles(self, aux_mat: bool = False) -> None:
        """Set every value to `generate_double` of its global index in an (Nd, Nm, 2 Nt) array, as pyFFTMatvec does."""
        self._fill(aux_mat, "doubles", float(self._layout.Nt))

    def _fill(self, aux_mat: bool, formula: str, value: float = 0.0) -> None:
        what = "filling a matrix"
        with self.comm.agreement(what, {"formula": formula, "aux_mat": bool(aux_mat)}):
            source = filled(self.comm.backend, self._layout, formula, value)
        self._load(source, matrix_name(aux_mat), what)

    @exclusive
    def init_mat_from_array(self, blocks: Blocks, aux_mat: bool = False, *, allow_nonfinite: bool = False) -> None:
        """Set the first block column from memory.

        Parameters
        ----------
        blocks : array_like or callable
            Global real values of shape (Nd, Nm, Nt), given on every rank; each rank copies its share. Or a function
            that takes the global index of a block row and returns the row's (Nm, Nt) values. The function is called for
            this rank's block rows. Values may be on the host, or on the Comm's GPU in an array that supports DLPack.
        aux_mat : bool
            Whether to set the auxiliary matrix G instead of F.
        allow_nonfinite : bool
            Whether NaN and infinities are accepted, if `p_config.sbgemv` can represent them. They spread to all
            products with their block.

        Raises
        ------
        ShapeError, ArgumentTypeError, ArgumentError
            The values have another shape, are not real numbers, or are on another device.
        NonFiniteError
            A block's transform has a NaN or an infinity, which is not allowed or cannot be represented.
        """
        layout, what = self._layout, "taking a matrix from an array"
        arguments = {"aux_mat": bool(aux_mat), "callable": callable(blocks), "sizes": layout.sizes}
        with self.comm.agreement(what, arguments | {"allow_nonfinite": bool(allow_nonfinite)}):
            self.check_open()
            rows: Callable[[int], Any]
            if callable(blocks):
                rows = blocks
            else:
                values = real_values(self.comm.backend, blocks, "blocks")
                check_shape(values.shape, layout.sizes, "blocks")
                rows = values.__getitem__
            source = from_rows(self.comm.backend, layout, rows)
        self._load(source, matrix_name(aux_mat), what, allow_nonfinite=allow_nonfinite)

    @exclusive
    def init_mat_from_file(self, dirname: Path_, aux_mat: bool = False, *, allow_nonfinite: bool = False) -> None:
        """Set the first block column from a matrix directory.

        Parameters
        ----------
        dirname : path
            The directory of a matrix of the same sizes.
        aux_mat : bool
            Whether to set the auxiliary matrix G instead of F. G must have the checksum of F.
        allow_nonfinite : bool
            Whether NaN and infinities are accepted, as by `init_mat_from_array`.

        Raises
        ------
        FileError, FileFormatError, ChecksumError, ShapeError
            The directory cannot be read, is malformed, or does not fit this matrix.
        """
        directory, meta = self._read_meta(dirname, {"aux_mat": bool(aux_mat), "sizes": self._layout.sizes})
        meta = self._load_directory(directory, meta, matrix_name(aux_mat), allow_nonfinite=allow_nonfinite)
        if not aux_mat:
            self._checksum = meta.checksum

    def _check_meta(self, directory: Path, meta: MatrixMeta, name: str) -> None:
        """Raise unless a directory with these metadata has values of F, or of G, of this matrix."""
        check_shape((meta.Nd, meta.Nm, meta.Nt), self._layout.sizes, f"{directory}: (Nd, Nm, Nt)")
        if name == "G" and meta.checksum != self._checksum:
            raise ChecksumError(
                f"{directory}: expected the primary matrix's checksum {self._checksum}, found {meta.checksum}"
            )
        if meta.is_p2q != self._is_p2q:
            raise FileFormatError(f"{directory}: expected is_p2q = {int(self._is_p2q)}, found {int(meta.is_p2q)}")

    def _read_meta(self, path: Path_, arguments: Arguments | None = None) -> tuple[Path, MatrixMeta]:
        """Return the directory of a path, and the metadata, which rank 0 reads and broadcasts."""
        meta = None
        with self.comm.agreement("reading a matrix", arguments):
            self.comm.check_open()
            directory = file_path(path)
        phase = f"reading {directory}"
        with self.comm.agreement(phase):
            if self.comm.world_rank == 0:
                meta = read_meta(directory)
        with self.comm.agreement(phase):
            meta = self.comm.bcast(meta, phase)
        return directory, meta  # type: ignore[return-value]

    def _load_directory(
        self, directory: Path, meta: MatrixMeta, name: str, *, allow_nonfinite: bool = False
    ) -> MatrixMeta:
        """Load F or G from a directory with these metadata, or with newer ones; return those of the loaded values.

        A writer removes the block rows of these metadata when it has replaced the metadata. The newer ones are then
        read, on all ranks.
        """
        phase = f"reading {directory}"
        with self.comm.agreement(phase):
            others = {other: self._spectra[other] for other in self._spectra if other != name}
            for attempt in count(1):
                try:
                    self._load_version(directory, meta, name, allow_nonfinite)
                    break
                except FileError:  # raised on every rank
                    newer = self._newer_meta(directory, meta)
                    if newer is None or attempt == _ATTEMPTS:
                        raise
                    meta = newer
            if lost := [other for other in others if other not in self._spectra]:
                for other in lost:  # a failed attempt to load F also removes G
                    self._spectra.replace(other, others[other])
                self._plans.clear()
                self._plans[1] = self._plan(1)
        return meta

    def _load_version(self, directory: Path, meta: MatrixMeta, name: str, allow_nonfinite: bool) -> None:
        # Check the metadata and one block row before allocating memory or discarding the present values.
        phase = f"reading {directory}"
        with self.comm.agreement(phase):
            self._check_meta(directory, meta, name)
            check_block_row(directory, meta, self._layout.block_rows.start)
        source = from_directory(self.comm.backend, directory, meta, allow_nonfinite=allow_nonfinite)
        self._load(source, name, phase, allow_nonfinite=allow_nonfinite)

    def _newer_meta(self, directory: Path, meta: MatrixMeta) -> MatrixMeta | None:
        """Return the metadata of a directory if they are no longer `meta`, else None. Collective."""
        found, phase = None, f"reading {directory}"
        with self.comm.agreement(phase):
            if self.comm.world_rank == 0:
                with suppress(FFTMatvecError):
                    found = read_meta(directory)
        newer = self.comm.bcast(found, phase)
        return None if newer == meta else newer

    @exclusive
    def _load(self, source: BlockRowSource, name: str, what: str, *, allow_nonfinite: bool = False) -> None:
        """Load F or G. It is uninitialised until all its values are loaded, so no product uses incomplete values."""
        comm, spectra, precision = self.comm, self._spectra, self._config.sbgemv
        progress: Callable[[range], Iterable[int]] = partial(
            show_progress, description=what, enabled=comm.world_rank == 0
        )
        with comm.agreement(what, {"matrix": name, "sizes": self._layout.sizes, "p_config": self._config.code}):
            self.check_open()
            if name == "G" and "F" not in spectra:
                raise UninitializedError(f"{what}: expected an initialised primary matrix, found one without values")
            # Do not overwrite a spectrum that another matrix shares.
            reused = spectra.exclusive(name)
            check_capacity(comm.backend, self._layout, precision, what, in_place=reused is not None)
        self._plans.clear()
        others = spectra.remove(*(("F", "G") if name == "F" else ("G",)))
        try:
            with comm.agreement(what):
                loaded = reused or Spectrum(comm.backend, self._layout, precision)
                loaded.load(source, progress, allow_nonfinite=allow_nonfinite)
                for other, spectrum in (others | {name: loaded}).items():
                    spectra.replace(other, spectrum)
                self._plans[1] = self._plan(1)
        except BaseException:  # raised on every rank, including those that did not fail
            spectra.remove(*others, name)
            self._plans.clear()
            raise


def matrix_name(aux_mat: bool) -> str:
    """Return the name of the matrix that a flag chooses: ``"F"`` or ``"G"``."""
    return "G" if aux_mat else "F"
