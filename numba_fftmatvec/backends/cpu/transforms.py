"""Transforms on the CPU: real transforms of every block, fused with the copies to and from tiles of frequencies.

With a timer, padding and unpadding are separate passes over all blocks, so that each can be timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...kernels import Target
from ...kernels.formats import aligned, vector_tiles
from ...kernels.transforms import transform_launcher
from ...layout import MatrixLayout, Space
from ...precision import Precision
from ..base import DOUBLE, Buffer, End, Stage, Workspace
from ..rows import CopyRows


class TransformRows(Stage):
    """Transform the rows of all blocks to tiles, or tiles to the rows of all blocks.

    Parameters
    ----------
    phase : {"fft", "ifft"}
        The transform.
    source, destination : Buffer or Slot
        Blocks and tiles, or tiles and blocks.
    launch : callable
        ``launch(tiles, rows)`` transforms.
    """

    def __init__(self, phase: str, source: End, destination: End, launch: Callable[[Any, Any], None]) -> None:
        super().__init__(phase, source, destination)
        self._tiles, self._rows = (destination, source) if phase == "fft" else (source, destination)
        self._launch = launch

    def run(self) -> None:
        """Read and write each row once."""
        self._launch(self._tiles.view, self._rows.view)


class RealTransforms:
    """Plans the transforms of a matrix's vectors. See `Transforms` for the methods.

    Parameters
    ----------
    target : Target
        The target of the kernels.
    workspace : Workspace
        The memory of the buffers between stages.
    layout : MatrixLayout
        Sizes of the matrix.
    num_vecs : int
        Number of right-hand sides.
    """

    def __init__(self, target: Target, workspace: Workspace, layout: MatrixLayout, num_vecs: int) -> None:
        self._target = target
        self._workspace = workspace
        self._length = layout.padded_size
        self._layout = layout
        self._num_vecs = num_vecs

    def spectrum(self, space: Space, precision: Precision) -> Buffer:
        """Return tiles (vectors, tiles, blocks, 2 TILE) in double, whose values have the precision of the transform."""
        shape = vector_tiles(self._num_vecs, self._layout.frequencies, self._blocks(space))
        name = f"spectrum.{space}"
        array = aligned(lambda *about: self._workspace.get(name, *about).array, shape, DOUBLE)
        return Buffer(array, array, f"{name} {precision.complex} in tiles")

    def forward(
        self, space: Space, source: End, rounding: np.dtype[Any], precision: Precision, *, timed: bool
    ) -> tuple[Stage, ...]:
        """Return pad and FFT in one stage, or with `timed` in two; the padded rows' tails stay zero."""
        spectrum = self.spectrum(space, precision)
        if not timed:
            return (self._transform("fft", source, spectrum, rounding, precision),)
        padded = self._padded("padded", space, precision)
        return (
            CopyRows("pad", self._target, source, rounding, padded),
            self._transform("fft", padded, spectrum, padded.dtype, precision),
        )

    def inverse(
        self, space: Space, precision: Precision, rounding: np.dtype[Any], destination: End, *, timed: bool
    ) -> tuple[Stage, ...]:
        """Return IFFT and unpad in one stage, or with `timed` in two."""
        spectrum = self.spectrum(space, precision)
        if not timed:
            return (self._transform("ifft", spectrum, destination, rounding, precision),)
        time = self._padded("time", space, precision)
        return (
            self._transform("ifft", spectrum, time, time.dtype, precision),
            CopyRows("unpad", self._target, time, rounding, destination),
        )

    def _transform(
        self, phase: str, source: End, destination: End, rounding: np.dtype[Any], precision: Precision
    ) -> TransformRows:
        rows, tiles = (source, destination) if phase == "fft" else (destination, source)
        launch = transform_launcher(
            self._target,
            {"fft": "rfft", "ifft": "irfft"}[phase],
            self._num_vecs,
            tiles.array.shape[2],
            self._length,
            (rows.dtype, rounding, precision.real),
            lambda shape, dtype: self._workspace.get("rows", shape, dtype).array,
        )
        return TransformRows(phase, source, destination, launch)

    def _padded(self, name: str, space: Space, precision: Precision) -> Buffer:
        rows = self._num_vecs * self._blocks(space)
        return self._workspace.get(f"{name}.{space}", (rows, self._length), precision.real)

    def _blocks(self, space: Space) -> int:
        return self._layout.vector(space, 1).rows
