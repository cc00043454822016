"""The stages of a product. A precision config becomes a tuple of these, whose edges have dtypes; none of them branches.

Each stage takes the Buffer that the one before returned. All memory is allocated and all kernels are compiled when a
stage is built. A stage built without a buffer of its own writes to `destination`, the product's result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from .axis import Axis
from .backends import Backend, Buffer
from .backends.base import Transform
from .kernels.padding import copy_rows
from .kernels.pairs import pack, unpack
from .kernels.problem import Problem
from .kernels.sbgemv import sbgemv
from .kernels.storage import Stored
from .workspace import Workspace

DOUBLE = np.dtype(np.float64)


class Stage(Protocol):
    """One step of a product."""

    phase: str

    def run(self, source: Any, destination: Buffer | None) -> Any:
        """Queue the step and return the Buffer that holds its result, None where this rank does not hold it."""


class CopyRows:
    """Copy rows into rows of another length or dtype, rounded to a third: pad, unpad, and conversions for the wire."""

    def __init__(self, phase: str, backend: Backend, source: Any, rounding: Any, own: Buffer | None) -> None:
        self.phase = phase
        self._own = own
        self._copy = copy_rows(backend.target, source, rounding, own.array.dtype if own else DOUBLE)

    def run(self, source: Any, destination: Any) -> Any:
        """Read each value once, write it once."""
        result = self._own or destination
        self._copy(result.view, source.view)
        return result


class Broadcast:
    """Send the owner's vector to the ranks along the other dimension of the grid; only the others need a buffer."""

    phase = "broadcast"

    def __init__(self, axis: Axis, own: Buffer | None) -> None:
        self._axis = axis
        self._own = own

    def run(self, source: Any, destination: Any) -> Any:
        """Broadcast the owner's array as it is."""
        result = self._own or source
        self._axis.broadcast(result.array)
        return result


class Fourier:
    """Transform every row, forward or back."""

    def __init__(self, phase: str, transform: Transform) -> None:
        self.phase = phase
        self._transform = transform

    def run(self, source: Any, destination: Any) -> Any:
        """Transform into the plan's own buffer."""
        return self._transform(source)


class TransformRows:
    """Transform every row, forward or back, with the copies between blocks and padded rows fused in."""

    def __init__(self, phase: str, transform: Callable[[Any, Any], None], own: Buffer | None) -> None:
        self.phase = phase
        self._own = own
        self._transform = transform

    def run(self, source: Any, destination: Any) -> Any:
        """Read each block once, or write it once."""
        result = self._own or destination
        self._transform(source.array, result.array)
        return result


class PackPairs:
    """Join a chunk's pairs of blocks into complex rows with room for the tail; hand the vector on to the next chunk."""

    phase = "pad"

    def __init__(self, backend: Backend, source: Any, rounding: Any, padded: Buffer, first: int, apart: int) -> None:
        self._padded = padded
        self._places = first, apart
        self._pack = pack(backend.target, source, rounding, padded.array.dtype)

    def run(self, source: Any, destination: Any) -> Any:
        """Convert, round, join and pad in one pass."""
        self._pack(self._padded.view, source.view, *self._places)
        return source


class TransformPairs:
    """Transform a chunk of complex rows, forward or back; its result is handed on, or else what came in."""

    def __init__(self, phase: str, transform: Callable[[], None], result: Buffer | None) -> None:
        self.phase = phase
        self._result = result
        self._transform = transform

    def run(self, source: Any, destination: Any) -> Any:
        """Transform from and into the plan's own buffers."""
        self._transform()
        return self._result or source


class Overlapped:
    """A transform's chunks on two streams by turns: each hides what the other's kernels leave idle as they end."""

    def __init__(self, phase: str, branches: Sequence[Any], chunks: Sequence[tuple[Stage, ...]]) -> None:
        self.phase = phase
        self._branches = branches
        self._chunks = chunks

    def run(self, source: Any, destination: Any) -> Any:
        """Run each chunk's stages in order, and the next chunk's beside them."""
        main, other = self._branches
        value = source
        with main.forked(other):
            for turn, stages in enumerate(self._chunks):
                value = source
                with self._branches[turn % 2].active():
                    for stage in stages:
                        value = stage.run(value, destination)
        return value


class UnpackPairs:
    """Separate a chunk's complex rows into blocks of the wire's buffer, or of the product's result."""

    phase = "unpad"

    def __init__(
        self, backend: Backend, rows: Buffer, rounding: Any, own: Buffer | None, first: int, apart: int
    ) -> None:
        self._rows = rows
        self._own = own
        self._places = first, apart
        self._unpack = unpack(backend.target, own.array.dtype if own else DOUBLE, rounding, rows.array.dtype)

    def run(self, source: Any, destination: Any) -> Any:
        """Convert, round, separate and unpad in one pass."""
        result = self._own or destination
        self._unpack(self._rows.view, result.view, *self._places)
        return result


class SpectrumProduct:
    """Multiply by the spectrum: one GEMV for each frequency."""

    phase = "sbgemv"

    def __init__(self, workspace: Workspace, problem: Problem, spectrum: Stored, own: Buffer) -> None:
        self._spectrum = spectrum
        self._own = own
        target = workspace.backend.target
        self._sbgemv = sbgemv(target, problem, lambda shape, dtype: workspace.get("parts", shape, dtype).view)

    def run(self, source: Any, destination: Any) -> Any:
        """Read the spectrum once."""
        self._sbgemv(self._own.view, self._spectrum, source.view)
        return self._own


class Reduce:
    """Sum the ranks' partial results on the owner: in the destination, or in a buffer of the wire's dtype."""

    phase = "reduce"

    def __init__(self, axis: Axis, own: Buffer | None) -> None:
        self._axis = axis
        self._own = own

    def run(self, source: Any, destination: Any) -> Any:
        """Sum; the ranks that own no result have no destination either."""
        result = self._own or destination
        self._axis.reduce(source.array, result and result.array)
        return result
