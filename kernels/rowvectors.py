"""Transforms of rows with a row in each lane of SIMD vectors, for the CPU: the instructions.

Workspace holds complex numbers as ``[number][part][lane]``, and only the copies from and to rows and tiles cross lanes.
A row has the same bits in every lane and beside all other rows, also those that are not finite. Sums of products are
written as fused multiply-adds, so no bits depend on which of them a compiler finds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .butterflies import transform
from .formats import PARTS, TILE
from .lanes import DOUBLE, INDEX, WORD, Addresses

FLOATS = {np.dtype(np.float64): DOUBLE, np.dtype(np.float32): ir.FloatType()}
STORED = np.dtype(np.float64)  # of tiles

Dtypes = tuple[np.dtype[Any], np.dtype[Any], np.dtype[Any]]


class Registers(Addresses):
    """Vectors of an LLVM function: their loads, stores, sums, conversions and transposes.

    Parameters
    ----------
    context, builder : object
        Numba's context and llvmlite's builder.
    real : dtype
        The dtype of the lanes.
    lanes : int
        The number of lanes, a power of two.
    """

    def __init__(self, context: Any, builder: Any, real: np.dtype[Any], lanes: int) -> None:
        super().__init__(context, builder)
        self.real, self.lanes = real, lanes
        self.element = FLOATS[real]
        self.vector = ir.VectorType(self.element, lanes)
        self.nbytes = lanes * real.itemsize

    def load(self, address: Any, dtype: np.dtype[Any], count: int) -> Any:
        """Load a vector of consecutive values, or one value."""
        kind = FLOATS[dtype] if count == 1 else ir.VectorType(FLOATS[dtype], count)
        return self.builder.load(self.builder.bitcast(address, kind.as_pointer()), align=dtype.itemsize)

    def store(self, value: Any, address: Any, dtype: np.dtype[Any]) -> None:
        """Store a vector of values of a dtype, or one value."""
        self.builder.store(value, self.builder.bitcast(address, value.type.as_pointer()), align=dtype.itemsize)

    def load_number(self, buffer: Any, k: Any) -> list[Any]:
        """Load the real and the imaginary parts of number `k`."""
        return [self.load(each, self.real, self.lanes) for each in self._parts(buffer, k)]

    def store_number(self, parts: Sequence[Any], buffer: Any, k: Any) -> None:
        """Store the real and the imaginary parts of number `k`."""
        for value, address in zip(parts, self._parts(buffer, k), strict=True):
            self.store(value, address, self.real)

    def _parts(self, buffer: Any, k: Any) -> list[Any]:
        return [self.at(buffer, (k, 2 * self.nbytes), (part, self.nbytes)) for part in (0, 1)]

    def root(self, table: Any, k: Any) -> list[Any]:
        """Load the cosine and the sine at place `k` of a table into all lanes."""
        found = []
        for part in (0, 1):
            value = self.load(self.at(table, (k, 2 * self.real.itemsize), (part, self.real.itemsize)), self.real, 1)
            first = self.builder.insert_element(ir.Constant(self.vector, ir.Undefined), value, WORD(0))
            found.append(self.shuffle(first, first, [0] * self.lanes))
        return found

    def constant(self, value: float) -> Any:
        """Return a vector of equal values."""
        return ir.Constant(self.vector, [self.element(value)] * self.lanes)

    def gather(self, values: Sequence[Any]) -> Any:
        """Return a vector of values."""
        vector = ir.Constant(self.vector, ir.Undefined)
        for lane, value in enumerate(values):
            vector = self.builder.insert_element(vector, value, WORD(lane))
        return vector

    def scatter(self, vector: Any) -> list[Any]:
        """Return the values of a vector."""
        return [self.builder.extract_element(vector, WORD(lane)) for lane in range(self.lanes)]

    def convert(self, value: Any, *dtypes: np.dtype[Any]) -> Any:
        """Convert a vector or a value from the first of some dtypes to the next, and so on to the last."""
        for before, after in pairwise(dtypes):
            if before != after:
                kind = FLOATS[after]
                if isinstance(value.type, ir.VectorType):
                    kind = ir.VectorType(kind, value.type.count)
                value = (self.builder.fptrunc if after.itemsize < before.itemsize else self.builder.fpext)(value, kind)
        return value

    def shuffle(self, a: Any, b: Any, places: Sequence[int]) -> Any:
        """Return the elements at some places of two vectors one after the other."""
        mask = ir.Constant(ir.VectorType(WORD, len(places)), [WORD(place) for place in places])
        return self.builder.shuffle_vector(a, b, mask)

    def transpose(self, vectors: Sequence[Any]) -> list[Any]:
        """Return the transpose of as many vectors as each has elements.

        A step exchanges the elements off the diagonal of blocks, each of which x86 has an instruction for.
        """
        result, count, step = list(vectors), len(vectors), 1
        while step < count:
            upper = [count + i - step if i & step else i for i in range(count)]
            lower = [count + i if i & step else i + step for i in range(count)]
            for i in range(count):
                if not i & step:
                    pair = result[i], result[i + step]
                    result[i], result[i + step] = self.shuffle(*pair, upper), self.shuffle(*pair, lower)
            step *= 2
        return result

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """Return ``a b + c``, rounded once where the processor can."""
        name = f"llvm.fmuladd.v{self.lanes}f{8 * self.real.itemsize}"
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), [a, b, c])

    def turn(self, number: Sequence[Any], root: Sequence[Any]) -> list[Any]:
        """Return the product of two complex numbers."""
        (real, imag), (cosine, sine), builder = number, root, self.builder
        return [
            self.multiply_add(builder.fneg(imag), sine, builder.fmul(real, cosine)),
            self.multiply_add(imag, cosine, builder.fmul(real, sine)),
        ]

    def halves(self, a: Sequence[Any], b: Sequence[Any], root: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Return ``a + conj(b)``, and ``a - conj(b)`` times a root."""
        add, subtract = self.builder.fadd, self.builder.fsub
        odd = self.turn([subtract(a[0], b[0]), add(a[1], b[1])], root)
        return [add(a[0], b[0]), subtract(a[1], b[1])], odd


