"""Memory that the products of one matrix share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .base import Backend, Buffer


@dataclass(frozen=True)
class MemoryUsage:
    """Bytes that a matrix holds on this rank: of device memory on a GPU, of host memory on the CPU.

    Parameters
    ----------
    spectra : int
        The stored spectra, primary and auxiliary, with their scales. A shared spectrum counts for each of its matrices.
    workspace : int
        The buffers between the stages of products.
    plans : int
        Work areas of the FFT plans, which all matrices of the Comm share.
    """

    spectra: int
    workspace: int
    plans: int

    @property
    def total(self) -> int:
        """Sum of all bytes."""
        return self.spectra + self.workspace + self.plans


class Workspace:
    """Named buffers. Products share them, since they run one after another on one stream.

    Two requests with the same name, shape and dtype get the same memory.

    Parameters
    ----------
    backend : Backend
        The backend that allocates the buffers.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._buffers: dict[tuple[Any, ...], Buffer] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(int(buffer.array.nbytes) for buffer in self._buffers.values())

    def get(self, name: str, shape: tuple[int, ...], dtype: Any) -> Buffer:
        """Return the buffer of this name, shape and dtype; the first call allocates it as zeros."""
        key = (name, shape, np.dtype(dtype))
        if key not in self._buffers:
            self._buffers[key] = self._backend.zeros(shape, dtype)._replace(name=name)
        return self._buffers[key]
