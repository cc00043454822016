"""The CUDA backend: CuPy, cuFFT and numba.cuda."""

from .backend import CudaBackend, device_count

__all__ = ["CudaBackend", "device_count"]
