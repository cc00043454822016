"""The command ``fftmatvec run``: applies, checks and times F and F* on a process grid."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ..comm import Comm, best_grid
from ..comm.grids import Machine
from ..errors import ArgumentError, FileError, VerificationError
from ..io import read_meta
from ..matrix import Matrix
from ..operators import dot_test
from ..plan import PhaseTimer, Timer, time_runs
from ..precision import MatvecPrecisionConfig
from ..products import PRODUCTS, Product
from ..progress import show_steps, show_waiting
from ..testing import Tester
from ..vector import Vector
from . import grid
from .arguments import not_negative, positive, precision
from .estimate import WORTH_SAYING, Estimate
from .parser import Parser
from .paths import check_matrix_directory
from .report import Measurement
from .results import write_results

# Number of untimed products before the timed ones, in which caches, clocks and MPI's buffers settle.
_WARM_UP = 3
# The timed products run in so many parts, with a step of the progress bar after each.
_PARTS = 50
_PRODUCTS = PRODUCTS["F"], PRODUCTS["F*"]

# Flags and defaults of the numbers of block columns and block rows: for each rank, and global (-g).
_SIZES = {False: (("nm", 3), ("nd", 2)), True: (("Nm", 10), ("Nd", 5))}
_BLOCK_SIZE = ("Nt", 7)
_SIZE_FLAGS = ("Nm", "Nd", "Nt", "nm", "nd")


@dataclass(frozen=True)
class Options(grid.GridOptions):
    """The checked flags. Comments name the flags of attributes."""

    global_sizes: bool  # -g
    cols: int  # -Nm, -nm
    rows: int  # -Nd, -nd
    block_size: int  # -Nt
    verbose: bool  # -v
    repetitions: int  # -N
    raw: bool  # -raw
    check: bool  # -t
    precision: MatvecPrecisionConfig  # -prec
    save: Path | None  # -s
    doubles: bool  # -rand
    path: Path | None
    input: Path | None
    expect: Path | None
    tolerance: float  # --tol
    json: Path | None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Return the options of the parsed flags; sizes that are None get their defaults.

        Raises
        ------
        ArgumentError
            A flag has no meaning together with the others.
        """
        _check_combination(given)
        sizes = (*_SIZES[given["global_sizes"]], _BLOCK_SIZE)
        cols, rows, block_size = (given[name] or default for name, default in sizes)
        others = {name: value for name, value in given.items() if name not in _SIZE_FLAGS}
        return cls(cols=cols, rows=rows, block_size=block_size, **others)


@dataclass(frozen=True)
class Operation:
    """A product, F or F*, with its matrix, its operand and its result."""

    product: Product
    matrix: Matrix
    operand: Vector
    result: Vector

    @property
    def op(self) -> str:
        """The product's name."""
        return self.product.name

    def apply(self, timer: Timer | None = None) -> None:
        """Queue the product."""
        self.matrix.apply_product(self.product, self.operand, self.result, timer=timer)

    @property
    def file_name(self) -> str:
        """Name of the file that the result is saved in, without the star, which shells expand."""
        return f"output_{self.op.replace('*', '_adjoint')}.h5"


