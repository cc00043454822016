"""Compare tiles of the CUDA SBGEMV for several right-hand sides, on tensor cores and without them.

``python bench/tiles.py --json bench/results/h100/tiles.json [--only SUBSTRING]``. Each shape, format and number of
right-hand sides has a table of tiles. Times are medians between events on the stream. Results are compared with those
of the first tile, which is the one that is chosen without tensor cores. ``--compile I/N`` compiles the I-th of N parts
of the kernels and measures nothing: numba's disk cache keeps them, so that several processes can share the work.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cupy
import numpy as np

import numba_fftmatvec as fm
from lib.timing import median_seconds
from numba_fftmatvec.cli.results import write_results
from numba_fftmatvec.kernels.formats import COMPLEX64, COMPLEX128, FIXED16, FIXED32, FORMATS, StoredArrays
from numba_fftmatvec.kernels.jit import compute_capability
from numba_fftmatvec.kernels.sbgemv import sbgemv_launcher
from numba_fftmatvec.kernels.sbgemv.cuda import sbgemv_kernel
from numba_fftmatvec.kernels.sbgemv.problem import Problem
from numba_fftmatvec.kernels.sbgemv.tiles import TensorTile, Tile, choose_tile
from numba_fftmatvec.kernels.tensor import HEIGHTS

VALUES = 2**27
# (Nm, Nd, Nt), and the numbers of right-hand sides measured there.
SHAPES = {(1000, 1000, 500): (16,), (20000, 10, 1000): (16,), (5000, 100, 1000): (16, 8, 4)}
DOUBLE, SINGLE = np.dtype(np.complex128), np.dtype(np.complex64)
VECTORS = {COMPLEX128: DOUBLE, COMPLEX64: SINGLE, FIXED32: DOUBLE, FIXED16: DOUBLE}  # as in `ddddd`, `dssdd`, `ddidd`

TWO_WIDE = TensorTile(16, rows=2, columns=2, width=2, stages=6)
MANY_WARPS = TensorTile(16, rows=2, columns=2, warps=16, stages=5)
WIDE = {  # up to 16 right-hand sides
    COMPLEX128: (TensorTile(16, rows=2, columns=2, layers=2, stages=5), replace(MANY_WARPS, stages=4)),
    COMPLEX64: (TWO_WIDE, MANY_WARPS),
    FIXED32: (TWO_WIDE, MANY_WARPS),
    FIXED16: (TWO_WIDE, MANY_WARPS, replace(TWO_WIDE, terms=8, stages=4)),
}
EIGHT_COLUMNS = TensorTile(16, rows=2, columns=1, stages=4, resident=2)
NARROW = {COMPLEX128: (), COMPLEX64: (EIGHT_COLUMNS,), FIXED32: (), FIXED16: ()}  # up to 8 right-hand sides
TABLES = {8: NARROW, 16: WIDE}  # by the most right-hand sides


class Case(NamedTuple):
    """One measurement."""

    problem: Problem
    tile: Tile | TensorTile

    @property
    def name(self) -> str:
        """Operation, format and sizes."""
        problem = self.problem
        sizes = f"{problem.nm}x{problem.nd}x{problem.length // 2} R={problem.num_vecs}"
        return f"{'F*' if problem.adjoint else 'F'} {problem.format.name} {sizes}"

    @property
    def nbytes(self) -> int:
        """Bytes of the stored values, and of the spectra of operands and results."""
        problem = self.problem
        per_block = problem.length // 2
        vectors = problem.reduced * problem.vector.itemsize + problem.results * problem.result.itemsize
        of_run = 2 * problem.frequencies * problem.format.part.itemsize + 8 * problem.format.scales(problem.frequencies)
        return problem.nm * problem.nd * of_run + 2 * per_block * ((problem.num_vecs + 1) // 2) * vectors


def short(tile: Tile | TensorTile) -> str:
    """Return a tile's name and fields on one line."""
    if isinstance(tile, Tile):
        return f"fma rows={tile.rows} pairs={tile.pairs} layers={tile.layers}"
    return "mma " + "/".join(map(str, astuple(tile)))


def tiles(problem: Problem) -> tuple[Tile | TensorTile, ...]:
    """Return a problem's tiles: the one without tensor cores, the chosen one, and those of the tables."""
    height = HEIGHTS.get(compute_capability(), 0)
    found = [choose_tile(problem), choose_tile(problem, height)]
    if problem.results > 64:  # fewer results leave rows of a block idle
        table = next(table for most, table in TABLES.items() if problem.num_vecs <= most)
        found += [tile for tile in table[problem.format] if tile.height <= height]
    return tuple(dict.fromkeys(found))


def cases(only: str) -> Iterator[list[Case]]:
    """Yield the cases whose names contain `only`, those of one shape and format together."""
    for (nm, nd, nt), format in itertools.product(SHAPES, reversed(FORMATS)):
        vector = VECTORS[format]
        problems = [
            Problem(nd, nm, 2 * nt, adjoint, format, vector, DOUBLE, DOUBLE, num_vecs)
            for num_vecs, adjoint in itertools.product(SHAPES[nm, nd, nt], (False, True))
        ]
        found = [Case(problem, tile) for problem in problems for tile in tiles(problem)]
        if wanted := [case for case in found if all(word in case.name for word in only.split(","))]:
            yield wanted


