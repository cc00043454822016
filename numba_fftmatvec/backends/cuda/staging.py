"""Staging memory of the set-up: rows on the device, and page-locked memory from which they are copied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from typing import Any, Self

import cupy
import cupyx
import numpy as np

from ..base import Backend, Buffer

# Number of slots of the staging memory: the host fills one while another is copied.
SLOTS = 2


def _event() -> Any:
    return cupy.cuda.Event(disable_timing=True)


@dataclass
class _Slot:
    """Rows on the device, their page-locked memory, and the events after which each may be overwritten.

    Parameters
    ----------
    device : cupy.ndarray
        The rows that kernels read.
    uploaded : Event
        Recorded after the last copy from the page-locked memory.
    read : Event
        Recorded after all work that reads the rows on the device.
    """

    device: Any
    uploaded: Any
    read: Any

    @cached_property
    def host(self) -> np.ndarray:
        """Page-locked memory of the device array's shape, allocated when the host first writes."""
        pinned: np.ndarray = cupyx.empty_pinned(self.device.shape, self.device.dtype)
        return pinned


class CudaStaging:
    """Slots of staging memory that are used in turn. See `Staging` for the methods.

    The host writes to one slot while a separate stream copies the previous one to the device. Meanwhile kernels on the
    backend's stream read rows that were copied before. Events order the streams. The host waits only until the last
    copy from a slot is complete.
    """

    def __init__(self, backend: Backend, shape: tuple[int, int]) -> None:
        self._backend = backend
        self._copies = cupy.cuda.Stream(non_blocking=True)
        with backend.active():
            self._slots = [_Slot(cupy.empty(shape), _event(), _event()) for _ in range(SLOTS)]
        for slot in self._slots:
            # Work queued earlier on the backend's stream may still use the memory that the pool returns.
            slot.read.record(backend.stream)
        self._turns = cycle(self._slots)
        self._current = next(self._turns)

    def on_device(self, count: int) -> Buffer:
        """Return the first rows of a slot, which are written and read on the backend's stream."""
        return self._backend.wrap(self._current.device[:count])

    def from_host(self, count: int, write: Callable[[np.ndarray], None]) -> Buffer:
        """Let `write` fill the next slot's first rows, and queue their copy."""
        self._current.read.record(self._backend.stream)  # every reader of the last call's rows is queued by now
        slot = self._current = next(self._turns)
        slot.uploaded.synchronize()
        write(slot.host[:count])
        self._copies.wait_event(slot.read)
        slot.device[:count].set(slot.host[:count], stream=self._copies)
        slot.uploaded.record(self._copies)
        self._backend.stream.wait_event(slot.uploaded)
        return self._backend.wrap(slot.device[:count])

    def __enter__(self) -> Self:
        """Return the staging memory itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Wait for the copies, even after an error: they must not write to memory that is reused afterwards."""
        self._copies.synchronize()
