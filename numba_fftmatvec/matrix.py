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

from .arithmetic import check_operand
from .backends import Buffer
from .comm import Comm
from .errors import (
    ArgumentError,
    ArgumentTypeError,
    ChecksumError,
    ClosedError,
    FileFormatError,
    ShapeError,
    UninitializedError,
)
from .io import (
    MatrixMeta,
    check_block_row,
    read_block_row,
    read_meta,
    remove_meta,
    write_block_row,
    write_meta,
)
from .io.progress import show_progress
from .kernels.elementwise import fill
from .kernels.storage import COMPLEX64, COMPLEX128
from .layout import Layout
from .partition import block_counts, check_shape, global_blocks, positive_int
from .pipeline import LegBuilder, Pipeline, build_pipelines
from .precision import MatvecConfig, MatvecPrecisionConfig, Precision
from .spectrum import BlockRowSource, Spectrum
from .timing import Timer
from .vector import Vector

Path_ = str | os.PathLike[str]
Blocks = npt.ArrayLike | Callable[[int], npt.ArrayLike]

FORMATS = {Precision.DOUBLE: COMPLEX128, Precision.SINGLE: COMPLEX64}


class Matrix:
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
            nm = global_blocks(cols, comm.proc_cols, global_sizes=global_sizes, what="cols")
            nd = global_blocks(rows, comm.proc_rows, global_sizes=global_sizes, what="rows")
            self._setup(nd, nm, positive_int(block_size, "block_size"), QoI, 0, p_config)

    def _from_directory(
        self,
        path: Path_,
        aux_path: Path_ = "",
        QoI: bool = False,
        p_config: MatvecPrecisionConfig | None = None,
    ) -> None:
        meta = self._read_meta(path)
        with self.comm.agreement(f"reading {path}"):
            global_blocks(meta.num_cols, self.comm.proc_cols, global_sizes=True, what=f"{path}: block columns")
            global_blocks(meta.num_rows, self.comm.proc_rows, global_sizes=True, what=f"{path}: block rows")
            if meta.is_p2q != bool(QoI):
                raise FileFormatError(
                    f"{path}: expected is_p2q = {int(QoI)}, as QoI={QoI} says, found {int(meta.is_p2q)}"
                )
            self._setup(meta.num_rows, meta.num_cols, meta.block_size, meta.is_p2q, meta.checksum, p_config)
        self._load_directory(path, meta, 0)
        if os.fspath(aux_path):
            self.init_mat_from_file(aux_path, aux_mat=True)

    def _setup(
        self, nd: int, nm: int, nt: int, qoi: bool, checksum: int, p_config: MatvecPrecisionConfig | None
    ) -> None:
        comm = self.comm
        if p_config is not None and not isinstance(p_config, MatvecPrecisionConfig):
            raise ArgumentTypeError(f"p_config: expected a MatvecPrecisionConfig, found {type(p_config).__name__}")
        grid, place = (comm.proc_rows, comm.proc_cols), (comm.row_color, comm.col_color)
        self._layout = Layout.of((nd, nm, nt), grid, place)
        self._config = replace(p_config) if p_config is not None else MatvecPrecisionConfig()
        self._is_p2q = bool(qoi)
        self._checksum = checksum
        self._spectra: list[Spectrum] = []
        self._pipelines: dict[MatvecConfig, Pipeline] = {}
        self._builder: LegBuilder | None = LegBuilder(comm, self._layout, self._config)
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
            nd, nm, nt = values.shape
        matrix = cls(comm, nm, nd, nt, global_sizes=True, p_config=p_config)
        matrix.init_mat_from_array(values)
        return matrix

    # Initialisation

    def init_mat_ones(self, aux_mat: bool = False) -> None:
        """Set every value of the first block column to 1."""
        self._load(self._filled("constant", 1.0), aux_mat, "filling a matrix")

    def init_mat_doubles(self, aux_mat: bool = False) -> None:
        """Set every value to `generate_double` of its global index in the (Nd, Nm, Nt) array."""
        self._load(self._filled("doubles"), aux_mat, "filling a matrix")

    def _filled(self, formula: str, value: float = 0.0) -> BlockRowSource:
        layout, backend = self._layout, self.comm.backend
        launch = fill(backend.target, formula)

        def source(row: int, out: Buffer) -> None:
            start = (row * layout.num_cols + layout.cols.start) * layout.block_size
            launch(backend.wrap(out.array.reshape(-1)).view, start, value)

        return source

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
        layout = self._layout
        rows: Callable[[int], npt.ArrayLike]
        with self.comm.agreement("taking a matrix from an array"):
            if callable(blocks):
                rows = blocks
            else:
                values = np.asarray(blocks)
                check_shape(values.shape, (layout.num_rows, layout.num_cols, layout.block_size), "blocks")
                rows = values.__getitem__

        def source(row: int, out: Buffer) -> None:
            values = np.asarray(rows(row))
            check_shape(values.shape, (layout.num_cols, layout.block_size), f"block row {row}")
            if values.dtype.kind not in "buif":
                raise ArgumentTypeError(f"block row {row}: expected real numbers, found dtype {values.dtype}")
            mine = values[layout.cols.start : layout.cols.stop]
            self.comm.backend.upload(out.array, np.ascontiguousarray(mine, np.float64))

        self._load(source, aux_mat, "taking a matrix from an array")

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
            found = (meta.num_rows, meta.num_cols, meta.block_size)
            check_shape(found, (layout.num_rows, layout.num_cols, layout.block_size), f"{dirname}: (Nd, Nm, Nt)")
            if aux_mat and meta.checksum != self._checksum:
                raise ChecksumError(
                    f"{dirname}: expected the primary matrix's checksum {self._checksum}, found {meta.checksum}"
                )
            if meta.is_p2q != self._is_p2q:
                raise FileFormatError(f"{dirname}: expected is_p2q = {int(self._is_p2q)}, found {int(meta.is_p2q)}")
        self._load_directory(dirname, meta, aux_mat)
        if not aux_mat:
            self._checksum = meta.checksum

    def _read_meta(self, directory: Path_) -> MatrixMeta:
        """Read the metadata on rank 0 and share it."""
        meta = None
        with self.comm.agreement(f"reading {directory}"):
            if self.comm.world_rank == 0:
                meta = read_meta(Path(directory))
        return self.comm.global_comm.bcast(meta)  # type: ignore[no-any-return]

    def _load_directory(self, directory: Path_, meta: MatrixMeta, aux_mat: bool | int) -> None:
        layout, backend = self._layout, self.comm.backend
        # Before memory for what the metadata say, and before present values go: at least one file must bear them out.
        with self.comm.agreement(f"reading {directory}"):
            check_block_row(directory, meta, layout.rows.start)

        def source(row: int, out: Buffer) -> None:
            host = backend.host_view(out.array)
            read_block_row(Path(directory), meta, row, layout.cols, host)
            backend.copy_from_host(out.array, host)

        self._load(source, bool(aux_mat), f"reading {directory}")

    def _load(self, source: BlockRowSource, aux_mat: bool, what: str) -> None:
        comm = self.comm
        self.check_open()
        progress: Callable[[range], Iterable[int]] = partial(
            show_progress, description=what, enabled=comm.world_rank == 0
        )
        with comm.agreement(what):
            if aux_mat and not self._spectra:
                raise UninitializedError(f"{what}: expected an initialised primary matrix before the auxiliary one")
        kept = self._spectra[: int(aux_mat)]
        reused = self._spectra[int(aux_mat) : int(aux_mat) + 1]
        others = self._spectra[int(aux_mat) + 1 :]
        # Until the values are complete there are none: after a failure no product may run on half of them.
        self._set_spectra(kept)
        with comm.agreement(what):
            new = reused or [Spectrum(comm.backend, self._layout, FORMATS[self._config.sbgemv])]
            new[0].load(source, progress)
            self._set_spectra([*kept, *new, *others])

    def _set_spectra(self, spectra: list[Spectrum]) -> None:
        assert self._builder is not None
        self._pipelines = build_pipelines(self._builder, self.comm, spectra)
        self._spectra = spectra

    # Products

    def matvec(
        self,
        x: Vector,
        y: Vector,
        use_aux_mat: bool = False,
        full: bool = False,
        *,
        timer: Timer | None = None,
    ) -> None:
        """Compute ``y = F x``; with `use_aux_mat` ``y = G x``; with `full` ``y = F* F x``, with both ``y = G* F x``.

        The work is queued on the Comm's stream; reading `y` waits for it.

        Parameters
        ----------
        x : Vector
            Initialised ``"col"`` vector of (Nm, Nt).
        y : Vector
            ``"row"`` vector of (Nd, Nt), or with `full` ``"col"`` of (Nm, Nt); overwritten, and initialised by this.
        use_aux_mat, full : bool
            Which product.
        timer : Timer, optional
            Measures the phases.

        Raises
        ------
        SpaceError, ShapeError, ArgumentTypeError, ArgumentError
            An operand does not fit, or both are one vector.
        UninitializedError
            The matrix, the auxiliary matrix or `x` has no values.
        """
        self._apply(MatvecConfig(False, bool(full), bool(use_aux_mat)), x, y, timer)

    def transpose_matvec(
        self,
        x: Vector,
        y: Vector,
        use_aux_mat: bool = False,
        full: bool = False,
        *,
        timer: Timer | None = None,
    ) -> None:
        """Compute ``y = F* x``; with `use_aux_mat` ``y = G* x``; with `full` ``y = F F* x``, with both ``y = F G* x``.

        As `matvec`, with the spaces exchanged.
        """
        self._apply(MatvecConfig(True, bool(full), bool(use_aux_mat)), x, y, timer)

    def _apply(self, product: MatvecConfig, x: Vector, y: Vector, timer: Timer | None) -> None:
        self.check_open()
        name = product.name
        pipeline = self._pipelines.get(product)
        if pipeline is None:
            missing = "auxiliary matrix" if self._spectra else "matrix"
            raise UninitializedError(f"{name} x: expected an initialised {missing}, found one without values")
        check_operand(x, self.comm, product.input_space, self._vector_shape(product.input_space), f"operand of {name}")
        check_operand(y, self.comm, product.output_space, self._vector_shape(product.output_space), f"result of {name}")
        x.check_initialized(f"operand of {name}")
        if x is y:
            raise ArgumentError(f"{name} x: expected two vectors, found one as operand and result")
        pipeline.run(x._buffer, y._buffer, timer)
        y.init_vec()

    def __matmul__(self, x: Vector) -> Vector:
        """Return ``F x`` in a new vector."""
        y = self.get_vec("output")
        self.matvec(x, y)
        return y

    @property
    def T(self) -> TransposedMatrix:
        """The adjoint, as an operator: ``F.T @ y``."""
        return TransposedMatrix(self)

    def get_vec(self, which: str) -> Vector:
        """Return a new uninitialised vector: for ``"input"`` in parameter space, for ``"output"`` in data space.

        Raises
        ------
        ArgumentError
            `which` is neither.
        """
        spaces = {"input": "col", "output": "row"}
        if which not in spaces:
            raise ArgumentError(f"get_vec: expected 'input' or 'output', found {which!r}")
        blocks, block_size = self._vector_shape(spaces[which])
        return Vector(self.comm, blocks, block_size, spaces[which], global_sizes=True)

    def _vector_shape(self, space: str) -> tuple[int, int]:
        layout = self._layout
        return (layout.num_cols if space == "col" else layout.num_rows), layout.block_size

    def check_open(self) -> None:
        """Raise a ClosedError if `close` was called, here or on the Comm."""
        if self._closed:
            raise ClosedError("matrix: expected an open one, found one that was closed")
        self.comm.check_open()

    def close(self) -> None:
        """Give the memory back: spectra, plans and their buffers. Local; safe to call twice."""
        self._closed = True
        self._spectra = []
        self._pipelines = {}
        self._builder = None

    def __enter__(self) -> Self:
        """Return the matrix itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

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
        if not self._spectra:
            raise UninitializedError("save: expected an initialised matrix, found one without values")
        comm, layout = self.comm, self._layout
        meta = MatrixMeta(
            layout.num_rows, layout.num_cols, layout.block_size, is_p2q=self._is_p2q, checksum=self._checksum
        )
        with comm.agreement(f"writing {path}"):
            if comm.world_rank == 0:
                remove_meta(path)
        counts = [n * layout.block_size for n in block_counts(layout.num_cols, comm.proc_cols)]
        owner = comm.row_comm.rank == 0
        whole = np.empty((layout.num_cols, layout.block_size)) if owner else None
        problem: Exception | None = None
        for row in layout.rows:
            receive = None if whole is None else (whole, counts)
            comm.row_comm.Gatherv(self._spectra[0].block_row(row), receive)
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

    # Sizes and state

    @property
    def shape(self) -> tuple[int, int]:
        """Global shape of the matrix: (Nd Nt, Nm Nt)."""
        layout = self._layout
        return layout.num_rows * layout.block_size, layout.num_cols * layout.block_size

    @property
    def dtype(self) -> np.dtype[np.float64]:
        """Dtype of the vectors that it maps."""
        return np.dtype(np.float64)

    @property
    def nbytes(self) -> int:
        """Bytes of the spectra that this rank stores."""
        return sum(spectrum.nbytes for spectrum in self._spectra)

    @property
    def layout(self) -> Layout:
        """Sizes of the matrix and of this rank's share."""
        return self._layout

    def is_initialized(self) -> bool:
        """Return whether the matrix has values."""
        return bool(self._spectra)

    def has_aux_mat(self) -> bool:
        """Return whether the auxiliary matrix has values."""
        return len(self._spectra) > 1

    @property
    def num_cols(self) -> int:
        """Number of this rank's block columns."""
        return len(self._layout.cols)

    @property
    def num_rows(self) -> int:
        """Number of this rank's block rows."""
        return len(self._layout.rows)

    @property
    def glob_num_cols(self) -> int:
        """Global number of block columns, Nm."""
        return self._layout.num_cols

    @property
    def glob_num_rows(self) -> int:
        """Global number of block rows, Nd."""
        return self._layout.num_rows

    @property
    def block_size(self) -> int:
        """Number of time steps of a block, Nt."""
        return self._layout.block_size

    @property
    def padded_size(self) -> int:
        """Length of the transforms, 2 Nt."""
        return self._layout.padded_size

    @property
    def checksum(self) -> int:
        """Checksum of the directory that the matrix was read from, 0 for none."""
        return self._checksum

    @property
    def precision_config(self) -> MatvecPrecisionConfig:
        """A copy of the precision config."""
        return replace(self._config)

    def is_p2q_mat(self) -> bool:
        """Return whether the matrix maps to quantities of interest."""
        return self._is_p2q

    def get_num_cols(self) -> int:
        """Return this rank's number of block columns."""
        return self.num_cols

    def get_num_rows(self) -> int:
        """Return this rank's number of block rows."""
        return self.num_rows

    def get_glob_num_cols(self) -> int:
        """Return Nm."""
        return self.glob_num_cols

    def get_glob_num_rows(self) -> int:
        """Return Nd."""
        return self.glob_num_rows

    def get_block_size(self) -> int:
        """Return Nt."""
        return self.block_size

    def get_padded_size(self) -> int:
        """Return 2 Nt."""
        return self.padded_size

    def get_checksum(self) -> int:
        """Return the checksum of the directory that the matrix was read from, 0 for none."""
        return self.checksum

    def get_precision_config(self) -> MatvecPrecisionConfig:
        """Return a copy of the precision config."""
        return self.precision_config

    def __repr__(self) -> str:
        """Return sizes, precision, grid and state."""
        layout, grid = self._layout, f"{self.comm.proc_rows}x{self.comm.proc_cols}"
        state = (
            "uninitialised" if not self._spectra else "with auxiliary matrix" if self.has_aux_mat() else "initialised"
        )
        return (
            f"Matrix({layout.num_rows} x {layout.num_cols} blocks of {layout.block_size}, "
            f"precision {self._config.code!r}, grid {grid}, {state})"
        )


class TransposedMatrix:
    """The adjoint of a Matrix: ``F.T @ y`` is F* y, and ``F.T.T`` is F again."""

    def __init__(self, matrix: Matrix) -> None:
        self.T = matrix

    @property
    def shape(self) -> tuple[int, int]:
        """Global shape: (Nm Nt, Nd Nt)."""
        rows, cols = self.T.shape
        return cols, rows

    @property
    def dtype(self) -> np.dtype[np.float64]:
        """Dtype of the vectors that it maps."""
        return self.T.dtype

    def __matmul__(self, y: Vector) -> Vector:
        """Return ``F* y`` in a new vector."""
        x = self.T.get_vec("input")
        self.T.transpose_matvec(y, x)
        return x
