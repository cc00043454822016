"""Bad input, as data: a call, the error that every rank must raise, and texts in its message.

A case is a function of a Workbench that must raise. `run_cases` runs them all on a grid, and a product at the end,
since an error must leave the communicators usable.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec import errors
from support.bad_files import BLOCK_CASES, META_CASES
from support.reference import apply
from support.tasks import multiply
from support.workbench import CHECKSUM, ND, NM, NT, OPERANDS, F, Workbench


@dataclass(frozen=True)
class Case:
    """A call, the error that it must raise, and fragments of its message."""

    act: Callable[[Workbench], Any]
    error: type[Exception]
    says: tuple[str, ...] = ()


class Unrepeatable(Exception):
    """An exception that cannot be rebuilt from its message."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


CASES: dict[str, Case] = {}


def case(error: type[Exception], *says: str) -> Callable[[Callable[[Workbench], Any]], Callable[[Workbench], Any]]:
    """Register a function as a case, named like it."""

    def register(act: Callable[[Workbench], Any]) -> Callable[[Workbench], Any]:
        CASES[act.__name__.replace("_", " ")] = Case(act, error, says)
        return act

    return register


def add(name: str, error: type[Exception], says: tuple[str, ...], act: Callable[[Workbench], Any]) -> None:
    """Register a case that is one expression."""
    CASES[name] = Case(act, error, says)


# The process grid, the sizes and the precision. {ranks} and {more} are the number of ranks, and one more.
add("grid with too many rows", errors.GridError, ("{more}", "{ranks}"), lambda s: s.new_comm(s.comm.world_size + 1, 1))
add(
    "grid with too many columns",
    errors.GridError,
    ("{more}", "{ranks}"),
    lambda s: s.new_comm(1, s.comm.world_size + 1),
)
add(
    "rows that do not divide the ranks",
    errors.GridError,
    ("{more}", "{ranks}"),
    lambda s: s.new_comm(s.comm.world_size + 1),
)
add("grid without rows", errors.ArgumentError, ("0",), lambda s: s.new_comm(0, s.comm.world_size))
add("unknown backend", errors.ArgumentError, ("tpu",), lambda s: fm.Comm(s.comm.global_comm, *s.grid, backend="tpu"))
for _name, _value in {
    "no": 0,
    "minus one": -1,
    "too many": 10**6,
    "half of the": 0.5,
    "not a number of": float("nan"),
    "true": True,
    "text for": "2",
}.items():
    add(
        f"{_name} threads",
        errors.ArgumentError,
        ("threads: expected an integer of 1 .. ", f"found {_value!r}"),
        lambda s, n=_value: fm.Comm(s.comm.global_comm, *s.grid, threads=n),
    )
add(
    "no threads on one rank",
    errors.ArgumentError,
    ("threads: expected an integer of 1 .. ", "found 0"),
    lambda s: fm.Comm(s.comm.global_comm, *s.grid, threads=0 if s.last else None),
)
add(
    "config of no config", errors.ArgumentTypeError, ("str",), lambda s: fm.Matrix(s.comm, NM, ND, NT, p_config="ddddd")
)
add("precision letter", errors.PrecisionError, ("'x'",), lambda s: fm.MatvecPrecisionConfig.from_code("ddxdd"))
for _name, _value in {"zero": 0, "negative": -2, "fractional": 2.5}.items():
    _says = (str(_value),)
    add(
        f"{_name} columns",
        errors.ShapeError,
        _says,
        lambda s, n=_value: fm.Matrix(s.comm, n, ND, NT, global_sizes=True),
    )
    add(f"{_name} rows", errors.ShapeError, _says, lambda s, n=_value: fm.Matrix(s.comm, NM, n, NT, global_sizes=True))
    add(
        f"{_name} block size",
        errors.ShapeError,
        _says,
        lambda s, n=_value: fm.Matrix(s.comm, NM, ND, n, global_sizes=True),
    )
    add(f"{_name} vector blocks", errors.ShapeError, _says, lambda s, n=_value: s.vector(n, NT, "col"))
    add(f"{_name} vector block size", errors.ShapeError, _says, lambda s, n=_value: s.vector(NM, n, "col"))

