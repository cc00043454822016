"""Files of the package's formats, written and read with h5py alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Edit = Callable[[h5py.File], None]

# Lines of `meta_adj`, in order; the last one is optional.
META_FIELDS = ("Nd", "Nm", "Nt", "prefix", "extension", "reindexed", "is_p2q", "reverse_dof", "checksum")


def write_matrix(
    directory: Path,
    blocks: Array,
    *,
    meta: Mapping[str, str] | None = None,
    checksum: int | None = None,
    newline: str = "\n",
    edits: Mapping[int, Edit] | None = None,
) -> None:
    """Write a matrix directory.

    Parameters
    ----------
    directory : Path
        Created, with `binary/` below it.
    blocks : array
        First block column, (Nd, Nm, Nt).
    meta : mapping
        Texts that replace those of `meta_adj`, by field.
    checksum : int
        Written to `meta_adj` and to every block row.
    newline : str
        Ends the lines of `meta_adj`.
    edits : mapping
        Edits of the finished file of a block row, by its index.
    """
    Nd, Nm, Nt = blocks.shape
    binary = directory / "binary"
    binary.mkdir(parents=True)
    values = (str(Nd), str(Nm), str(Nt), "row_", ".h5", "1", "0", "1", *([] if checksum is None else [str(checksum)]))
    lines = dict(zip(META_FIELDS, values, strict=False)) | dict(meta or {})
    (binary / "meta_adj").write_bytes("".join(line + newline for line in lines.values()).encode())
    for d in range(Nd):
        with h5py.File(binary / f"row_{d:06d}.h5", "w") as file:
            write_block(file, blocks[d], ("n_param", "param_steps"), checksum)
            if edits and d in edits:
                edits[d](file)


def write_vector(
    path: Path, values: Array, space: str, *, edit: Edit | None = None, checksum: int | None = None
) -> None:
    """Write a vector of parameter space (``"col"``) or data space (``"row"``), (blocks, Nt)."""
    names = {"col": ("n_param", "param_steps"), "row": ("n_obs", "obs_steps")}[space]
    with h5py.File(path, "w") as file:
        write_block(file, values, names, checksum)
        if edit:
            edit(file)


def write_block(file: h5py.File, values: Array, names: tuple[str, str], checksum: int | None) -> None:
    """Write the dataset `vec` of (blocks, Nt) values and its attributes."""
    dataset = file.create_dataset("vec", data=np.ravel(values))
    dataset.attrs["reindex"] = np.int32(1)
    dataset.attrs[names[0]] = np.int32(values.shape[0])
    dataset.attrs[names[1]] = np.int32(values.shape[1])
    if checksum is not None:
        dataset.attrs["checksum"] = np.int64(checksum)


def read_matrix(directory: Path) -> Array:
    """Return the (Nd, Nm, Nt) blocks of a matrix directory with any prefix."""
    lines = (directory / "binary" / "meta_adj").read_text().splitlines()
    Nd, Nm, Nt = (int(line) for line in lines[:3])
    rows = [read_vector(directory / "binary" / f"{lines[3]}{d:06d}{lines[4]}") for d in range(Nd)]
    return np.stack(rows).reshape(Nd, Nm, Nt)


def read_vector(path: Path) -> Array:
    """Return the values of the dataset `vec`."""
    with h5py.File(path) as file:
        return np.asarray(file["vec"][:])
