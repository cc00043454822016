"""A forward substitution as recorded launches of one kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...kernels import Target
from ...kernels.substitution import LARGEST, substitution_launcher
from ..base import DOUBLE, Backend


class RecordedSubstitution:
    """The steps of a panel for one right-hand side. See `Substitution` for the parameters and the call.

    Parameters
    ----------
    target : Target
        The stream of recorded programs.
    """

    @staticmethod
    def fits(size: int, columns: int) -> bool:
        """Return whether the kernel takes blocks of a size, and a number of right-hand sides."""
        return size <= LARGEST and columns == 1

    def __init__(self, backend: Backend, target: Target, panel: Any, inverses: Any, solutions: Any, first: int) -> None:
        size = inverses.shape[1]
        self._upload = backend.upload
        self._host = np.empty(size + 1)
        self._given = backend.empty((size + 1,), DOUBLE)
        self._solutions = backend.wrap(solutions.reshape(-1))
        arrays = [backend.wrap(panel), backend.wrap(inverses), self._given]
        workspace = [backend.empty((size,), DOUBLE), backend.zeros((1,), np.dtype(np.int32))]
        views = [buffer.view for buffer in (self._solutions, *arrays, *workspace)]
        launch = substitution_launcher(target)
        self._run = backend.replayed(lambda source, destination: launch(*views, first))

    def __call__(self, step: int, given: npt.NDArray[np.float64]) -> None:
        """Set the solutions of a step."""
        self._host[0], self._host[1:] = step, given[:, 0]
        self._upload(self._given.array, self._host)
        self._run(self._given, self._solutions)
