"""Kernels: loop nests whose free names are bound, compiled for a target and launched.

This is the one module that imports numba.cuda.
"""

from __future__ import annotations

import types
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from hashlib import blake2s
from threading import Lock
from typing import Any, Literal, ParamSpec

import numpy as np
from numba import config, from_dtype, njit, threading_layer
from numba import types as nbtypes

from .free import Called as Called
from .free import Free as Free
from .free import constants, identity, specialise
from .overlap import LEAST_CAPABILITY, overlapping
from .threads import PARALLEL_BYTES, accessors, by_work

try:
    from numba import cuda
except Exception as error:  # numba-cuda raises its own errors where the CUDA toolkit's libraries are missing
    cuda = None
    _CUDA_ERROR = f"{type(error).__name__}: {error}"

P = ParamSpec("P")

THREADS = 256
MAX_GRID_Y = 65535
FREE_SHARED = 48 << 10  # bytes of dynamic shared memory that a block may have unless its kernel asks for more
RESERVED_SHARED = 1024  # bytes of shared memory that the system takes for each block
SIMULATED_SHARED = 99 * 1024  # as on devices of compute capability 8.6


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


def cache_folder() -> str:
    """Return the folder of numba's disk cache of this module; a RuntimeError says that no folder can hold it."""
    folder: str = njit(cache=True)(ceil_div).stats.cache_path
    return folder


# Kernels


@dataclass(frozen=True)
class Nest(ABC):
    """A loop nest for one target, before its free names are bound.

    Parameters
    ----------
    template : function
        The loop nest.
    signature : sequence
        Numba types of its arguments.
    bindings : mapping
        Bindings for this target only.
    """

    template: Callable[..., None]
    signature: Sequence[Any]
    bindings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def limits(self) -> tuple[int, ...]:
        """Numbers that the compiled code depends on, beside the bindings."""
        return ()

    @staticmethod
    @abstractmethod
    def compile_formula(formula: Any, called: bool) -> Any:
        """Compile a formula, which is inlined unless it is `Called`."""

    @abstractmethod
    def compile(self, function: Any) -> Any:
        """Compile the loop nest with bound names for its signature, or load it from the disk cache."""

    @abstractmethod
    def launcher(self, compiled: Any, stream: Any) -> Callable[..., None]:
        """Return the function that launches the compiled loop nest."""


_turn = Lock()


def _in_turn(compiled: Any, *arguments: Any) -> None:
    """Run a loop nest on numba's layer "workqueue", which ends the process if two threads use it at a time."""
    with _turn:
        compiled(*arguments)


def _cached_on_disk(compiled: Callable[[bool], Any]) -> Any:
    """Return ``compiled(True)``, which uses the disk cache; ``compiled(False)`` where no folder can hold the cache."""
    try:
        return compiled(True)
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "cannot cache function" not in str(error):
            raise
        kernel = compiled(False)
        _warn_without_cache()
        return kernel


@cache  # once in a process
def _warn_without_cache() -> None:
    warnings.warn(
        "compiled kernels: expected a folder for numba's disk cache that can be written, found none, so every process "
        "compiles them anew; the environment variable NUMBA_CACHE_DIR names such a folder",
        stacklevel=2,
    )


@dataclass(frozen=True)
class CpuNest(Nest):
    """A loop nest for the CPU, on one thread or on all; sums may contract into fused multiply-adds.

    Parameters
    ----------
    parallel_bytes : int
        Bytes of its arrays from which it runs on all threads.
    counted : int, optional
        The number of its first arrays whose bytes count; by default all do.
    """

    parallel_bytes: int = PARALLEL_BYTES
    counted: int | None = None

    @staticmethod
    def compile_formula(formula: Any, called: bool) -> Any:
        """Compile a formula. One that is called has no Python wrappers, which would take as long to compile."""
        if not called:
            return njit(inline="always")(formula)
        return njit(nogil=True, fastmath={"contract"}, no_cpython_wrapper=True, no_cfunc_wrapper=True)(formula)

    def compile(self, function: Any) -> Any:
        """Compile for one signature; only cache files with a single one are safe for concurrent processes."""

        def compiled(cache: bool) -> Any:
            kernel = njit(parallel=True, cache=cache, nogil=True, fastmath={"contract"})(function)
            kernel.compile(tuple(self.signature))
            return kernel

        return _cached_on_disk(compiled)

    def launcher(self, compiled: Any, stream: Any) -> Callable[..., None]:
        """Return the compiled loop nest by its work; callers run it in turn if numba's threads require that."""
        accessors()  # numba's threads are started, so that their layer is known
        run = partial(_in_turn, compiled) if threading_layer() == "workqueue" else compiled
        arrays = [i for i, kind in enumerate(self.signature) if isinstance(kind, nbtypes.Array)]
        return by_work(run, arrays[: self.counted], self.parallel_bytes)


