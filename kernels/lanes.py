"""Blocks of complex products with explicit SIMD vectors, for the CPU's SBGEMV.

A vector holds real and imaginary parts in turn, as memory does. A block adds the products of some rows and some terms,
a tile of frequencies each, in registers. With a term's value spread as (re, re) and (im, im), a product takes two fused
multiply-adds: ``first += a (re, re)`` and ``second += a (im, im)``. Once per block, ``second`` is swapped within pairs
and added to ``first`` with alternating signs. LLVM translates the vectors for AVX-512, AVX2 and NEON alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from .formats import LINE, PARTS, RUN, TILE, Format

WIDEST, NARROWER = 8, 4  # doubles in a vector of AVX-512, and of AVX2; LLVM splits the latter for NEON
AHEAD = 1024  # bytes between a block and the lines that it prefetches, along each block row of the spectrum
SECOND_LEVEL = 2  # LLVM's number for prefetches into the second level of cache

BYTE, INDEX, WORD, DOUBLE = ir.IntType(8), ir.IntType(64), ir.IntType(32), ir.DoubleType()
ELEMENTS = {"d": DOUBLE, "f": ir.FloatType(), "i": WORD, "h": ir.IntType(16)}


def vector_width() -> int:
    """Return the number of doubles in a vector: the widest that numba's target has registers for."""
    _, _, features = cpu_target.target_context.codegen().magic_tuple()
    return WIDEST if "+avx512f" in features.split(",") else NARROWER


class Addresses:
    """Addresses of an LLVM function.

    Parameters
    ----------
    context, builder : object
        Numba's context and llvmlite's builder.
    """

    def __init__(self, context: Any, builder: Any) -> None:
        self.context, self.builder = context, builder

    def array(self, kind: Any, value: Any) -> tuple[Any, Sequence[Any]]:
        """Return an array's address and its strides in bytes."""
        array = self.context.make_array(kind)(self.context, self.builder, value)
        return self.builder.bitcast(array.data, BYTE.as_pointer()), cgutils.unpack_tuple(self.builder, array.strides)

    def at(self, address: Any, *steps: tuple[Any, Any]) -> Any:
        """Return the address after steps, as pairs of an index and a stride in bytes."""
        for index, stride in steps:
            index, stride = (INDEX(each) if isinstance(each, int) else each for each in (index, stride))
            address = self.builder.gep(address, [self.builder.mul(index, stride)])
        return address


class Memory(Addresses):
    """Addresses, loads and stores of an LLVM function.

    Parameters
    ----------
    context, builder : object
        Numba's context and llvmlite's builder.
    width : int
        Doubles in a vector.
    """

    def __init__(self, context: Any, builder: Any, width: int) -> None:
        super().__init__(context, builder)
        self.width = width
        self.vector = ir.VectorType(DOUBLE, width)

    def load(self, address: Any, element: Any = DOUBLE) -> Any:
        """Load a vector of values that are aligned to their size, and convert them to double."""
        kind = ir.VectorType(element, self.width)
        align = 8 if element is DOUBLE else element.width // 8 if isinstance(element, ir.IntType) else 4
        value = self.builder.load(self.builder.bitcast(address, kind.as_pointer()), align=align)
        if element is DOUBLE:
            return value
        convert = self.builder.sitofp if isinstance(element, ir.IntType) else self.builder.fpext
        return convert(value, self.vector)

    def store(self, value: Any, address: Any) -> None:
        """Store a vector of doubles."""
        self.builder.store(value, self.builder.bitcast(address, self.vector.as_pointer()), align=8)

    def spread(self, address: Any) -> Any:
        """Load a double into all elements of a vector."""
        value = self.builder.load(self.builder.bitcast(address, DOUBLE.as_pointer()))
        first = self.builder.insert_element(ir.Constant(self.vector, ir.Undefined), value, WORD(0))
        return self.permute(first, lambda i: 0)

    def permute(self, value: Any, source: Callable[[int], int]) -> Any:
        """Return a vector whose element i is element ``source(i)`` of another."""
        mask = ir.Constant(ir.VectorType(WORD, self.width), [WORD(source(i)) for i in range(self.width)])
        return self.builder.shuffle_vector(value, value, mask)

    def constant(self, value: Callable[[int], float]) -> Any:
        """Return a vector whose element i is ``value(i)``."""
        return ir.Constant(self.vector, [DOUBLE(value(i)) for i in range(self.width)])

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """Return ``a b + c``, rounded once where the processor can."""
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        name = f"llvm.fmuladd.v{self.width}f64"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), [a, b, c])

    def joined(self, by_real: Any, by_imag: Any, conjugate: bool) -> Any:
        """Return the sum of ``a x`` or of ``conj(a) x``, from those of a's parts multiplied by the parts of x.

        ``a x = (re re - im im, im re + re im)``, and ``conj(a) x = (re re + im im, re im - im re)``.
        """
        swapped = self.permute(by_imag, lambda i: i ^ 1)
        signs = self.constant(lambda i: -1.0 if (i % 2 == 1) == conjugate else 1.0)
        pair = (by_real, swapped) if conjugate else (swapped, by_real)
        return self.multiply_add(pair[0], signs, pair[1])

    def prefetch(self, address: Any) -> None:
        """Prefetch a line; an address outside of an array has no effect."""
        kind = ir.FunctionType(ir.VoidType(), [BYTE.as_pointer(), WORD, WORD, WORD])
        function = self.builder.module.declare_intrinsic("llvm.prefetch", [BYTE.as_pointer()], kind)
        to_read, data = WORD(0), WORD(1)
        self.builder.call(function, [address, to_read, WORD(SECOND_LEVEL), data])