def build_parser() -> Parser:
    """Return the parser of `Options`; sizes default to None, which distinguishes them from given ones."""
    parser = Parser("run", "Apply, check and time F and F* on a process grid.")
    grid.add(parser)
    flag = parser.add_argument
    flag("-g", dest="global_sizes", action="store_true", help="sizes are global (-Nm, -Nd), not each rank's (-nm, -nd)")
    flag("-Nm", type=positive, metavar="N", help="global block columns, with -g (default 10)")
    flag("-Nd", type=positive, metavar="N", help="global block rows, with -g (default 5)")
    flag("-Nt", type=positive, metavar="N", help="block size: time steps (default 7)")
    flag("-nm", type=positive, metavar="N", help="block columns of each rank, without -g (default 3)")
    flag("-nd", type=positive, metavar="N", help="block rows of each rank, without -g (default 2)")
    code = "of broadcast and pad, FFT, SBGEMV, IFFT, unpad and reduce: d or s; SBGEMV also i or h (default ddddd)"
    flag("-prec", dest="precision", type=precision, default="ddddd", metavar="CODE", help=code)
    flag("-rand", dest="doubles", action="store_true", help="data that float32 cannot represent, instead of ones")
    flag("-t", dest="check", action="store_true", help="check: ones by the exact answer, else by the dot test")
    flag("-N", dest="repetitions", type=positive, default=100, metavar="N", help="products to time (default 100)")
    flag("-raw", action="store_true", help="print every timing as CSV instead of tables")
    flag("-v", dest="verbose", action="store_true", help="print the input and output vectors")
    flag("-s", dest="save", type=Path, metavar="DIR", help="save the output vectors in DIR (HDF5)")
    flag("--path", type=Path, metavar="DIR", help="read the matrix from a directory")
    flag("--input", type=Path, metavar="FILE", help="read F's input vector, with --path")
    flag("--expect", type=Path, metavar="FILE", help="compare F's output with this vector, with --input")
    tolerance = "largest relative error that --expect allows (default 1e-6)"
    flag("--tol", dest="tolerance", type=not_negative, default=1e-6, metavar="X", help=tolerance)
    flag("--json", type=Path, metavar="FILE", help="write the results as JSON")
    return parser


def parse(arguments: Sequence[str]) -> Options:
    """Return the options of a command line.

    Raises
    ------
    ArgumentError
        A flag is unknown, out of place, or has a value outside its domain.
    """
    return Options.of(build_parser().values(arguments))


def main(arguments: Sequence[str]) -> int:
    """Run the command, on as many ranks as ``-n`` has; return its exit status."""
    options = parse(arguments)
    grid.start_ranks(options, "run", arguments)
    run(options)
    return 0


def _check_combination(given: Mapping[str, Any]) -> None:
    """Raise an ArgumentError for a flag that has no meaning together with the others."""
    grid.check_combination(given)
    from_file, global_sizes = given["path"] is not None, given["global_sizes"]
    rules = (
        (("Nm", "Nd"), global_sizes, "with -g"),
        (("nm", "nd"), not global_sizes, "without -g"),
        (_SIZE_FLAGS, not from_file, "without --path, which sets the sizes"),
        (("input",), from_file, "with --path"),
        (("expect",), given["input"] is not None, "with --input"),
    )
    for names, allowed, where in rules:
        for name in names:
            if given[name] is not None and not allowed:
                flag = f"--{name}" if len(name) > 2 else f"-{name}"
                raise ArgumentError(f"{flag}: expected {where}, found {given[name]}")
    if given["proc_rows"] == "auto" and not (from_file or global_sizes):
        raise ArgumentError("-pr: expected a number of rows, or global sizes by -g or --path, found auto")


def run(options: Options) -> None:
    """Apply F and F* on the options' grid, check, time and report them; collective.

    Raises
    ------
    FFTMatvecError
        An option, a file or the grid is unusable, on every rank.
    VerificationError
        A check failed, on every rank.
    """
    with grid.process_grid(options, partial(_best_grid, options)) as comm:
        _run_on(comm, options)


def _global_sizes(options: Options, comm: Comm) -> tuple[int, int, int]:
    """Return the global (Nd, Nm, Nt), on every rank; collective."""
    if options.path is None:
        if options.global_sizes:
            return options.rows, options.cols, options.block_size
        return options.rows * comm.proc_rows, options.cols * comm.proc_cols, options.block_size
    sizes = 0, 0, 0
    with comm.agreement(f"reading {options.path}"):
        if comm.world_rank == 0:
            check_matrix_directory(options.path)
            meta = read_meta(options.path)
            sizes = meta.Nd, meta.Nm, meta.Nt
    return comm.bcast(sizes)


