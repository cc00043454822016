"""The measure of a CPU: the rate at which it reads memory and caches, and the peak of its fused multiply-adds.

Both loops are written in vectors of explicit width, since LLVM may prefer narrower ones than the processor has. The
width is that of the instructions that LLVM compiles for, so NUMBA_CPU_NAME and NUMBA_CPU_FEATURES hold these loops
and the library's kernels alike.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

LINE = 64  # bytes of a line of cache, and of the widest vector
SETTINGS = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "OPENBLAS_CORETYPE", "NUMBA_THREADING_LAYER", "OMP_NUM_THREADS")
CACHES = {2: 1 << 20, 3: 32 << 20}  # bytes by level, where the system does not report them
SUMS = 8  # vectors that are added up apart from each other, so that an addition does not wait for the one before
STEPS = 100_000  # multiply-adds one after another in each call of the peak's loop
SCALARS = {"d": (ir.DoubleType(), types.float64), "s": (ir.FloatType(), types.float32)}


class Instructions(NamedTuple):
    """The widest vector instructions, and the number of chains of multiply-adds that the registers hold."""

    name: str
    registers: str  # a pattern of their registers' names in assembly
    width: int  # bytes
    chains: int
    multiply_add: str  # a pattern of packed multiply-adds in double


INSTRUCTIONS = (
    Instructions("AVX-512", r"%zmm\d", 64, 24, r"vfn?m(?:add|sub)\w+pd\s.*%zmm"),
    Instructions("AVX2", r"%ymm\d", 32, 12, r"vfn?m(?:add|sub)\w+pd\s.*%ymm"),
    Instructions("SSE2", r"%xmm\d", 16, 12, r"mulpd\s.*%xmm"),
    Instructions("SVE", r"\bz\d+\.d", 16, 24, r"fml[as]\s+z\d+\.d"),
    Instructions("NEON", r"\bv\d+\.2d", 16, 24, r"fml[as](?:\.2d)?\s+v\d+"),
)


def _loop(builder: Any, count: Any, starts: list[Any], step: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """Build a loop of at least one pass; ``step(index, values)`` returns the values of the next pass."""
    before = builder.basic_block
    body, after = builder.append_basic_block("body"), builder.append_basic_block("after")
    builder.branch(body)
    builder.position_at_end(body)
    index = builder.phi(count.type)
    values = [builder.phi(start.type) for start in starts]
    following = step(index, values)
    next_index = builder.add(index, count.type(1))
    for phi, start, value in zip([index, *values], [count.type(0), *starts], [next_index, *following], strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(value, body)
    builder.cbranch(builder.icmp_signed("<", next_index, count), body, after)
    builder.position_at_end(after)
    return following


def _splat(builder: Any, value: Any, lanes: int) -> Any:
    """Return a vector with a value in each lane."""
    vector = ir.VectorType(value.type, lanes)(ir.Undefined)
    for lane in range(lanes):
        vector = builder.insert_element(vector, value, ir.IntType(32)(lane))
    return vector


def _total(builder: Any, vectors: list[Any]) -> Any:
    """Return the sum of all lanes of vectors."""
    total = vectors[0]
    for vector in vectors[1:]:
        total = builder.fadd(total, vector)
    lanes = [builder.extract_element(total, ir.IntType(32)(lane)) for lane in range(total.type.count)]
    result = lanes[0]
    for lane in lanes[1:]:
        result = builder.fadd(result, lane)
    return result


def multiply_adds(letter: str, width: int, chains: int) -> Any:
    """Return the intrinsic ``run(steps, factor, term)`` of chains ``x = x * factor + term``; it returns their sum."""
    scalar, kind = SCALARS[letter]
    lanes = width // (8 if letter == "d" else 4)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        steps, factor, term = arguments
        factors, terms = (_splat(builder, value, lanes) for value in (factor, term))
        starts = [_splat(builder, scalar(1.0 + chain), lanes) for chain in range(chains)]
        fused = {"flags": ("contract",)}

        def step(index: Any, values: list[Any]) -> list[Any]:
            return [builder.fadd(builder.fmul(value, factors, **fused), terms, **fused) for value in values]

        return _total(builder, _loop(builder, steps, starts, step))

    @intrinsic
    def run(context, steps, factor, term):
        return kind(types.int64, kind, kind), codegen

    return run


def vector_sum(width: int) -> Any:
    """Return the intrinsic ``run(address, groups)``, the sum of `groups` times ``SUMS * width`` bytes of doubles."""
    lanes = width // 8
    vector = ir.VectorType(ir.DoubleType(), lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, groups = arguments
        pointer = builder.inttoptr(address, vector.as_pointer())

        def step(index: Any, values: list[Any]) -> list[Any]:
            first = builder.mul(index, index.type(SUMS))
            at = [builder.gep(pointer, [builder.add(first, index.type(number))]) for number in range(SUMS)]
            return [builder.fadd(value, builder.load(each, align=8)) for value, each in zip(values, at, strict=True)]

        zeros = [_splat(builder, ir.DoubleType()(0.0), lanes) for _ in range(SUMS)]
        return _total(builder, _loop(builder, groups, zeros, step))

    @intrinsic
    def run(context, address, groups):
        return types.float64(types.int64, types.int64), codegen

    return run


def compiled_peak(letter: str, width: int, chains: int) -> Any:
    """Return the loop of multiply-adds on one thread: ``run(steps, factor, term)``."""
    chain, kind = multiply_adds(letter, width, chains), SCALARS[letter][1]
    return njit(kind(types.int64, kind, kind), nogil=True)(lambda steps, factor, term: chain(steps, factor, term))


def assembly(function: Any) -> str:
    """Return the assembly of a compiled function."""
    return "\n".join(function.inspect_asm().values())


@cache
def instructions() -> Instructions:
    """Return the widest vector instructions that LLVM compiles for, as its assembly has them."""
    text = assembly(compiled_peak("d", LINE, 4))
    for found in INSTRUCTIONS:
        if re.search(found.registers, text):
            return found
    names = ", ".join(each.name for each in INSTRUCTIONS)
    raise RuntimeError(f"vector instructions: expected one of {names} in the assembly, found {text[:2000]}")


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Limit numba's threads."""
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        yield
    finally:
        numba.set_num_threads(before)


