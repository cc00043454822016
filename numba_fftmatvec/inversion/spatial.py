"""Self-adjoint operators that act between the blocks of a vector, in the same way at every time step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..comm import Comm
from ..layout import VectorLayout, block_range
from ..operators import Diagonal
from ..operators.diagonal import SelfAdjointOperator
from ..vector import Vector

PIECE_BYTES = 1 << 26


class SpatialOperator(SelfAdjointOperator):
    """The operator that applies one symmetric matrix of shape (blocks, blocks) to the values of each time step.

    The matrix is dense in general, so a time step must be on one rank. On one rank the values stay on the device. On
    several, every rank gets all values on the host and applies the matrix to its share of the time steps.

    Parameters
    ----------
    comm : Comm
        The process grid.
    layout : VectorLayout
        The layout of operands and results, in either space.
    function : callable
        Applies the matrix to each row of an array of the backend's library, of shape (rows, blocks).
    name : str
        The operator's name, for errors and `repr`.
    """

    def __init__(self, comm: Comm, layout: VectorLayout, function: Callable[[Any], Any], name: str) -> None:
        super().__init__(comm, layout)
        self._function = function
        self._name = name

    def compute(self, x: Vector, y: Vector) -> None:
        """Apply the matrix to each time step of each vector."""
        if self.comm.world_size == 1:
            self._on_device(x.array, y.array)
            y.init_vec()
        else:
            self._on_ranks(x, y)

    def _on_device(self, source: Any, target: Any) -> None:
        layout, numpy = self._layout, self.comm.backend.arrays.numpy
        shape = -1, layout.num_blocks, layout.block_size
        step = max(1, PIECE_BYTES // (8 * layout.num_blocks))
        with self.comm.backend.active():
            for values, results in zip(source.reshape(shape), target.reshape(shape), strict=True):
                for first in range(0, layout.block_size, step):
                    steps = slice(first, first + step)
                    results[:, steps] = self._function(numpy.ascontiguousarray(values[:, steps].T)).T

    def _on_ranks(self, x: Vector, y: Vector) -> None:
        comm, (blocks, steps) = self.comm, self._layout.shape
        phase = f"applying {self._name}"
        with comm.agreement(phase, x.layout.description):
            values = np.moveaxis(x.gather().reshape(-1, blocks, steps), 1, 2).reshape(-1, blocks)
            share = block_range(len(values), comm.world_size, comm.world_rank)
            results = np.empty((0, blocks))
            if share:
                with comm.backend.active():
                    mine = comm.backend.arrays.numpy.asarray(values[share.start : share.stop])
                    results = comm.backend.download(self._function(mine))
            joined = comm.concatenate(results.reshape(1, -1), phase).reshape(-1, steps, blocks)
            y.scatter(np.moveaxis(joined, 2, 1).reshape(y.shape))

    def __repr__(self) -> str:
        """Return the name and the sizes."""
        return f"<{self._name} of {self._layout}>"


def diagonal_operator(comm: Comm, layout: VectorLayout, weights: npt.NDArray[np.float64]) -> Diagonal:
    """Return the operator that multiplies values by weights, which broadcast to the global shape of the layout."""
    vector = Vector.from_layout(comm, layout)
    vector.scatter(np.broadcast_to(weights, layout.shape))
    return Diagonal(vector)