class _Term:
    """A vector times a factor, with the arithmetic of `butterflies.transform`; sums are fused multiply-adds."""

    def __init__(self, registers: Registers, vector: Any, factor: float = 1.0) -> None:
        self.registers, self.vector, self.factor = registers, vector, factor

    @property
    def value(self) -> Any:
        """The product."""
        builder = self.registers.builder
        if abs(self.factor) == 1:
            return self.vector if self.factor == 1 else builder.fneg(self.vector)
        return builder.fmul(self.vector, self.registers.constant(self.factor))

    def __add__(self, other: _Term) -> _Term:
        registers, builder = self.registers, self.registers.builder
        if abs(abs(self.factor) - abs(other.factor)) <= 1e-15:  # a common factor, for the next sum to multiply
            if self.factor * other.factor > 0:
                return _Term(registers, builder.fadd(self.vector, other.vector), self.factor)
            first, second = (self, other) if self.factor > 0 else (other, self)
            return _Term(registers, builder.fsub(first.vector, second.vector), first.factor)
        first, second = (other, self) if abs(other.factor) == 1 else (self, other)
        factor = registers.constant(second.factor)
        return _Term(registers, registers.multiply_add(second.vector, factor, first.value))

    def __sub__(self, other: _Term) -> _Term:
        return self + -other

    def __neg__(self) -> _Term:
        return _Term(self.registers, self.vector, -self.factor)

    def __mul__(self, factor: float) -> _Term:
        return _Term(self.registers, self.vector, self.factor * factor)


class Pass(NamedTuple):
    """What a pass of a transform computes.

    Parameters
    ----------
    from_heads : bool
        Whether the second half of its inputs is zero.
    turns : bool
        Whether its inputs are multiplied by roots of unity, as in every pass but the first.
    to_heads : bool
        Whether the second half of its results is not wanted.
    """

    from_heads: bool
    turns: bool
    to_heads: bool


