"""Stored spectra as NumPy reads them."""

from __future__ import annotations

from typing import Any

import numpy as np

from numba_fftmatvec.kernels.formats import RUN, Format


def decode(format: Format, values: np.ndarray, scales: np.ndarray) -> Any:
    """Return the complex values of (..., 2 pitch) parts."""
    parts = values.astype(np.float64)
    if format.is_fixed:
        wide = np.repeat(scales, 2 * RUN, axis=-1)[..., : parts.shape[-1]]
        parts[..., : wide.shape[-1]] *= wide
    return parts.view(np.complex128)
