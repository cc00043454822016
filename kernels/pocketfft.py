"""NumPy's compiled real transforms of rows, which loop nests of the CPU call on their own threads.

NumPy's transforms are universal functions, and these have loops in C. Called directly, a loop holds no lock of the
interpreter, so transforms and products share one pool of threads. The structure of a universal function is part of
NumPy's C interface (``numpy/ufuncobject.h``), but the functions of its transforms have private names. If an address
cannot be found, `loop` returns that of a Python function which calls numpy.fft.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

MODULE = "numpy.fft._pocketfft_umath"
# The universal function of each transform of an even length, and the types of its operands and result in double.
FUNCTIONS = {"rfft": ("rfft_n_even", "dd->D"), "irfft": ("irfft", "Dd->d")}

SIZE, ADDRESS = ctypes.c_ssize_t, ctypes.c_void_p
LOOP = ctypes.CFUNCTYPE(None, ctypes.POINTER(ADDRESS), ctypes.POINTER(SIZE), ctypes.POINTER(SIZE), ADDRESS)


class Loop(NamedTuple):
    """The addresses of a loop and of its data."""

    address: int
    data: int


class _UniversalFunction(ctypes.Structure):
    """The beginning of PyUFuncObject."""

    _fields_ = (
        ("object", ctypes.c_byte * object.__basicsize__),
        ("operands", ctypes.c_int * 3),
        ("identity", ctypes.c_int),
        ("loops", ctypes.POINTER(ADDRESS)),
        ("data", ctypes.POINTER(ADDRESS)),
        ("count", ctypes.c_int),
    )


def _compiled_loop(kind: str, real: np.dtype[Any]) -> Loop | None:
    """Return NumPy's own loop, or None if this version of NumPy has none where it is expected."""
    name, signature = FUNCTIONS[kind]
    function = getattr(import_module(MODULE), name)
    found = _UniversalFunction.from_address(id(function))
    if (*found.operands, found.count) != (function.nin, function.nout, function.nargs, function.ntypes):
        return None
    number = function.types.index(signature if real == np.float64 else signature.replace("d", "f").replace("D", "F"))
    address = found.loops[number]
    return Loop(address, (found.data[number] if found.data else 0) or 0) if address else None


def _agrees(kind: str, real: np.dtype[Any], found: Loop) -> bool:
    """Return whether a loop transforms two rows as numpy.fft does."""
    values, parts = np.arange(8, dtype=real).reshape(2, 4), np.zeros((2, 6), real)
    expected = np.fft.rfft(values)
    if kind == "rfft":
        run_loop(kind, found, values, 4, parts, 3, 2)
        return bool(np.allclose(parts, expected.view(real)))
    run_loop(kind, found, expected.view(real), 3, parts, 4, 2)
    return bool(np.allclose(parts[:, :4], np.fft.irfft(expected, norm="forward")))


def _python_loop(kind: str, real: np.dtype[Any]) -> Callable[..., None]:
    """Return a function that transforms rows by numpy.fft, with the arguments of a loop."""
    complex_dtype = np.result_type(real, np.complex64)
    dtypes = (real, complex_dtype) if kind == "rfft" else (complex_dtype, real)

    def run(arguments: Any, sizes: Any, steps: Any, data: Any) -> None:
        rows, ends = sizes[0], zip(dtypes, (arguments[0], arguments[2]), (1, 2), (steps[0], steps[2]), strict=True)
        source, destination = (
            np.ndarray(
                (rows, sizes[i]),
                dtype,
                (ctypes.c_byte * ((rows - 1) * pitch + sizes[i] * dtype.itemsize)).from_address(address),
                strides=(pitch, dtype.itemsize),
            )
            for dtype, address, i, pitch in ends
        )
        if kind == "rfft":
            destination[...] = np.fft.rfft(source, 2 * (sizes[2] - 1))
        else:
            destination[...] = np.fft.irfft(source, sizes[2], norm="forward")

    return run