# Operands: spaces, sizes, initialisation.
add("unknown space", errors.ArgumentError, ("diagonal",), lambda s: s.vector(NM, NT, "diagonal"))
add("row operand of F", errors.SpaceError, ("col", "row"), lambda s: s.matrix.matvec(s.y, s.y))
add("col operand of F*", errors.SpaceError, ("col", "row"), lambda s: s.matrix.transpose_matvec(s.x, s.x))
add("col result of F", errors.SpaceError, ("col", "row"), lambda s: s.matrix.matvec(s.x, s.x))
add("row result of F*F", errors.SpaceError, ("col", "row"), lambda s: s.matrix.matvec(s.x, s.y, full=True))
add("col result of FF*", errors.SpaceError, ("col", "row"), lambda s: s.matrix.transpose_matvec(s.y, s.x, full=True))
add("dot of two spaces", errors.ArgumentError, ("col", "row"), lambda s: s.x.dot(s.y))
add("operand too long", errors.ShapeError, ("7", "8"), lambda s: s.matrix.matvec(s.vector(NM + 1, NT, "col"), s.y))
add(
    "operand of other steps", errors.ShapeError, ("4", "5"), lambda s: s.matrix.matvec(s.vector(NM, NT + 1, "col"), s.y)
)
add("result too long", errors.ShapeError, ("5", "6"), lambda s: s.matrix.matvec(s.x, s.vector(ND + 1, NT, "row")))
add("result that is the operand", errors.ArgumentError, ("two",), lambda s: s.matrix.matvec(s.x, s.x, full=True))
add("dot of two sizes", errors.ShapeError, ("7", "8"), lambda s: s.x.dot(s.vector(NM + 1, NT, "col")))
add("operand of no Vector", errors.ArgumentTypeError, ("list",), lambda s: s.matrix.matvec([1.0], s.y))
add("norm of order 3", errors.ArgumentError, ("3",), lambda s: s.x.norm(3))
add("vector of no space", errors.ArgumentError, ("middle",), lambda s: s.matrix.get_vec("middle"))
add("matrix without values", errors.UninitializedError, (), lambda s: s.blank().matvec(s.x, s.y))
add("adjoint without values", errors.UninitializedError, (), lambda s: s.blank().transpose_matvec(s.y, s.x))
add("save without values", errors.UninitializedError, (), lambda s: s.blank().save(str(s.folder / "never")))


@case(errors.UninitializedError, "aux")
def no_auxiliary_matrix(s: Workbench) -> None:
    matrix = s.blank()
    matrix.init_mat_ones()
    matrix.matvec(s.x, s.y, use_aux_mat=True)


add(
    "operand without values",
    errors.UninitializedError,
    (),
    lambda s: s.matrix.matvec(s.vector(NM, NT, "col", False), s.y),
)
for _method, _args in {"norm": (), "gather": (), "to_numpy": (), "save": ("never.h5",)}.items():
    add(
        f"{_method} of a vector without values",
        errors.UninitializedError,
        (),
        lambda s, method=_method, args=_args: getattr(s.vector(NM, NT, "col", False), method)(*args),
    )
add(
    "dot with a vector without values", errors.UninitializedError, (), lambda s: s.x.dot(s.vector(NM, NT, "col", False))
)


def several(s: Workbench, space: str, count: Any, blocks: int | None = None) -> Any:
    """Return a vector of several right-hand sides with values."""
    made = fm.Vector(s.comm, blocks or {"col": NM, "row": ND}[space], NT, space, global_sizes=True, num_vecs=count)
    made.init_vec_ones()
    return made