@cache
def transform_pass(kind: Pass, radices: tuple[int, ...], real: np.dtype[Any], lanes: int) -> Callable[..., None]:
    """Return the intrinsic of a pass of any of some radices.

    ``run(source, target, table, roots, radix, before, length)`` transforms `length` numbers from one buffer to another.
    `before` is the product of the radices before. The pass's roots of unity begin at the place `roots` of the table,
    with those of a butterfly side by side.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        registers = Registers(context, builder, real, lanes)
        source, target, table = (registers.array(signature.args[i], arguments[i])[0] for i in range(3))
        roots, chosen, before, length = arguments[3:]
        table, number = registers.at(table, (roots, real.itemsize)), 2 * registers.nbytes
        # LLVM aligns the vectors that it keeps on the stack only if the stack has an aligned variable.
        with builder.goto_entry_block():
            variable = builder.alloca(registers.vector)
        variable.align = registers.nbytes
        builder.asm(ir.FunctionType(ir.VoidType(), [variable.type]), "", "r", [variable], side_effect=True)

        def opaque(address: Any) -> Any:
            """Hide where an address comes from: LLVM would take seconds to compare those of all loads and stores."""
            return builder.asm(ir.FunctionType(address.type, [address.type]), "", "=r,0", [address], side_effect=True)

        def butterfly(radix: int, count: Any, first: Any, to: Any, root: Any) -> None:
            half, first, to = -(-radix // 2), opaque(first), opaque(to)
            values: list[Any] = [None] * radix
            for i in range(half if kind.from_heads else radix):
                found = registers.load_number(first, builder.mul(INDEX(i), count))
                if i and kind.turns:
                    found = registers.turn(found, registers.root(root, i - 1))
                values[i] = tuple(_Term(registers, each) for each in found)
            results = transform(values, -1)
            for i in range(half if kind.to_heads else radix):
                registers.store_number([each.value for each in results[i]], to, builder.mul(INDEX(i), before))

        def butterflies(radix: int) -> None:
            count = builder.udiv(length, INDEX(radix))
            with cgutils.for_range(builder, builder.udiv(count, before)) as outer:
                begin = builder.mul(outer.index, before)
                first, to = registers.at(source, (begin, number)), registers.at(target, (begin, radix * number))
                if not kind.turns:  # `before` is one
                    butterfly(radix, count, first, to, None)
                    return
                with cgutils.for_range(builder, before) as inner:
                    member, root = (inner.index, number), (inner.index, 2 * (radix - 1) * real.itemsize)
                    places = registers.at(first, member), registers.at(to, member), registers.at(table, root)
                    butterfly(radix, count, *places)

        end = builder.append_basic_block("end")
        switch = builder.switch(chosen, end)
        for radix in radices:
            switch.add_case(INDEX(radix), block := builder.append_basic_block(f"radix_{radix}"))
            builder.position_at_end(block)
            butterflies(radix)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    @intrinsic
    def run(context, source, target, table, roots, radix, before, length):
        return types.void(source, target, table, roots, radix, before, length), codegen

    return run  # type: ignore[no-any-return]


def _lane_rows(registers: Registers, first: Any, last: Any) -> list[Any]:
    """Return the row of each lane; lanes past the last row take it again."""
    builder = registers.builder
    rows = [builder.add(first, INDEX(lane)) for lane in range(registers.lanes)]
    return [builder.select(builder.icmp_signed("<", row, last), row, last) for row in rows]


@cache
def copy_values(into: bool, count: int, dtypes: Dtypes, lanes: int) -> Callable[..., None]:
    """Return the intrinsic that copies `count` time steps of rows into a buffer, or from there.

    ``copy(rows, first, last, t, buffer)`` copies values from the time step `t` on, of a row in each lane from the row
    `first` on. The count is one, or the number of lanes. Two steps are the parts of a number, and change places on the
    way from a buffer. The dtypes are those of the rows, of their rounding and of the buffer.
    """
    stored, rounding, real = dtypes

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        registers = Registers(context, builder, real, lanes)
        rows, first, last, t, buffer = arguments
        (rows, (pitch, _)), (buffer, _) = (registers.array(signature.args[i], arguments[i]) for i in (0, 4))
        in_rows = [registers.at(rows, (row, pitch), (t, stored.itemsize)) for row in _lane_rows(registers, first, last)]
        steps = [builder.add(t, INDEX(i)) for i in range(count)]
        if into:
            values = [
                registers.convert(registers.load(each, stored, count), stored, rounding, real) for each in in_rows
            ]
            vectors = [registers.gather(values)] if count == 1 else registers.transpose(values)
            for step, vector in zip(steps, vectors, strict=True):
                registers.store(vector, registers.at(buffer, (step, registers.nbytes)), real)
            return context.get_dummy_value()
        vectors = [
            registers.load(registers.at(buffer, (builder.xor(step, INDEX(1)), registers.nbytes)), real, lanes)
            for step in steps
        ]
        values = registers.scatter(vectors[0]) if count == 1 else registers.transpose(vectors)
        for value, address in zip(values, in_rows, strict=True):
            registers.store(registers.convert(value, real, rounding, stored), address, stored)
        return context.get_dummy_value()

    @intrinsic
    def copy(context, rows, first, last, t, buffer):
        return types.void(rows, first, last, t, buffer), codegen

    return copy  # type: ignore[no-any-return]


def _tile_rows(registers: Registers, kind: Any, tiles: Any, tile: Any, first: Any, last: Any) -> list[Any]:
    """Return the address of a tile of each lane's row; rows are the blocks of all vectors."""
    builder, found = registers.builder, []
    blocks = builder.extract_value(registers.context.make_array(kind)(registers.context, builder, tiles).shape, 2)
    tiles, strides = registers.array(kind, tiles)
    for row in _lane_rows(registers, first, last):
        vector = builder.udiv(row, blocks)
        block = builder.sub(row, builder.mul(vector, blocks))
        steps = (vector, strides[0]), (tile, strides[1]), (block, STORED.itemsize * PARTS)
        found.append(registers.at(tiles, *steps))
    return found