_kept: list[Any] = []  # Python functions whose addresses are in use


@cache
def loop(kind: str, real: Any) -> Loop:
    """Return the loop of an unnormalised real transform of an even length.

    Parameters
    ----------
    kind : {"rfft", "irfft"}
        The transform.
    real : dtype
        float32 or float64, in which it is computed.
    """
    dtype = np.dtype(real)
    try:
        found = _compiled_loop(kind, dtype)
    except (ImportError, AttributeError, ValueError):  # this NumPy has another module, other functions, other types
        found = None
    if found is not None and _agrees(kind, dtype, found):
        return found
    callback = LOOP(_python_loop(kind, dtype))
    _kept.append(callback)
    return Loop(ctypes.cast(callback, ADDRESS).value or 0, 0)


def run_loop(kind: str, found: Loop, source: Any, width: int, destination: Any, result: int, rows: int) -> None:
    """Call a loop from Python; see `rows_transform` for the arguments."""
    one = np.ones(1, source.dtype)
    arguments = (ADDRESS * 3)(source.ctypes.data, one.ctypes.data, destination.ctypes.data)
    sizes = (SIZE * 3)(rows, width, result)
    of_values = [(1 + (end == (kind == "rfft"))) * source.itemsize for end in (False, True)]
    steps = (SIZE * 5)(source.strides[0], 0, destination.strides[0], *of_values)
    LOOP(found.address)(arguments, sizes, steps, found.data)


@cache
def rows_transform(kind: str) -> Callable[..., None]:
    """Return the intrinsic that transforms rows.

    ``transform(address, data, source, width, destination, result, rows)`` transforms the first `width` values of each
    of the first `rows` rows of `source`, padded with zeros, into the first `result` values of a row of `destination`.
    Both are arrays of the same real dtype; a complex value is two of theirs. `address` and `data` are a `Loop`.
    """
    into_complex = kind == "rfft"

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        index, byte = ir.IntType(64), ir.IntType(8).as_pointer()
        address, data, source, width, destination, result, rows = arguments
        arrays = [
            context.make_array(kind)(context, builder, value)
            for kind, value in ((signature.args[2], source), (signature.args[4], destination))
        ]
        real = context.get_value_type(signature.args[2].dtype)
        itemsize = context.get_abi_sizeof(real)
        one = cgutils.alloca_once_value(builder, real(1.0))
        pitches = [cgutils.unpack_tuple(builder, array.strides)[0] for array in arrays]
        of_values = [index(itemsize * (1 if into_complex else 2)), index(itemsize * (2 if into_complex else 1))]

        def stored(kind: Any, values: list[Any]) -> Any:
            place = cgutils.alloca_once(builder, ir.ArrayType(kind, len(values)))
            for i, value in enumerate(values):
                builder.store(value, cgutils.gep_inbounds(builder, place, 0, i))
            return builder.bitcast(place, byte)

        operands = stored(byte, [builder.bitcast(each, byte) for each in (arrays[0].data, one, arrays[1].data)])
        sizes = stored(index, [rows, width, result])
        steps = stored(index, [pitches[0], index(0), pitches[1], *of_values])
        function = builder.inttoptr(address, ir.FunctionType(ir.VoidType(), [byte] * 4).as_pointer())
        builder.call(function, [operands, sizes, steps, builder.inttoptr(data, byte)])
        return context.get_dummy_value()

    @intrinsic
    def transform(context, address, data, source, width, destination, result, rows):
        sizes = width, result, rows
        whole = all(isinstance(each, types.Integer) and each.bitwidth == 64 for each in (address, data, *sizes))
        if not whole:
            raise TypeError(f"transform: expected 64-bit integers, found {(address, data, *sizes)}")
        return types.void(address, data, source, width, destination, result, rows), codegen

    return transform  # type: ignore[no-any-return]
