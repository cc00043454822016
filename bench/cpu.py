"""Measure products on a CPU as fractions of the machine's own speed, and beside other programs, in one run.

``python bench/cpu.py --json bench/results/cpu/avx512.json``. The instructions are those that LLVM compiles for. To
hold a machine to AVX2, OpenBLAS included:

``NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=+avx2,+fma OPENBLAS_CORETYPE=Haswell python bench/cpu.py --json ...``

Each part writes the records of one name:

- ``machine``: the rate of reading from memory and caches, and the peak of fused multiply-adds.
- ``products``: F and F* beside NumPy with SciPy and PyLops. SBGEMV beside reading as many bytes as the spectrum has,
  and beside as many multiply-adds.
- ``formats``: the formats of the stored spectrum beside complex128.
- ``transforms``: kernels with a row in each lane beside NumPy's loops, on the same threads and tiles.
- ``growth``: times against Nm, Nd, Nt and the number of vectors.
- ``loaded``: F and F* beside NumPy with SciPy, while another program keeps every core busy.

Programs alternate, and every ratio is one of medians of the same rounds.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import numba_fftmatvec as fm
from lib.host import CORES, Effort, alternate, checked_run, failure, milliseconds, peers, spectrum_of
from lib.machine import Memory, cache_bytes, multiplier, settings
from numba_fftmatvec.cli.results import write_results
from numba_fftmatvec.kernels import ceil_div
from numba_fftmatvec.kernels.formats import aligned, vector_tiles
from numba_fftmatvec.kernels.rowfft import group_launcher, row_plan
from numba_fftmatvec.kernels.transforms import piece_launcher
from numba_fftmatvec.products import PRODUCTS

Record = dict[str, Any]
Shape = tuple[int, int, int]  # Nm, Nd, Nt

SHAPES: tuple[Shape, ...] = ((500, 50, 200), (100, 100, 256), (2000, 20, 200), (200, 20, 1000), (1000, 100, 400))
SHAPES += ((196, 8, 80), (5000, 4, 100), (50, 50, 4000))
SMALL_SHAPES: tuple[Shape, ...] = ((10, 2, 20), (30, 4, 50), (100, 10, 100))  # where NumPy may be faster
FORMAT_SHAPES: tuple[Shape, ...] = ((1000, 100, 400), (2000, 20, 200))
LOADED_SHAPES: tuple[Shape, ...] = ((196, 8, 80), (100, 100, 256))
GROWTH_SHAPE: Shape = (64, 16, 64)  # 1 MB
VECTORS_SHAPE: Shape = (256, 32, 128)  # 17 MB
NUM_VECS = (1, 4, 16)
MOST_VECS = 256
CODES = {"ddddd": 16, "sssss": 8, "ddidd": 8, "ddhdd": 4}  # precision, and bytes of a value of the spectrum
DOUBLE = "ddddd"
OURS = "numba-fftmatvec"
BUSY = "import os, sys\nwhile os.getppid() == int(sys.argv[1]): sum(range(100_000))"


@dataclass(frozen=True)
class Machine:
    """The Comm of all products, the memory that is read beside them, and what is measured how thoroughly.

    Parameters
    ----------
    comm : Comm
        The Comm of all products.
    memory : Memory
        Memory that is read by as many threads as the products have.
    effort : Effort
        Rounds and seconds.
    idle : float
        Unmeasured seconds of a product after a peer's: OpenBLAS's idle threads keep their cores busy for 0.1 s.
    shapes : sequence
        Shapes instead of those of each part.
    num_vecs : sequence
        Numbers of vectors of the part `products`.
    largest : float
        Bytes of the largest spectrum of the part `growth`.
    """

    comm: fm.Comm
    memory: Memory
    effort: Effort
    idle: float
    shapes: Sequence[Shape] | None
    num_vecs: Sequence[int]
    largest: float


@dataclass(frozen=True)
class Operation:
    """A product of a matrix with vectors of its own."""

    matrix: fm.Matrix
    op: str
    x: fm.Vector
    y: fm.Vector

    @classmethod
    def of(cls, matrix: fm.Matrix, op: str, num_vecs: int) -> Operation:
        """Return the product of a number of vectors."""
        spaces = PRODUCTS[op].input_space, PRODUCTS[op].output_space
        x, y = (fm.Vector.from_layout(matrix.comm, matrix.layout.vector(space, num_vecs)) for space in spaces)
        x.init_vec_doubles()
        return cls(matrix, op, x, y)

    def run(self) -> None:
        """Multiply."""
        self.matrix.apply_product(PRODUCTS[self.op], self.x, self.y)

    @property
    def sbgemv(self) -> Callable[[], object]:
        """SBGEMV alone, of at most 16 vectors."""
        stages = self.matrix.plan(self.op, num_vecs=self.x.num_vecs).timed_stages
        (stage,) = (stage for stage in stages if stage.phase == "sbgemv")
        return stage.run  # type: ignore[no-any-return]

    def values(self, vector: fm.Vector) -> np.ndarray:
        """Return a vector's values as an array (num_vecs, block, t)."""
        return vector.gather().reshape(vector.num_vecs, -1, self.matrix.block_size)


