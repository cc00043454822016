"""Products as CUDA graphs: recorded once for each pair of vectors, then launched."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import cupy

from ..base import Buffer, Program

# The legacy default stream and the per-thread default stream.
UNCAPTURABLE_STREAMS = {0, 1, 2}


class GraphReplay:
    """A program that records its second run on a pair of vectors as a CUDA graph, which later runs launch.

    The first run on a pair is eager, since it may load modules lazily. Graphs contain addresses, which are the keys of
    the cache. A new vector at an old address has the same size, so the old graph is valid for it. The least recently
    used graph is dropped first.
    """

    LIMIT = 32

    def __init__(self, stream: Any, program: Program) -> None:
        self._stream = stream
        self._program = program
        self._graphs: OrderedDict[tuple[int, int], Any] = OrderedDict()

    def __call__(self, source: Buffer | None, destination: Buffer | None) -> None:
        """Run the program on the stream."""
        key = _address(source), _address(destination)
        if key not in self._graphs:
            self._program(source, destination)
            self._graphs[key] = None  # the run is complete, so everything is loaded
            if len(self._graphs) > self.LIMIT:
                self._graphs.popitem(last=False)
            return
        self._graphs.move_to_end(key)
        if self._graphs[key] is None:
            self._graphs[key] = self._capture(source, destination)
        self._graphs[key].launch(stream=self._stream)

    def clear(self) -> None:
        """Drop all graphs; later runs record them again."""
        self._graphs.clear()

    def _capture(self, source: Buffer | None, destination: Buffer | None) -> Any:
        """Record the program. After an error or an interrupt the stream does not record any more."""
        with self._stream:
            try:
                self._stream.begin_capture()
                self._program(source, destination)
                return self._stream.end_capture()
            except BaseException:
                self._end_capture()
                raise

    def _end_capture(self) -> None:
        """End the recording of a part of a program, in spite of interrupts: a stream that records runs nothing."""
        interrupt: BaseException | None = None
        while True:
            try:
                if self._stream.is_capturing():
                    self._stream.end_capture()
                break
            except cupy.cuda.runtime.CUDARuntimeError:  # a part of a program is no valid graph
                break
            except BaseException as caught:
                interrupt = caught
        if interrupt is not None:
            raise interrupt


def _address(buffer: Buffer | None) -> int:
    return 0 if buffer is None else int(buffer.array.data.ptr)
