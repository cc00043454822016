"""A queue of the stages of products: a stream, and a second one for work that overlaps with it."""

from __future__ import annotations

from typing import Any

import cupy

from ...kernels.jit import require_cuda
from ...layout import MatrixLayout
from ..base import Buffer, Workspace
from .transforms import Lane, PairedTransforms


def wrap(array: Any) -> Buffer:
    """Return a Buffer of a CuPy array."""
    return Buffer(array, require_cuda().as_cuda_array(array, sync=False), address=int(array.data.ptr))


class CudaQueue:
    """A stream for the stages of products. See `Queue` for the methods.

    Parameters
    ----------
    stream : cupy.cuda.Stream
        The stream.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self._lanes = [Lane(stream)]
        self.target = self._lanes[0].target

    def lane(self, index: int) -> Lane:
        """Return lane 0, on the stream, or lane 1, for work that overlaps with that of lane 0."""
        if index == len(self._lanes):
            self._lanes.append(Lane(cupy.cuda.Stream(non_blocking=True)))
        return self._lanes[index]

    def transforms(self, workspace: Workspace, layout: MatrixLayout, num_vecs: int) -> PairedTransforms:
        """Return the planner of transforms of pairs."""
        return PairedTransforms(wrap, self.lane, workspace, layout, num_vecs)

    def active(self) -> Any:
        """Return the stream, a context that makes it current."""
        return self.stream

    def plan_bytes(self) -> int:
        """Return the bytes of the work areas of the stream's cuFFT plans."""
        return sum(plan.nbytes for lane in self._lanes for plan in lane.plans.values())
