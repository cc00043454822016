"""Blocks F[d, m, t] in files of other programs, read some block rows at a time: NumPy, Zarr and NetCDF-4.

NetCDF-4 files are HDF5 files. Packed variables are unpacked by `scale_factor` and `add_offset`, as the CF conventions
define them. Missing values become NaN, which no matrix takes.
"""

from __future__ import annotations

import importlib
import math
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError, BackendError, FFTMatvecError, FileError, FileFormatError, ShapeError
from .atomic import check_regular_file, file_error
from .dataset import open_file
from .hdf5 import read_block_row
from .meta import meta_path, read_meta
from .storage import check_layout

AXES = "dmt"  # block rows, block columns, time steps
NETCDF = (".nc", ".nc4", ".h5", ".hdf5")
NUMPY = (".npy", ".npz")

_PIECE = 64 * 2**20  # bytes of values that are read at a time, unless a block row is larger
# The value of NetCDF variables that were never written.
_NETCDF_FILL = 9.969209968386869e36
_ZARR = ("zarr.json", ".zarray", ".zgroup")

_FAILURES = (
    *(OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, EOFError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError),
)

Read = Callable[[range], NDArray[np.float64]]


@dataclass(frozen=True)
class Blocks:
    """The blocks of an open file.

    Parameters
    ----------
    name : str
        The file, and the variable in it.
    shape : tuple of int
        (Nd, Nm, Nt).
    read : callable
        ``read(rows)`` returns the block rows of a range.
    qoi : bool
        Whether the rows are quantities of interest.
    """

    name: str
    shape: tuple[int, int, int]
    read: Read
    qoi: bool = False

    def pieces(self) -> Iterator[tuple[range, NDArray[np.float64]]]:
        """Yield all block rows, as many at a time as memory is bounded to, with their indices.

        Raises
        ------
        FileFormatError
            A value is not finite.
        """
        Nd, Nm, Nt = self.shape
        step = max(1, _PIECE // (8 * Nm * Nt))
        for first in range(0, Nd, step):
            rows = range(first, min(Nd, first + step))
            values = self.read(rows)
            if not (finite := np.isfinite(values)).all():
                row, col, time = np.unravel_index(int(np.argmin(finite)), values.shape)
                place = f"block row {rows[int(row)]}, block column {col}, time step {time}"
                raise FileFormatError(f"{self.name}, {place}: expected finite values, found {values[row, col, time]}")
            yield rows, values


@contextmanager
def open_blocks(path: Path, variable: str | None = None, order: str = AXES) -> Iterator[Blocks]:
    """Yield the blocks of a file or a directory.

    Parameters
    ----------
    path : Path
        A ``.npy``, ``.npz``, ``.nc`` or ``.h5`` file, a Zarr directory, or a matrix directory.
    variable : str, optional
        The variable of a file that has several; by default the only one with three axes.
    order : str
        The order of the source's axes: a permutation of ``dmt``.

    Raises
    ------
    FileError, FileFormatError, ShapeError
        The source is missing, of another format, or has no such variable.
    BackendError
        The source is a Zarr directory, and the package zarr is not installed.
    """
    check_order(order)
    if os.path.lexists(meta_path(path)):
        if variable is not None or order != AXES:
            raise ArgumentError(f"{path}: expected no variable and no order for a matrix directory, found some")
        yield _matrix(path)
        return
    if path.is_dir():
        yield _zarr(path, variable, order)
        return
    openers = {".npy": _npy, ".npz": _npz, **dict.fromkeys(NETCDF, _netcdf)}
    opener = openers.get(path.suffix.lower())
    if opener is None:
        kinds = f"{', '.join((*NUMPY, *NETCDF))}, a Zarr directory or a matrix directory"
        raise FileFormatError(f"{path}: expected {kinds}, found a name that ends in {path.suffix!r}")
    check_regular_file(path)
    with opener(path, variable, order) as blocks:
        yield blocks


def check_order(order: str) -> None:
    """Raise an ArgumentError unless an order of axes is a permutation of ``dmt``."""
    if sorted(order) != sorted(AXES):
        raise ArgumentError(f"order: expected a permutation of {AXES} (block row, block column, time), found {order!r}")


def _of_array(
    path: Path, name: str, array: Any, order: str, unpack: Callable[[Any], NDArray[Any]] = np.asarray
) -> Blocks:
    """Return the blocks of an array with slices; raise an error unless it has three axes of real numbers."""
    where = f"{path}, {name}" if name else str(path)
    if array.ndim != 3 or 0 in array.shape:
        raise ShapeError(f"{where}: expected three axes ({', '.join(order)}), none of length 0, found {array.shape}")
    if np.dtype(array.dtype).kind not in "iuf":
        raise FileFormatError(f"{where}: expected real numbers, found dtype {array.dtype}")
    places = [order.index(axis) for axis in AXES]

    def read(rows: range) -> NDArray[np.float64]:
        index = [slice(None)] * 3
        index[places[0]] = slice(rows.start, rows.stop)
        with _errors(path):
            values = unpack(array[tuple(index)])
        return np.ascontiguousarray(values.transpose(places), dtype=np.float64)

    Nd, Nm, Nt = (int(array.shape[place]) for place in places)
    return Blocks(where, (Nd, Nm, Nt), read)


def _matrix(path: Path) -> Blocks:
    meta = read_meta(path)

    def read(rows: range) -> NDArray[np.float64]:
        values = np.empty((len(rows), meta.Nm, meta.Nt))
        for row, out in zip(rows, values, strict=True):
            read_block_row(path, meta, row, range(meta.Nm), out)
        return values

    return Blocks(str(path), (meta.Nd, meta.Nm, meta.Nt), read, meta.is_p2q)


@contextmanager
def _npy(path: Path, variable: str | None, order: str) -> Iterator[Blocks]:
    if variable is not None:
        raise ArgumentError(f"{path}: expected no variable, since the file has one array, found {variable!r}")
    with _errors(path):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise FileFormatError(f"{path}: expected an array of NumPy, found an archive; name it with the suffix .npz")
    yield _of_array(path, "", array, order)


@contextmanager
def _npz(path: Path, variable: str | None, order: str) -> Iterator[Blocks]:
    """Yield the blocks of a member, which is copied to an unnamed file: a compressed member has no slices."""
    with _errors(path), zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        shapes = {name: _shape_of(archive, name) for name in names}
    name = _chosen(path, shapes, variable)
    with tempfile.TemporaryFile() as copy:
        with _errors(path), zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
            shutil.copyfileobj(member, copy, 2**20)
        copy.seek(0)
        with _errors(path):
            shape, fortran, dtype = _header(copy)
            offset = copy.tell()
            array = np.memmap(copy, dtype, "r", offset, shape, "F" if fortran else "C")
        yield _of_array(path, name, array, order)


def _shape_of(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    """Return the shape of a member; its size must be that of the shape, so that no member inflates to more."""
    with archive.open(f"{name}.npy") as member:
        shape, _, dtype = _header(member)
        expected, found = member.tell() + math.prod(shape) * dtype.itemsize, archive.getinfo(member.name).file_size
    if found != expected:
        raise ValueError(f"{found} bytes of {name} instead of {expected}")
    return shape


def _header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of a ``.npy`` stream: the shape, whether it is in Fortran's order, and the dtype."""
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of the format .npy")
    shape, fortran, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError("an array of Python objects")
    return shape, fortran, dtype


@contextmanager
def _netcdf(path: Path, variable: str | None, order: str) -> Iterator[Blocks]:
    with path.open("rb") as file:
        if file.read(3) == b"CDF":
            raise FileFormatError(f"{path}: expected NetCDF-4, found classic NetCDF; convert it with 'nccopy -k nc4'")
    with open_file(path) as file:
        datasets: dict[str, Any] = {}
        file.visititems(lambda name, item: datasets.update({name: item}) if isinstance(item, h5py.Dataset) else None)
        plain = {name: item for name, item in datasets.items() if not item.is_virtual}
        name = _chosen(path, {name: item.shape or () for name, item in plain.items()}, variable)
        dataset = plain[name]
        check_layout(path, dataset, name)
        _check_written(path, name, dataset)
        yield _of_array(path, name, dataset, order, _unpacking(path, dataset))


def _check_written(path: Path, name: str, dataset: Any) -> None:
    """Raise a FileFormatError unless all values of a dataset were written."""
    chunks = dataset.chunks
    if chunks is None:
        written = dataset.id.get_storage_size() == dataset.size * dataset.dtype.itemsize
    else:
        pairs = zip(dataset.shape, chunks, strict=True)
        written = dataset.id.get_num_chunks() == math.prod(-(-size // chunk) for size, chunk in pairs)
    if not written:
        raise FileFormatError(f"{path}, {name}: expected all values, found some that were never written")


def _unpacking(path: Path, dataset: Any) -> Callable[[Any], NDArray[Any]]:
    """Return the function from stored values to real ones, by the attributes of the CF conventions."""
    with _errors(path):
        names = ("scale_factor", "add_offset", "_FillValue", "missing_value")
        found = {name: np.ravel(dataset.attrs[name]) for name in names if name in dataset.attrs}
    if "_Unsigned" in dataset.attrs:
        raise FileFormatError(f"{path}, {dataset.name}: expected no attribute _Unsigned, found one; store real numbers")
    missing = [value for name in ("_FillValue", "missing_value") for value in found.get(name, ())]

    def unpack(stored: Any) -> NDArray[Any]:
        absent = np.isin(stored, missing) if missing else np.zeros(stored.shape, dtype=bool)
        values = stored.astype(np.float64)
        absent |= values == _NETCDF_FILL
        values = values * float(found.get("scale_factor", (1.0,))[0]) + float(found.get("add_offset", (0.0,))[0])
        return np.where(absent, np.nan, values)

    return unpack


def _zarr(path: Path, variable: str | None, order: str) -> Blocks:
    if not any((path / name).exists() for name in _ZARR):
        raise FileFormatError(
            f"{path}: expected a matrix directory, with binary/meta_adj, or a Zarr directory, found neither"
        )
    try:
        zarr = importlib.import_module("zarr")
    except ImportError as error:
        raise BackendError(
            f"{path}: expected the package zarr to read a Zarr directory, found: {error}; "
            f"pip install 'numba-fftmatvec[zarr]'"
        ) from error
    with _errors(path):
        opened = zarr.open(str(path), mode="r")
        if hasattr(opened, "dtype"):
            if variable is not None:
                raise ArgumentError(f"{path}: expected no variable, since it is one array, found {variable!r}")
            return _of_array(path, "", opened, order)
        arrays = dict(opened.arrays())
    name = _chosen(path, {name: array.shape for name, array in arrays.items()}, variable)
    return _of_array(path, name, arrays[name], order)


def _chosen(path: Path, shapes: Mapping[str, tuple[int, ...]], variable: str | None) -> str:
    """Return the name of the variable, or of the only one with three axes."""
    listed = ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:12]) or "no variable"
    if variable is not None:
        if variable not in shapes:
            raise FileFormatError(f"{path}: expected the variable {variable!r}, found {listed}")
        return variable
    found = [name for name, shape in shapes.items() if len(shape) == 3]
    if len(found) != 1:
        raise FileFormatError(f"{path}: expected one variable with three axes, or its name, found {listed}")
    return found[0]


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Raise the errors of other formats' readers as this package's."""
    try:
        yield
    except FFTMatvecError:
        raise
    except MemoryError as error:
        raise FileError(f"{path}: expected block rows that fit into memory, found: {error}") from error
    except _FAILURES as error:
        text = f"{path}: expected a file of the format that its name has, found: {error}"
        number = error.errno if isinstance(error, OSError) else None
        raise (file_error(text, number) if number else FileFormatError(text)) from error
