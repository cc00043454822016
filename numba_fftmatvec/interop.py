"""Exchange of a vector's data with other libraries."""

from __future__ import annotations

from .distributed import DistributedVector


class VectorInterop(DistributedVector):
    """The interoperation of a `Vector`."""