class Block(NamedTuple):
    """A block of products: block rows and block columns of the spectrum, and vectors."""

    down: int
    right: int
    vecs: int = 1


@cache
def block_product(block: Block, format: Format, adjoint: bool, width: int) -> Callable[..., None]:
    """Return the intrinsic that adds a block of products.

    ``add(sums, v, row, values, scales, d, tile, m, vectors, term)`` adds to the tiles ``sums[v:, tile, row:]`` the
    products of the spectrum's blocks from ``(d, m)`` on with the tiles ``vectors[v:, tile, term:]``. For F* rows are
    block columns and terms are block rows, and the spectrum's conjugates are multiplied.

    Parameters
    ----------
    block : Block
        The numbers of rows, terms and vectors.
    format : Format
        Format of the stored spectrum.
    adjoint : bool
        Whether the block is one of F*.
    width : int
        Doubles in a vector of the processor.
    """
    element, itemsize = ELEMENTS[format.part.char], format.part.itemsize
    rows, terms = (block.right, block.down) if adjoint else (block.down, block.right)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        memory = Memory(context, builder, width)
        (sums, to_sums), (values, pitch), (scales, scale_pitch), (vectors, to_vectors) = (
            memory.array(signature.args[i], arguments[i]) for i in (0, 3, 4, 8)
        )
        v, row, d, tile, m, term = (arguments[i] for i in (1, 2, 5, 6, 7, 9))
        values = memory.at(values, (d, pitch[0]), (tile, pitch[1]), (m, pitch[2]))
        run = builder.udiv(tile, INDEX(RUN // TILE))
        scales = memory.at(scales, (d, scale_pitch[0]), (run, scale_pitch[1]), (m, 8))
        sums = memory.at(sums, (v, to_sums[0]), (tile, to_sums[1]), (row, 8 * PARTS))
        vectors = memory.at(vectors, (v, to_vectors[0]), (tile, to_vectors[1]), (term, 8 * PARTS))

        def factor(row: int, term: int, half: int) -> Any:
            """Return the spectrum's value of a row and a term."""
            d, m = (term, row) if adjoint else (row, term)
            place = memory.at(values, (d, pitch[0]), (m * PARTS + half, itemsize))
            value = memory.load(place, element)
            if not format.is_fixed:
                return value
            return builder.fmul(value, memory.spread(memory.at(scales, (d, scale_pitch[0]), (m, 8))))

        def parts(term: int, half: int) -> list[tuple[Any, Any]]:
            """Return the real and imaginary parts of a term of each vector, each spread over its pair of elements."""
            places = [memory.at(vectors, (v, to_vectors[0]), (term * PARTS + half, 8)) for v in range(block.vecs)]
            loaded = [memory.load(place) for place in places]
            return [
                (memory.permute(x, lambda i: i // 2 * 2), memory.permute(x, lambda i: i // 2 * 2 + 1)) for x in loaded
            ]

        for half in range(0, PARTS, width):
            sums_of = {key: [memory.constant(lambda i: 0.0)] * 2 for key in np.ndindex(rows, block.vecs)}
            for term in range(terms):
                terms_of = parts(term, half)
                for row in range(rows):
                    a = factor(row, term, half)
                    for v, pair in enumerate(terms_of):
                        both = zip(pair, sums_of[row, v], strict=True)
                        sums_of[row, v] = [memory.multiply_add(a, part, total) for part, total in both]
            for (row, v), (by_real, by_imag) in sums_of.items():
                place = memory.at(sums, (v, to_sums[0]), (row * PARTS + half, 8))
                memory.store(builder.fadd(memory.load(place), memory.joined(by_real, by_imag, adjoint)), place)
        return context.get_dummy_value()

    @intrinsic
    def add(context, sums, v, row, values, scales, d, tile, m, vectors, term):
        return types.void(sums, v, row, values, scales, d, tile, m, vectors, term), codegen

    return add  # type: ignore[no-any-return]


@cache
def block_prefetch(down: int, right: int, itemsize: int) -> Callable[..., None]:
    """Return the intrinsic that prefetches the lines some way ahead of a block of the spectrum.

    ``prefetch(values, d, tile, m)`` prefetches along each of the block rows from `d` on; `itemsize` is that of a part.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        memory = Memory(context, builder, NARROWER)
        values, d, tile, m = arguments
        values, pitch = memory.array(signature.args[0], values)
        values = memory.at(values, (d, pitch[0]), (tile, pitch[1]), (m, pitch[2]))
        for row in range(down):
            for ahead in range(AHEAD, AHEAD + right * PARTS * itemsize, LINE):
                memory.prefetch(memory.at(values, (row, pitch[0]), (ahead, 1)))
        return context.get_dummy_value()

    @intrinsic
    def prefetch(context, values, d, tile, m):
        return types.void(values, d, tile, m), codegen

    return prefetch  # type: ignore[no-any-return]
