"""Block lower-triangular Toeplitz matrices distributed over the process grid, and their products with vectors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt

from .arguments import check_shape, positive_int
from .capacity import check_capacity
from .comm import Comm
from .errors import (
    ArgumentTypeError,
    ChecksumError,
    FileFormatError,
    ShapeError,
    UninitializedError,
)
from .io import (
    MatrixMeta,
    check_block_row,
    read_meta,
    remove_meta,
    write_block_row,
    write_meta,
)
from .io.progress import show_progress
from .layout import MatrixLayout, block_ranges, global_blocks
from .matrix_products import MatrixProducts
from .operators import TransposedMatrix
from .precision import MatvecPrecisionConfig
from .sources import BlockRowSource, filled, from_directory, from_rows
from .spectra import Spectra
from .spectrum import Spectrum
from .workspace import MemoryUsage, Workspace

Path_ = str | os.PathLike[str]
Blocks = npt.ArrayLike | Callable[[int], npt.ArrayLike]


class Matrix(MatrixProducts):
    """The map F of a linear time-invariant system: Nd x Nm blocks, each Nt x Nt, lower-triangular and Toeplitz.

    ``y[d, t] = sum_m sum_{s <= t} F[d, m, t - s] x[m, s]``. Block rows are split over the process grid's rows, block
    columns over its columns; each rank stores the spectrum of its share, in one format. Products are queued on the
    Comm's stream. All constructors and `init_mat_*` are collective.

    ``Matrix(comm, cols, rows, block_size, global_sizes=False, QoI=False, p_config=None)`` makes one without values.
    ``Matrix(comm, path, aux_path="", QoI=False, p_config=None)`` reads one, and an auxiliary one, from directories.

    Parameters
    ----------
    comm : Comm
        The process grid.
    cols, rows : int
        Nm and Nd: global, or of each rank.
    block_size : int
        Nt.
    global_sizes : bool
        Whether `cols` and `rows` are global.
    path, aux_path : path
        Matrix directories (see docs/io_format.md); both must have the same sizes and checksum.
    QoI : bool
        Whether the matrix maps to quantities of interest; a directory must agree.
    p_config : MatvecPrecisionConfig, optional
        Precision of each stage; copied. All double by default.

    Raises
    ------
    ShapeError, GridError
        A size is not positive, or does not fit the grid.
    FileError, FileFormatError, ChecksumError
        A directory cannot be read or breaks the format.

    Examples
    --------
    >>> import numba_fftmatvec as pyFFTMatvec
    >>> comm = pyFFTMatvec.Comm()
    >>> F = pyFFTMatvec.Matrix(comm, cols=2, rows=1, block_size=3, global_sizes=True)
    >>> F.init_mat_ones()
    >>> x = F.get_vec("input")
    >>> x.init_vec_ones()
    >>> (F @ x).gather().round(12)
    array([[2., 4., 6.]])
    """

    @overload
    def __init__(
        self,
        comm: Comm,
        cols: int,
        rows: int,
        block_size: int,
        global_sizes: bool = False,
        QoI: bool = False,
        p_config: MatvecPrecisionConfig | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        comm: Comm,
        path: Path_,
        aux_path: Path_ = "",
        QoI: bool = False,
        p_config: MatvecPrecisionConfig | None = None,
    ) -> None: ...

    def __init__(self, comm: Comm, *args: Any, **kwargs: Any) -> None:
        if not isinstance(comm, Comm):
            raise ArgumentTypeError(f"comm: expected a Comm, found {type(comm).__name__}")
        comm.check_open()
        self.comm = comm
        from_directory = "path" in kwargs or bool(args and isinstance(args[0], str | os.PathLike))
        (self._from_directory if from_directory else self._from_sizes)(*args, **kwargs)

    def _from_sizes(
        self,
        cols: int,
        rows: int,
        block_size: int,
        global_sizes: bool = False,
        QoI: bool = False,
        p_config: MatvecPrecisionConfig | None = None,
    ) -> None:
        comm = self.comm
        with comm.agreement("creating a matrix"):
            Nm = global_blocks(cols, comm.proc_cols, global_sizes=global_sizes, what="cols")
            Nd = global_blocks(rows, comm.proc_rows, global_sizes=global_sizes, what="rows")
            self._setup((Nd, Nm, positive_int(block_size, "block_size")), QoI, 0, p_config)

    def _from_directory(
        self,
        path: Path_,
        aux_path: Path_ = "",
        QoI: bool = False,
        p_config: MatvecPrecisionConfig | None = None,
    ) -> None:
        meta = self._read_meta(path)
        with self.comm.agreement(f"reading {path}"):
            global_blocks(meta.Nm, self.comm.proc_cols, global_sizes=True, what=f"{path}: block columns")
            global_blocks(meta.Nd, self.comm.proc_rows, global_sizes=True, what=f"{path}: block rows")
            if meta.is_p2q != bool(QoI):
                raise FileFormatError(
                    f"{path}: expected is_p2q = {int(QoI)}, as QoI={QoI} says, found {int(meta.is_p2q)}"
                )
            self._setup((meta.Nd, meta.Nm, meta.Nt), meta.is_p2q, meta.checksum, p_config)
        self._load_directory(path, meta, "F")
        if os.fspath(aux_path):
            self.init_mat_from_file(aux_path, aux_mat=True)

    def _setup(
        self, sizes: tuple[int, int, int], qoi: bool, checksum: int, p_config: MatvecPrecisionConfig | None
    ) -> None:
        """Make a matrix without values, of the global sizes (Nd, Nm, Nt)."""
        comm = self.comm
        if p_config is not None and not isinstance(p_config, MatvecPrecisionConfig):
            raise ArgumentTypeError(f"p_config: expected a MatvecPrecisionConfig, found {type(p_config).__name__}")
        grid, place = (comm.proc_rows, comm.proc_cols), (comm.row_color, comm.col_color)
        self._layout = MatrixLayout.of(sizes, grid, place)
        self._config = replace(p_config) if p_config is not None else MatvecPrecisionConfig()
        self._is_p2q = bool(qoi)
        self._checksum = checksum
        self._spectra = Spectra()
        self._known_ends = {}
        self._plans = {}
        self._workspace = Workspace(comm.backend)
        self._closed = False

    @classmethod
    def from_array(cls, comm: Comm, blocks: npt.ArrayLike, p_config: MatvecPrecisionConfig | None = None) -> Matrix:
        """Return the matrix whose first block column is the global (Nd, Nm, Nt) array, given on every rank. Collective.

        Raises
        ------
        ShapeError, ArgumentTypeError
            The array has not three dimensions, or its values are not real numbers.
        """
        comm.check_open()
        with comm.agreement("creating a matrix from an array"):
            values = np.asarray(blocks)
            if values.ndim != 3:
                raise ShapeError(f"blocks: expected an array of shape (Nd, Nm, Nt), found shape {values.shape}")
            Nd, Nm, Nt = values.shape
        matrix = cls(comm, Nm, Nd, Nt, global_sizes=True, p_config=p_config)
        matrix.init_mat_from_array(values)
        return matrix

    # Initialisation

    def init_mat_ones(self, aux_mat: bool = False) -> None:
        """Set every value of the first block column to 1."""
        self._load(filled(self.comm.backend, self._layout, "constant", 1.0), _name(aux_mat), "filling a matrix")

    def init_mat_doubles(self, aux_mat: bool = False) -> None:
        """Set every value to `generate_double` of its global index in the (Nd, Nm, Nt) array."""
        self._load(filled(self.comm.backend, self._layout, "doubles"), _name(aux_mat), "filling a matrix")

    def init_mat_from_array(self, blocks: Blocks, aux_mat: bool = False) -> None:
        """Set the first block column from memory.

        Parameters
        ----------
        blocks : array_like or callable
            The global (Nd, Nm, Nt) real values, given on every rank, of which each keeps its share; or a function that
            returns the (Nm, Nt) values of the block row whose global index it is given, called for this rank's rows.
        aux_mat : bool
            Set the auxiliary matrix G instead of F.

        Raises
        ------
        ShapeError, ArgumentTypeError
            The values have another shape, or are not real numbers.
        """
        layout, what = self._layout, "taking a matrix from an array"
        with self.comm.agreement(what):
            if not callable(blocks):
                values = np.asarray(blocks)
                check_shape(values.shape, layout.sizes, "blocks")
                blocks = values.__getitem__
        self._load(from_rows(self.comm.backend, layout, blocks), _name(aux_mat), what)

    def init_mat_from_file(self, dirname: Path_, aux_mat: bool = False) -> None:
        """Set the first block column from a matrix directory.

        Parameters
        ----------
        dirname : path
            The directory; its sizes must be this matrix's.
        aux_mat : bool
            Read it into the auxiliary matrix G, whose checksum must be that of F.

        Raises
        ------
        FileError, FileFormatError, ChecksumError, ShapeError
            The directory cannot be read, breaks the format, or holds another matrix.
        """
        meta = self._read_meta(dirname)
        layout = self._layout
        with self.comm.agreement(f"reading {dirname}"):
            check_shape((meta.Nd, meta.Nm, meta.Nt), layout.sizes, f"{dirname}: (Nd, Nm, Nt)")
            if aux_mat and meta.checksum != self._checksum:
                raise ChecksumError(
                    f"{dirname}: expected the primary matrix's checksum {self._checksum}, found {meta.checksum}"
                )
            if meta.is_p2q != self._is_p2q:
                raise FileFormatError(f"{dirname}: expected is_p2q = {int(self._is_p2q)}, found {int(meta.is_p2q)}")
        self._load_directory(dirname, meta, _name(aux_mat))
        if not aux_mat:
            self._checksum = meta.checksum

    def _read_meta(self, directory: Path_) -> MatrixMeta:
        """Read the metadata on rank 0 and share it."""
        meta = None
        with self.comm.agreement(f"reading {directory}"):
            if self.comm.world_rank == 0:
                meta = read_meta(Path(directory))
        return self.comm.global_comm.bcast(meta)  # type: ignore[no-any-return]

    def _load_directory(self, directory: Path_, meta: MatrixMeta, name: str) -> None:
        # Check one block row against the metadata before allocating memory or discarding the present values.
        with self.comm.agreement(f"reading {directory}"):
            check_block_row(directory, meta, self._layout.block_rows.start)
        self._load(from_directory(Path(directory), meta), name, f"reading {directory}")

    def _load(self, source: BlockRowSource, name: str, what: str) -> None:
        """Load the values of F or G. Until they are complete there are none, so no product runs on half of them."""
        comm, spectra, precision = self.comm, self._spectra, self._config.sbgemv
        self.check_open()
        progress: Callable[[range], Iterable[int]] = partial(
            show_progress, description=what, enabled=comm.world_rank == 0
        )
        with comm.agreement(what):
            if name == "G" and "F" not in spectra:
                raise UninitializedError(f"{what}: expected an initialised primary matrix before the auxiliary one")
            # Do not overwrite a spectrum that another matrix shares.
            reused = spectra.exclusive(name)
            check_capacity(comm.backend, self._layout, precision, what, in_place=reused is not None)
        self._plans.clear()
        others = spectra.remove(*(("F", "G") if name == "F" else ("G",)))
        try:
            with comm.agreement(what):
                loaded = reused or Spectrum(comm.backend, self._layout, precision)
                loaded.load(source, progress)
                for other, spectrum in (others | {name: loaded}).items():
                    spectra.replace(other, spectrum)
                self._plans[1] = self._plan(1)
        except Exception:  # raised on the ranks that did not fail themselves, too
            spectra.remove(*others, name)
            self._plans.clear()
            raise

    def close(self) -> None:
        """Give the memory back: spectra, plans and their buffers. Local; safe to call twice."""
        self._closed = True
        self._spectra.remove(*self._spectra)
        self._plans.clear()
        self._workspace = Workspace(self.comm.backend)

    def __enter__(self) -> Self:
        """Return the matrix itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    def with_precision(self, p_config: MatvecPrecisionConfig) -> Matrix:
        """Return a matrix of the same values in another precision config, which may outlive this one. Collective.

        A spectrum whose format stays is shared, so that only plans and buffers are new; otherwise it is converted on
        the device, and the values are those of this matrix, rounded once more.

        Raises
        ------
        UninitializedError
            The matrix has no values.
        CapacityError
            A spectrum in the new format does not fit beside this one.
        """
        self.check_open()
        comm, spectra = self.comm, self._spectra
        with comm.agreement("changing the precision of a matrix"):
            if "F" not in spectra:
                raise UninitializedError("with_precision: expected an initialised matrix, found one without values")
            result = type(self).__new__(type(self))
            result.comm = comm
            result._setup(self._layout.sizes, self._is_p2q, self._checksum, p_config)
            for name in spectra:
                result._spectra.replace(name, spectra[name].converted(result._config.sbgemv))
            result._plans[1] = result._plan(1)
        return result

    # Files

    def save(self, path: Path_) -> None:
        """Write the matrix to a directory in the pyFFTMatvec format. Collective.

        The values are those that the stored spectrum represents: equal to the ones loaded up to the rounding of
        `p_config.sbgemv`. The metadata are removed first and written last, so that an incomplete directory, or one with
        rows of two matrices, is not taken for a matrix.

        Raises
        ------
        UninitializedError
            The matrix has no values.
        FileError
            A file cannot be written.
        """
        self.check_open()
        if "F" not in self._spectra:
            raise UninitializedError("save: expected an initialised matrix, found one without values")
        comm, layout = self.comm, self._layout
        meta = MatrixMeta(*layout.sizes, is_p2q=self._is_p2q, checksum=self._checksum)
        with comm.agreement(f"writing {path}"):
            if comm.world_rank == 0:
                remove_meta(path)
        counts = [len(cols) * layout.Nt for cols in block_ranges(layout.Nm, comm.proc_cols)]
        owner = comm.row_comm.rank == 0
        whole = np.empty((layout.Nm, layout.Nt)) if owner else None
        problem: Exception | None = None
        for row in layout.block_rows:
            receive = None if whole is None else (whole, counts)
            comm.row_comm.Gatherv(self._spectra["F"].block_row(row), receive)
            try:
                if whole is not None and problem is None:
                    write_block_row(Path(path), meta, row, whole)
            except Exception as error:  # the others still send; raised on all ranks below
                problem = error
        with comm.agreement(f"writing {path}"):
            if problem is not None:
                raise problem
        with comm.agreement(f"writing {path}"):
            if comm.world_rank == 0:
                write_meta(Path(path), meta)

    # State

    @property
    def T(self) -> TransposedMatrix:
        """The adjoint, as an operator: ``F.T @ y``."""
        return TransposedMatrix(self)

    @property
    def spectra(self) -> Spectra:
        """The stored spectra: ``spectra["F"]``, and ``spectra["G"]`` of the auxiliary matrix."""
        return self._spectra

    @property
    def nbytes(self) -> int:
        """Bytes of the spectra that this rank stores."""
        return self._spectra.nbytes

    def memory_usage(self) -> MemoryUsage:
        """Return the bytes that this matrix holds on this rank, by what they are for.

        Counted are the stored spectra with their scales, the buffers between the stages of products, and the work areas
        of FFT plans. Vectors are not, nor what libraries hold for themselves.
        """
        self.check_open()
        return MemoryUsage(self.nbytes, self._workspace.nbytes, self.comm.backend.plan_bytes())

    def is_initialized(self) -> bool:
        """Return whether the matrix has values."""
        return "F" in self._spectra

    def has_aux_mat(self) -> bool:
        """Return whether the auxiliary matrix has values."""
        return "G" in self._spectra

    def __repr__(self) -> str:
        """Return sizes, precision, grid and state."""
        layout, grid = self._layout, f"{self.comm.proc_rows}x{self.comm.proc_cols}"
        states = {(): "uninitialised", ("F",): "initialised"}
        state = states.get(tuple(self._spectra), "with auxiliary matrix")
        return (
            f"Matrix({layout.Nd} x {layout.Nm} blocks of {layout.Nt}, "
            f"precision {self._config.code!r}, grid {grid}, {state})"
        )


def _name(aux_mat: bool) -> str:
    """Return the name of the matrix that a flag chooses."""
    return "G" if aux_mat else "F"
