"""Compilation for the two targets and launch geometry. The one module that imports numba.cuda."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2s
from typing import Any, Literal

import numpy as np
from numba import config, from_dtype, njit
from numba import types as nbtypes

try:
    from numba import cuda
except Exception as error:  # numba-cuda raises its own errors where the CUDA toolkit's libraries are missing
    cuda = None
    _CUDA_ERROR = f"{type(error).__name__}: {error}"

THREADS = 256
MAX_GRID_Y = 65535


@dataclass(frozen=True)
class Target:
    """Where kernels run.

    Parameters
    ----------
    name : {"cpu", "cuda"}
        ``"cpu"`` takes NumPy arrays; ``"cuda"`` takes numba device arrays, or NumPy arrays in the simulator.
    stream : object
        The numba stream that launches are queued on; unused on the CPU.
    """

    name: Literal["cpu", "cuda"]
    stream: Any = field(default=0, compare=False)


def ceil_div(a: int, b: int) -> int:
    """Return ``a / b`` rounded up, for non-negative `a` and positive `b`."""
    return -(-a // b)


def require_cuda() -> Any:
    """Return the module numba.cuda; a RuntimeError says why where it cannot be imported."""
    if cuda is None:
        raise RuntimeError(f"expected an importable numba.cuda, found {_CUDA_ERROR}")
    return cuda


def specialise(template: Callable[..., Any], name: str, **bindings: Any) -> types.FunctionType:
    """Return a copy of `template` whose global names are bound as given.

    A loop nest is written once, with free names for its formula and constants; this binds them. Bound names are
    globals, not a closure, because numba's disk cache hashes closures and no two processes pickle a jitted function
    alike. The cache does not look at globals: so a digest of what is bound is part of the function's name, and with it
    of the cache's file, and tells the specialisations apart.
    """
    digest = blake2s(repr([_identity(key, bindings[key]) for key in sorted(bindings)]).encode(), digest_size=4)
    unique = f"{template.__name__}_{name}_{digest.hexdigest()}"
    bound = types.FunctionType(template.__code__, {**template.__globals__, **bindings}, unique)
    bound.__qualname__ = unique
    bound.__module__ = template.__module__
    return bound


def _identity(name: str, value: Any) -> tuple[Any, ...]:
    """Return what a bound value is, the same in every process: of a formula its code, of an intrinsic the name alone.

    Whatever tells intrinsics of one name apart must be bound too.
    """
    code = getattr(getattr(value, "py_func", None), "__code__", None)
    if code is not None:
        return name, code.co_code, code.co_consts, code.co_names
    return (name, value) if isinstance(value, int | float | str | tuple | type | np.generic) else (name,)


def cpu_formula(formula: Callable[..., Any]) -> Any:
    """Compile a scalar formula so that CPU kernels can call it."""
    return njit(inline="always")(formula)


def cpu_kernel(function: Callable[..., Any]) -> Any:
    """Compile a CPU kernel: all cores, cached on disk; sums may contract into fused multiply-adds."""
    return njit(parallel=True, cache=True, nogil=True, fastmath={"contract"})(function)


def cuda_formula(formula: Callable[..., Any]) -> Any:
    """Compile a scalar formula so that CUDA kernels can call it."""
    return require_cuda().jit(device=True, inline="always")(formula)


@lru_cache(maxsize=1024)
def configure(kernel: Any, grid: tuple[int, ...], threads: int | tuple[int, ...], stream: Any) -> Callable[..., None]:
    """Return a launch of a compiled kernel with its shape.

    The kernel has one signature, which our launchers' checks imply: so the launch goes to the compiled code directly
    and numba does not infer the arguments' types once more, which takes longer than all the rest.
    """
    if config.ENABLE_CUDASIM:  # a simulated kernel remembers one shape only, the last
        return lambda *arguments: kernel[grid, threads, stream](*arguments)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*Grid size")  # small problems are no reason for a warning
        launch = kernel[grid, threads, stream]
    (compiled,) = kernel.overloads.values()
    return lambda *arguments: compiled.launch(arguments, launch.griddim, launch.blockdim, launch.stream)


@dataclass(frozen=True)
class CudaKernel:
    """A CUDA kernel's Python function and signature, before compilation."""

    function: Callable[..., Any]
    signature: tuple[Any, ...]

    def compile(self) -> Any:
        """Return the dispatcher, compiled for the current device (cached on disk) or for the simulator."""
        return require_cuda().jit(nbtypes.void(*self.signature), cache=True)(self.function)

    def ptx(self, compute_capability: tuple[int, int]) -> str:
        """Return the kernel's PTX; needs no GPU, but NVVM (numba-cuda[cu13])."""
        text, _ = require_cuda().compile_ptx(self.function, self.signature, cc=compute_capability)
        return str(text)


def array_type(dtype: Any, ndim: int) -> Any:
    """Return numba's type of a C-contiguous array."""
    return nbtypes.Array(from_dtype(np.dtype(dtype)), ndim, "C")


def pointer_type(dtype: Any) -> Any:
    """Return numba's type of a pointer to values of a dtype."""
    return nbtypes.CPointer(from_dtype(np.dtype(dtype)))


def pointer(array: Any, dtype: Any = None) -> Any:
    """Return what a kernel takes for an argument of `pointer_type`: an address, or in the simulator a flat array.

    With a dtype the contiguous array is taken as one of that dtype: of the real parts of complex numbers, say.
    """
    if not config.ENABLE_CUDASIM:
        return array.device_ctypes_pointer.value
    values = getattr(
        array, "_ary", array
    )  # what numba's stand-in for device arrays holds; a NumPy array would be copied
    flat = values.reshape(-1).view(dtype or values.dtype)
    return flat if values is array else type(array)(flat)


def resident_blocks(kernel: Any, threads: int) -> int:
    """Return how many blocks of a compiled kernel the current device holds at a time, by its registers and threads."""
    if config.ENABLE_CUDASIM:
        return 1
    device = require_cuda().get_current_device()
    registers = ceil_div(next(iter(kernel.overloads.values())).regs_per_thread, 8) * 8
    limits = (
        device.MAX_REGISTERS_PER_MULTIPROCESSOR // (registers * ceil_div(threads, 32) * 32),
        device.MAX_THREADS_PER_MULTIPROCESSOR // threads,
        device.MAX_BLOCKS_PER_MULTIPROCESSOR,
    )
    return int(device.MULTIPROCESSOR_COUNT * max(1, min(limits)))


def scalar_type(dtype: Any) -> Any:
    """Return numba's type of a scalar."""
    return from_dtype(np.dtype(dtype))


def check(found: Any, dtype: Any, shape: Sequence[int | None], what: str) -> None:
    """Raise unless an array has the dtype and shape given; None in `shape` stands for any size.

    Raises
    ------
    TypeError
        Another dtype.
    ValueError
        Another shape.
    """
    if found.dtype != dtype:
        raise TypeError(f"{what}: expected dtype {np.dtype(dtype)}, found {found.dtype}")
    if len(found.shape) != len(shape) or any(e is not None and f != e for f, e in zip(found.shape, shape, strict=True)):
        raise ValueError(
            f"{what}: expected shape {tuple('any' if e is None else e for e in shape)}, found {found.shape}"
        )
