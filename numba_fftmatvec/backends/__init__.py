"""The backends: where arrays live, which FFT library transforms them, and where kernels run."""

from .base import Backend, Buffer

__all__ = ["Backend", "Buffer"]