@cache
def _reading() -> Any:
    total = vector_sum(instructions().width)

    def read(address, groups, bytes_of_task, tasks, passes):
        sums = np.zeros(tasks)
        for task in prange(tasks):
            for _ in range(passes):
                sums[task] += total(address + task * bytes_of_task, groups)
        return sums.sum()

    return njit(parallel=True, nogil=True)(read)


@cache
def _multiplying(letter: str) -> Any:
    chain, kind = multiply_adds(letter, *instructions()[2:4]), np.dtype("f8" if letter == "d" else "f4").type

    def multiply(steps, tasks, factor, term):
        sums = np.zeros(tasks)
        for task in prange(tasks):
            sums[task] = chain(steps, kind(factor), kind(term))
        return sums.sum()

    return njit(parallel=True, nogil=True)(multiply)


class Memory:
    """Memory that is read by a parallel sum. It grows to the largest size that was read.

    Parameters
    ----------
    threads : int
        Threads, each with its contiguous share.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._values = np.zeros(0)

    def reader(self, nbytes: int, passes: int = 1) -> tuple[Callable[[], object], int]:
        """Return a function that reads about `nbytes`, several times if `passes` says so, and the bytes of a pass."""
        group = SUMS * instructions().width
        share = -(-nbytes // (self.threads * group)) * group
        if self._values.nbytes < self.threads * share:
            self._values = np.zeros(0)  # before its successor is allocated
            self._values = np.ones(self.threads * share // 8 + LINE // 8)
        run, threads = _reading(), self.threads

        def read() -> object:
            address = -(-self._values.ctypes.data // LINE) * LINE  # another reader may have made the memory grow
            with limited(threads):
                return run(address, share // group, share, threads, passes)

        return read, threads * share


def multiplier(letter: str, threads: int, steps: int = STEPS) -> tuple[Callable[[], object], int]:
    """Return a function that multiplies and adds on all lanes of the threads, and its number of operations."""
    run, found = _multiplying(letter), instructions()
    lanes = found.width // (8 if letter == "d" else 4)

    def multiply() -> object:
        with limited(threads):
            return run(steps, threads, 0.999, 0.001)

    return multiply, 2 * threads * steps * found.chains * lanes


def cache_bytes() -> dict[int, int]:
    """Return the bytes of the core's second-level cache and of the last level, by level, as the system reports them."""
    found = {}
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction" and (match := re.fullmatch(r"(\d+)([KM])", size)):
            found[int(level)] = int(match[1]) << (10 if match[2] == "K" else 20)
    found = {level: size for level, size in found.items() if level > 1} or CACHES
    return {level: found[level] for level in sorted({min(found), max(found)})}


def settings() -> dict[str, Any]:
    """Return the instructions, LLVM's name of the processor, and the settings of the environment that hold them."""
    _, name, _ = cpu_target.target_context.codegen().magic_tuple()
    held = {key: os.environ[key] for key in SETTINGS if key in os.environ}
    return {"instructions": instructions().name, "llvm_cpu": name, "settings": held}
