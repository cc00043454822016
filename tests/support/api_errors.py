"""Bad input to the operations on vectors, as data, and the errors that each rank of a grid raises."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.operations import CHECKSUM, LONG, ND, NM, NT, SHORT, operands, vectors


@dataclass
class Bench:
    """An initialised vector of each space, one without values, and another Comm of the same ranks."""

    comm: Any
    other: Any
    x: Any
    y: Any
    row: Any
    blank: Any
    folder: Path

    def sized(self, blocks: Any, size: Any, space: str = "col") -> Any:
        """Return an initialised vector of global sizes."""
        import numba_fftmatvec as pyFFTMatvec

        made = pyFFTMatvec.Vector(self.comm, blocks, size, space, global_sizes=True)
        made.init_vec_ones()
        return made

    def multiply(self, x: Any, y: Any) -> None:
        """Apply F*F of a matrix of ones."""
        import numba_fftmatvec as pyFFTMatvec

        matrix = pyFFTMatvec.Matrix(self.comm, NM, ND, NT, global_sizes=True)
        matrix.init_mat_ones()
        matrix.matvec(x, y, full=True)

    def closed(self) -> Any:
        """Return a vector like x that was closed."""
        made = self.x.copy()
        made.close()
        return made


Act = Callable[[Bench], Any]

# Every operation on two vectors, and then every kind of second operand that does not fit.
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "x + y": operator.add,
    "x - y": operator.sub,
    "x * y": operator.mul,
    "x / y": operator.truediv,
    "x += y": operator.iadd,
    "x -= y": operator.isub,
    "x *= y": operator.imul,
    "x /= y": operator.itruediv,
    "axpy": lambda x, y: x.axpy(2.0, y),
    "waxpy": lambda x, y: x.waxpy(2.0, y),
    "axpby": lambda x, y: x.axpby(2.0, 3.0, y),
    "waxpby": lambda x, y: x.waxpby(2.0, 3.0, y),
    "dot": lambda x, y: x.dot(y),
    "copy_to": lambda x, y: x.copy_to(y),
    "elementwise_multiply": lambda x, y: x.elementwise_multiply(y),
    "elementwise_multiply_inplace": lambda x, y: x.elementwise_multiply_inplace(y),
    "elementwise_divide": lambda x, y: x.elementwise_divide(y),
    "elementwise_divide_inplace": lambda x, y: x.elementwise_divide_inplace(y),
    "elementwise_multiply_add": lambda x, y: x.elementwise_multiply_add(y, x),
    "elementwise_multiply_add, third": lambda x, y: x.elementwise_multiply_add(x, y),
    "elementwise_multiply_add_inplace": lambda x, y: x.elementwise_multiply_add_inplace(y, x),
    "elementwise_multiply_add_inplace, third": lambda x, y: x.elementwise_multiply_add_inplace(x, y),
}
MISFITS: dict[str, tuple[str, tuple[str, ...], Act]] = {
    "of the other space": ("SpaceError", ("col", "row"), lambda s: s.row),
    "of other blocks": ("ShapeError", (str(NM), str(NM + 1)), lambda s: s.sized(NM + 1, NT)),
    "of another block size": ("ShapeError", (str(NT), str(NT + 1)), lambda s: s.sized(NM, NT + 1)),
    "on another Comm": ("ArgumentError", ("Comm",), lambda s: vectors(s.other, "col", operands("col")[0])[0]),
    "without values": ("UninitializedError", ("without values",), lambda s: s.blank),
    "that is closed": ("ClosedError", ("closed",), lambda s: s.closed()),
    "that is a dict": ("TypeError", ("dict",), lambda s: {}),
    "that is None": ("TypeError", ("None",), lambda s: None),
}
UNARY: dict[str, Callable[[Any], Any]] = {
    "x * 2.0": lambda x: x * 2.0,
    "1.0 / x": lambda x: 1.0 / x,
    "x **= 2.0": lambda x: operator.ipow(x, 2.0),
    "-x": operator.neg,
    "abs(x)": abs,
    "scale": lambda x: x.scale(2.0),
    "wscale": lambda x: x.wscale(2.0),
    "elementwise_inverse": lambda x: x.elementwise_inverse(),
    "elementwise_inverse_inplace": lambda x: x.elementwise_inverse_inplace(),
    "pow": lambda x: x.pow(2.0),
    "pow_inplace": lambda x: x.pow_inplace(2.0),
    "add_scalar": lambda x: x.add_scalar(2.0),
    "add_scalar_inplace": lambda x: x.add_scalar_inplace(2.0),
    "extend": lambda x: x.extend(LONG),
    "shrink": lambda x: x.shrink(SHORT),
    "resize": lambda x: x.resize(LONG),
    "norm": lambda x: x.norm(),
    "copy": lambda x: x.copy(),
}
SCALARS: dict[str, Callable[[Any, Any], Any]] = {
    "x + a": operator.add,
    "a - x": lambda x, a: a - x,
    "x *= a": operator.imul,
    "x ** a": operator.pow,
    "scale": lambda x, a: x.scale(a),
    "wscale": lambda x, a: x.wscale(a),
    "axpy": lambda x, a: x.axpy(a, x),
    "axpby": lambda x, a: x.axpby(a, 1.0, x),
    "axpby, second": lambda x, a: x.axpby(1.0, a, x),
    "waxpby": lambda x, a: x.waxpby(a, 1.0, x),
    "pow": lambda x, a: x.pow(a),
    "add_scalar": lambda x, a: x.add_scalar(a),
}
SIZES: dict[str, tuple[str, Any, Any]] = {
    "zero": ("ShapeError", "0", lambda s: 0),
    "negative": ("ShapeError", "-2", lambda s: -2),
    "fractional": ("ShapeError", "2.5", lambda s: 2.5),
    "a word": ("ShapeError", "'4'", lambda s: "4"),
    "a vector of the other space": ("SpaceError", "row", lambda s: s.sized(ND, LONG, "row")),
    "a vector of other blocks": ("ShapeError", str(NM + 1), lambda s: s.sized(NM + 1, LONG)),
}


def cases() -> dict[str, tuple[str, tuple[str, ...], Act]]:
    """Return every case: the name of the error that it must raise, a text in its message, and the call."""
    found: dict[str, tuple[str, tuple[str, ...], Act]] = {}
    for (call, act), (misfit, (error, says, operand)) in itertools.product(BINARY.items(), MISFITS.items()):
        if (call, misfit) == ("copy_to", "without values"):
            continue  # copying is allowed between them
        found[f"{call} {misfit}"] = (error, says, lambda s, act=act, operand=operand: act(s.x, operand(s)))
    for call, unary in UNARY.items():
        found[f"{call} without values"] = ("UninitializedError", (), lambda s, act=unary: act(s.blank))
    for (call, scalar), value in itertools.product(SCALARS.items(), (1j, "two", [2.0])):
        kind = type(value).__name__
        found[f"{call} with a {kind}"] = ("TypeError", (kind,), lambda s, act=scalar, a=value: act(s.x, a))
    for method, (name, (error, says, size)) in itertools.product(("extend", "shrink", "resize"), SIZES.items()):
        found[f"{method} to {name}"] = (
            error,
            (says,),
            lambda s, method=method, size=size: getattr(s.x, method)(size(s)),
        )
    found["extend to fewer steps"] = ("ShapeError", (str(NT), str(SHORT)), lambda s: s.x.extend(SHORT))
    found["shrink to more steps"] = ("ShapeError", (str(NT), str(LONG)), lambda s: s.x.shrink(LONG))
    found["extend into fewer steps"] = ("ShapeError", (str(NT), str(SHORT)), lambda s: s.x.extend(s.sized(NM, SHORT)))
    found["product into a closed one"] = ("ClosedError", ("closed",), lambda s: s.multiply(s.x, s.closed()))
    found["product of a closed one"] = ("ClosedError", ("closed",), lambda s: s.multiply(s.closed(), s.x))
    found["extend into a closed one"] = ("ClosedError", ("closed",), lambda s: s.x.extend(s.closed()))
    for call, unary in UNARY.items():
        found[f"{call} of a closed one"] = ("ClosedError", ("closed",), lambda s, act=unary: act(s.closed()))
    found["norm of order 3"] = ("ArgumentError", ("3",), lambda s: s.x.norm(3))
    found["norm of order '2'"] = ("ArgumentError", ("'2'",), lambda s: s.x.norm("2"))
    found["wrong checksum"] = (
        "ChecksumError",
        (str(CHECKSUM), str(CHECKSUM + 1)),
        lambda s: s.x.init_vec_from_file(str(s.folder / "col.h5"), checksum=CHECKSUM + 1),
    )
    return found


CASES = cases()


def bad_input(comm: Any, folder: Path) -> dict[str, Any]:
    """Return the error of each case, (type, bases, message), and the values of x after all cases."""
    import numba_fftmatvec as pyFFTMatvec

    grid = comm.get_proc_rows(), comm.get_proc_cols()
    other = pyFFTMatvec.Comm(comm.global_comm, *grid, backend=comm.backend.name, collectives="mpi")
    x, y, _ = vectors(comm, "col", *operands("col"))
    (row,) = vectors(comm, "row", operands("row")[0])
    blank = pyFFTMatvec.Vector(comm, NM, NT, "col", global_sizes=True)
    bench = Bench(comm, other, x, y, row, blank, folder)
    found: dict[str, Any] = {}
    for name, (_, _, act) in CASES.items():
        try:
            act(bench)
        except Exception as error:
            found[name] = (type(error).__name__, [base.__name__ for base in type(error).__mro__], str(error))
        else:
            found[name] = None
    other.close()
    found["afterwards"] = x.gather()
    return found
