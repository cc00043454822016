"""Kernels that start while the kernel before them ends (CUDA's programmatic dependent launch).

Such a kernel calls `follow` first. Its blocks then become resident as soon as all blocks of the kernel before have
started, and wait until that kernel is complete. This hides the launch, some microseconds, which counts in a chain of
short kernels. Devices before compute capability 9.0 run one kernel after another.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

from numba import config, types

LEAST_CAPABILITY = 9, 0
# Values of a spectrum up to which kernels overlap. Products of 200 Mi values became slower, those of 2 Mi faster on an
# H100; sizes between were not measured.
MOST_VALUES = 4 << 20
_REFLECT, _ARCHITECTURE = "__nvvm_reflect", "__CUDA_ARCH"  # NVVM's constant: 100 x major + 10 x minor
_ASSEMBLY = "griddepcontrol.launch_dependents; griddepcontrol.wait;"


def overlaps(nd: int, nm: int, frequencies: int) -> bool:
    """Return whether the kernels of a product overlap, by the sizes of its spectrum."""
    return nd * nm * frequencies <= MOST_VALUES


@cache
def follow() -> Callable[[], None]:
    """Return ``follow()``, which lets the next kernel start, and waits until the kernels before are complete.

    Every thread calls it before it reads or writes memory that other kernels write. It does nothing in a kernel that
    was launched in the usual way, and in the simulator.
    """
    if config.ENABLE_CUDASIM:
        return lambda: None
    from llvmlite import ir
    from numba.cuda.extending import intrinsic

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        module, text = builder.module, ir.IntType(8).as_pointer()
        reflect = module.globals.get(_REFLECT)
        if reflect is None:
            reflect = ir.Function(module, ir.FunctionType(ir.IntType(32), [text]), _REFLECT)
        name = builder.addrspacecast(context.insert_const_string(module, _ARCHITECTURE), text)
        major, minor = LEAST_CAPABILITY
        new = builder.icmp_signed(">=", builder.call(reflect, [name]), ir.IntType(32)(100 * major + 10 * minor))
        with builder.if_then(new):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(ir.InlineAsm(kind, _ASSEMBLY, "~{memory}", side_effect=True), [])
        return context.get_dummy_value()

    @intrinsic
    def follow(context):
        return types.void(), codegen

    return follow  # type: ignore[no-any-return]


def overlapping(compiled: Any, shape: Any, shared: int) -> Callable[[tuple[Any, ...]], None]:
    """Return ``launch(values)`` of a compiled kernel that calls `follow` first.

    Parameters
    ----------
    compiled : object
        numba's compiled kernel.
    shape : object
        numba's launch configuration: grid, threads of a block, and stream.
    shared : int
        Bytes of dynamic shared memory of a block.
    """
    from cuda.bindings import driver  # numba-cuda's own

    attribute, value = driver.CUlaunchAttribute(), driver.CUlaunchAttributeValue()
    attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    value.programmaticStreamSerializationAllowed = 1
    attribute.value = value
    launch = driver.CUlaunchConfig()
    launch.gridDimX, launch.gridDimY, launch.gridDimZ = shape.griddim
    launch.blockDimX, launch.blockDimY, launch.blockDimZ = shape.blockdim
    launch.sharedMemBytes, launch.hStream = shared, shape.stream.handle
    launch.attrs, launch.numAttrs = [attribute], 1
    kernel = driver.CUfunction(int(compiled._codelibrary.get_cufunc().handle))
    kinds = tuple(_c_type(each) for each in compiled.argument_types)

    def run(values: tuple[Any, ...]) -> None:
        plain = tuple(value.item() if hasattr(value, "item") else value for value in values)
        (error,) = driver.cuLaunchKernelEx(launch, kernel, (plain, kinds), 0)
        if error != driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"launch of {compiled.entry_name}: expected success, found {error.name}")

    return run


def _c_type(kind: Any) -> Any:
    """Return the C type of an argument's numba type."""
    return ctypes.c_void_p if isinstance(kind, types.CPointer) else getattr(ctypes, _C_NAMES[str(kind)])


_C_NAMES = {"int64": "c_int64", "float64": "c_double", "float32": "c_float"}
