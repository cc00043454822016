"""Transforms on CUDA: complex transforms of pairs of blocks, which halve their number (see `kernels.pairs`).

One kernel pads and transforms, or transforms back and unpads, the lengths that `kernels.fft` supports. For the others
cuFFT transforms chunks of padded pairs, which bound the memory. The chunks alternate between two streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import cupy
import numpy as np
from cupy.cuda import cufft

from ...kernels import Target, ceil_div, fft
from ...kernels.jit import require_cuda
from ...kernels.overlap import overlaps
from ...kernels.pairs import pack_launcher, unpack_launcher
from ...layout import MatrixLayout, Space
from ...precision import Precision
from ..base import Buffer, End, Stage, Workspace

# A batched cuFFT plan addresses its elements with 32 bits.
MAX_PLAN_ELEMENTS = 2**31 - 1

# Pairs of rows are padded and transformed in chunks of this size, two at a time. Larger chunks are not faster, and
# smaller ones cost more launches. The padded rows take twice this memory, for any number of rows.
CHUNK_BYTES = 32 << 20

FORWARD_KINDS = {
    np.dtype(np.float64): cufft.CUFFT_D2Z,
    np.dtype(np.float32): cufft.CUFFT_R2C,
    np.dtype(np.complex128): cufft.CUFFT_Z2Z,
    np.dtype(np.complex64): cufft.CUFFT_C2C,
}


class Plan:
    """A cuFFT plan of rows, and the bytes of its work area. CuPy's plans do not support weak references."""

    def __init__(self, length: int, pitches: tuple[int, int], kind: int, batch: int) -> None:
        layout = [(length,), (pitches[0],), 1, pitches[0], (pitches[1],), 1, pitches[1]]
        plan = cufft.PlanNd(*layout, kind, batch, "C", 0, None)
        self.fft: Callable[[Any, Any, int], None] = plan.fft
        self.nbytes = int(plan.work_area.mem.size)


