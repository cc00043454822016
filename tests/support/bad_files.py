"""Files with an error, as data: an edit, and the error and texts that name it.

`prepare` writes every directory and vector that the cases of `support.bad_input` read, from the same tables.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from numba_fftmatvec import errors
from support.files import Edit, write_matrix, write_vector
from support.workbench import CHECKSUM, ND, NM, NT, OPERANDS, F, G

META_CASES = {
    "Nd is a word": ({"Nd": "five"}, "Nd"),
    "Nd is zero": ({"Nd": "0"}, "Nd"),
    "Nm is fractional": ({"Nm": "7.5"}, "Nm"),
    "Nm is negative": ({"Nm": "-7"}, "Nm"),
    "Nt is blank": ({"Nt": ""}, "Nt"),
    "prefix leaves the folder": ({"prefix": "../row_"}, "prefix"),
    "prefix is absolute": ({"prefix": "/tmp/row_"}, "prefix"),
    "extension": ({"extension": ".csv"}, "extension"),
    "reindexed": ({"reindexed": "two"}, "reindexed"),
    "is_p2q": ({"is_p2q": "2"}, "is_p2q"),
    "reverse_dof": ({"reverse_dof": "?"}, "reverse_dof"),
    "checksum": ({"checksum": "0x49"}, "checksum"),
    "a line too many": ({"checksum": "73", "tenth": "1"}, "line 10"),
}


def replaced(dtype: Any = np.float64, size: int = NM * NT) -> Edit:
    """Return an edit that puts a dataset of another type or size in place of `vec`."""

    def edit(file: h5py.File) -> None:
        attributes = dict(file["vec"].attrs)
        del file["vec"]
        file.create_dataset("vec", shape=(size,), dtype=dtype).attrs.update(attributes)

    return edit


def attribute(name: str, value: Any) -> Edit:
    """Return an edit that sets an attribute of `vec`, or removes it if `value` is None."""

    def edit(file: h5py.File) -> None:
        if value is None:
            del file["vec"].attrs[name]
        else:
            file["vec"].attrs[name] = value

    return edit


def without_dataset(file: h5py.File) -> None:
    """Remove `vec`."""
    del file["vec"]


BLOCK_CASES = {
    "short dataset": (replaced(size=NM * NT - 1), errors.FileFormatError, ("27", "28")),
    "float32 dataset": (replaced(np.float32), errors.FileFormatError, ("float64", "float32")),
    "integer dataset": (replaced(np.int64), errors.FileFormatError, ("float64", "int64")),
    "no dataset": (without_dataset, errors.FileFormatError, ("'vec'",)),
    "other n_param": (attribute("n_param", 8), errors.FileFormatError, ("n_param", "7", "8")),
    "other param_steps": (attribute("param_steps", 5), errors.FileFormatError, ("param_steps", "4", "5")),
    "no param_steps": (attribute("param_steps", None), errors.FileFormatError, ("param_steps",)),
    "fractional n_param": (attribute("n_param", 7.5), errors.FileFormatError, ("n_param", "7.5")),
    "n_param is a word": (attribute("n_param", "seven"), errors.FileFormatError, ("n_param",)),
    "not reindexed": (attribute("reindex", 0), errors.FileFormatError, ("reindex", "0")),
    "other checksum": (attribute("checksum", 74), errors.ChecksumError, ("73", "74")),
    "no checksum": (attribute("checksum", None), errors.ChecksumError, ("73",)),
}


def prepare(folder: Path) -> None:
    """Write every directory and vector that the cases read."""
    write_matrix(folder / "good", F, checksum=CHECKSUM)
    write_matrix(folder / "other checksum", G, checksum=CHECKSUM + 1)
    write_matrix(folder / "other steps", G[:, :, :3], checksum=CHECKSUM)
    write_matrix(folder / "one block", F[:1, :1])
    write_matrix(folder / "row missing", F)
    (folder / "row missing" / "binary" / f"row_{ND - 1:06d}.h5").unlink()
    write_matrix(folder / "row damaged", F)
    (folder / "row damaged" / "binary" / f"row_{ND - 1:06d}.h5").write_bytes(b"no HDF5 file")
    write_matrix(folder / "meta missing", F)
    (folder / "meta missing" / "binary" / "meta_adj").unlink()
    write_matrix(folder / "meta short", F)
    meta = folder / "meta short" / "binary" / "meta_adj"
    meta.write_text("".join(meta.read_text().splitlines(keepends=True)[:5]))
    for name, (lines, _) in META_CASES.items():
        write_matrix(folder / f"meta {name}", F, meta=lines)
    for name, (edit, _, _) in BLOCK_CASES.items():
        write_matrix(folder / f"row {name}", F, checksum=CHECKSUM, edits={ND - 1: edit})
        write_vector(folder / f"col {name}.h5", OPERANDS["col"], "col", checksum=CHECKSUM, edit=edit)
    write_vector(folder / "row.h5", OPERANDS["row"], "row")
    write_vector(folder / "qoi.h5", OPERANDS["row"], "row", edit=attribute("qoi", 1))
