"""The kernel library: each kernel for NumPy arrays (numba.njit) and for CUDA devices (numba.cuda).

A kernel module holds formulas, written once, the loop nests that apply them on either target, and launchers: functions
that take a `Target` and dtypes, compile (from the disk cache where they can) and return a callable which validates its
arrays and runs. The CUDA kernels run in numba's simulator too. This package imports numba and NumPy, nothing else.
"""

from .jit import CudaNest, Kernel, Target, ceil_div

__all__ = ["CudaNest", "Kernel", "Target", "ceil_div"]
