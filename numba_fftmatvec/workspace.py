"""Memory that the products of one matrix share."""

from __future__ import annotations

from typing import Any

import numpy as np

from .backends import Backend, Buffer


class Workspace:
    """Buffers by name: products run one after another on one stream, so what one has read another may overwrite.

    Two requests with the same name, shape and dtype get the same memory.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._buffers: dict[tuple[Any, ...], Buffer] = {}

    def get(self, name: str, shape: tuple[int, int], dtype: Any) -> Buffer:
        """Return a buffer that was zero when it was first asked for."""
        key = (name, shape, np.dtype(dtype))
        if key not in self._buffers:
            self._buffers[key] = self.backend.zeros(shape, dtype)
        return self._buffers[key]
