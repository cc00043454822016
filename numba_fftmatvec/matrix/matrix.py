"""The class `Matrix`: its constructors, its state, and copies of it in another precision."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, Self, overload

from ..arguments import positive_int
from ..backends.exchange import real_values
from ..backends.workspace import MemoryUsage, Workspace
from ..comm import Comm
from ..comm.exclusive import exclusive
from ..errors import ArgumentTypeError, FileFormatError, ShapeError, UninitializedError
from ..layout import MatrixLayout, global_blocks
from ..precision import MatvecPrecisionConfig
from ..spectrum import Spectra
from .description import Path_
from .files import MatrixFiles
from .values import MatrixValues


class Matrix(MatrixValues, MatrixFiles):
    """The map F of a linear time-invariant system: Nd x Nm blocks, each Nt x Nt, lower-triangular and Toeplitz.

    ``y[d, t] = sum_m sum_{s <= t} F[d, m, t - s] x[m, s]``. Block rows are split over the process grid's rows, block
    columns over its columns. Each rank stores the spectrum of its share, in one format. Products are queued on the
    Comm's stream. All constructors and `init_mat_*` are collective.

    ``Matrix(comm, cols, rows, block_size, global_sizes=False, QoI=False, p_config=None)`` has no values yet.
    ``Matrix(comm, path, aux_path="", QoI=False, p_config=None, *, allow_nonfinite=False)`` reads the matrix from a
    directory, and with `aux_path` its auxiliary matrix from a second one.

    Parameters
    ----------
    comm : Comm
        The process grid.
    cols, rows : int
        Nm and Nd: global, or of each rank.
    block_size : int
        Time steps of a block, Nt.
    global_sizes : bool
        Whether `cols` and `rows` are global.
    path, aux_path : path
        Matrix directories (see docs/io_format.md); both must have the same sizes and checksum.
    QoI : bool
        Whether the matrix maps to quantities of interest; the metadata of a directory must have the same flag.
    p_config : MatvecPrecisionConfig, optional
        Precision of each stage, which the matrix copies; double in every stage by default.
    allow_nonfinite : bool
        Whether NaN and infinities in the files are accepted, as by `init_mat_from_array`.

    Raises
    ------
    ShapeError, GridError
        A size is not positive, or does not fit the grid.
    FileError, FileFormatError, ChecksumError
        A directory cannot be read or is malformed, or the checksums differ.

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
        *,
        allow_nonfinite: bool = False,
    ) -> None: ...

    def __init__(self, comm: Comm, *args: Any, **kwargs: Any) -> None:
        if not isinstance(comm, Comm):
            raise ArgumentTypeError(f"comm: expected a Comm, found {type(comm).__name__}")
        self.comm = comm
        with comm.agreement("creating a matrix", {"arguments": described(args), **described(kwargs)}):
            comm.check_open()
        with comm.agreement("creating a matrix"):
            from_directory = "path" in kwargs or bool(args and isinstance(args[0], str | bytes | os.PathLike))
            (self._from_directory if from_directory else self._from_sizes)(*args, **kwargs)

    @exclusive
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
        Nm = global_blocks(cols, comm.proc_cols, global_sizes=global_sizes, what="cols")
        Nd = global_blocks(rows, comm.proc_rows, global_sizes=global_sizes, what="rows")
        self._setup((Nd, Nm, positive_int(block_size, "block_size")), QoI, 0, p_config)

    @exclusive
    def _from_directory(
        self,
        path: Path_,
        aux_path: Path_ = "",
        QoI: bool = False,
        p_config: MatvecPrecisionConfig | None = None,
        *,
        allow_nonfinite: bool = False,
    ) -> None:
        path, meta = self._read_meta(path)
        with self.comm.agreement(f"reading {path}"):
            global_blocks(meta.Nm, self.comm.proc_cols, global_sizes=True, what=f"{path}: block columns")
            global_blocks(meta.Nd, self.comm.proc_rows, global_sizes=True, what=f"{path}: block rows")
            if meta.is_p2q != bool(QoI):
                raise FileFormatError(
                    f"{path}: expected is_p2q = {int(QoI)}, since QoI={QoI}, found {int(meta.is_p2q)}"
                )
            self._setup((meta.Nd, meta.Nm, meta.Nt), meta.is_p2q, meta.checksum, p_config)
        self._checksum = self._load_directory(path, meta, "F", allow_nonfinite=allow_nonfinite).checksum
        if os.fspath(aux_path):
            self.init_mat_from_file(aux_path, aux_mat=True, allow_nonfinite=allow_nonfinite)

    def _setup(
        self, sizes: tuple[int, int, int], qoi: bool, checksum: int, p_config: MatvecPrecisionConfig | None
    ) -> None:
        """Set the attributes of a matrix without values, of the global sizes (Nd, Nm, Nt)."""
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
    def from_array(
        cls,
        comm: Comm,
        blocks: Any,
        p_config: MatvecPrecisionConfig | None = None,
        *,
        allow_nonfinite: bool = False,
    ) -> Matrix:
        """Return the matrix with the given first block column. Collective.

        Parameters
        ----------
        comm : Comm
            The process grid.
        blocks : array_like
            Global real values of shape (Nd, Nm, Nt), given on every rank; each rank copies its share. They are on the
            host, or on the Comm's GPU in an array that supports DLPack.
        p_config : MatvecPrecisionConfig, optional
            Precision of each stage, which the matrix copies; double in every stage by default.
        allow_nonfinite : bool
            Whether NaN and infinities are accepted, as by `init_mat_from_array`.

        Raises
        ------
        ShapeError, ArgumentTypeError, ArgumentError
            The array does not have three dimensions, its values are not real numbers, or it is on another device.
        NonFiniteError
            A block's transform has a NaN or an infinity, which is not allowed or cannot be represented.
        """
        with comm.agreement("creating a matrix from an array"):
            comm.check_open()
            values = real_values(comm.backend, blocks, "blocks")
            if values.ndim != 3:
                raise ShapeError(f"blocks: expected an array of shape (Nd, Nm, Nt), found shape {values.shape}")
            Nd, Nm, Nt = values.shape
            matrix = cls(comm, Nm, Nd, Nt, global_sizes=True, p_config=p_config)
            matrix.init_mat_from_array(values, allow_nonfinite=allow_nonfinite)
        return matrix

    @exclusive
    def close(self) -> None:
        """Release the spectra, the plans and their buffers. Local; safe to call twice."""
        self._closed = True
        self._spectra.remove(*self._spectra)
        self._plans.clear()
        self._workspace = Workspace(self.comm.backend)

    def __enter__(self) -> Self:
        """Return the matrix itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the matrix."""
        self.close()

    @exclusive
    def with_precision(self, p_config: MatvecPrecisionConfig) -> Matrix:
        """Return a matrix with the same values in another precision config. Collective.

        If the format of a spectrum stays the same, both matrices share the spectrum; only plans and buffers are new.
        Otherwise the spectrum is converted on the device, which rounds its values once more. The new matrix stays valid
        when this one is closed.

        Parameters
        ----------
        p_config : MatvecPrecisionConfig
            Precision of each stage, which the new matrix copies.

        Raises
        ------
        UninitializedError
            The matrix has no values.
        CapacityError
            A spectrum in the new format does not fit in memory beside the present one.
        NonFiniteError
            A block has a NaN or an infinity, which the new format cannot represent.
        """
        comm, spectra = self.comm, self._spectra
        with comm.agreement("changing the precision of a matrix", {"p_config": described(p_config)}):
            self.check_open()
            if "F" not in spectra:
                raise UninitializedError("with_precision: expected an initialised matrix, found one without values")
            result = type(self).__new__(type(self))
            result.comm = comm
            result._setup(self._layout.sizes, self._is_p2q, self._checksum, p_config)
            for name in spectra:
                result._spectra.replace(name, spectra[name].converted(result._config.sbgemv))
            result._plans[1] = result._plan(1)
        return result

    # State

    @property
    def spectra(self) -> Spectra:
        """The stored spectra: ``spectra["F"]``, and ``spectra["G"]`` of the auxiliary matrix."""
        return self._spectra

    @property
    def nbytes(self) -> int:
        """Bytes of the spectra that this rank stores."""
        return self._spectra.nbytes

    @exclusive
    def memory_usage(self) -> MemoryUsage:
        """Return the bytes that this matrix holds on this rank, by purpose.

        The count includes the stored spectra with their scales, the buffers between the stages of products, and the
        work areas of FFT plans. It excludes vectors and the internal memory of libraries.
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


def described(value: Any) -> Any:
    """Return an argument, or a collection of arguments, with the code for a precision config."""
    if isinstance(value, MatvecPrecisionConfig):
        return value.code
    if isinstance(value, dict):
        return {name: described(item) for name, item in value.items()}
    return tuple(map(described, value)) if isinstance(value, tuple) else value