def _best_grid(options: Options, comm: Comm) -> tuple[int, int]:
    """Return the grid of all ranks on which F and F* are the fastest; collective."""
    sizes = _global_sizes(options, comm)
    machine = Machine.of(comm.backend.device_name(), comm.backend.name)
    with comm.agreement("choosing the process grid"):
        return best_grid(*sizes, comm.world_size, options.precision, machine=machine)


def _run_on(comm: Comm, options: Options) -> None:
    _check_results_folder(comm, options.json)
    _print_estimate(comm, options)
    with show_waiting("Setting up the matrix", enabled=comm.world_rank == 0):
        matrix = _build_matrix(comm, options)
        operations = _build_operations(matrix, options)
        for operation in operations:
            operation.apply()
    console = Console(quiet=comm.world_rank != 0, soft_wrap=True, highlight=False, markup=False)
    errors = _check(matrix, operations, options, console)
    if options.verbose:
        _print_vectors(operations, console)
    if options.save is not None:
        _save(comm, operations, options.save)
    records = _time(matrix, operations, options, errors, console)
    if options.json is not None:
        with comm.agreement("write the results"):
            if comm.world_rank == 0:
                write_results(options.json, records, comm.backend.device_name())


def _print_estimate(comm: Comm, options: Options) -> None:
    """Print the estimate of a run that takes minutes, on the error output; collective.

    A matrix that does not fit is left to the error of its initialisation.
    """
    sizes = _global_sizes(options, comm)
    if comm.world_rank != 0 or min(sizes[0] - comm.proc_rows, sizes[1] - comm.proc_cols) < 0:
        return
    names, count = [product.name for product in _PRODUCTS], 1 + 2 * (_WARM_UP + options.repetitions)
    found = Estimate.of(comm, sizes, options.precision, names, count, from_file=options.path is not None)
    if found.seconds >= WORTH_SAYING and found.fits:
        print(f"fftmatvec: {found}; -N {options.repetitions} sets the number of products", file=sys.stderr, flush=True)


def _check_results_folder(comm: Comm, path: Path | None) -> None:
    """Raise a FileError before the work, not after it, if the folder of the results does not exist."""
    with comm.agreement("looking for the results' folder"):
        if path is not None and comm.world_rank == 0 and not path.absolute().parent.is_dir():
            raise FileError(f"--json: expected a file in a folder that exists, found {path}")


def _build_matrix(comm: Comm, options: Options) -> Matrix:
    if options.path is not None:
        return Matrix(comm, str(options.path), p_config=options.precision)
    sizes = options.cols, options.rows, options.block_size
    matrix = Matrix(comm, *sizes, global_sizes=options.global_sizes, p_config=options.precision)
    if options.doubles:
        matrix.init_mat_doubles()
    else:
        matrix.init_mat_ones()
    return matrix


def _build_operations(matrix: Matrix, options: Options) -> list[Operation]:
    """Return F and F* with operands of ones or of doubles; F's operand may come from the file of --input."""
    operations = []
    for product in _PRODUCTS:
        spaces = product.input_space, product.output_space
        operand, result = (Vector.from_layout(matrix.comm, matrix.layout.vector(space)) for space in spaces)
        if product.name == "F" and options.input is not None:
            operand.init_vec_from_file(str(options.input))
        elif options.doubles:
            operand.init_vec_doubles()
        else:
            operand.init_vec_ones()
        operations.append(Operation(product, matrix, operand, result))
    return operations


