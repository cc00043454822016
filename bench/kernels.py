"""Time every kernel on at least 1 GB of traffic, and compare it with a device copy in the same run.

``python bench/kernels.py --json bench/results/h100/kernels.json [--only SUBSTRING]``. Times are medians between events
on the stream. Bytes count each operand read once and each result written once; the padding of the spectrum's runs to
128 bytes is not counted. SBGEMV runs within products, and a `PhaseTimer` times its phase.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cupy
import numpy as np

import numba_fftmatvec as fm
from lib.timing import WARM_UP_RUNS, median_seconds
from numba_fftmatvec.cli.results import write_results
from numba_fftmatvec.kernels.elementwise import FILLS, MAPS, fill_launcher, map_launcher
from numba_fftmatvec.kernels.encoding import encode_launcher
from numba_fftmatvec.kernels.fft import forward_launcher, inverse_launcher, plan
from numba_fftmatvec.kernels.formats import COMPLEX128, FORMATS
from numba_fftmatvec.kernels.padding import copy_launcher
from numba_fftmatvec.kernels.pairs import pack_launcher, unpack_launcher
from numba_fftmatvec.kernels.reductions import PARTIALS, TERMS, reduce_launcher
from numba_fftmatvec.plan.timing import PhaseTimer

VALUES = 2**27
ROWS, BLOCK_SIZE = 2**17, 1000
ENCODED_ROWS = 2**16
TRANSFORMED = 2**27  # values in rows that are transformed
BLOCK_SIZES = 100, 200, 500, 1000, 4096  # of those rows

# (Nm, Nd, Nt), and the numbers of right-hand sides measured there.
SHAPES = {(5000, 100, 1000): (1, 4, 16), (20000, 10, 1000): (1,), (1000, 1000, 500): (1,)}
CODES = {
    "ddddd": "complex128",
    "dssdd": "complex64",
    "ddidd": "fixed32",
    "ddhdd": "fixed16",
    "dshsd": "fixed16, single vectors",
}

# Letters of three dtypes: source, rounding, destination.
CONVERSIONS = ("ddd", "dsd", "dss", "sss")
REAL = {"d": np.dtype(np.float64), "s": np.dtype(np.float32)}
COMPLEX = {"d": np.dtype(np.complex128), "s": np.dtype(np.complex64)}


class Work(NamedTuple):
    """One kernel on its operands: a name, the bytes that it moves, and a function that returns its launch."""

    operation: str
    nbytes: int
    build: Callable[[], Callable[[], object]]


def doubles(backend: Any, shape: tuple[int, ...], dtype: Any = np.float64) -> Any:
    """Return a Buffer of values in [1, 2)."""
    result = backend.empty(shape, dtype)
    parts = result.array.reshape(-1).view(result.array.real.dtype)
    values = backend.empty((parts.size,), np.float64) if parts.dtype != np.float64 else backend.wrap(parts)
    fill_launcher(backend.target, "doubles")(values.view)
    if parts.dtype != np.float64:
        parts[...] = values.array
    return result


def fills(backend: Any) -> Iterator[Work]:
    """Yield the fills."""
    out = backend.empty((VALUES,), np.float64)
    for name in FILLS:
        yield Work(
            f"fill {name}", 8 * VALUES, lambda name=name: partial(fill_launcher(backend.target, name), out.view, 0, 1.5)
        )


def maps(backend: Any) -> Iterator[Work]:
    """Yield the elementwise maps."""
    out, *operands = (doubles(backend, (VALUES,)) for _ in range(4))
    for name, (arity, _) in MAPS.items():
        views = [operand.view for operand in operands[:arity]]

        def build(name: str = name, views: list[Any] = views) -> Callable[[], object]:
            return partial(map_launcher(backend.target, name), out.view, *views, a=1.25, b=0.75)

        yield Work(f"map {name}", 8 * VALUES * (arity + 1), build)


def reductions(backend: Any) -> Iterator[Work]:
    """Yield the reductions."""
    x, y = (doubles(backend, (VALUES,)) for _ in range(2))
    workspace = backend.empty((PARTIALS + 1,), np.float64)
    for name in TERMS:
        second = y if name == "dot" else x

        def build(name: str = name, second: Any = second) -> Callable[[], object]:
            return partial(reduce_launcher(backend.target, name), workspace.view, x.view, second.view)

        yield Work(f"reduce {name}", 8 * VALUES * (2 if name == "dot" else 1), build)


def row_copies(backend: Any) -> Iterator[Work]:
    """Yield pad, unpad and convert."""
    lengths = {"pad": (1, 2), "unpad": (2, 1), "convert": (1, 1)}
    for (name, (read, written)), letters in itertools.product(lengths.items(), CONVERSIONS):
        source, rounding, destination = (REAL[letter] for letter in letters)
        values = doubles(backend, (ROWS, read * BLOCK_SIZE), source)
        out = backend.zeros((ROWS, written * BLOCK_SIZE), destination)

        def build(dtypes: Any = (source, rounding, destination), arrays: Any = (out, values)) -> Callable[[], object]:
            return partial(copy_launcher(backend.target, *dtypes), *(buffer.view for buffer in arrays))

        nbytes = ROWS * BLOCK_SIZE * (source.itemsize + destination.itemsize)
        yield Work(f"{name} {letters}", nbytes, build)


def pairs(backend: Any) -> Iterator[Work]:
    """Yield pack and unpack; the letters are the dtypes of blocks, rounding and pairs in both directions."""
    launchers = {"pack": pack_launcher, "unpack": unpack_launcher}
    for (name, launcher), letters in itertools.product(launchers.items(), CONVERSIONS):
        rows, rounding, packed = REAL[letters[0]], REAL[letters[1]], COMPLEX[letters[2]]
        values = doubles(backend, (ROWS, BLOCK_SIZE), rows)
        joined = doubles(backend, (ROWS // 2, 2 * BLOCK_SIZE), packed)

        def build(
            launcher: Any = launcher, dtypes: Any = (rows, rounding, packed), arrays: Any = (joined, values)
        ) -> Callable[[], object]:
            return partial(launcher(backend.target, *dtypes), *(buffer.view for buffer in arrays), 0)

        nbytes = ROWS * BLOCK_SIZE * (rows.itemsize + packed.itemsize // 2)
        yield Work(f"{name} {letters}", nbytes, build)


def transforms(backend: Any) -> Iterator[Work]:
    """Yield the transforms of pairs, forward with the joining and padding, inverse with the separation.

    The letters are those of `pairs`. A length without a plan on the device has an error as its record.
    """
    launchers = {"fft": (False, forward_launcher), "ifft": (True, inverse_launcher)}
    for size, letters in itertools.product(BLOCK_SIZES, CONVERSIONS):
        rows, rounding, packed = REAL[letters[0]], REAL[letters[1]], COMPLEX[letters[2]]
        count = TRANSFORMED // size // 2
        values = doubles(backend, (2 * count, size), rows)
        joined = doubles(backend, (count, 2 * size), packed)
        for name, (inverse, launcher) in launchers.items():

            def build(
                size: int = size,
                inverse: bool = inverse,
                launcher: Any = launcher,
                dtypes: Any = (rows, rounding, packed),
                arrays: Any = (joined, values),
            ) -> Callable[[], object]:
                chosen = plan(2 * size, dtypes[2], inverse)
                if chosen is None:
                    raise ValueError(f"block size: expected a length with a plan, found {size}")
                table = backend.wrap(cupy.asarray(chosen.roots(inverse).astype(dtypes[2])))
                launch = launcher(backend.target, chosen, *dtypes)
                return lambda: launch(*(buffer.view for buffer in arrays), table.view)

            nbytes = 2 * count * size * (rows.itemsize + packed.itemsize)
            yield Work(f"{name} {letters} Nt={size}", nbytes, build)


def encoders(backend: Any) -> Iterator[Work]:
    """Yield the encoders of the stored formats."""
    frequencies = BLOCK_SIZE + 1
    transforms = doubles(backend, (ENCODED_ROWS, 2 * COMPLEX128.pitch(frequencies)))
    for stored in FORMATS:
        parts, scales = (shape[1:] for shape in stored.shapes(1, ENCODED_ROWS, frequencies))
        arrays = backend.empty(parts, stored.part), backend.empty(scales, np.float64), transforms

        def build(stored: Any = stored, arrays: Any = arrays) -> Callable[[], object]:
            launch = encode_launcher(backend.target, stored, 1.0 / (2 * BLOCK_SIZE))
            return partial(launch, *(buffer.view for buffer in arrays))

        of_row = 2 * frequencies * (8 + stored.part.itemsize) + 8 * stored.scales(frequencies)
        yield Work(f"encode {stored.name}", ENCODED_ROWS * of_row, build)


FAMILIES = (fills, maps, reductions, row_copies, pairs, transforms, encoders)


def error_record(operation: str, error: Exception) -> dict[str, Any]:
    """Return the record of a measurement that failed."""
    return {"benchmark": "kernels", "operation": operation, "error": f"{type(error).__name__}: {error}"}


def record(operation: str, nbytes: int, seconds: float) -> dict[str, Any]:
    """Return the record of a measurement; `main` adds the comparison with the copy."""
    rate = nbytes / seconds / 1e9
    return {
        "benchmark": "kernels",
        "operation": operation,
        "bytes": nbytes,
        "median_ms": 1e3 * seconds,
        "gb_per_s": rate,
    }


def measure(backend: Any, family: Iterable[Work], only: str, repetitions: int) -> Iterator[dict[str, Any]]:
    """Yield the records of the kernels of a family whose names contain `only`."""
    for work in family:
        if only in work.operation:
            try:
                seconds = median_seconds(backend, work.build(), repetitions)
                yield record(work.operation, work.nbytes, seconds)
            except Exception as error:  # one kernel's failure is recorded; the others are measured
                yield error_record(work.operation, error)


def copies(backend: Any, operation: str) -> Iterator[Work]:
    """Yield a device copy."""
    source, destination = doubles(backend, (VALUES,)), backend.empty((VALUES,), np.float64)
    yield Work(operation, 16 * VALUES, lambda: partial(cupy.copyto, destination.array, source.array))


def product_bytes(shape: tuple[int, int, int], code: str, num_vecs: int, op: str) -> int:
    """Return the bytes that SBGEMV moves: the stored values, and the spectra of operands and results.

    Vectors are transformed in pairs: two real rows of Nt values are one complex row of 2 Nt frequencies.
    """
    nm, nd, nt = shape
    stored = fm.MatvecPrecisionConfig.from_code(code).sbgemv.format
    frequencies = nt + 1
    spectrum = nm * nd * (2 * frequencies * stored.part.itemsize + 8 * stored.scales(frequencies))
    operand, result = (nm, nd) if op == "F" else (nd, nm)
    vectors = nt * (operand * COMPLEX[code[1]].itemsize + result * COMPLEX[code[3]].itemsize)
    return spectrum + num_vecs * vectors


def sbgemv_seconds(comm: fm.Comm, matrix: fm.Matrix, op: str, num_vecs: int, repetitions: int) -> float:
    """Return the median seconds of SBGEMV in a product."""
    spaces = ("input", "output") if op == "F" else ("output", "input")
    if num_vecs == 1:
        product = matrix.matvec if op == "F" else matrix.transpose_matvec
        x, y = map(matrix.get_vec, spaces)
    else:
        product = matrix.matmat if op == "F" else matrix.transpose_matmat
        blocks = {"input": matrix.get_glob_num_cols(), "output": matrix.get_glob_num_rows()}
        kinds = {"input": "col", "output": "row"}
        x, y = (
            fm.Vector(comm, blocks[space], matrix.get_block_size(), kinds[space], True, num_vecs=num_vecs)
            for space in spaces
        )
    x.init_vec_doubles()
    timer = PhaseTimer(comm)
    for _ in range(WARM_UP_RUNS):
        product(x, y, timer=timer)
    timer.reset()
    for _ in range(repetitions):
        product(x, y, timer=timer)
    return statistics.median(timer.seconds()["sbgemv"])


def products(comm: fm.Comm, only: str, repetitions: int) -> Iterator[dict[str, Any]]:
    """Yield the records of SBGEMV, one matrix after the other."""
    for shape, code in itertools.product(SHAPES, CODES):
        cases = {
            f"sbgemv {op} {CODES[code]} {'x'.join(map(str, shape))} R={num_vecs}": (op, num_vecs)
            for num_vecs, op in itertools.product(SHAPES[shape], ("F", "F*"))
        }
        wanted = {operation: case for operation, case in cases.items() if only in operation}
        if not wanted:
            continue
        nm, nd, nt = shape
        try:
            config = fm.MatvecPrecisionConfig.from_code(code)
            matrix = fm.Matrix(comm, nm, nd, nt, global_sizes=True, p_config=config)
            matrix.init_mat_doubles()
        except Exception as error:  # recorded, as for one kernel
            yield from (error_record(operation, error) for operation in wanted)
            continue
        for operation, (op, num_vecs) in wanted.items():
            about = {"op": op, "shape": list(shape), "precision": code, "num_vecs": num_vecs}
            try:
                seconds = sbgemv_seconds(comm, matrix, op, num_vecs, repetitions)
                found = record(operation, product_bytes(shape, code, num_vecs, op), seconds)
            except Exception as error:  # recorded, as for one kernel
                found = error_record(operation, error)
            yield found | about | {"spectrum_bytes": matrix.nbytes}
        matrix.close()
        cupy.get_default_memory_pool().free_all_blocks()


def everything(comm: fm.Comm, only: str, repetitions: int) -> Iterator[dict[str, Any]]:
    """Yield all records. The copy is measured first and last, which shows how steady the device is."""
    backend, pool = comm.backend, cupy.get_default_memory_pool()
    yield from measure(backend, copies(backend, "copy"), "", repetitions)
    for family in FAMILIES:
        try:
            yield from measure(backend, family(backend), only, repetitions)
        except Exception as error:  # its operands cannot be allocated
            yield error_record(family.__name__, error)
        pool.free_all_blocks()
    yield from products(comm, only, repetitions)
    yield from measure(backend, copies(backend, "copy, at the end"), "", repetitions)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--only", default="", help="measure the kernels with this text in their names")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    comm = fm.Comm(backend="cuda")
    records: list[dict[str, Any]] = []
    with comm.backend.active():
        for found in everything(comm, options.only, options.repetitions):
            if "error" in found:
                print(f"{found['operation']:60} {found['error']}", flush=True)
            else:
                copy = (records or [found])[0]["gb_per_s"]
                found["of_copy"] = found["gb_per_s"] / copy
                print(
                    "{operation:60} {median_ms:9.4f} ms {gb_per_s:8.1f} GB/s {of_copy:6.1%}".format(**found), flush=True
                )
            records.append(found)
    write_results(options.json, records, comm.backend.device_name())


if __name__ == "__main__":
    main()
