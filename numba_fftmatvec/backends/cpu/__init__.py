"""The CPU backend: NumPy, scipy.fft and numba.njit."""

from .backend import CpuBackend, cpu_model

__all__ = ["CpuBackend", "cpu_model"]