add("no right-hand side", errors.ShapeError, ("num_vecs", "0"), lambda s: several(s, "col", 0))
add("half a right-hand side", errors.ArgumentTypeError, ("num_vecs", "1.5"), lambda s: several(s, "col", 1.5))
add(
    "matvec of several vectors",
    errors.ShapeError,
    ("operand of F", "3"),
    lambda s: s.matrix.matvec(several(s, "col", 3), s.y),
)
add(
    "result of fewer vectors",
    errors.ShapeError,
    ("result of F*", "3", "2"),
    lambda s: s.matrix.transpose_matmat(several(s, "row", 3), several(s, "col", 2)),
)
add(
    "matmat of vectors of other blocks",
    errors.ShapeError,
    ("operand of F", "7", "8"),
    lambda s: s.matrix.matmat(several(s, "col", 2, NM + 1), several(s, "row", 2)),
)
add("matmat of an array", errors.ArgumentTypeError, ("ndarray",), lambda s: s.matrix.matmat(F[0], s.y))
add("no such right-hand side", errors.VectorIndexError, ("0 .. 2", "3"), lambda s: several(s, "col", 3).get_vector(3))
add(
    "fixed point for a transform",
    errors.PrecisionError,
    ("fft", "FIXED16"),
    lambda s: fm.MatvecPrecisionConfig.from_code("dhddd"),
)
add(
    "NaN in fixed point",
    errors.NonFiniteError,
    ("row 2", "column 3", "FIXED16"),
    lambda s: fixed_point_matrix(s, np.nan),
)
add(
    "infinity in fixed point",
    errors.NonFiniteError,
    ("row 2", "column 3", "FIXED16"),
    lambda s: fixed_point_matrix(s, np.inf),
)
add(
    "more than memory",
    errors.CapacityError,
    ("bytes",),
    lambda s: fm.Matrix(s.comm, 10**6, 10**6, 100, global_sizes=True).init_mat_ones(),
)
add(
    "precision of a matrix without values",
    errors.UninitializedError,
    ("with_precision",),
    lambda s: s.blank().with_precision(fm.MatvecPrecisionConfig()),
)


def fixed_point_matrix(s: Workbench, value: float) -> Any:
    """Return a matrix with one value that fixed point cannot have."""
    blocks = F.copy()
    blocks[2, 3, 1] = value
    return fm.Matrix.from_array(s.comm, blocks, fm.MatvecPrecisionConfig.from_code("ddhdd"))


def closed(s: Workbench) -> Workbench:
    """Return a bench with a closed Comm."""
    comm = s.new_comm(*s.grid)
    bench = Workbench(comm, s.grid, s.folder)
    comm.close()
    return bench


for _name, _act in {
    "new vector": lambda bench: bench.vector(NM, NT, "col"),
    "new matrix": lambda bench: bench.blank(),
    "product": lambda bench: bench.matrix.matvec(bench.x, bench.y),
    "fill": lambda bench: bench.x.init_vec_ones(),
    "scatter": lambda bench: bench.x.scatter(OPERANDS["col"]),
    "gather": lambda bench: bench.x.gather(),
    "norm": lambda bench: bench.x.norm(),
    "save": lambda bench: bench.x.save(str(bench.folder / "never.h5")),
}.items():
    add(f"{_name} after close", errors.ClosedError, (), lambda s, act=_act: act(closed(s)))

# Arrays.
add(
    "array of other rows", errors.ShapeError, ("(5, 7, 4)", "(4, 7, 4)"), lambda s: s.blank().init_mat_from_array(F[:4])
)
add(
    "array of two axes",
    errors.ShapeError,
    ("(5, 7, 4)", "(5, 28)"),
    lambda s: s.blank().init_mat_from_array(F.reshape(5, 28)),
)
add(
    "callable of other shape",
    errors.ShapeError,
    ("(7, 4)", "(4, 7)"),
    lambda s: s.blank().init_mat_from_array(lambda d: F[d].T),
)
add("complex array", errors.ArgumentTypeError, ("complex128",), lambda s: s.blank().init_mat_from_array(F + 1j))
add("scatter of other shape", errors.ShapeError, ("(7, 4)", "(4, 7)"), lambda s: s.x.scatter(OPERANDS["col"].T))
add("scatter of complex", errors.ArgumentTypeError, ("complex128",), lambda s: s.x.scatter(OPERANDS["col"] + 1j))

