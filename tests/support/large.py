"""Checks of kernels on arrays with more than 2^31 elements, in which a 32-bit index would wrap.

Arrays are zero but for marks before and after element 2^31, and at the end. Most kernels touch only the heads of long
rows, so that the checks take little time. Without a device the arrays are pages that no process has written.
"""

from __future__ import annotations

import mmap
from typing import Any, NamedTuple

import numpy as np

from numba_fftmatvec.kernels import Target, elementwise, encoding, fft, padding, pairs, reductions
from numba_fftmatvec.kernels.formats import FIXED16, PARTS, RUN, StoredArrays, vector_tiles
from numba_fftmatvec.kernels.jit import require_cuda
from numba_fftmatvec.kernels.sbgemv import sbgemv_launcher
from numba_fftmatvec.kernels.sbgemv.problem import Problem
from support.machines import SIMULATED

LIMIT = 200 if SIMULATED else 2**31  # the simulator checks the checks
ROWS = 12 if SIMULATED else 40_000
COLUMNS = 256 if SIMULATED else 1 << 16  # of the long rows
LENGTH = LIMIT + 133
MAP_NORESERVE = 0x4000  # Linux; Python names it from 3.13 on


class Memory(NamedTuple):
    """An array to read and write single elements of, and the same memory as kernels take it."""

    array: Any
    view: Any


class Machine:
    """A target, and its memory."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.target = Target("cpu" if name == "cpu" else "cuda")

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Memory:
        """Allocate zeros."""
        if self.name == "cuda":
            import cupy

            array = cupy.zeros(shape, dtype)
            cupy.cuda.Device().synchronize()
            return Memory(array, require_cuda().as_cuda_array(array))
        if self.name == "simulator":
            array = require_cuda().to_device(np.zeros(shape, dtype))
            return Memory(array, array)
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
        array = np.frombuffer(pages, dtype).reshape(shape)
        return Memory(array, array)

    def get(self, memory: Memory, *index: Any) -> np.ndarray:
        """Return a part of an array on the host."""
        part = memory.array[index]
        if self.name == "cuda":
            return np.asarray(part.get())
        return np.asarray(part.copy_to_host() if hasattr(part, "copy_to_host") else part)

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return workspace."""
        return self.zeros(shape, dtype).view


def marked_rows(columns: int) -> list[int]:
    """Return the first row, those beside element `LIMIT`, and the last four, which a thread copies together."""
    middle = LIMIT // columns
    return sorted({0, middle - 1, middle, middle + 1, *range(ROWS - 4, ROWS)} & set(range(ROWS)))


def heads(rows: list[int], width: int) -> np.ndarray:
    """Return the marks of rows: small integers that differ."""
    return np.array([[7 * i + j + 1 for j in range(width)] for i in range(len(rows))], float)


def mark(memory: Memory, rows: list[int], values: np.ndarray) -> None:
    for row, head in zip(rows, values, strict=True):
        memory.array[row, : len(head)] = like(memory.array, head)


def like(array: Any, values: np.ndarray) -> Any:
    """Return values as an array of another's library."""
    if type(array).__module__.startswith("cupy"):
        import cupy

        return cupy.asarray(values)
    return values if isinstance(array, np.ndarray) else type(array)(values)


def found(machine: Machine, memory: Memory, rows: list[int], width: int) -> np.ndarray:
    return np.array([machine.get(memory, row, slice(0, width)) for row in rows])


def check_rows(machine: Machine) -> None:
    """Copy the heads of long rows, and to the heads of long rows."""
    copy = padding.copy_launcher(machine.target, np.float32, np.float32, np.float32)
    rows, width = marked_rows(COLUMNS), 3
    marks = heads(rows, width)
    long, short = machine.zeros((ROWS, COLUMNS), np.float32), machine.zeros((ROWS, width), np.float32)
    mark(long, rows, marks)
    copy(short.view, long.view)
    np.testing.assert_array_equal(found(machine, short, rows, width), marks)
    mark(short, rows, 2 * marks)
    copy(long.view, short.view)
    np.testing.assert_array_equal(found(machine, long, rows, width), 2 * marks)


