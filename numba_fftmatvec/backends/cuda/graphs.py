"""Products as CUDA graphs: recorded once for each pair of vectors, then launched."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import cupy

from ..base import Buffer, Program
from .transforms import wait_for


class GraphReplay:
    """A program that records its second run on a pair of vectors as a CUDA graph, which later runs launch.

    The first run on a pair is eager, since it may load modules lazily. Graphs contain addresses, which are the keys of
    the cache. A new vector at an old address has the same size, so the old graph is valid for it. The least recently
    used graph is dropped first.

    Parameters
    ----------
    stream : cupy.cuda.Stream
        The stream of the runs.
    recorder : cupy.cuda.Stream
        The stream that the program uses. It is not a blocking stream: while one records, CUDA refuses all work on the
        legacy default stream, whichever thread or library queues it.
    program : callable
        The program.
    """

    LIMIT = 32

    def __init__(self, stream: Any, recorder: Any, program: Program) -> None:
        self._stream = stream
        self._recorder = recorder
        self._program = program
        self._graphs: OrderedDict[tuple[int, int], Any] = OrderedDict()

    def __call__(self, source: Buffer | None, destination: Buffer | None) -> None:
        """Run the program in the order of the stream."""
        key = _address(source), _address(destination)
        if key not in self._graphs:
            self._run(source, destination)
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

    def _run(self, source: Buffer | None, destination: Buffer | None) -> None:
        """Run the program after the stream's work so far, and before its later work."""
        wait_for(self._stream, self._recorder)
        try:
            self._program(source, destination)
        finally:
            _complete(lambda: wait_for(self._recorder, self._stream))

    def _capture(self, source: Buffer | None, destination: Buffer | None) -> Any:
        """Record the program. After an error or an interrupt the stream does not record any more."""
        with self._recorder:
            try:
                self._recorder.begin_capture()
                self._program(source, destination)
                return self._recorder.end_capture()
            except BaseException:
                _complete(self._end_capture)
                raise

    def _end_capture(self) -> None:
        """End the recording of a part of a program: a stream that records runs nothing."""
        try:
            if self._recorder.is_capturing():
                self._recorder.end_capture()
        except cupy.cuda.runtime.CUDARuntimeError:
            pass  # a part of a program is no valid graph


def _complete(action: Callable[[], None]) -> None:
    """Repeat an action until no interrupt ends it, then raise the last interrupt if there was one."""
    interrupt: KeyboardInterrupt | None = None
    while True:
        try:
            action()
            break
        except KeyboardInterrupt as caught:
            interrupt = caught
    if interrupt is not None:
        raise interrupt


def _address(buffer: Buffer | None) -> int:
    return 0 if buffer is None else buffer.address
