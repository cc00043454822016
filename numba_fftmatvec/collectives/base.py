"""What the product needs of a communication library."""

from __future__ import annotations

from typing import Any, Protocol


class Collectives(Protocol):
    """Collective operations among the ranks of one row or column of the process grid, on arrays of a backend.

    `queued` tells whether they are queued on the backend's stream, so that a graph can hold them.
    """

    queued: bool

    def broadcast(self, array: Any, root: int) -> None:
        """Copy the root's contiguous float32 or float64 array into everybody's."""

    def reduce(self, send: Any, receive: Any, root: int) -> None:
        """Sum everybody's `send` into the root's `receive`; `receive` is None elsewhere."""

    def close(self) -> None:
        """Free what the library holds."""