# Failures of one rank alone.


@case(ValueError, "block row", "of the last rank")
def callable_that_raises_on_one_rank(s: Workbench) -> None:
    def blocks(d: int) -> Any:
        if s.last:
            raise ValueError(f"no block row {d} of the last rank")
        return F[d]

    s.blank().init_mat_from_array(blocks)


@case(errors.ShapeError, "(7, 4)", "(4, 7)")
def scatter_of_other_shape_on_one_rank(s: Workbench) -> None:
    s.x.scatter(OPERANDS["col"].T if s.last else OPERANDS["col"])


@case(KeyError, "lost")
def agreement_on_one_rank(s: Workbench) -> None:
    with s.comm.agreement("a phase"):
        if s.last:
            raise KeyError("lost")


@case(errors.RemoteError, "one and two")
def exception_that_cannot_be_rebuilt(s: Workbench) -> None:
    with s.comm.agreement("a phase"):
        if s.last:
            raise Unrepeatable("one", "two")


@case(errors.RemoteError, "local class")
def exception_that_cannot_be_pickled(s: Workbench) -> None:
    class Local(Exception):
        """An exception that only this function knows."""

    with s.comm.agreement("a phase"):
        if s.last:
            raise Local("local class")


# Files. `support.bad_files.prepare` writes every directory and vector beforehand, from the same tables.
add("no directory", errors.FileError, ("nowhere",), lambda s: s.read("nowhere"))
add("no meta file", errors.FileError, ("meta_adj",), lambda s: s.read("meta missing"))
add(
    "no meta file, into a matrix",
    errors.FileError,
    ("meta_adj",),
    lambda s: s.blank().init_mat_from_file(str(s.folder / "meta missing")),
)
add("meta of five lines", errors.FileFormatError, ("line 6", "reindexed"), lambda s: s.read("meta short"))
for _name, (_, _field) in META_CASES.items():
    add(f"meta: {_name}", errors.FileFormatError, ("meta_adj", _field), partial(Workbench.read, name=f"meta {_name}"))
for _name, (_, _error, _says) in BLOCK_CASES.items():
    # The damaged row is the last one: only the last row of the grid reads it.
    add(f"block row: {_name}", _error, (f"row_{ND - 1:06d}", *_says), partial(Workbench.read, name=f"row {_name}"))
    add(f"vector: {_name}", _error, _says, partial(Workbench.read_vector, name=f"col {_name}.h5", checksum=CHECKSUM))
add("last block row missing", errors.FileError, (f"row_{ND - 1:06d}",), lambda s: s.read("row missing"))
add("last block row damaged", errors.FileFormatError, (f"row_{ND - 1:06d}",), lambda s: s.read("row damaged"))
add(
    "auxiliary matrix of other checksum", errors.ChecksumError, ("73", "74"), lambda s: s.read("good", "other checksum")
)
add("auxiliary matrix of other steps", errors.ShapeError, ("4", "3"), lambda s: s.read("good", "other steps"))
add(
    "observations as a QoI matrix",
    errors.FileFormatError,
    ("is_p2q",),
    lambda s: fm.Matrix(s.comm, str(s.folder / "good"), QoI=True),
)
add("no vector file", errors.FileError, ("none.h5",), lambda s: s.read_vector("none.h5"))
add("row vector file as col", errors.FileFormatError, ("n_param",), lambda s: s.read_vector("row.h5"))
add("QoI file as observations", errors.FileFormatError, ("qoi",), lambda s: s.read_vector("qoi.h5", "row"))
add("observations as QoI", errors.FileFormatError, ("qoi",), lambda s: s.read_vector("row.h5", "row", QoI=True))