@dataclass(frozen=True)
class CudaNest(Nest):
    """A loop nest for CUDA devices and the simulator.

    Parameters
    ----------
    launch : callable, optional
        ``launch(shaped, *arguments)`` launches the kernel by ``shaped(grid, threads)(values)``, where `values` is the
        tuple of the loop nest's arguments. The `arguments` are those of the CPU's loop nest.
    bounds : tuple of int, optional
        Threads of a block, and blocks that a multiprocessor holds at a time; they bound a thread's registers.
    """

    launch: Any = None
    bounds: tuple[int, int] | None = None

    @property
    def limits(self) -> tuple[int, ...]:
        """The bounds."""
        return self.bounds or ()

    @property
    def options(self) -> dict[str, Any]:
        """Options of the compiler, which the simulator does not take."""
        return {} if self.bounds is None or config.ENABLE_CUDASIM else {"launch_bounds": self.bounds}

    @staticmethod
    def compile_formula(formula: Any, called: bool) -> Any:
        """Compile a formula; the simulator takes it as it is."""
        return formula if config.ENABLE_CUDASIM else require_cuda().jit(device=True, inline="always")(formula)

    def compile(self, function: Any) -> Any:
        """Compile for the current device."""
        jit = require_cuda().jit
        return _cached_on_disk(lambda cache: jit(nbtypes.void(*self.signature), cache=cache, **self.options)(function))

    def launcher(self, compiled: Any, stream: Any) -> Callable[..., None]:
        """Return `launch` with the compiled loop nest as its first argument."""
        return partial(self.launch, partial(configure, compiled, stream))


@dataclass(frozen=True)
class Kernel:
    """Formulas, and the loop nests that apply them.

    Parameters
    ----------
    name : str
        Name of the specialisation, which profilers show.
    nests : mapping
        Loop nests by target name.
    bindings : mapping
        Bindings for all targets. Formulas are Python functions; each target compiles them.
    """

    name: str
    nests: Mapping[str, Nest]
    bindings: Mapping[str, Any] = field(default_factory=dict)
    _compiled: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def function(self, target: str) -> types.FunctionType:
        """Return the loop nest for a target with all names bound, before its compilation.

        Numba's disk cache ignores globals and other modules. The function's name therefore ends with a digest of the
        bindings and of constants; the name is part of the cache file's name, so each specialisation has its own file.
        """
        nest = self.nests[target]
        bindings = {**self.bindings, **nest.bindings}
        bound = [(key, identity(bindings[key])) for key in sorted(bindings)]
        parts = [str(each) for each in nest.signature], bound, constants(nest.template), *nest.limits
        digest = blake2s(repr(parts).encode(), digest_size=4).hexdigest()
        return specialise(nest.template, f"{self.name}_{digest}", bindings, nest.compile_formula)

    def compile(self, target: str) -> Any:
        """Return the compiled kernel for a target; numba compiles it once, or loads it from the disk cache."""
        if target not in self._compiled:
            self._compiled[target] = self.nests[target].compile(self.function(target))
        return self._compiled[target]

    def launcher(self, target: Target) -> Callable[..., None]:
        """Compile the kernel for a target and return the function that launches it on checked arguments."""
        return self.nests[target.name].launcher(self.compile(target.name), target.stream)

    def ptx(self, compute_capability: tuple[int, int]) -> str:
        """Return the CUDA kernel's PTX; needs no GPU, but NVVM (numba-cuda[cu13])."""
        nest: Any = self.nests["cuda"]
        compile_ptx = require_cuda().compile_ptx
        text, _ = compile_ptx(self.function("cuda"), tuple(nest.signature), cc=compute_capability, **nest.options)
        return str(text)


_builders: list[Any] = []


def cached_kernel(build: Callable[P, Kernel]) -> Callable[P, Kernel]:
    """Cache the kernels that a function builds, with their compiled code, until `clear`."""
    cached = cache(build)
    _builders.append(cached)
    return cached  # type: ignore[return-value]


def clear() -> None:
    """Forget all kernels, for tests that change constants of kernel modules."""
    for cached in _builders:
        cached.cache_clear()
    configure.cache_clear()