def _check(matrix: Matrix, operations: Sequence[Operation], options: Options, console: Console) -> dict[str, float]:
    """Run the requested checks; return the relative errors of the checked products on every rank; collective."""
    errors: dict[str, float] = {}
    if options.check and (options.doubles or options.path is not None):
        operands = (operation.operand for operation in operations)
        console.print(f"dot test: passed, relative mismatch {dot_test(matrix, *operands):.2e}")
    elif options.check:
        for operation in operations:
            conj = operation.product.factors[0].is_adjoint
            errors[operation.op] = Tester.check_ones_matvec(matrix.comm, matrix, operation.result, conj=conj)
    if options.expect is not None:
        errors["F"] = _compare(matrix, operations[0].result, options.expect, options.tolerance)
    for op, error in errors.items():
        console.print(f"{op}: checked, relative error {error:.2e}")
    return errors


def _compare(matrix: Matrix, result: Vector, path: Path, tolerance: float) -> float:
    """Return F's relative error to the vector in a file; raise a VerificationError above the tolerance."""
    expected = matrix.get_vec("output")
    expected.init_vec_from_file(str(path))
    exact = expected.gather()
    error = float(np.linalg.norm(result.gather() - exact) / (np.linalg.norm(exact) or 1.0))
    with matrix.comm.agreement("comparing the output"):
        if not error <= tolerance:
            raise VerificationError(f"{path}: expected a relative error of at most {tolerance:.2e}, found {error:.2e}")
    return error


def _print_vectors(operations: Sequence[Operation], console: Console) -> None:
    for operation in operations:
        for role, vector in (("input", operation.operand), ("output", operation.result)):
            console.print(f"{operation.op} {role}:\n{vector.gather()}")


def _save(comm: Comm, operations: Sequence[Operation], directory: Path) -> None:
    with comm.agreement("save the output vectors"):
        if comm.world_rank == 0:
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise FileError(f"-s: expected a directory, found: {error}") from error
    for operation in operations:
        operation.result.save(str(directory / operation.file_name))


def _measure(matrix: Matrix, operation: Operation, repetitions: int) -> Measurement:
    """Time a product by phases, then as a whole; return the timings of all ranks on every rank; collective.

    The progress bar is drawn between the products, so that they are not slower with it.
    """
    comm = matrix.comm
    timer, what = PhaseTimer(comm), f"Timing {operation.op}"
    total: list[float] = []
    with show_steps(2 * (_WARM_UP + repetitions), enabled=comm.world_rank == 0, refresh=False) as show:
        for done in range(_WARM_UP):
            operation.apply()
            operation.apply(timer)
            show(2 * done + 2, what)
        timer.reset()
        for done in range(repetitions):
            operation.apply(timer)
            show(2 * _WARM_UP + done + 1, what)
        while len(total) < repetitions:
            part = min(repetitions - len(total), 1 + repetitions // _PARTS)
            total += time_runs(comm, operation.apply, part)
            show(2 * _WARM_UP + repetitions + len(total), what)
    seconds = timer.seconds() | {"total": total}
    gather = comm.allgather
    return Measurement(operation.op, gather(seconds), gather(int(matrix.nbytes)))


def _time(
    matrix: Matrix, operations: Sequence[Operation], options: Options, errors: Mapping[str, float], console: Console
) -> list[dict[str, Any]]:
    """Time the products and print their timings; return their records for a results file; collective."""
    comm = matrix.comm
    shape = matrix.get_glob_num_cols(), matrix.get_glob_num_rows(), matrix.get_block_size()
    proc_shape, code = (comm.proc_rows, comm.proc_cols), options.precision.code
    title = "Nm {}, Nd {}, Nt {}, {}, {} x {} ranks, {}, {} products".format(
        *shape, code, *proc_shape, comm.backend.name, options.repetitions
    )
    records = []
    for operation in operations:
        measurement = _measure(matrix, operation, options.repetitions)
        peak = max(comm.allgather(comm.backend.peak_bytes()))
        error = errors.get(operation.op)
        records.append(
            measurement.record(shape=shape, precision=code, grid=proc_shape, rel_error=error, peak_bytes=peak)
        )
        if options.raw:
            console.print("\n".join(measurement.raw_lines()))
        else:
            console.print(measurement.table(title))
    return records
