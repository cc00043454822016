"""Wide loads and stores in CUDA kernels: one instruction moves neighbouring values of up to 16 bytes.

Numba moves a complex number part by part. These intrinsics tell the compiler that addresses are aligned to the size of
the access, and that no thread writes the loaded constants. In the simulator they are plain functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from numba import config, types

WIDEST = 16
SHARED_SPACE = 3  # NVVM's number for the address space


@cache
def load(count: int, constant: bool = True) -> Callable[..., Any]:
    """Return ``load(pointer, offset)``, which loads a tuple of `count` values.

    The values must be aligned to the smaller of their size and 16 bytes. No thread may write `constant` values while
    the kernel runs, not even a thread of the kernel before, whose end the kernel awaits by `overlap.follow`.
    """
    if config.ENABLE_CUDASIM:
        return lambda pointer, offset: tuple(pointer[offset : offset + count])
    from llvmlite import ir  # numba's own
    from numba.cuda.extending import intrinsic

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        item = context.get_data_type(signature.args[0].dtype)
        size = context.get_abi_sizeof(item)
        step = min(count, WIDEST // size)
        values = []
        for first in range(0, count, step):
            at = builder.gep(arguments[0], [builder.add(arguments[1], ir.Constant(ir.IntType(64), first))])
            wide, parts = _load_vector(builder, at, item, step, step * size)
            if constant:
                wide.set_metadata("invariant.load", builder.module.add_metadata([]))
            values += parts
        return context.make_tuple(builder, signature.return_type, values)

    @intrinsic
    def wide_load(context, pointer, offset):
        return types.UniTuple(pointer.dtype, count)(pointer, types.int64), codegen

    return wide_load  # type: ignore[no-any-return]


@cache
def load_shared(count: int) -> Callable[..., Any]:
    """Return ``load(array, index)``, which loads the tuple ``array[index : index + count]`` of a flat shared array.

    The values must be aligned as for `load`.
    """
    if config.ENABLE_CUDASIM:
        return lambda array, index: tuple(array[index : index + count])
    from numba.cuda.extending import intrinsic

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _align_shared(builder.module)
        base = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        item = context.get_data_type(signature.args[0].dtype)
        at = builder.gep(base, [arguments[1]])
        _, values = _load_vector(builder, at, item, count, count * context.get_abi_sizeof(item))
        return context.make_tuple(builder, signature.return_type, values)

    @intrinsic
    def wide_load(context, array, index):
        return types.UniTuple(array.dtype, count)(array, types.int64), codegen

    return wide_load  # type: ignore[no-any-return]


@cache
def store_two() -> Callable[..., Any]:
    """Return ``store(pointer, offset, first, second)``; the two values must be aligned to the size of both."""
    if config.ENABLE_CUDASIM:

        def store(pointer: Any, offset: int, first: Any, second: Any) -> None:
            pointer[offset : offset + 2] = first, second  # an error beyond both ends

        return store
    from numba.cuda.extending import intrinsic

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, offset, *values = arguments
        _store_vector(context, builder, builder.gep(pointer, [offset]), values)
        return context.get_dummy_value()

    @intrinsic
    def wide_store(context, pointer, offset, first, second):
        return types.void(pointer, types.int64, pointer.dtype, pointer.dtype), codegen

    return wide_store  # type: ignore[no-any-return]


@cache
def store_shared() -> Callable[..., Any]:
    """Return ``store(array, index, first, second)`` for a flat shared array.

    The two values must be aligned to the size of both.
    """
    if config.ENABLE_CUDASIM:
        return store_two()
    from numba.cuda.extending import intrinsic

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _align_shared(builder.module)
        base = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        _store_vector(context, builder, builder.gep(base, [arguments[1]]), arguments[2:])
        return context.get_dummy_value()

    @intrinsic
    def wide_store(context, array, index, first, second):
        return types.void(array, types.int64, array.dtype, array.dtype), codegen

    return wide_store  # type: ignore[no-any-return]


@cache
def copy_async(count: int, streamed: bool = False, small: bool = False) -> Callable[..., Any]:
    """Return ``copy(shared, index, pointer, offset, wanted)``, which starts to copy `count` values.

    Together the values have 4, 8 or 16 bytes. They go from global memory to ``shared[index:]`` of a flat array, and
    not through registers. The thread that started a copy may read them after `wait_for`. If `wanted` is false the copy
    reads nothing and writes zeros, which is cheaper than a branch around it. A `streamed` copy of 16 bytes bypasses
    the first-level cache, and its line of 128 bytes is fetched to the second-level cache. A `small` index is computed
    in 32 bits, which takes fewer registers.
    """
    if config.ENABLE_CUDASIM:

        def copy(shared: Any, index: int, pointer: Any, offset: int, wanted: bool) -> None:
            shared[index : index + count] = pointer[offset : offset + count] if wanted else 0

        return copy
    from llvmlite import ir
    from numba.cuda.extending import intrinsic

    cached, line = ("cg", ".L2::128B") if streamed else ("ca", "")

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _align_shared(builder.module)
        shared, index, pointer, offset, wanted = arguments
        array = context.make_array(signature.args[0])(context, builder, shared)
        item = context.get_abi_sizeof(context.get_data_type(signature.args[2].dtype))
        size = count * item
        i32, i64 = ir.IntType(32), ir.IntType(64)
        source = builder.ptrtoint(builder.gep(pointer, [offset]), i64)
        wanted_size = builder.select(wanted, i32(size), i32(0))
        if small:
            base = builder.ptrtoint(builder.addrspacecast(array.data, ir.IntType(8).as_pointer(SHARED_SPACE)), i32)
            to = builder.add(base, builder.mul(builder.trunc(index, i32), i32(item)))
            text = f"cp.async.{cached}.shared.global{line} [$0], [$1], {size}, $2;"
        else:
            to = builder.ptrtoint(builder.gep(array.data, [index]), i64)
            text = (
                "{ .reg .u64 wide; .reg .u32 to; cvta.to.shared.u64 wide, $0; cvt.u32.u64 to, wide; "
                f"cp.async.{cached}.shared.global{line} [to], [$1], {size}, $2; }}"
            )
        kind = ir.FunctionType(ir.VoidType(), [to.type, i64, i32])
        constraints = f"{'r' if small else 'l'},l,r,~{{memory}}"
        builder.call(ir.InlineAsm(kind, text, constraints, side_effect=True), [to, source, wanted_size])
        return context.get_dummy_value()

    @intrinsic
    def start_copy(context, shared, index, pointer, offset, wanted):
        return types.void(shared, types.int64, pointer, types.int64, types.boolean), codegen

    return start_copy  # type: ignore[no-any-return]


def _load_vector(builder: Any, address: Any, item: Any, count: int, size: int) -> tuple[Any, list[Any]]:
    """Emit one load of `count` items, `size` bytes in all; return the instruction and the items."""
    from llvmlite import ir

    wide = builder.load(builder.bitcast(address, ir.VectorType(item, count).as_pointer()), align=size)
    return wide, [builder.extract_element(wide, ir.Constant(ir.IntType(32), i)) for i in range(count)]


def _store_vector(context: Any, builder: Any, address: Any, values: Sequence[Any]) -> None:
    """Emit one store of neighbouring values."""
    from llvmlite import ir

    item = values[0].type
    wide = ir.Constant(ir.VectorType(item, len(values)), ir.Undefined)
    for i, value in enumerate(values):
        wide = builder.insert_element(wide, value, ir.Constant(ir.IntType(32), i))
    at = builder.bitcast(address, wide.type.as_pointer())
    builder.store(wide, at, align=len(values) * context.get_abi_sizeof(item))


def _align_shared(module: Any) -> None:
    """Align a kernel's shared arrays to the widest access; numba aligns them to one element only."""
    for value in module.global_values:
        if getattr(value, "addrspace", 0) == SHARED_SPACE:
            value.align = WIDEST


@cache
def commit() -> Callable[[], Any]:
    """Return ``commit()``, which closes a group: the copies that this thread has started since the last call."""
    return _statement("cp.async.commit_group;")


@cache
def wait_for(pending: int) -> Callable[[], Any]:
    """Return ``wait()``, which blocks until at most the last `pending` groups of this thread are incomplete."""
    return _statement(f"cp.async.wait_group {pending};")


def _statement(text: str) -> Callable[[], Any]:
    if config.ENABLE_CUDASIM:
        return lambda: None
    from llvmlite import ir
    from numba.cuda.extending import intrinsic

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        assembly = ir.InlineAsm(ir.FunctionType(ir.VoidType(), []), text, "~{memory}", side_effect=True)
        builder.call(assembly, [])
        return context.get_dummy_value()

    @intrinsic
    def statement(context):
        return types.void(), codegen

    return statement  # type: ignore[no-any-return]
