"""Formats of the stored spectrum: the shapes and dtypes of its arrays.

A spectrum has a run of frequencies for each of (nd, nm) blocks. It is stored as ``[d][m][k]``, with the real and the
imaginary part of a frequency side by side; each run is padded to 128 bytes. On the CPU the runs of a block row are cut
into tiles of four frequencies, in the order ``[d][tile][m][k]``. A format is a dtype of these parts. In the
fixed-point formats a part is an integer multiple of a scale that 64 neighbouring frequencies of a block share. This is
block floating point (Wilkinson, Rounding Errors in Algebraic Processes, 1963). Scales are local so that weak blocks
keep their precision beside strong ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

ALIGNMENT = 128
RUN = 64  # frequencies that share a scale
LINE = 64  # bytes of a processor's line of cache, and of its widest vector
TILE = 4  # neighbouring frequencies of a block on the CPU; they divide every padded run
PARTS = 2 * TILE  # real and imaginary parts of a tile


class StoredArrays(NamedTuple):
    """The arrays of a stored spectrum.

    Parameters
    ----------
    values : array
        Real and imaginary parts, (nd, nm, 2 pitch), or on the CPU (nd, pitch / TILE, nm, 2 TILE).
    scales : array
        float64 scales, (nd, nm, scales), or on the CPU (nd, scales, nm); a single zero if the format has none.
    """

    values: Any
    scales: Any


def vector_tiles(num_vecs: int, frequencies: int, blocks: int) -> tuple[int, int, int, int]:
    """Return the shape of the tiles of vectors' spectra, (vectors, tiles, blocks, 2 TILE), in float64.

    The number of several vectors is even, since two share the loads of a spectrum; an odd number has one of zeros.
    """
    vectors = num_vecs + num_vecs % 2 if num_vecs > 1 else num_vecs
    return vectors, -(-frequencies // TILE), blocks, PARTS


def aligned(allocate: Callable[..., Any], shape: tuple[int, ...], dtype: Any) -> Any:
    """Return an array that begins with a line of cache, in host memory that ``allocate((count,), dtype)`` returns."""
    count = math.prod(shape)
    flat = allocate((count + LINE // np.dtype(dtype).itemsize,), dtype)
    return flat[-flat.ctypes.data % LINE // flat.itemsize :][:count].reshape(shape)


@dataclass(frozen=True)
class Format:
    """A format of the stored spectrum.

    Parameters
    ----------
    name : str
        Name of the format.
    part : dtype
        dtype of a real or imaginary part: a float, or an integer that counts multiples of a scale.
    """

    name: str
    part: np.dtype[Any]

    @property
    def is_fixed(self) -> bool:
        """Whether parts are multiples of a scale."""
        return self.part.kind == "i"

    @property
    def largest(self) -> int:
        """The count that the encoder assigns to the largest part of a run."""
        return int(np.iinfo(self.part).max)

    def pitch(self, frequencies: int) -> int:
        """Return the length of a run of frequencies, padded to 128 bytes."""
        per_line = ALIGNMENT // (2 * self.part.itemsize)
        return -(-frequencies // per_line) * per_line

    def scales(self, frequencies: int) -> int:
        """Return the number of scales of a run of frequencies."""
        return -(-frequencies // RUN) if self.is_fixed else 0

    def shapes(self, nd: int, nm: int, frequencies: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Return the shapes of the values and of the scales of a stored spectrum."""
        runs = self.scales(frequencies)
        scales = (nd, nm, runs) if runs else (1, 1, 1)
        return (nd, nm, 2 * self.pitch(frequencies)), scales

    def tiled(self, nd: int, nm: int, frequencies: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of the values and of the scales of a spectrum that is stored in tiles.

        Neighbouring columns have neighbouring scales, since a tile is multiplied by those of all columns.
        """
        runs = self.scales(frequencies)
        return (nd, self.pitch(frequencies) // TILE, nm, PARTS), (nd, runs, nm) if runs else (1, 1, 1)

    def nbytes(self, nd: int, nm: int, frequencies: int) -> int:
        """Return the bytes of a stored spectrum."""
        of_run = 2 * self.pitch(frequencies) * self.part.itemsize + 8 * self.scales(frequencies)
        return nd * nm * of_run


COMPLEX128 = Format("complex128", np.dtype(np.float64))
COMPLEX64 = Format("complex64", np.dtype(np.float32))
FIXED32 = Format("fixed32", np.dtype(np.int32))
FIXED16 = Format("fixed16", np.dtype(np.int16))
FORMATS = (COMPLEX128, COMPLEX64, FIXED32, FIXED16)
