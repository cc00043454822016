"""Vectors in HDF5 files that h5py alone writes, and the assertion that a file is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from numba_fftmatvec.io import check_vector, read_vector
from numba_fftmatvec.layout import Space, VectorLayout

BLOCKS, STEPS = 6, 5
ATTRIBUTES: dict[str, Any] = {"reindex": 1, "n_param": BLOCKS, "param_steps": STEPS}
ROW_ATTRIBUTES: dict[str, Any] = {"reindex": 1, "n_obs": BLOCKS, "obs_steps": STEPS}
VALUES = np.arange(BLOCKS * STEPS, dtype=np.float64)


def put(path: Path, attributes: dict[str, Any] = ATTRIBUTES, **dataset: Any) -> Path:
    """Write a vector with h5py alone; `dataset` goes to create_dataset."""
    with h5py.File(path, "w") as file:
        if "shape" not in dataset:
            dataset.setdefault("data", VALUES)
        file.create_dataset("vec", **dataset).attrs.update(attributes)
    return path


def attributes_of(path: Path) -> dict[str, Any]:
    """Return the attributes of `vec` besides the digests and the place in a matrix."""
    others = {"sha256", "sha256_spans", "sha256_span", "block_row", "block_rows"}
    with h5py.File(path) as file:
        return {name: value for name, value in file["vec"].attrs.items() if name not in others}


def layout_of(
    space: str = "col",
    num_blocks: int = BLOCKS,
    block_size: int = STEPS,
    num_vecs: int = 1,
    blocks: range | None = None,
) -> VectorLayout:
    """Return a layout of which all blocks are read, by default that of the vector `VALUES`."""
    return VectorLayout(Space(space), num_blocks, block_size, num_vecs, range(num_blocks) if blocks is None else blocks)


def get(path: Path, layout: VectorLayout | None = None, **options: Any) -> np.ndarray:
    """Read all of a vector, or of several."""
    layout = layout or layout_of()
    out = np.full(layout.local_shape, np.nan)
    read_vector(path, layout, out, **options)
    return out


def refused(
    path: Path, error: type[Exception], *parts: str, layout: VectorLayout | None = None, **options: Any
) -> None:
    """Assert that both the check and the reader refuse a file, naming it and `parts`."""
    layout = layout or layout_of()
    for call in (lambda: check_vector(path, layout, **options), lambda: get(path, layout, **options)):
        with pytest.raises(error) as caught:
            call()
        assert type(caught.value) is error
        assert str(path) in str(caught.value)
        for part in parts:
            assert part in str(caught.value)