def compile_part(only: str, part: int, parts: int) -> None:
    """Compile every `parts`-th kernel from the number `part` on."""
    arguments = dict.fromkeys(
        (p.format, p.vector, p.result, p.accumulator, p.adjoint, tile) for group in cases(only) for p, tile in group
    )
    for i, kernel in enumerate(arguments):
        if i % parts == part:
            sbgemv_kernel(*kernel).compile("cuda")


def spectrum(problem: Problem) -> tuple[Any, Any]:
    """Return a random stored spectrum, as CuPy arrays."""
    format = problem.format
    shape, scales = format.shapes(problem.nd, problem.nm, problem.frequencies)
    random = cupy.random.default_rng(1)
    values = cupy.empty(shape, format.part)
    for row in values:
        if format.is_fixed:
            bits = random.integers(-format.largest, format.largest, row.shape, dtype=np.int64, endpoint=True)
            row[...] = bits.astype(format.part)
        else:
            row[...] = random.standard_normal(row.shape, dtype=format.part)
    return values, random.uniform(0.5, 1.0, scales) / (format.largest if format.is_fixed else 1)


def operand(problem: Problem) -> Any:
    """Return random pairs of right-hand sides, as a CuPy array."""
    shape = problem.rows(problem.reduced), 2 * problem.length
    real = problem.vector.type(0).real.dtype
    return cupy.random.default_rng(2).standard_normal(shape, dtype=real).view(problem.vector)


def measured(backend: Any, group: list[Case], repetitions: int) -> Iterator[dict[str, Any]]:
    """Yield the records of the cases of one shape and format."""
    stored = StoredArrays(*(backend.wrap(array).view for array in spectrum(group[0].problem)))
    for problem, found in itertools.groupby(group, key=lambda case: case.problem):
        x, expected = backend.wrap(operand(problem)), None
        for case in found:
            about = {"benchmark": "tiles", "operation": case.name, "tile": short(case.tile), "bytes": case.nbytes}
            out = backend.zeros((problem.rows(problem.results), problem.length), problem.result)
            held: list[Any] = []
            try:
                launch = sbgemv_launcher(backend.target, problem, partial(allocate, backend, held), case.tile)
                seconds = median_seconds(backend, partial(launch, out.view, stored, x.view), repetitions)
            except Exception as error:  # recorded, and the others are measured
                yield about | {"error": f"{type(error).__name__}: {error}"}
                continue
            expected = out.array if expected is None else expected
            difference = float(cupy.linalg.norm(out.array - expected) / cupy.linalg.norm(expected))
            times = {"median_ms": 1e3 * seconds, "gb_per_s": case.nbytes / seconds / 1e9}
            chunks = held[0].array.shape[0] if held else 1
            yield about | times | {"difference": difference, "chunks": chunks}
        del x, expected, out, held
        cupy.get_default_memory_pool().free_all_blocks()


def allocate(backend: Any, held: list[Any], shape: tuple[int, ...], dtype: Any) -> Any:
    """Return workspace, which `held` keeps."""
    held.append(backend.empty(shape, dtype))
    return held[-1].view


def copy_rate(backend: Any, repetitions: int) -> float:
    """Return the GB/s of a device copy."""
    source, destination = cupy.ones(VALUES), cupy.empty(VALUES)
    seconds = median_seconds(backend, lambda: cupy.copyto(destination, source), repetitions)
    return 16 * VALUES / seconds / 1e9


def main() -> None:
    """Compile, or measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--only", default="", help="texts, separated by commas, that a case's name has")
    parser.add_argument("--compile", default="", metavar="I/N", help="compile the I-th of N parts of the kernels")
    parser.add_argument("--json", type=Path, help="file for the records")
    options = parser.parse_args()
    comm = fm.Comm(backend="cuda")
    records: list[dict[str, Any]] = []
    with comm.backend.active():
        if options.compile:
            compile_part(options.only, *map(int, options.compile.split("/")))
            return
        copy = copy_rate(comm.backend, options.repetitions)
        print(f"copy {copy:.0f} GB/s; milliseconds, share of the copy's rate, difference, by tile", flush=True)
        for group in cases(options.only):
            of_group = measured(comm.backend, group, options.repetitions)
            for operation, of_problem in itertools.groupby(of_group, key=lambda found: found["operation"]):
                print(operation, end="", flush=True)
                for found in of_problem:
                    found["of_copy"] = found.get("gb_per_s", 0) / copy
                    line = found.get("error") or "{median_ms:.3f} {of_copy:.0%} {difference:.0e}".format(**found)
                    line += f" in {found['chunks']}" if found.get("chunks", 1) > 1 else ""
                    print(f" | {found['tile']} {line[:80]}", end="", flush=True)
                    records.append(found)
                print(flush=True)
            cupy.get_default_memory_pool().free_all_blocks()
            if options.json:
                write_results(options.json, records, comm.backend.device_name())


if __name__ == "__main__":
    main()
