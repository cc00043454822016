"""Several right-hand sides in one Vector: the tasks of every rank of a grid, for each space, and bad input as data."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

import numba_fftmatvec as fm
from support.api import RESIZES, norm_operands, outcome
from support.operations import BLOCKS, CALLS, NT, vectors
from support.tasks import FILLS, NORM_ORDERS

Array = NDArray[Any]

R = 3
CHECKSUM = 42


def operands(space: str, num_vecs: int = R) -> tuple[Array, Array, Array]:
    """Return the global values of x, which are positive, and of y and z."""
    random = np.random.default_rng((num_vecs, BLOCKS[space]))
    shape = num_vecs, BLOCKS[space], NT
    return random.uniform(0.1, 3.0, shape), random.standard_normal(shape), random.standard_normal(shape)


def blank(comm: Any, space: str, num_vecs: Any = R, blocks: int | None = None, size: int = NT) -> Any:
    return fm.Vector(comm, blocks or BLOCKS[space], size, space, global_sizes=True, num_vecs=num_vecs)


def layout(comm: Any, space: str, folder: Path) -> dict[str, Any]:
    """Return a vector's properties, and its values after the fills and from global arrays."""
    x = blank(comm, space)
    values = operands(space)[0]
    found: dict[str, Any] = {
        "sizes": (x.num_vecs, x.get_num_vecs(), x.shape, len(x), x.glob_num_blocks, x.block_size),
        "local": None if x.array is None else (x.array.shape, bool(x.array.flags.c_contiguous)),
        "repr": repr(x),
        "colors": (comm.row_color, comm.col_color),
    }
    for fill in FILLS:
        getattr(x, f"init_vec_{fill}")()
        found[fill] = x.gather()
    x.scatter(values)
    found["scattered"], found["mine"] = x.gather(), x.to_numpy()
    x.scatter(2.0 * values.ravel())
    found["scattered flat"] = x.gather()
    x.from_numpy(found["mine"])
    found["from_numpy"] = x.gather()
    blank_copy = fm.Vector(x, False)
    found["Vector(x, False)"] = (blank_copy.shape, blank_copy.is_initialized())
    for name, copy in {"Vector(x)": fm.Vector(x), "copy": x.copy(), "num_vecs given": fm.Vector(x, num_vecs=R)}.items():
        copy *= 2.0
        found[name] = copy.gather()
    x.copy_to(blank_copy)
    found["copy_to"] = blank_copy.gather()
    return found


def operations(comm: Any, space: str, folder: Path) -> dict[Any, Any]:
    """Return the results of every operation on vectors of three."""
    return {call: outcome(comm, space, *call, operands(space)) for call in CALLS}


def norm_arrays(space: str) -> dict[str, Array]:
    """Return arrays whose vectors need different care, by name."""
    known = norm_operands(space)
    sets = {
        "ordinary": ("ordinary", "zeros", "ordinary"),
        "scaled": ("1e200", "ordinary", "1e-200"),
        "special": ("nan inner", "inf last", "ordinary"),
        "beyond": ("1e308", "subnormal", "nan beside inf"),
    }
    return {name: np.stack([known[part] for part in parts]) for name, parts in sets.items()}


def reductions(comm: Any, space: str, folder: Path) -> dict[Any, Any]:
    """Return norms and inner products of all values, of each vector at once, and of each vector alone."""
    found: dict[Any, Any] = {}
    for name, values in norm_arrays(space).items():
        (x,) = vectors(comm, space, values)
        for order in NORM_ORDERS:
            alone = [x.get_vector(i).norm(order) for i in range(R)]
            found[name, order] = (x.norm(order), x.norms(order), alone)
        found[name, "default"] = (x.norm(), x.norms(), [x.get_vector(i).norm() for i in range(R)])
    x, y, _ = vectors(comm, space, *operands(space))
    found["dot"] = (x.dot(y), x.dots(y), [x.get_vector(i).dot(y.get_vector(i)) for i in range(R)])
    (single,) = vectors(comm, space, operands(space)[1][0])
    found["single"] = (single.norm(), single.norms(), single.dot(single), single.dots(single))
    return found


def resizes(comm: Any, space: str, folder: Path) -> dict[Any, Any]:
    """Return vectors of other block sizes, new ones and given ones."""
    found: dict[Any, Any] = {}
    (x,) = vectors(comm, space, operands(space)[1])
    for method, size in RESIZES:
        found[method, size, "new"] = getattr(x, method)(size).gather()
        target = blank(comm, space, size=size)
        target.init_vec_ones()
        found[method, size, "into"] = getattr(x, method)(target).gather()
    return found


def views(comm: Any, space: str, folder: Path) -> dict[str, Any]:
    """Return the values of a set's single vectors, of the set after writes to them, and of one that outlives it."""
    x, y, _ = vectors(comm, space, *operands(space))
    found: dict[str, Any] = {"shapes": [x.get_vector(i).shape for i in range(R)]}
    found["read"] = [x.get_vector(i).gather() for i in range(R)]
    x.get_vector(1).axpy(2.0, y.get_vector(2))
    x.get_vector(2).init_vec_consecutive()
    found["written"] = x.gather()
    last = x.get_vector(2)
    x.close()
    del x
    gc.collect()
    _ = [fm.Vector(y) for _ in range(8)]  # reuses freed memory
    found["kept"] = last.gather()
    return found


