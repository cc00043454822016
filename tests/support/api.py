"""Every call of pyFFTMatvec's interface, by topic: the calls of each rank of a process grid, and their results.

The calls are spelled as pyFFTMatvec's document spells them. `everything` runs the topics; the tests in `test_api`
compare with NumPy.
"""

from __future__ import annotations

import itertools
import math
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from support.api_errors import bad_input
from support.files import write_matrix, write_vector
from support.harness import run_ranks
from support.operations import (
    BLOCKS,
    CALLS,
    CHECKSUM,
    GROUPS,
    LONG,
    ND,
    NM,
    NT,
    SHORT,
    SPECIAL_CALLS,
    address,
    operands,
    special_operands,
    vectors,
)
from support.tasks import FILLS, NORM_ORDERS, Failure

Array = NDArray[Any]

SECONDS = 240
CODE = "dsssd"
LOCAL_BLOCKS = 2
RESIZES = [("extend", LONG), ("shrink", SHORT), ("resize", LONG), ("resize", SHORT)]


def operations(comm: Any, folder: Path) -> dict[Any, dict[str, Any]]:
    """Return the result of every operation on ordinary operands, by (space, group, name)."""
    return {
        (space, *call): outcome(comm, space, *call, operands(space)) for space, call in itertools.product(BLOCKS, CALLS)
    }


def special_operations(comm: Any, folder: Path) -> dict[Any, dict[str, Any]]:
    """Return the results of single operations on special values, by (space, group, name)."""
    return {
        (space, *call): outcome(comm, space, *call, special_operands(space))
        for space, call in itertools.product(BLOCKS, SPECIAL_CALLS)
    }


def outcome(comm: Any, space: str, group: str, name: str, values: tuple[Array, ...]) -> dict[str, Any]:
    """Run one operation on fresh vectors; return its values and the operands afterwards."""
    import numba_fftmatvec as pyFFTMatvec

    given = vectors(comm, space, *values)
    addresses, buffers = [address(v) for v in given], [v.array for v in given]
    returned = GROUPS[group][name].call(*given)
    result = returned if group == "new" else given[0]
    unchanged = given if group == "new" else given[1:]
    same = [address(v) for v in given] == addresses and all(
        v.array is array for v, array in zip(given, buffers, strict=True)
    )
    return {
        "values": result.gather(),
        "returned": {
            "new": type(returned) is pyFFTMatvec.Vector and not any(returned is v for v in given),
            "statement": returned is given[0],
            "in place": returned is None,
        }[group],
        "memory kept": same and (group != "new" or result.array is None or address(result) not in addresses),
        "operands": [v.gather() for v in unchanged],
    }


# Reductions


