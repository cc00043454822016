"""Formats of the stored spectrum and their encoders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._launch import Target
from .padding import rows

ALIGNMENT = 128


@dataclass(frozen=True)
class Format:
    """How one complex value of the spectrum is stored."""

    dtype: np.dtype[Any]

    def pitch(self, frequencies: int) -> int:
        """Return the length of a run of frequencies, padded to 128 bytes."""
        per_line = ALIGNMENT // self.dtype.itemsize
        return -(-frequencies // per_line) * per_line


COMPLEX128 = Format(np.dtype(np.complex128))
COMPLEX64 = Format(np.dtype(np.complex64))


def encoder(target: Target, stored: Format, scale: float) -> Callable[[Any, Any], None]:
    """Return ``encode(row, values)``, which scales a block row of transforms and stores it.

    `row` and `values` are the float views of a (Nm, pitch) array in the stored dtype and of a (Nm, pitch) complex128
    array, so the last axes count real and imaginary parts.
    """
    return rows(target, "scale", np.float64, stored.dtype.type(0).real.dtype, scale)
