"""The runner: applies, checks and times F and F* on a process grid. Installed as the command ``fftmatvec``."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
from rich.console import Console

from . import launcher
from .comm import Comm
from .errors import ArgumentError, FFTMatvecError, FileError, RemoteError, VerificationError
from .matrix import Matrix
from .precision import MatvecPrecisionConfig
from .report import Measurement
from .results import write_results
from .testing import Tester
from .timing import PhaseTimer, time_runs
from .vector import Vector

# Exit statuses besides 0.
CHECK_FAILED = 1
BAD_ARGUMENTS = 2

# Untimed products before the timed ones: caches, clocks and the MPI library's own buffers settle.
_WARM_UP = 3


@dataclass(frozen=True)
class Options:
    """The command line, checked. The attributes' comments name their flags."""

    proc_rows: int | None  # -pr
    proc_cols: int | None  # -pc
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
    ranks: int | None  # -n
    path: Path | None
    input: Path | None
    expect: Path | None
    tolerance: float  # --tol
    backend: str
    collectives: str
    json: Path | None


@dataclass(frozen=True)
class Product:
    """One product to apply: F or F*, its operand and where its result goes."""

    op: str
    apply: Callable[..., None]
    operand: Vector
    result: Vector

    @property
    def file_name(self) -> str:
        """Name of the file that the result is saved in, without the star, which shells expand."""
        return f"output_{self.op.replace('*', '_adjoint')}.h5"


class _Parser(argparse.ArgumentParser):
    """A parser that raises, so that one rank alone prints the error."""

    def error(self, message: str) -> NoReturn:
        raise ArgumentError(message.removeprefix("argument "))


def _positive(text: str) -> int:
    with suppress(ValueError):
        if (value := int(text)) > 0:
            return value
    raise argparse.ArgumentTypeError(f"expected a positive integer, found {text!r}")