class Lane:
    """A stream, its kernels' target and its cuFFT plans. Streams cannot share the work area of a plan.

    Parameters
    ----------
    stream : cupy.cuda.Stream
        The stream of the lane's work.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.target = Target("cuda", require_cuda().external_stream(stream.ptr))
        self.plans: WeakValueDictionary[tuple[int, ...], Plan] = WeakValueDictionary()
        self._roots: dict[tuple[fft.Plan, np.dtype[Any], bool], Any] = {}

    def roots(self, plan: fft.Plan, dtype: np.dtype[Any], inverse: bool) -> Any:
        """Return a plan's table of roots of unity as kernels take it; the first call copies it to the device."""
        key = plan, dtype, inverse
        if key not in self._roots:
            with self.stream:
                table = cupy.asarray(plan.roots(inverse).astype(dtype))
            self._roots[key] = require_cuda().as_cuda_array(table, sync=False)
        return self._roots[key]

    def fft(self, length: int, source: Buffer, destination: Buffer, *, inverse: bool = False) -> Callable[[], None]:
        """Plan transforms of the rows of `source` into `destination`, unnormalised in both directions."""
        kind = FORWARD_KINDS[source.dtype]
        direction = cufft.CUFFT_INVERSE if inverse else cufft.CUFFT_FORWARD
        rows, pitches = source.array.shape[0], (source.array.shape[1], destination.array.shape[1])
        step = max(1, MAX_PLAN_ELEMENTS // max(*pitches, length))
        calls = []
        with self.stream:
            for start in range(0, rows, step):
                part = slice(start, min(start + step, rows))
                plan = self._plan(length, pitches, kind, part.stop - part.start)
                calls.append((plan, source.array[part], destination.array[part]))

        def run() -> None:
            for plan, inputs, outputs in calls:
                plan.fft(inputs, outputs, direction)

        return run

    def _plan(self, length: int, pitches: tuple[int, int], kind: int, batch: int) -> Plan:
        """Return a plan, the existing one if it is alive: all its users run on one stream and share its work area."""
        key = (length, *pitches, kind, batch)
        plan = self.plans.get(key)
        if plan is None:
            plan = self.plans[key] = Plan(length, pitches, kind, batch)
        return plan


class FusedTransform(Stage):
    """Transform all pairs of blocks in one kernel, which pads or unpads them too.

    Parameters
    ----------
    phase : {"fft", "ifft"}
        The direction, and the phase that a timer counts it under.
    source, destination : Buffer or Slot
        Blocks and pairs' spectra; for ``"ifft"`` the other way round.
    launch : callable
        ``launch(spectra, blocks)``.
    """

    def __init__(self, phase: str, source: End, destination: End, launch: Callable[[Any, Any], None]) -> None:
        super().__init__(phase, source, destination)
        self._spectra, self._blocks = (destination, source) if phase == "fft" else (source, destination)
        self._launch = launch

    def run(self) -> None:
        """Launch the kernel."""
        self._launch(self._spectra.view, self._blocks.view)


class PackPairs(Stage):
    """Join a chunk's pairs of blocks into complex rows with room for the tail."""

    def __init__(
        self, target: Target, source: End, rounding: np.dtype[Any], destination: Buffer, first: int, stride: int
    ) -> None:
        super().__init__("pad", source, destination)
        self._places = first, stride
        self._pack = pack_launcher(target, source.dtype, rounding, destination.dtype)

    def run(self) -> None:
        """Convert, round, join and pad in one pass."""
        self._pack(self.destination.view, self.source.view, *self._places)


class TransformPairs(Stage):
    """Transform a chunk of complex rows, forward or back."""

    def __init__(self, phase: str, lane: Lane, length: int, source: Buffer, destination: Buffer) -> None:
        super().__init__(phase, source, destination)
        self._transform = lane.fft(length, source, destination, inverse=phase == "ifft")

    def run(self) -> None:
        """Run the plan."""
        self._transform()


class UnpackPairs(Stage):
    """Separate a chunk's complex rows into blocks."""

    def __init__(
        self, target: Target, source: Buffer, rounding: np.dtype[Any], destination: End, first: int, stride: int
    ) -> None:
        super().__init__("unpad", source, destination)
        self._places = first, stride
        self._unpack = unpack_launcher(target, destination.dtype, rounding, source.dtype)

    def run(self) -> None:
        """Convert, round, separate and unpad in one pass."""
        self._unpack(self.source.view, self.destination.view, *self._places)


class Overlapped(Stage):
    """A transform's chunks, alternating between two lanes: one lane's kernels fill the device as the other's end."""

    def __init__(self, phase: str, lanes: tuple[Lane, Lane], chunks: Sequence[tuple[Stage, ...]]) -> None:
        super().__init__(phase, chunks[0][0].source, chunks[-1][-1].destination)
        self._lanes = lanes
        self._chunks = chunks

    def run(self) -> None:
        """Run each chunk's stages in order, overlapped with the next chunk's."""
        main, other = (lane.stream for lane in self._lanes)
        wait_for(main, other)
        for turn, stages in enumerate(self._chunks):
            with self._lanes[turn % 2].stream:
                for stage in stages:
                    stage.run()
        wait_for(other, main)

    def __str__(self) -> str:
        """Return the stages of all chunks."""
        return "\n".join(f"{stage} (chunk {i})" for i, stages in enumerate(self._chunks) for stage in stages)


def wait_for(first: Any, second: Any) -> None:
    """Make later work on the second stream wait for all work that is now queued on the first."""
    event = cupy.cuda.Event(disable_timing=True)
    event.record(first)
    second.wait_event(event)


class Chunk(NamedTuple):
    """Consecutive pairs of blocks: lane, index of the first pair, rows in time, and part of the spectrum."""

    lane: Lane
    first: int
    time: Buffer
    spectrum: Buffer


class PairedTransforms:
    """Plans the transforms of a matrix's vectors. See `Transforms` for the methods.

    Parameters
    ----------
    wrap : callable
        ``wrap(array)`` returns a Buffer of an array.
    lane : callable
        ``lane(0)`` is the lane of the stages' stream, and ``lane(1)`` a second one, made at its first use.
    workspace : Workspace
        The memory of the buffers between stages.
    layout : MatrixLayout
        Sizes of the matrix.
    num_vecs : int
        Number of right-hand sides.
    """

    def __init__(
        self,
        wrap: Callable[[Any], Buffer],
        lane: Callable[[int], Lane],
        workspace: Workspace,
        layout: MatrixLayout,
        num_vecs: int,
    ) -> None:
        self._wrap = wrap
        self._lane = lane
        self._get = workspace.get
        self._length = layout.padded_size
        self._layout = layout
        self._num_vecs = num_vecs

    def spectrum(self, space: Space, precision: Precision) -> Buffer:
        """Return a buffer of shape (pairs, padded size)."""
        return self._get(f"spectrum.{space}", (self._pairs(space), self._length), precision.complex)

    def forward(
        self, space: Space, source: End, rounding: np.dtype[Any], precision: Precision, *, timed: bool
    ) -> tuple[Stage, ...]:
        """Return one stage, or pad and FFT of every chunk; the padded rows' tails stay zero."""
        if fused := self._fused("fft", source, self.spectrum(space, precision), space, rounding):
            return fused
        stride = self._stride(space)
        chunks: list[tuple[Stage, ...]] = [
            (
                PackPairs(chunk.lane.target, source, rounding, chunk.time, chunk.first, stride),
                TransformPairs("fft", chunk.lane, self._length, chunk.time, chunk.spectrum),
            )
            for chunk in self._chunks("padded", space, precision, timed)
        ]
        return self._joined("fft", chunks, timed)

    def inverse(
        self, space: Space, precision: Precision, rounding: np.dtype[Any], destination: End, *, timed: bool
    ) -> tuple[Stage, ...]:
        """Return one stage, or IFFT and unpad of every chunk."""
        if fused := self._fused("ifft", self.spectrum(space, precision), destination, space, rounding):
            return fused
        stride = self._stride(space)
        chunks: list[tuple[Stage, ...]] = [
            (
                TransformPairs("ifft", chunk.lane, self._length, chunk.spectrum, chunk.time),
                UnpackPairs(chunk.lane.target, chunk.time, rounding, destination, chunk.first, stride),
            )
            for chunk in self._chunks("time", space, precision, timed)
        ]
        return self._joined("ifft", chunks, timed)

    def _fused(
        self, phase: str, source: End, destination: End, space: Space, rounding: np.dtype[Any]
    ) -> tuple[Stage, ...]:
        """Return the stage that does it in one kernel, or no stage if no kernel supports the length."""
        inverse = phase == "ifft"
        rows, spectrum = (destination, source) if inverse else (source, destination)
        plan, lane = fft.plan(self._length, spectrum.dtype, inverse), self._lane(0)
        if plan is None:
            return ()
        launcher = fft.inverse_launcher if inverse else fft.forward_launcher
        launch = launcher(lane.target, plan, rows.dtype, rounding, spectrum.dtype, self._is_small)
        table, stride = lane.roots(plan, spectrum.dtype, inverse), self._stride(space)

        def transform(spectra: Any, blocks: Any) -> None:
            launch(spectra, blocks, table, stride)

        return (FusedTransform(phase, source, destination, transform),)

    def _joined(self, phase: str, chunks: list[tuple[Stage, ...]], timed: bool) -> tuple[Stage, ...]:
        if timed or len(chunks) == 1:
            return tuple(stage for stages in chunks for stage in stages)
        return (Overlapped(phase, (self._lane(0), self._lane(1)), chunks),)

    @property
    def _is_small(self) -> bool:
        """Whether a product of this rank takes so short that its kernels overlap."""
        return overlaps(self._layout.nd, self._layout.nm, self._length // 2 + 1)

    def _stride(self, space: Space) -> int:
        """Return the distance between a pair's rows: neighbouring blocks, or the same block of two vectors."""
        return 1 if self._num_vecs == 1 else len(self._layout.vector(space).blocks)

    def _pairs(self, space: Space) -> int:
        stride = self._stride(space)
        return ceil_div(self._layout.vector(space, self._num_vecs).rows, 2 * stride) * stride

    def _chunks(self, name: str, space: Space, precision: Precision, timed: bool) -> Iterator[Chunk]:
        """Yield the chunks. They alternate between the lanes; the chunks of a lane share its rows in time."""
        pairs = self._pairs(space)
        step = min(pairs, max(1, CHUNK_BYTES // (self._length * precision.complex.itemsize)))
        spectrum = self.spectrum(space, precision)
        for turn, first in enumerate(range(0, pairs, step)):
            lane = 0 if timed else turn % 2
            rows = self._get(f"{name}.{space}.{lane}", (step, self._length), precision.complex)
            part = spectrum.array[first : first + step]
            time = self._wrap(rows.array[: len(part)])._replace(name=rows.name)
            yield Chunk(self._lane(lane), first, time, self._wrap(part)._replace(name=spectrum.name))