def norm_operands(space: str) -> dict[str, Array]:
    """Return arrays of values that overflow or underflow when squared, or must not be lost in a sum, by name."""
    ordinary = operands(space)[1]
    arrays = {
        "ordinary": ordinary,
        "1e200": 1e200 * ordinary,
        "1e-200": 1e-200 * ordinary,
        "1e308": np.full_like(ordinary, 1e308),
        "subnormal": np.full_like(ordinary, 5e-324),
        "zeros": np.zeros_like(ordinary),
        "huge and tiny": np.where(np.arange(ordinary.size).reshape(ordinary.shape) % 2, 1e200, 1e-200),
    }
    for name, value in {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}.items():
        for place, index in {"first": 0, "inner": ordinary.size // 2, "last": -1}.items():
            arrays[f"{name} {place}"] = ordinary.copy()
            arrays[f"{name} {place}"].flat[index] = value
    # On several ranks each part is finite, and only their sum is not.
    for value in (1e308, 1.2e154):
        arrays[f"{value:g} at both ends"] = ordinary.copy()
        arrays[f"{value:g} at both ends"].flat[[0, -1]] = value
    arrays["nan beside inf"] = ordinary.copy()
    arrays["nan beside inf"].flat[:2] = math.inf, math.nan
    arrays["nan after inf"] = ordinary.copy()
    arrays["nan after inf"].flat[[0, -1]] = math.inf, math.nan
    arrays["nan among 1e200"] = 1e200 * ordinary
    arrays["nan among 1e200"].flat[-1] = math.nan
    return arrays


def reductions(comm: Any, folder: Path) -> dict[Any, Any]:
    """Return norms, each taken twice, and dot products."""
    found: dict[Any, Any] = {}
    for space in BLOCKS:
        for name, values in norm_operands(space).items():
            (x,) = vectors(comm, space, values)
            found[space, name] = {order: (x.norm(order), x.norm(order)) for order in NORM_ORDERS}
            found[space, name]["default"] = x.norm()
        x, y, _ = vectors(comm, space, *operands(space))
        found[space, "dot"] = (x.dot(y), y.dot(x), x.dot(x))
        nan, _ = vectors(comm, space, norm_operands(space)["nan last"], operands(space)[0])
        (ends,) = vectors(comm, space, norm_operands(space)["1.2e+154 at both ends"])
        found[space, "dot that overflows"] = ends.dot(ends)
        found[space, "dot of nan"] = (x.dot(nan), nan.dot(x))
    return found


# Sizes


def described(vector: Any) -> tuple[Any, ...]:
    """Return a vector's values and sizes."""
    return vector.gather(), vector.get_num_blocks(), vector.get_glob_num_blocks(), vector.get_block_size()


def sizes(comm: Any, folder: Path) -> dict[Any, Any]:
    """Return vectors of other block sizes, by (space, method, block size, target)."""
    import numba_fftmatvec as pyFFTMatvec

    found: dict[Any, Any] = {}
    for space, (method, size) in itertools.product(BLOCKS, RESIZES):
        x, _, _ = vectors(comm, space, *operands(space))
        z = getattr(x, method)(size)
        found[space, method, size, "new"] = (
            z.gather(),
            z.get_num_blocks(),
            z.get_glob_num_blocks(),
            z.get_block_size(),
        )
        out = pyFFTMatvec.Vector(comm, BLOCKS[space], size, space, global_sizes=True)
        out.init_vec_ones()
        before = address(out)
        returned = getattr(x, method)(out)
        found[space, method, size, "into"] = (out.gather(), returned is out, address(out) == before, x.gather())
        blank = pyFFTMatvec.Vector(comm, BLOCKS[space], size, space, global_sizes=True)
        getattr(x, method)(blank)
        found[space, method, size, "into blank"] = blank.gather()
        local = pyFFTMatvec.Vector(comm, LOCAL_BLOCKS, NT, space)
        local.init_vec_consecutive()
        z = getattr(local, method)(size)
        found[space, method, size, "local"] = (
            z.gather(),
            z.get_num_blocks(),
            z.get_glob_num_blocks(),
            z.get_block_size(),
        )
    return found


# Construction, properties, values


def comms(comm: Any, folder: Path) -> dict[str, Any]:
    """Return the values of a Comm's getters."""
    names = ("world_rank", "world_size", "proc_rows", "proc_cols", "row_color", "col_color", "device")
    found = {name: getattr(comm, f"get_{name}")() for name in names}
    found["sizes"] = [c.size for c in (comm.get_global_comm(), comm.get_row_comm(), comm.get_col_comm())]
    found["stream"] = comm.get_stream() is comm.stream and (comm.get_stream() is None) == (comm.get_device() is None)
    return found


def values(comm: Any, folder: Path) -> dict[Any, Any]:
    """Return vectors that are made, filled, copied and described."""
    import numba_fftmatvec as pyFFTMatvec

    found: dict[Any, Any] = {}
    for space, blocks in BLOCKS.items():
        x = pyFFTMatvec.Vector(comm, blocks=blocks, block_size=NT, row_or_col=space, global_sizes=True)
        for fill in FILLS:
            getattr(x, f"init_vec_{fill}")()
            found[space, fill] = x.gather()
        sizes = x.get_num_blocks(), x.get_glob_num_blocks(), x.get_block_size(), len(x), x.on_grid()
        found[space, "sizes"] = sizes
        found[space, "repr"] = repr(x)
        written = pyFFTMatvec.Vector(comm, blocks, NT, space, True, SOTI_ordering=True)
        found[space, "blank"] = written.is_initialized()
        if written.on_grid():
            written.array[...] = x.array + 1.0
        written.init_vec()
        found[space, "init_vec"] = (written.is_initialized(), written.gather())
        y = pyFFTMatvec.Vector(comm, blocks, NT, space, global_sizes=True)
        found[space, "copy_to"] = (x.copy_to(y), y.gather(), y.on_grid() and address(y) == address(x))
        for name, clone in {"Vector(x)": pyFFTMatvec.Vector(x), "deep": pyFFTMatvec.Vector(x, True)}.items():
            clone *= 2.0
            found[space, name] = (clone.gather(), x.gather())
        shallow = pyFFTMatvec.Vector(x, False)
        found[space, "shallow"] = (shallow.is_initialized(), shallow.shape, shallow.row_or_col, shallow.on_grid())
        local = pyFFTMatvec.Vector(comm, LOCAL_BLOCKS, NT, space)
        found[space, "local sizes"] = (local.get_num_blocks(), local.get_glob_num_blocks())
    return found


# Matrices

PRODUCT_CALLS = {
    "F": ("col", "row", lambda F, x, y: F.matvec(x, y)),
    "F*": ("row", "col", lambda F, x, y: F.transpose_matvec(x, y)),
    "G": ("col", "row", lambda F, x, y: F.matvec(x, y, use_aux_mat=True)),
    "G*": ("row", "col", lambda F, x, y: F.transpose_matvec(x, y, use_aux_mat=True)),
    "F*F": ("col", "col", lambda F, x, y: F.matvec(x, y, full=True)),
    "FF*": ("row", "row", lambda F, x, y: F.transpose_matvec(x, y, full=True)),
    "G*F": ("col", "col", lambda F, x, y: F.matvec(x, y, use_aux_mat=True, full=True)),
    "FG*": ("row", "row", lambda F, x, y: F.transpose_matvec(x, y, use_aux_mat=True, full=True)),
}
WHICH = {"col": "input", "row": "output"}


def blocks(name: str) -> Array:
    """Return the first block column of F or G."""
    return np.random.default_rng(ord(name)).standard_normal((ND, NM, NT))


def product(matrix: Any, name: str) -> Array:
    """Return a product with the operand y of its space."""
    source, target, call = PRODUCT_CALLS[name]
    x, y = matrix.get_vec(WHICH[source]), matrix.get_vec(WHICH[target])
    x.scatter(operands(source)[1])
    call(matrix, x, y)
    return np.asarray(y.gather())


def matrices(comm: Any, folder: Path) -> dict[Any, Any]:
    """Return products of matrices made in every way, and the matrices' properties."""
    import numba_fftmatvec as pyFFTMatvec

    found: dict[Any, Any] = {}
    p_config = pyFFTMatvec.MatvecPrecisionConfig()
    p_config.broadcast_and_pad = pyFFTMatvec.Precision.DOUBLE
    p_config.fft = pyFFTMatvec.Precision.SINGLE
    p_config.sbgemv = pyFFTMatvec.Precision.SINGLE
    p_config.ifft = pyFFTMatvec.Precision.SINGLE
    p_config.unpad_and_reduce = pyFFTMatvec.Precision.DOUBLE
    path, aux_path = str(folder / "F"), str(folder / "G")
    F = pyFFTMatvec.Matrix(comm, path=path, aux_path=aux_path)
    for name in PRODUCT_CALLS:
        found["both paths", name] = product(F, name)
    found["path", "F"] = product(pyFFTMatvec.Matrix(comm, path=path), "F")
    mixed = pyFFTMatvec.Matrix(comm, path=path, p_config=p_config)
    p_config.fft = pyFFTMatvec.Precision.DOUBLE  # after construction: the matrix has a copy
    found["mixed", "F"], found["mixed", "F*"] = product(mixed, "F"), product(mixed, "F*")
    found["mixed code"] = mixed.get_precision_config().code
    sized = pyFFTMatvec.Matrix(comm, cols=NM, rows=ND, block_size=NT, global_sizes=True)
    found["blank"] = (sized.is_initialized(), sized.has_aux_mat())
    sized.init_mat_doubles()
    found["doubles", "F"] = product(sized, "F")
    sized.init_mat_from_file(path)
    sized.init_mat_from_file(aux_path, aux_mat=True)
    found["from file", "G*F"] = product(sized, "G*F")
    found["told"] = (
        (F.get_glob_num_cols(), F.get_glob_num_rows(), F.get_block_size(), F.get_padded_size()),
        (F.get_checksum(), F.is_p2q_mat(), F.is_initialized(), F.has_aux_mat()),
        (F.shape, str(F.dtype), F.nbytes > 0),
    )
    found["shares"] = (F.get_num_cols(), F.get_num_rows())
    found["operators", "F"] = (F @ vectors(comm, "col", operands("col")[1])[0]).gather()
    found["operators", "F*"] = (F.T @ vectors(comm, "row", operands("row")[1])[0]).gather()
    return found


def tester(comm: Any, folder: Path) -> dict[Any, Any]:
    """Return the Tester's errors of products of ones, and whether it accepts a wrong one."""
    import numba_fftmatvec as pyFFTMatvec

    F = pyFFTMatvec.Matrix(comm, cols=NM, rows=ND, block_size=NT, global_sizes=True)
    F.init_mat_ones()
    found: dict[Any, Any] = {}
    for conj, full in itertools.product((False, True), repeat=2):
        source = "output" if conj else "input"
        x, out = F.get_vec(source), F.get_vec("input" if conj != full else "output")
        x.init_vec_ones()
        (F.transpose_matvec if conj else F.matvec)(x, out, full=full)
        found[conj, full] = pyFFTMatvec.Tester.check_ones_matvec(comm, F, out, conj=conj, full=full)
        out *= 1.0 + 1e-9
        try:
            pyFFTMatvec.Tester.check_ones_matvec(comm, F, out, conj=conj, full=full)
        except pyFFTMatvec.VerificationError:
            found[conj, full, "wrong"] = "rejected"
    return found


# Files


def files(comm: Any, folder: Path) -> dict[Any, Any]:
    """Return vectors that were read; write others for the test to read."""
    import numba_fftmatvec as pyFFTMatvec

    found: dict[Any, Any] = {}
    for space, blocks in BLOCKS.items():
        x = pyFFTMatvec.Vector(comm, blocks=blocks, block_size=NT, row_or_col=space, global_sizes=True)
        for key, options in {"plain": {}, "checksum": {"checksum": CHECKSUM}}.items():
            x.init_vec_zeros()
            x.init_vec_from_file(str(folder / f"{space}.h5"), **options)
            found[space, key] = x.gather()
        (y,) = vectors(comm, space, operands(space)[1])
        y.save(str(folder / f"{space} saved.h5"))
        y.save(str(folder / f"{space} with checksum.h5"), checksum=CHECKSUM)
    qoi = pyFFTMatvec.Vector(comm, blocks=ND, block_size=NT, row_or_col="row", global_sizes=True)
    qoi.init_vec_from_file(str(folder / "qoi.h5"), QoI=True)
    found["qoi"] = qoi.gather()
    qoi.save(str(folder / "qoi saved.h5"), QoI=True)
    qoi.init_vec_zeros()
    qoi.init_vec_from_file(str(folder / "qoi saved.h5"), QoI=True)
    found["qoi again"] = qoi.gather()
    return found


def example(comm: Any, folder: Path) -> dict[str, Any]:
    """Return the results of the document's complete example, with arrays instead of tensors."""
    import numba_fftmatvec as pyFFTMatvec

    F = pyFFTMatvec.Matrix(comm, path=str(folder / "F"))
    x = F.get_vec("input")
    y = F.get_vec("output")
    if x.on_grid():
        size = x.get_num_blocks() * x.get_block_size()
        first = x.blocks.start * x.get_block_size()
        t = operands("col")[1].ravel()[first : first + size]
        x.array[...] = on_device(x, t)
    x.init_vec()
    F.matvec(x, y)
    mine = y.array
    loss = 0.0 if mine is None else float((mine**2).sum())
    return {"owns": y.on_grid(), "array": mine is not None, "loss": comm.get_global_comm().allreduce(loss)}


def on_device(vector: Any, values: Array) -> Any:
    """Return host values as an array of the vector's own library and shape."""
    if isinstance(vector.array, np.ndarray):
        return values.reshape(vector.array.shape)
    import cupy

    return cupy.asarray(values).reshape(vector.array.shape)


TOPICS: tuple[Callable[[Any, Path], dict[Any, Any]], ...] = (
    comms,
    values,
    operations,
    special_operations,
    reductions,
    sizes,
    files,
    matrices,
    tester,
    example,
    bad_input,
)


def prepare(folder: Path) -> None:
    """Write the files that the topics read."""
    write_matrix(folder / "F", blocks("F"), checksum=CHECKSUM)
    write_matrix(folder / "G", blocks("G"), checksum=CHECKSUM)
    for space in BLOCKS:
        write_vector(folder / f"{space}.h5", operands(space)[0], space, checksum=CHECKSUM)
    write_vector(
        folder / "qoi.h5", operands("row")[2], "row", edit=lambda file: file["vec"].attrs.__setitem__("qoi", 1)
    )


def everything(payload: tuple[tuple[int, int], str, Path]) -> dict[str, Any]:
    """Run all topics on this rank's grid; one that raises leaves a Failure."""
    import numba_fftmatvec as pyFFTMatvec

    grid, backend, folder = payload
    results: dict[str, Any] = {"folder": folder}
    with pyFFTMatvec.Comm(
        MPI.COMM_WORLD, proc_rows=grid[0], proc_cols=grid[1], backend=backend, collectives="mpi"
    ) as comm:
        for topic in TOPICS:
            try:
                results[topic.__name__] = topic(comm, folder)
            except Exception:
                trace = traceback.format_exc()
                print(f"rank {comm.world_rank}, {topic.__name__}:\n{trace}", file=sys.stderr, flush=True)
                results[topic.__name__] = Failure(trace)
    return results


def run(grid: tuple[int, int], backend: str, folder: Path) -> list[dict[str, Any]]:
    """Run the topics on a grid and return each rank's results."""
    prepare(folder)
    return run_ranks(grid[0] * grid[1], "support.api:everything", (grid, backend, folder), timeout=SECONDS)