@case(errors.FFTMatvecError, "5", "6")
def directory_of_other_sizes(s: Workbench) -> None:
    fm.Matrix(s.comm, NM, ND + 1, NT, global_sizes=True).init_mat_from_file(str(s.folder / "good"))


# Cases that need several ranks.
@case(errors.GridError, "{parts}", "{fewer}")
def fewer_blocks_than_ranks(s: Workbench) -> None:
    rows, cols = s.grid
    fm.Matrix(s.comm, max(cols - 1, 1), max(rows - 1, 1), NT, global_sizes=True)


@case(errors.GridError, "{parts}", "{fewer}")
def fewer_vector_blocks_than_ranks(s: Workbench) -> None:
    rows, cols = s.grid
    s.vector(max(rows, cols) - 1, NT, "col" if cols >= rows else "row")


add("directory of fewer blocks than ranks", errors.GridError, ("1 blocks",), lambda s: s.read("one block"))

DISTRIBUTED_CASES = (
    "directory of fewer blocks than ranks",
    "fewer blocks than ranks",
    "fewer vector blocks than ranks",
    "exception that cannot be rebuilt",
    "exception that cannot be pickled",
)


def fragments(name: str, grid: tuple[int, int]) -> list[str]:
    """Return the texts that the message of a case must contain on a grid."""
    ranks, parts = grid[0] * grid[1], max(grid)
    return [text.format(ranks=ranks, more=ranks + 1, parts=parts, fewer=parts - 1) for text in CASES[name].says]


def run_cases(payload: tuple[tuple[int, int], str, Path]) -> dict[str, Any]:
    """Run the cases on this rank's grid; return the error of each, and the result of a product after all cases."""
    grid, backend, folder = payload
    with fm.Comm(MPI.COMM_WORLD, *grid, backend=backend, collectives="mpi") as comm:
        s = Workbench(comm, grid, folder)
        found: dict[str, Any] = {}
        for name, described in CASES.items():
            if name in DISTRIBUTED_CASES and grid == (1, 1):
                continue
            # If a case hangs, the last line that the ranks printed names it.
            print(f"rank {comm.world_rank}: {name}", file=sys.stderr, flush=True)
            found[name] = raised(described.act, s)
        found["afterwards"] = multiply(s.matrix, "F", OPERANDS["col"]).gather()
    return found


def raised(act: Callable[[Workbench], Any], s: Workbench) -> tuple[str, list[str], str] | None:
    """Return the type of the exception of a case, the names of its bases, and its message; None without one."""
    try:
        act(s)
    except Exception as error:
        return type(error).__name__, [base.__name__ for base in type(error).__mro__], str(error)
    return None


def check_case(ranks: list[dict[str, Any]], name: str, grid: tuple[int, int]) -> None:
    """Assert that every rank raised the same error, with the expected type and message."""
    found = [rank[name] for rank in ranks]
    assert None not in found, f"no error on ranks {[rank for rank, error in enumerate(found) if error is None]}"
    # The rank that failed raises its own exception when the others raise a RemoteError.
    remote = CASES[name].error is errors.RemoteError
    kinds = [kind for kind, _, _ in (found[:-1] if remote else found)]
    assert kinds == [kinds[0]] * len(kinds)
    assert CASES[name].error.__name__ in found[0][1], found[0]
    for _, _, message in found:
        missing = [text for text in fragments(name, grid) if text not in message]
        assert not missing, f"{message!r} does not say {missing}"


def check_afterwards(ranks: list[dict[str, Any]]) -> None:
    """Assert that a product still works after all the errors."""
    for rank in ranks:
        np.testing.assert_allclose(rank["afterwards"], apply(F, OPERANDS["col"]), rtol=0, atol=1e-12)