def check_encoding(machine: Machine) -> None:
    """Encode and decode the heads of long rows, first of transforms and then of stored parts."""
    rows, parts = marked_rows(COLUMNS), 2 * RUN
    marks = heads(rows, parts)
    marks[:, 0] = FIXED16.largest  # the scale becomes one
    encode = encoding.encode_launcher(machine.target, FIXED16, 1.0)
    decode = encoding.decode_launcher(machine.target, FIXED16)
    scales = machine.zeros((ROWS, 1), np.float64)
    for widths in ((COLUMNS, parts), (parts, COLUMNS)):
        transforms = machine.zeros((ROWS, widths[0]), np.float64)
        values = machine.zeros((ROWS, widths[1]), FIXED16.part)
        mark(transforms, rows, marks)
        encode(values.view, scales.view, transforms.view)
        np.testing.assert_array_equal(found(machine, values, rows, parts), marks)
        mark(values, rows, marks // 2)
        decode(transforms.view, values.view, scales.view)
        np.testing.assert_array_equal(found(machine, transforms, rows, parts), marks // 2)


def check_pairs(machine: Machine) -> None:
    """Join and separate rows of more than 2^31 elements together."""
    columns = COLUMNS // 2 if SIMULATED else LIMIT // ROWS + 1000
    width, rows = 3, [0, 1, ROWS // 2, ROWS - 2, ROWS - 1]
    marks = heads(rows, width)
    values = machine.zeros((ROWS, columns), np.float32)
    packed = machine.zeros((ROWS // 2, columns), np.complex64)
    mark(values, rows, marks)
    pairs.pack_launcher(machine.target, np.float32, np.float32, np.complex64)(packed.view, values.view, 0)
    parts = [machine.get(packed, row // 2, slice(0, width)) for row in rows]
    np.testing.assert_array_equal([p.imag if row % 2 else p.real for row, p in zip(rows, parts, strict=True)], marks)
    values.array[:] = 0
    pairs.unpack_launcher(machine.target, np.float32, np.float32, np.complex64)(packed.view, values.view, 0)
    np.testing.assert_array_equal(found(machine, values, rows, width), marks)


def check_transforms(machine: Machine) -> None:
    """Transform rows of more than 2^31 elements together: first values alone, which become constants."""
    length, width = 6 if SIMULATED else 2000, 3
    count = LIMIT // length + 3
    marked = [0, 1, count - 2, count - 1]
    rows = [2 * pair + i for pair in marked for i in (0, 1)]
    marks = heads(rows, 1)
    joined = marks[::2] + 1j * marks[1::2]
    values = machine.zeros((2 * count, length // 2), np.float32)
    packed = machine.zeros((count, length), np.complex64)

    def transform(inverse: bool) -> None:
        plan = fft.plan(length, np.complex64, inverse)
        assert plan is not None
        table = machine.zeros((plan.entries,), np.complex64)
        table.array[:] = like(table.array, plan.roots(inverse).astype(np.complex64))
        launcher = fft.inverse_launcher if inverse else fft.forward_launcher
        launcher(machine.target, plan, np.float32, np.float32, np.complex64)(packed.view, values.view, table.view)

    mark(values, rows, marks)
    transform(False)
    np.testing.assert_array_equal(found(machine, packed, marked, width), np.repeat(joined, width, axis=1))
    packed.array[:] = 0
    mark(packed, marked, joined)
    transform(True)
    np.testing.assert_array_equal(found(machine, values, rows, width), np.repeat(marks, width, axis=1))


def check_elementwise(machine: Machine) -> None:
    """Fill a vector with its indices, and apply maps of each number of operands in place."""
    x = machine.zeros((LENGTH,), np.float64)
    places = [0, LIMIT - 1, LIMIT, LIMIT + 1, LENGTH - 1]
    elementwise.fill_launcher(machine.target, "consecutive")(x.view, 5)
    expected = np.array(places) + 5.0
    for name, operands, change in [
        ("scale", 1, lambda value: 2 * value),
        ("axpby", 2, lambda value: 2 * value + 3 * value),
        ("multiply_add", 3, lambda value: value * value + value),
    ]:
        elementwise.map_launcher(machine.target, name)(x.view, *[x.view] * operands, a=2.0, b=3.0)
        expected = change(expected)
        values = [float(machine.get(x, slice(place, place + 1))[0]) for place in places]
        np.testing.assert_allclose(values, expected, rtol=1e-15)


def check_reductions(machine: Machine) -> None:
    """Reduce a vector of zeros with marks."""
    x = machine.zeros((LENGTH,), np.float64)
    partials = machine.zeros((reductions.PARTIALS + 1,), np.float64)
    for i, place in enumerate((0, LIMIT - 1, LIMIT, LENGTH - 1)):
        x.array[place] = -(10.0**i)
    results = {"dot": 1010101, "sum_square": 4040404, "sum_magnitude": 1111, "max_magnitude": 1000}
    for name, expected in list(results.items())[: 1 if machine.name == "cpu" else None]:  # a pass takes seconds
        reductions.reduce_launcher(machine.target, name)(partials.view, x.view, x.view, 2.0)
        assert float(machine.get(partials, slice(-1, None))[0]) == expected, name


def marked_blocks() -> tuple[list[int], np.ndarray]:
    """Return block columns, and the factors of their blocks in two block rows."""
    blocks = [0, ROWS // 4, ROWS // 2, ROWS - 2, ROWS - 1]
    return blocks, np.array([[3 * i + d + 1 for i in range(len(blocks))] for d in range(2)])


def check_sbgemv(machine: Machine, adjoint: bool, num_vecs: int) -> None:
    """Multiply by a spectrum of which three frequencies of each long run are used; operand or result are long too."""
    if machine.name == "cpu":
        return check_sbgemv_in_tiles(machine, adjoint, num_vecs)
    double: Any = np.complex128
    single: Any = np.complex64
    problem = Problem(2, ROWS, 4, adjoint, FIXED16, single, single, double, num_vecs)
    values = machine.zeros((2, ROWS, COLUMNS), FIXED16.part)
    scales = machine.zeros((2, ROWS, 1), np.float64)
    scales.array[:] = 1
    blocks, factors = marked_blocks()
    for d in range(2):
        for m, factor in zip(blocks, factors[d], strict=True):
            values.array[d, m, slice(0, 6, 2)] = int(factor)  # real parts
    # The operand is an impulse at time 0 of the marked blocks, of 1 in the first vector and of 2 in the second.
    columns = COLUMNS if problem.rows(ROWS) < ROWS else COLUMNS // 2 + 1
    many, few = (problem.rows(ROWS), columns), (problem.rows(2), problem.length)
    operand, result = (machine.zeros(shape, single) for shape in ((few, many) if adjoint else (many, few)))
    width = problem.length
    for block in range(2) if adjoint else blocks:
        for v in range(num_vecs):
            row, unit = place(problem, problem.reduced, block, v)
            operand.array[row, slice(0, width)] += (v + 1) * unit
    launch = sbgemv_launcher(machine.target, problem, machine.allocate)
    launch(result.view, StoredArrays(values.view, scales.view), operand.view)
    expected = factors.sum(axis=0) if adjoint else factors.sum(axis=1)
    for block, total in zip(blocks if adjoint else range(2), expected, strict=True):
        for v in range(num_vecs):
            row, unit = place(problem, problem.results, block, v)
            transform = machine.get(result, row, slice(0, width))
            part = transform.imag if unit == 1j else transform.real
            np.testing.assert_array_equal(part, np.full(width, (v + 1) * total))


def place(problem: Problem, blocks: int, block: int, v: int) -> tuple[int, complex]:
    """Return the row of a block of a vector, and the unit by which it is a part of a pair."""
    if problem.num_vecs == 1:
        return block // 2, 1j if block % 2 else 1
    return v // 2 * blocks + block, 1j if v % 2 else 1


def check_sbgemv_in_tiles(machine: Machine, adjoint: bool, num_vecs: int) -> None:
    """Multiply by a spectrum of which the first tile of frequencies is used, by the CPU's kernel."""
    double: Any = np.complex128
    problem = Problem(2, ROWS, 4, adjoint, FIXED16, double, double, double, num_vecs)
    values = machine.zeros((2, COLUMNS // PARTS, ROWS, PARTS), FIXED16.part).array
    scales = np.ones((2, 1, ROWS))
    blocks, factors = marked_blocks()
    values[:, 0, blocks, :6:2] = factors[..., None]  # real parts of three frequencies
    operand, result = (
        np.zeros(vector_tiles(num_vecs, problem.frequencies, count)) for count in (problem.reduced, problem.results)
    )
    for v in range(num_vecs):
        operand[v, 0, slice(2) if adjoint else blocks, :6:2] = v + 1
    sbgemv_launcher(machine.target, problem, machine.allocate)(result, StoredArrays(values, scales), operand)
    expected = factors.sum(axis=0) if adjoint else factors.sum(axis=1)
    for v in range(num_vecs):
        found = result[v, 0, blocks if adjoint else slice(2), :6:2]
        np.testing.assert_array_equal(found, np.repeat((v + 1) * expected[:, None], 3, axis=1))


CHECKS = {
    "rows": check_rows,
    "encoding": check_encoding,
    "reductions": check_reductions,
    **{
        f"sbgemv {'adjoint' if adjoint else 'forward'} of {num_vecs}": lambda machine, a=adjoint, n=num_vecs: (
            check_sbgemv(machine, a, n)
        )
        for adjoint in (False, True)
        for num_vecs in (1, 2)
    },
}
ON_DEVICES = {"pairs": check_pairs, "transforms": check_transforms, "elementwise": check_elementwise}
GIGABYTES = 40  # of the largest check, on a device