@cache
def store_tile(whole: bool, real: np.dtype[Any], lanes: int) -> Callable[..., None]:
    """Return the intrinsic that stores a tile of each row's real transform.

    ``store(tiles, tile, first, last, buffer, table, length)`` computes the tile's frequencies from those of the complex
    transform in a buffer, whose first follows the last again. Unless the tile is `whole`, frequencies above `length`
    are zero.
    """
    side = min(lanes, PARTS)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        registers = Registers(context, builder, real, lanes)
        tiles, tile, first, last, _, _, length = arguments
        buffer, table = (registers.array(signature.args[i], arguments[i])[0] for i in (4, 5))
        half, values = registers.constant(0.5), []
        for i in range(TILE):
            k = builder.add(builder.mul(tile, INDEX(TILE)), INDEX(i))
            exists = builder.icmp_signed("<=", k, length)
            k = k if whole else builder.select(exists, k, length)
            a, b = registers.load_number(buffer, k), registers.load_number(buffer, builder.sub(length, k))
            even, odd = registers.halves(a, b, registers.root(table, k))
            found = [registers.multiply_add(half, x, y) for x, y in zip(even, odd, strict=True)]
            values += found if whole else [builder.select(exists, x, registers.constant(0.0)) for x in found]
        rows = _tile_rows(registers, signature.args[0], tiles, tile, first, last)
        for part in range(0, PARTS, side):
            for lane in range(0, lanes, side):
                square = values[part : part + side]
                if side < lanes:
                    square = [registers.shuffle(x, x, range(lane, lane + side)) for x in square]
                for row, x in zip(rows[lane : lane + side], registers.transpose(square), strict=True):
                    registers.store(
                        registers.convert(x, real, STORED), registers.at(row, (part, STORED.itemsize)), STORED
                    )
        return context.get_dummy_value()

    @intrinsic
    def store(context, tiles, tile, first, last, buffer, table, length):
        return types.void(tiles, tile, first, last, buffer, table, length), codegen

    return store  # type: ignore[no-any-return]


@cache
def load_tile(real: np.dtype[Any], lanes: int) -> Callable[..., None]:
    """Return the intrinsic that loads a tile of each row's frequencies.

    ``load(tiles, tile, first, last, buffer)`` copies the frequencies of a tile to their places in a buffer.
    """
    side = min(lanes, PARTS)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        registers = Registers(context, builder, real, lanes)
        tiles, tile, first, last, _ = arguments
        buffer, _ = registers.array(signature.args[4], arguments[4])
        rows = _tile_rows(registers, signature.args[0], tiles, tile, first, last)
        for part in range(0, PARTS, side):
            places = [registers.at(row, (part, STORED.itemsize)) for row in rows]
            values = [registers.convert(registers.load(each, STORED, side), STORED, real) for each in places]
            squares = [registers.transpose(values[lane : lane + side]) for lane in range(0, lanes, side)]
            for i, pieces in enumerate(zip(*squares, strict=True)):
                vector = pieces[0] if side == lanes else registers.shuffle(pieces[0], pieces[-1], range(lanes))
                place = registers.at(buffer, (tile, PARTS * registers.nbytes), (part + i, registers.nbytes))
                registers.store(vector, place, real)
        return context.get_dummy_value()

    @intrinsic
    def load(context, tiles, tile, first, last, buffer):
        return types.void(tiles, tile, first, last, buffer), codegen

    return load  # type: ignore[no-any-return]


@cache
def join_frequencies(real: np.dtype[Any], lanes: int) -> Callable[..., None]:
    """Return the intrinsic that replaces two frequencies of real spectra by those of complex ones of half the length.

    ``join(buffer, table, k, length)`` replaces the frequencies `k` and ``length - k``. Their real and imaginary parts
    change places, so that the transform with the opposite sign transforms them back.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        registers = Registers(context, builder, real, lanes)
        (buffer, _), (table, _) = (registers.array(signature.args[i], arguments[i]) for i in (0, 1))
        k, length = arguments[2:]
        mirrored = builder.sub(length, k)
        a, b = registers.load_number(buffer, k), registers.load_number(buffer, mirrored)
        even, odd = registers.halves(a, b, registers.root(table, k))
        add, subtract = builder.fadd, builder.fsub
        registers.store_number([add(even[1], odd[1]), add(even[0], odd[0])], buffer, k)
        registers.store_number([subtract(odd[1], even[1]), subtract(even[0], odd[0])], buffer, mirrored)
        return context.get_dummy_value()

    @intrinsic
    def join(context, buffer, table, k, length):
        return types.void(buffer, table, k, length), codegen

    return join  # type: ignore[no-any-return]