def spectrum_bytes(shape: Shape, code: str = DOUBLE) -> int:
    """Return the bytes of a spectrum's values, without padding and scales."""
    nm, nd, nt = shape
    return CODES[code] * nm * nd * (nt + 1)


def about(benchmark: str, op: str, shape: Shape, num_vecs: int, code: str = DOUBLE) -> Record:
    """Return the fields that identify a measurement."""
    fields = {"op": op, "shape": list(shape), "precision": code, "num_vecs": num_vecs}
    return {"benchmark": benchmark} | fields | {"spectrum_bytes": spectrum_bytes(shape, code)}


def sbgemv_fields(machine: Machine, operation: Operation, shape: Shape, code: str = DOUBLE) -> Record:
    """Return the times of SBGEMV and of reading the spectrum's bytes, and the fractions of the machine's speed."""
    nbytes, num_vecs = spectrum_bytes(shape, code), operation.x.num_vecs
    read, read_bytes = machine.memory.reader(nbytes)
    programs = {"sbgemv": operation.sbgemv, "read": read}
    multiply, peak_operations = multiplier("d", machine.memory.threads)
    if num_vecs > 1:
        programs["peak"] = multiply
    medians = {name: statistics.median(of) for name, of in alternate(programs, machine.effort).items()}
    reading = medians["read"] * nbytes / read_bytes
    found = {"sbgemv_ms": 1e3 * medians["sbgemv"], "read_ms": 1e3 * reading, "of_read": reading / medians["sbgemv"]}
    if num_vecs > 1:
        operations = 8 * math.prod(shape[:2]) * (shape[2] + 1) * num_vecs
        found["of_peak"] = medians["peak"] / peak_operations * operations / medians["sbgemv"]
    return found


def compare(machine: Machine, operation: Operation, forward: np.ndarray, names: str = "") -> Record:
    """Return the times of a product, and those of the peers whose names begin with `names`."""
    programs: dict[str, Callable[[], object]] = {OURS: operation.run}
    operation.run()
    operand, expected = map(operation.values, (operation.x, operation.y))
    others: dict[str, Record] = {}
    for peer in peers(forward, operation.op, operation.x.num_vecs):
        if not peer.name.startswith(names):
            continue
        try:
            programs[peer.name] = checked_run(peer, operand, expected)
        except Exception as error:  # one peer's failure is recorded; the others are compared
            others[peer.name] = failure(error)
    measured = alternate(programs, machine.effort._replace(warm_up=machine.idle))
    times = {name: milliseconds(seconds) for name, seconds in measured.items()}
    return times.pop(OURS) | {"peers": times | others}


def matrix_of(machine: Machine, shape: Shape, blocks: np.ndarray | None = None, code: str = DOUBLE) -> fm.Matrix:
    """Return a matrix of blocks, or of generated values."""
    config = fm.MatvecPrecisionConfig.from_code(code)
    matrix = fm.Matrix(machine.comm, *shape, global_sizes=True, p_config=config)
    if blocks is None:
        matrix.init_mat_doubles()
    else:
        matrix.init_mat_from_array(blocks)
    return matrix


def blocks_of(shape: Shape) -> np.ndarray:
    """Return the first block column ``[d][m][t]`` of a matrix."""
    nm, nd, nt = shape
    return fm.generate_double(np.arange(nd * nm * nt)).reshape(nd, nm, nt)