def files(comm: Any, space: str, folder: Path) -> dict[Any, Any]:
    """Return values saved and read again on this grid and on others, and errors and values of failed reads."""
    (x,) = vectors(comm, space, operands(space)[1])
    qoi = space == "row"
    path = str(folder / f"{space}.h5")
    x.save(path, QoI=qoi, checksum=CHECKSUM)
    found: dict[Any, Any] = {}
    for grid in {(1, comm.world_size), (comm.world_size, 1), (comm.proc_rows, comm.proc_cols)}:
        with fm.Comm(comm.global_comm, *grid, backend=comm.backend.name, collectives="mpi") as other:
            read = blank(other, space)
            read.init_vec_from_file(path, checksum=CHECKSUM, QoI=qoi)
            found["read", grid] = read.gather()
    x.init_vec_from_file(str(folder / f"foreign {space}.h5"))
    found["foreign"] = x.gather()
    one = str(folder / f"one {space}.h5")
    for name, num_vecs, arguments in (("more", 2, (path, 0, qoi)), ("many", 1, (path, 0, qoi)), ("one", R, (one,))):
        target = blank(comm, space, num_vecs)
        target.init_vec_ones()
        found["refused", name] = caught(partial(target.init_vec_from_file, *arguments))
        found["left", name] = bool((target.gather() == 1.0).all())
    return found


def caught(act: Callable[[], Any]) -> tuple[list[str], str] | None:
    """Return the names of the kinds of the error that a call raises, and its message."""
    try:
        act()
    except Exception as error:
        return [kind.__name__ for kind in type(error).__mro__], str(error)
    return None


# A call, the kind of error, and a text in its message. x is of three vectors and y of one.
Act = Callable[[Any, Any, str], Any]
CASES: dict[str, tuple[str, tuple[str, ...], Act]] = {
    **{
        f"num_vecs={value!r}": (kind, ("num_vecs", repr(value)), lambda x, y, space, v=value: blank(x.comm, space, v))
        for kind, values in {"ShapeError": (0, -2), "ArgumentTypeError": (2.0, "3", None, True, [3])}.items()
        for value in values
    },
    "no vectors on the last rank": (
        "ShapeError",
        ("num_vecs", "found 0"),
        lambda x, y, space: blank(x.comm, space, R if x.comm.world_rank < x.comm.world_size - 1 else 0),
    ),
    "a copy of another number": ("ShapeError", ("expected 3", "found 2"), lambda x, y, space: fm.Vector(x, num_vecs=2)),
    **{
        name: ("ShapeError", ("3 vectors of", "found"), act)
        for name, act in {
            "x + y": lambda x, y, space: x + y,
            "y * x": lambda x, y, space: y * x,
            "axpy": lambda x, y, space: x.axpy(2.0, y),
            "multiply_add": lambda x, y, space: x.elementwise_multiply_add(x, y),
            "dot": lambda x, y, space: x.dot(y),
            "dots": lambda x, y, space: x.dots(y),
            "copy_to": lambda x, y, space: x.copy_to(y),
            "extend": lambda x, y, space: x.extend(y),
            "of two": lambda x, y, space: x.axpy(1.0, blank(x.comm, space, 2)),
        }.items()
    },
    **{
        f"get_vector({index!r})": (
            kind,
            ("get_vector", repr(index)),
            lambda x, y, space, i=index: x.get_vector(i),
        )
        for kind, indices in {"IndexError": (-1, R), "ArgumentTypeError": (1.0, "0", True, None)}.items()
        for index in indices
    },
    "get_vector(1) of one": ("IndexError", ("0 .. 0", "found 1"), lambda x, y, space: y.get_vector(1)),
    "get_vector of a closed one": ("ClosedError", ("closed",), lambda x, y, space: closed(x).get_vector(0)),
    "scatter of one": ("ShapeError", ("(3, ",), lambda x, y, space: x.scatter(operands(space)[0][0])),
    "scatter of four": ("ShapeError", ("(3, ", "(4, "), lambda x, y, space: x.scatter(operands(space, 4)[0])),
    "norms of order 3": ("ArgumentError", ("norms", "3"), lambda x, y, space: x.norms(3)),
    "norms without values": ("UninitializedError", ("norms",), lambda x, y, space: fm.Vector(x, False).norms()),
    "dots without values": ("UninitializedError", ("dots",), lambda x, y, space: x.dots(fm.Vector(x, False))),
    "dots of a list": ("ArgumentTypeError", ("dots", "list"), lambda x, y, space: x.dots([1.0])),
}


def closed(x: Any) -> Any:
    made = x.copy()
    made.close()
    return made


def bad_input(comm: Any, space: str, folder: Path) -> dict[str, Any]:
    """Return the error of each case, and the values after all cases."""
    x, _, _ = vectors(comm, space, *operands(space))
    (y,) = vectors(comm, space, operands(space)[1][0])
    found: dict[str, Any] = {name: caught(lambda act=act: act(x, y, space)) for name, (_, _, act) in CASES.items()}
    return found | {"afterwards": (x.gather(), y.gather())}


TOPICS = (layout, operations, reductions, resizes, views, files, bad_input)


def everything(payload: tuple[tuple[int, int], str, Path]) -> dict[str, Any]:
    """Run all topics on this rank's grid."""
    grid, backend, folder = payload
    with fm.Comm(MPI.COMM_WORLD, *grid, backend=backend, collectives="mpi") as comm:
        return {space: {topic.__name__: topic(comm, space, folder) for topic in TOPICS} for space in BLOCKS}
