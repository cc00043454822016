"""The kernel library: each kernel for NumPy arrays (numba.njit) and for CUDA devices (numba.cuda).

A kernel module holds formulas, which are written once, and the loop nests that apply them on each target. Its
``..._launcher`` functions take a `Target` and dtypes, compile the kernel or load it from the disk cache, and return a
callable. That callable checks its arrays and launches the kernel. CUDA kernels also run in numba's simulator. This
package imports only numba and NumPy.
"""

from .jit import CudaNest, Kernel, Target, ceil_div

__all__ = ["CudaNest", "Kernel", "Target", "ceil_div"]