def measure_machine(machine: Machine) -> Iterator[Record]:
    """Yield the machine's speed by one thread and by all."""
    (level, core), (_, last) = (list(cache_bytes().items())[end] for end in (0, -1))
    for threads in sorted({1, machine.memory.threads}):
        memory = Memory(threads)
        sizes = {"core's cache": (threads * core // 2, 64), "last cache": (last // 2, 8), "memory": (2 * last, 1)}
        readers = {name: memory.reader(*size) for name, size in sizes.items()}
        peaks = {f"{letter}_gflops": multiplier(letter, threads) for letter in "ds"}
        programs = {name: program for name, (program, _) in (readers | peaks).items()}
        best = {name: min(seconds) for name, seconds in alternate(programs, machine.effort).items()}
        reads = [
            {"of": name, "bytes": nbytes, "gb_per_s": sizes[name][1] * nbytes / best[name] / 1e9}
            for name, (_, nbytes) in readers.items()
        ]
        peak = {name: operations / best[name] / 1e9 for name, (_, operations) in peaks.items()}
        caches = {"core_cache_level": level, "core_cache_bytes": core, "last_cache_bytes": last}
        yield {"benchmark": "cpu machine", "of_threads": threads, "reads": reads} | peak | caches | settings()


def measure_products(machine: Machine) -> Iterator[Record]:
    """Yield F and F* of every shape and number of vectors."""
    for shape in machine.shapes or SHAPES + SMALL_SHAPES:
        blocks = blocks_of(shape)
        forward = spectrum_of(blocks)
        with matrix_of(machine, shape, blocks) as matrix:
            for count, op in itertools.product(machine.num_vecs, ("F", "F*")):
                operation = Operation.of(matrix, op, count)
                found = compare(machine, operation, forward) | sbgemv_fields(machine, operation, shape)
                yield about("cpu product", op, shape, count) | found


def measure_formats(machine: Machine) -> Iterator[Record]:
    """Yield F and F* of one vector in every format of the spectrum."""
    for shape in machine.shapes or FORMAT_SHAPES:
        blocks = blocks_of(shape)
        with ExitStack() as stack:
            matrices = {code: stack.enter_context(matrix_of(machine, shape, blocks, code)) for code in CODES}
            for op in ("F", "F*"):
                operations = {code: Operation.of(matrix, op, 1) for code, matrix in matrices.items()}
                whole = alternate({code: each.run for code, each in operations.items()}, machine.effort)
                alone = alternate({code: each.sbgemv for code, each in operations.items()}, machine.effort)
                for code, operation in operations.items():
                    fields = sbgemv_fields(machine, operation, shape, code)
                    speeds = {name: _speed(of, code) for name, of in (("speed", whole), ("sbgemv_speed", alone))}
                    yield about("cpu format", op, shape, 1, code) | milliseconds(whole[code]) | fields | speeds


def _speed(seconds: dict[str, list[float]], code: str) -> float:
    """Return the median time in double over that in another precision."""
    return statistics.median(seconds[DOUBLE]) / statistics.median(seconds[code])


def measure_transforms(machine: Machine) -> Iterator[Record]:
    """Yield transforms of one vector of Nm blocks, by our kernels where they have a plan, and by NumPy's loops."""
    double = np.dtype(np.float64)
    for nm, _, nt in machine.shapes or SHAPES:
        plan = row_plan(nt, double)
        if plan is None:
            continue
        rows = fm.generate_double(np.arange(nm * nt)).reshape(nm, nt)
        tiles = aligned(np.zeros, vector_tiles(1, nt + 1, nm), double)
        for kind in ("rfft", "irfft"):
            ends = 1, nm, (double,) * 3, np.zeros
            launches = {
                OURS: group_launcher(machine.comm.backend.target, kind, plan, *ends),
                "NumPy": piece_launcher(machine.comm.backend.target, kind, 2 * nt, *ends),
            }
            programs = {name: partial(launch, tiles, rows, nt) for name, launch in launches.items()}
            times = {name: milliseconds(seconds) for name, seconds in alternate(programs, machine.effort).items()}
            fields = {"benchmark": "cpu transform", "transform": kind, "rows": nm, "steps": nt}
            yield fields | times.pop(OURS) | {"peers": times}


def growing(machine: Machine) -> Iterator[tuple[str, Shape, list[int]]]:
    """Yield sizes of growing matrices and the numbers of vectors of each, with the name of the size that grows."""
    free = machine.comm.backend.free_bytes()
    largest = machine.largest if free is None else min(machine.largest, free / 4)
    for number, name in enumerate(("Nm", "Nd", "Nt")):
        for power in itertools.count():
            sizes = [size << power if place == number else size for place, size in enumerate(GROWTH_SHAPE)]
            if spectrum_bytes((sizes[0], sizes[1], sizes[2])) > largest:
                break
            yield name, (sizes[0], sizes[1], sizes[2]), [1]
    if spectrum_bytes(VECTORS_SHAPE) <= largest:
        yield "R", VECTORS_SHAPE, [1 << power for power in range(MOST_VECS.bit_length())]


def measure_growth(machine: Machine) -> Iterator[Record]:
    """Yield F and F* of matrices of growing size, and of growing numbers of vectors."""
    machine = replace(machine, effort=machine.effort._replace(rounds=ceil_div(machine.effort.rounds, 2)))
    for name, shape, counts in growing(machine):
        with matrix_of(machine, shape) as matrix:
            for count, op in itertools.product(counts, ("F", "F*")):
                operation = Operation.of(matrix, op, count)
                times = milliseconds(alternate({OURS: operation.run}, machine.effort)[OURS])
                fields = sbgemv_fields(machine, operation, shape) if name != "R" else {}
                yield about("cpu growth", op, shape, count) | {"grows": name} | times | fields


@contextmanager
def busy_cores() -> Iterator[list[Any]]:
    """Keep every core busy by other processes, which end with this one."""
    command = [sys.executable, "-c", BUSY, str(os.getpid())]
    processes = [subprocess.Popen(command) for _ in range(CORES)]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure_loaded(machine: Machine) -> Iterator[Record]:
    """Yield F and F* of one vector beside NumPy with SciPy on busy cores."""
    for shape in machine.shapes or LOADED_SHAPES:
        blocks = blocks_of(shape)
        forward = spectrum_of(blocks)
        with matrix_of(machine, shape, blocks) as matrix, busy_cores():
            for op in ("F", "F*"):
                found = compare(machine, Operation.of(matrix, op, 1), forward, "NumPy")
                yield about("cpu loaded", op, shape, 1) | found


PARTS: dict[str, Callable[[Machine], Iterator[Record]]] = {
    "machine": measure_machine,
    "products": measure_products,
    "formats": measure_formats,
    "transforms": measure_transforms,
    "growth": measure_growth,
    "loaded": measure_loaded,
}


def line(record: Record) -> str:
    """Return a record's line of output."""
    if record["benchmark"] == "cpu machine":
        reads = ", ".join("{gb_per_s:.1f} GB/s of {of}".format(**read) for read in record["reads"])
        peak = "{d_gflops:.1f} and {s_gflops:.1f} GFLOP/s".format(**record)
        return f"{record['instructions']}, {record['of_threads']} threads: {reads}; {peak}"
    if record["benchmark"] == "cpu transform":
        words = ["cpu {transform} of {rows} rows, {steps} steps: {median_ms:.4g} ms".format(**record)]
    else:
        words = ["{benchmark} {op} {shape} {precision} R={num_vecs}: {median_ms:.4g} ms".format(**record)]
    words += [f"{key} {record[key]:.2f}" for key in ("of_read", "of_peak", "speed", "sbgemv_speed") if key in record]
    for name, times in record.get("peers", {}).items():
        ratio = times.get("error") or f"{times['median_ms'] / record['median_ms']:.2f} x"
        words.append(f"{name} {ratio}")
    return ", ".join(words)


def shape_of(text: str) -> Shape:
    """Return a shape of a text such as 500x50x200."""
    nm, nd, nt = map(int, text.split("x"))
    return nm, nd, nt


def options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--shapes", nargs="+", type=shape_of, metavar="NMxNDxNT", help="instead of each part's own")
    parser.add_argument("--num-vecs", nargs="+", type=int, default=NUM_VECS, help="of the part products")
    parser.add_argument("--rounds", type=int, default=6, help="of alternating programs")
    parser.add_argument(
        "--seconds", type=float, default=0.04, help="of a program in each round, and as many unmeasured"
    )
    parser.add_argument("--idle", type=float, default=0.2, help="seconds, unmeasured, after a peer's product")
    parser.add_argument("--largest", type=float, default=2.2e9, help="bytes of the largest spectrum of the part growth")
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    """Measure, print, write."""
    chosen = options()
    with fm.Comm(backend="cpu") as comm:
        effort = Effort(chosen.rounds, chosen.seconds, chosen.seconds)
        memory = Memory(comm.backend.threads)
        machine = Machine(comm, memory, effort, chosen.idle, chosen.shapes, chosen.num_vecs, chosen.largest)
        where = {"instructions": settings()["instructions"], "threads": memory.threads}
        records = []
        for name in chosen.parts:
            for found in PARTS[name](machine):
                print(line(found), flush=True)
                records.append(where | found)
            write_results(chosen.json, records)  # a later part may fail


if __name__ == "__main__":
    main()
