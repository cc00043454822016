"""The stages of a product that are the same on every backend: broadcast, multiplication and reduction.

`Backend.transforms` provides the stages between blocks and spectra.
"""

from __future__ import annotations

from ..backends.base import Buffer, End, Stage, Workspace
from ..comm.axis import Axis
from ..kernels import Target
from ..kernels.formats import StoredArrays
from ..kernels.sbgemv import provider, sbgemv_launcher
from ..kernels.sbgemv.problem import Problem


class Broadcast(Stage):
    """Send the owner's part of a vector to the ranks that need a copy."""

    def __init__(self, axis: Axis, end: End) -> None:
        super().__init__("broadcast", end, end)
        self._axis = axis

    def run(self) -> None:
        """Broadcast the owner's array."""
        self._axis.broadcast(self.source.array)


class SpectrumProduct(Stage):
    """Multiply by the spectrum: one GEMV, or with several right-hand sides one GEMM, for each frequency."""

    def __init__(
        self,
        target: Target,
        workspace: Workspace,
        problem: Problem,
        spectrum: StoredArrays,
        source: Buffer,
        destination: Buffer,
    ) -> None:
        super().__init__("sbgemv", source, destination)
        self._operands = destination.view, spectrum, source.view
        self._provider = provider(target, problem)
        self._sbgemv = sbgemv_launcher(target, problem, lambda shape, dtype: workspace.get("parts", shape, dtype).view)

    def __str__(self) -> str:
        """Return phase, ends and the units that multiply several right-hand sides."""
        return f"{super().__str__()} {self._provider}".rstrip()

    def run(self) -> None:
        """Multiply at all frequencies; the spectrum is read once."""
        self._sbgemv(*self._operands)


class Reduce(Stage):
    """Sum the ranks' partial results in the owner's destination, which is unbound on the other ranks."""

    def __init__(self, axis: Axis, source: End, destination: End) -> None:
        super().__init__("reduce", source, destination)
        self._axis = axis

    def run(self) -> None:
        """Sum in the dtype of the partial results."""
        self._axis.reduce(self.source.array, self.destination.array)