@lru_cache(maxsize=1024)
def configure(
    kernel: Any,
    stream: Any,
    grid: tuple[int, ...],
    threads: int | tuple[int, ...],
    shared: int = 0,
    overlaps: bool = False,
) -> Callable[..., None]:
    """Return ``launch(values)`` of a compiled CUDA kernel, for the tuple of its arguments.

    A block has `shared` bytes of dynamic shared memory. A kernel that `overlaps` calls `overlap.follow` first.

    The kernel has one signature and its launcher has checked the arguments, so the launch goes to the compiled code
    directly. Numba would infer the arguments' types again, which takes longer than all the rest.
    """
    if config.ENABLE_CUDASIM:  # a simulated kernel keeps only the last shape
        return lambda values: kernel[grid, threads, stream, shared](*values)
    blocks = tuple(map(int, grid))  # the compiled code takes no NumPy integers
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*Grid size")  # small problems have small grids
        shape = kernel[blocks, threads, stream, shared]
    (compiled,) = kernel.overloads.values()
    allow_shared(compiled, shared)
    if overlaps and compute_capability() >= LEAST_CAPABILITY:
        return overlapping(compiled, shape, shared)
    launch, blocks, block, queue = compiled.launch, shape.griddim, shape.blockdim, shape.stream
    return lambda values: launch(values, blocks, block, queue, shared)


def allow_shared(compiled: Any, shared: int) -> None:
    """Let the blocks of a compiled kernel have `shared` bytes of dynamic shared memory on the current device.

    A kernel may use 48 KiB unless it asks for more.
    """
    if shared <= FREE_SHARED:
        return
    from cuda.bindings import driver  # numba-cuda's own

    function = compiled._codelibrary.get_cufunc()
    attributes = driver.CUfunction_attribute
    for attribute, value in (
        (attributes.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared),
        (attributes.CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100),
    ):
        (error,) = driver.cuKernelSetAttribute(attribute, value, function.handle, function.device.id)
        if error != driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(
                f"dynamic shared memory: expected room for {shared} bytes in a block, found {error.name}"
            )


# Types, pointers and checks of arguments


def array_type(dtype: Any, ndim: int) -> Any:
    """Return numba's type of a C-contiguous array."""
    return nbtypes.Array(from_dtype(np.dtype(dtype)), ndim, "C")


def pointer_type(dtype: Any) -> Any:
    """Return numba's type of a pointer to values of a dtype."""
    return nbtypes.CPointer(from_dtype(np.dtype(dtype)))


def pointer(array: Any, dtype: Any = None) -> Any:
    """Return the kernel's argument for an array and `pointer_type`: an address, or a flat array in the simulator.

    The dtype is that of the pointer, if it differs from the array's: of the real parts of complex numbers, for example.
    """
    if not config.ENABLE_CUDASIM:
        return array.device_ctypes_pointer.value
    # The array inside the simulator's device array, since device arrays have no views of another dtype.
    values = getattr(array, "_ary", array)
    flat = values.reshape(-1).view(dtype or values.dtype)
    return flat if values is array else type(array)(flat)


def compute_capability() -> tuple[int, int]:
    """Return the compute capability of the current device; (0, 0) in the simulator."""
    if config.ENABLE_CUDASIM:
        return 0, 0
    major, minor = require_cuda().get_current_device().compute_capability
    return int(major), int(minor)


def shared_memory() -> int:
    """Return the bytes of shared memory that a block may have on the current device."""
    if config.ENABLE_CUDASIM:
        return SIMULATED_SHARED
    return int(require_cuda().get_current_device().MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)


def resident_blocks(kernel: Any, threads: int, shared: int = 0) -> int:
    """Return the number of blocks of a compiled kernel that the current device holds at a time.

    Registers, threads and dynamic shared memory limit the number; other shared memory is not considered.
    """
    if config.ENABLE_CUDASIM:
        return 1
    device = require_cuda().get_current_device()
    registers = ceil_div(next(iter(kernel.overloads.values())).regs_per_thread, 8) * 8
    limits = (
        device.MAX_REGISTERS_PER_MULTIPROCESSOR // (registers * ceil_div(threads, 32) * 32),
        device.MAX_THREADS_PER_MULTIPROCESSOR // threads,
        device.MAX_BLOCKS_PER_MULTIPROCESSOR,
        device.MAX_SHARED_MEMORY_PER_MULTIPROCESSOR // (shared + RESERVED_SHARED),
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
    fits = len(found.shape) == len(shape)
    for size, expected in zip(found.shape, shape, strict=False):  # a generator would take longer than the comparisons
        fits = fits and (expected is None or size == expected)
    if not fits:
        raise ValueError(
            f"{what}: expected shape {tuple('any' if e is None else e for e in shape)}, found {found.shape}"
        )
