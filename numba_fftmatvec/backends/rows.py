"""The stage that copies rows, for every backend: pad, unpad, and conversions for communication."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels import Target
from ..kernels.padding import copy_launcher
from .base import End, Stage


class CopyRows(Stage):
    """Copy rows into rows of another length or dtype, rounded to a third dtype."""

    def __init__(self, phase: str, target: Target, source: End, rounding: np.dtype[Any], destination: End) -> None:
        super().__init__(phase, source, destination)
        self._copy = copy_launcher(target, source.dtype, rounding, destination.dtype)

    def run(self) -> None:
        """Read and write each value once."""
        self._copy(self.destination.view, self.source.view)