def _tolerance(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (value := float(text)) < float("inf"):
            return value
    raise argparse.ArgumentTypeError(f"expected a number that is not negative, found {text!r}")


def _precision(text: str) -> MatvecPrecisionConfig:
    try:
        return MatvecPrecisionConfig.from_code(text)
    except ArgumentError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _one_of(*names: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(names)}, found {text!r}")
        return text

    return check


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; sizes and grid default to None, to tell given from defaulted."""
    parser = _Parser(prog="fftmatvec", description=__doc__, allow_abbrev=False, add_help=False)
    add = parser.add_argument
    add("-h", "--help", action="store_true", help="print this and exit")
    add("-n", dest="ranks", type=_positive, metavar="RANKS", help="run on RANKS ranks under this environment's mpiexec")
    add("-pr", dest="proc_rows", type=_positive, metavar="ROWS", help="rows of the process grid (default 1)")
    add("-pc", dest="proc_cols", type=_positive, metavar="COLS", help="its columns (default 1; all ranks without -pr)")
    add("-g", dest="global_sizes", action="store_true", help="sizes are global (-Nm, -Nd), not each rank's (-nm, -nd)")
    add("-Nm", type=_positive, metavar="N", help="global block columns, with -g (default 10)")
    add("-Nd", type=_positive, metavar="N", help="global block rows, with -g (default 5)")
    add("-Nt", type=_positive, metavar="N", help="block size: time steps (default 7)")
    add("-nm", type=_positive, metavar="N", help="block columns of each rank, without -g (default 3)")
    add("-nd", type=_positive, metavar="N", help="block rows of each rank, without -g (default 2)")
    code = "of broadcast and pad, FFT, SBGEMV, IFFT, unpad and reduce: d or s; SBGEMV also i or h (default ddddd)"
    add("-prec", dest="precision", type=_precision, default="ddddd", metavar="CODE", help=code)
    add("-rand", dest="doubles", action="store_true", help="data that float32 cannot represent, instead of ones")
    add("-t", dest="check", action="store_true", help="check: ones by the exact answer, else by the dot test")
    add("-N", dest="repetitions", type=_positive, default=100, metavar="N", help="products to time (default 100)")
    add("-raw", action="store_true", help="print every timing as CSV instead of tables")
    add("-v", dest="verbose", action="store_true", help="print the input and output vectors")
    add("-s", dest="save", type=Path, metavar="DIR", help="save the output vectors in DIR (HDF5)")
    add("--path", type=Path, metavar="DIR", help="read the matrix from a directory")
    add("--input", type=Path, metavar="FILE", help="read F's input vector, with --path")
    add("--expect", type=Path, metavar="FILE", help="compare F's output with this vector, with --input")
    tolerance = "largest relative error that --expect allows (default 1e-6)"
    add("--tol", dest="tolerance", type=_tolerance, default=1e-6, metavar="X", help=tolerance)
    add("--backend", type=_one_of("auto", "cpu", "cuda"), default="auto", metavar="NAME", help="auto, cpu or cuda")
    add("--collectives", type=_one_of("auto", "mpi", "nccl"), default="auto", metavar="NAME", help="auto, mpi or nccl")
    add("--json", type=Path, metavar="FILE", help="write the results as JSON")
    return parser


def _check_combination(given: dict[str, object]) -> None:
    """Raise an ArgumentError for a flag that has no meaning beside the others, rather than ignore it."""
    from_file, global_sizes = given["path"] is not None, bool(given["global_sizes"])
    rules = (
        (("Nm", "Nd"), global_sizes, "with -g"),
        (("nm", "nd"), not global_sizes, "without -g"),
        (("Nm", "Nd", "Nt", "nm", "nd"), not from_file, "without --path, which tells the sizes"),
        (("input",), from_file, "with --path"),
        (("expect",), given["input"] is not None, "with --input"),
    )
    for names, allowed, where in rules:
        for name in names:
            if given[name] is not None and not allowed:
                flag = f"--{name}" if len(name) > 2 else f"-{name}"
                raise ArgumentError(f"{flag}: expected {where}, found {given[name]}")


def parse(argv: Sequence[str]) -> Options | None:
    """Return the options of a command line, or None where it asks for help.

    Raises
    ------
    ArgumentError
        A flag is unknown, out of place, or has a value outside its domain.
    """
    namespace, unknown = build_parser().parse_known_args(argv)
    given = vars(namespace)
    if given.pop("help"):
        return None
    if unknown:
        raise ArgumentError(f"expected the arguments that -h lists, found {' '.join(unknown)}")
    _check_combination(given)
    sizes = {name: given.pop(name) for name in ("Nm", "Nd", "Nt", "nm", "nd")}
    cols, rows = (("Nm", 10), ("Nd", 5)) if given["global_sizes"] else (("nm", 3), ("nd", 2))
    return Options(cols=sizes[cols[0]] or cols[1], rows=sizes[rows[0]] or rows[1], block_size=sizes["Nt"] or 7, **given)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, CHECK_FAILED or BAD_ARGUMENTS.

    An unexpected exception on one of several ranks aborts all of them, since the others would wait for ever.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments. By default the process's own, and then MPI ends with a status other than 0: all ranks have it,
        but ``python -m mpi4py`` would take it for one rank's death and abort, with messages that bury ours.
    """
    status = _main(sys.argv[1:] if argv is None else argv)
    if argv is None and status != 0:
        launcher.finalize()
    return status


def _main(arguments: Sequence[str]) -> int:
    speaks = launcher.launched_rank(os.environ) == 0
    try:
        options = parse(arguments)
        if options is None:
            print(build_parser().format_help() if speaks else "", end="")
            return 0
        if options.ranks is not None and not launcher.is_launched(os.environ):
            launcher.relaunch(options.ranks, arguments)
        _run_on_grid(options)
    except RemoteError:
        raise
    except FFTMatvecError as error:
        if speaks:
            print(f"fftmatvec: error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return CHECK_FAILED if isinstance(error, VerificationError) else BAD_ARGUMENTS
    return 0


def _run_on_grid(options: Options) -> None:
    alone = options.proc_rows is None and options.proc_cols is None
    grid = (1, None) if alone else (options.proc_rows or 1, options.proc_cols or 1)
    with Comm(None, *grid, backend=options.backend, collectives=options.collectives) as comm:
        try:
            if options.ranks not in (None, comm.world_size):
                raise ArgumentError(f"-n: expected the launcher's {comm.world_size} ranks, found {options.ranks}")
            _run(comm, options)
        except FFTMatvecError:
            raise  # every rank raises it
        except Exception:
            if comm.world_size == 1:
                raise
            traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            comm.global_comm.Abort(1)


def _run(comm: Comm, options: Options) -> None:
    """Build the matrix and its operands, apply, check, time and report both products."""
    _check_json_folder(comm, options.json)
    matrix = _build_matrix(comm, options)
    x, y = matrix.get_vec("input"), matrix.get_vec("output")
    for vector in (x, y):
        if vector is x and options.input is not None:
            x.init_vec_from_file(str(options.input))
        elif options.doubles:
            vector.init_vec_doubles()
        else:
            vector.init_vec_ones()
    products = (
        Product("F", matrix.matvec, x, matrix.get_vec("output")),
        Product("F*", matrix.transpose_matvec, y, matrix.get_vec("input")),
    )
    for product in products:
        product.apply(product.operand, product.result)
    console = Console(quiet=comm.world_rank != 0, soft_wrap=True, highlight=False)
    errors = _check(comm, matrix, products, options, console)
    if options.verbose:
        _print_vectors(products, console)
    if options.save is not None:
        _save(comm, products, options.save)
    _time(comm, matrix, products, options, errors, console)


def _check_json_folder(comm: Comm, path: Path | None) -> None:
    """Raise a FileError before the work, not after it, where the results could not be written."""
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


def _check(
    comm: Comm, matrix: Matrix, products: Sequence[Product], options: Options, console: Console
) -> dict[str, float]:
    """Check what was asked; return the relative errors of the products whose exact result is known, on every rank."""
    errors: dict[str, float] = {}
    if options.check and (options.doubles or options.path is not None):
        console.print(f"dot test: passed, relative mismatch {dot_test(matrix, *products):.2e}")
    elif options.check:
        for product in products:
            conj = product.op == "F*"
            errors[product.op] = Tester.check_ones_matvec(comm, matrix, product.result, conj=conj)
    if options.expect is not None:
        errors["F"] = _compare(matrix, products[0].result, options.expect, options.tolerance)
    for op, error in errors.items():
        console.print(f"{op}: checked, relative error {error:.2e}")
    return errors


def dot_test(matrix: Matrix, forward: Product, adjoint: Product) -> float:
    """Return how far <F x, y> and <x, F* y> differ, relative to their sizes; collective.

    The bound is that of the two products, 2 u (1 + log2 2Nt) S each (see `Tester`), where for blocks and
    vectors with entries in [1, 2] S = sqrt(Nd) Nm (2 Nt) (2 sqrt(Nt)) is at most 4 sqrt(3) times the norm of F x, and
    likewise of F* y. The sums themselves are taken in extended precision and add nothing. For a matrix from a file,
    where products may cancel, the bound can be too strict: compare with an expected vector instead.

    Raises
    ------
    VerificationError
        The difference is beyond the bound.
    """
    x, y = forward.operand.gather(), adjoint.operand.gather()
    f_x, f_y = forward.result.gather(), adjoint.result.gather()
    left, right = np.sum(f_x * y, dtype=np.longdouble), np.sum(x * f_y, dtype=np.longdouble)
    norm = np.linalg.norm
    size = norm(f_x) * norm(y) + norm(x) * norm(f_y)
    error = float(abs(left - right) / size) if size else float(left != right)
    stages = 1 + np.log2(2 * matrix.get_block_size())
    bound = 4 * np.sqrt(3) * 2 * matrix.get_precision_config().unit_roundoff * stages
    if not error <= bound:
        raise VerificationError(f"dot test: expected <F x, y> = <x, F* y> to {bound:.2e}, found {error:.2e}")
    return error


def _compare(matrix: Matrix, result: Vector, path: Path, tolerance: float) -> float:
    expected = matrix.get_vec("output")
    expected.init_vec_from_file(str(path))
    exact = expected.gather()
    error = float(np.linalg.norm(result.gather() - exact) / (np.linalg.norm(exact) or 1.0))
    if not error <= tolerance:
        raise VerificationError(f"{path}: expected a relative error of at most {tolerance:.2e}, found {error:.2e}")
    return error


def _print_vectors(products: Sequence[Product], console: Console) -> None:
    for product in products:
        for role, vector in (("input", product.operand), ("output", product.result)):
            console.print(f"{product.op} {role}:\n{vector.gather()}", markup=False)


def _save(comm: Comm, products: Sequence[Product], directory: Path) -> None:
    with comm.agreement("save the output vectors"):
        if comm.world_rank == 0:
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise FileError(f"-s: expected a directory, found: {error}") from error
    for product in products:
        product.result.save(str(directory / product.file_name))


def _measure(comm: Comm, matrix: Matrix, product: Product, repetitions: int) -> Measurement:
    """Time a product, its phases one by one and then as a whole; collective. Every rank gets the timings of all."""
    timer = PhaseTimer(comm)
    run = partial(product.apply, product.operand, product.result)
    for _ in range(_WARM_UP):
        run()
        run(timer=timer)
    timer.reset()
    for _ in range(repetitions):
        run(timer=timer)
    seconds = timer.seconds() | {"total": time_runs(comm, run, repetitions)}
    gather = comm.global_comm.allgather
    return Measurement(product.op, gather(seconds), gather(int(matrix.nbytes)))


def _time(
    comm: Comm,
    matrix: Matrix,
    products: Sequence[Product],
    options: Options,
    errors: dict[str, float],
    console: Console,
) -> None:
    """Time the products, and print or write what came out."""
    shape = matrix.get_glob_num_cols(), matrix.get_glob_num_rows(), matrix.get_block_size()
    grid, code = (comm.proc_rows, comm.proc_cols), options.precision.code
    title = "Nm {}, Nd {}, Nt {}, {}, {} x {} ranks, {}, {} products".format(
        *shape, code, *grid, comm.backend.name, options.repetitions
    )
    records = []
    for product in products:
        measurement = _measure(comm, matrix, product, options.repetitions)
        peak = max(comm.global_comm.allgather(comm.backend.peak_bytes()))
        error = errors.get(product.op)
        records.append(measurement.record(shape=shape, precision=code, grid=grid, rel_error=error, peak_bytes=peak))
        if options.raw:
            console.print("\n".join(measurement.raw_lines()), markup=False)
        else:
            console.print(measurement.table(title))
    if options.json is not None:
        with comm.agreement("write the results"):
            if comm.world_rank == 0:
                write_results(options.json, records, comm.backend.device_name())
