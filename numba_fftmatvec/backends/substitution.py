"""A forward substitution with a panel of a block triangular matrix, one time step after another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Substitution:
    """The steps of a panel, each by two products of the backend's library.

    Parameters
    ----------
    backend : Backend
        The backend of the arrays.
    panel : (steps n, columns) array
        The block rows of the steps, of n rows each.
    inverses : (steps, n, n) array
        The inverses of the diagonal blocks.
    solutions : (N, k) array
        The solutions of k right-hand sides for all steps of the matrix.
    first : int
        The first step of the panel.
    """

    backend: Any
    panel: Any
    inverses: Any
    solutions: Any
    first: int

    def __call__(self, step: int, given: npt.NDArray[np.float64]) -> None:
        """Set the solutions of a step from its right-hand sides, an (n, k) host array, and earlier solutions."""
        size, arrays = self.inverses.shape[1], self.backend.arrays
        ahead, known = (step - self.first) * size, step * size
        with self.backend.active():
            values = self.solutions[known : known + size]
            self.backend.upload(values, given)
            arrays.subtract_product(values, self.panel[ahead : ahead + size, :known], self.solutions[:known])
            values[...] = self.inverses[step - self.first] @ values
