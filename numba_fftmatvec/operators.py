"""Matrices as linear operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .matrix import Matrix
    from .vector import Vector


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
        """Return ``F* y`` in a new vector, for one right-hand side or several."""
        x = self.T.get_vec("input", num_vecs=getattr(y, "num_vecs", 1))
        self.T.transpose_matmat(y, x)
        return x
