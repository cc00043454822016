"""Staging memory of the set-up: rows on the device, and the page-locked memory that they come through."""

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

# Slots of an intake: the host fills one while the copy of another one is under way.
SLOTS = 2


def _event() -> Any:
    return cupy.cuda.Event(disable_timing=True)


@dataclass
class _Slot:
    """Rows on the device, and page-locked memory that they come through, with the events after which both are free.

    Parameters
    ----------
    device : cupy.ndarray
        Rows for kernels to read.
    uploaded : Event
        After the last copy out of the page-locked memory.
    read : Event
        After everything that reads the device's rows.
    """

    device: Any
    uploaded: Any
    read: Any

    @cached_property
    def host(self) -> np.ndarray:
        """Page-locked memory of the device array's shape; there is none until the host has something to write."""
        pinned: np.ndarray = cupyx.empty_pinned(self.device.shape, self.device.dtype)
        return pinned


class CudaIntake:
    """Slots that take turns. See `Intake` for the methods.

    The host writes a slot while the one before is copied to the device on a stream of its own, and while the kernels
    that read the one before that run on the backend's stream. Events order the streams; the host waits for a slot whose
    last copy has not left it, and for nothing else.
    """

    def __init__(self, backend: Backend, shape: tuple[int, int]) -> None:
        self._backend = backend
        self._copies = cupy.cuda.Stream(non_blocking=True)
        with backend.active():
            self._slots = [_Slot(cupy.empty(shape), _event(), _event()) for _ in range(SLOTS)]
        for slot in self._slots:
            # The pool hands out memory that work queued earlier on the backend's stream may still use.
            slot.read.record(backend.stream)
        self._turns = cycle(self._slots)
        self._current = next(self._turns)

    def on_device(self, count: int) -> Buffer:
        """Return the first rows of a slot: both sides of it are on the backend's stream."""
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
        """Return the intake itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Wait for the copies, after an error as well: they must not reach memory that has another use by then."""
        self._copies.synchronize()
