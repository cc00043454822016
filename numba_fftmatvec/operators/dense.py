"""The dense matrix of a small operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..arguments import positive_int
from ..comm import Comm
from ..errors import CapacityError
from ..layout import VectorLayout
from ..vector import Vector

# Columns of one product: as many right-hand sides as a matrix takes in one pass.
MAX_COLUMNS = 16


def dense(
    comm: Comm, domain: VectorLayout, range_: VectorLayout, apply: Callable[[Vector, Vector], None], limit: int
) -> npt.NDArray[np.float64]:
    """Return the matrix of a linear map on every rank. Collective; the parameters are those of an operator."""
    rows, cols = range_.size, domain.size
    with comm.agreement("todense", {"rows": rows, "cols": cols, "limit": limit}):
        if rows * cols > positive_int(limit, "todense: limit"):
            raise CapacityError(
                f"todense: expected at most limit = {limit} values, found {rows} x {cols} = {rows * cols}; "
                "a larger limit allows them"
            )
        result = np.empty((rows, cols))
    for first in range(0, cols, MAX_COLUMNS):
        count = min(MAX_COLUMNS, cols - first)
        x = Vector.from_layout(comm, replace(domain, num_vecs=count))
        y = Vector.from_layout(comm, replace(range_, num_vecs=count))
        _set_unit_vectors(x, first)
        apply(x, y)
        result[:, first : first + count] = y.gather().reshape(count, rows).T
    return result


def _set_unit_vectors(x: Vector, first: int) -> None:
    """Set vector i to unit vector ``first + i``, in SOTI order."""
    x.init_vec_zeros()
    if x.array is None:
        return
    with x.comm.backend.active():
        values = x.array.reshape(x.num_vecs, x.num_blocks, x.block_size)
        for i in range(x.num_vecs):
            block, step = divmod(first + i, x.block_size)
            if block in x.blocks:
                values[i, block - x.blocks.start, step] = 1.0
