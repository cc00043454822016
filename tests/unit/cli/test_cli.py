"""The runner: its command line, and whole runs on one rank and on several."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import numba_fftmatvec as fm
from numba_fftmatvec import cli
from numba_fftmatvec.cli import grid, launcher, results
from numba_fftmatvec.errors import ArgumentError
from numba_fftmatvec.products import Product
from support.harness import _LAUNCHER_VARIABLES as LAUNCHER_VARIABLES

ROOT = Path(__file__).resolve().parents[3]
FLAGS = ["-pr", "-pc", "-g", "-Nm", "-Nd", "-Nt", "-nm", "-nd", "-v", "-N", "-raw", "-t", "-prec", "-s", "-rand", "-n"]
FLAGS += ["--path", "--input", "--expect", "--tol", "--backend", "--collectives", "--json"]


def parse(*argv: str) -> cli.Options:
    return cli.parse(argv)


def test_defaults_are_the_originals() -> None:
    options = parse()
    assert (options.cols, options.rows, options.block_size, options.global_sizes) == (3, 2, 7, False)
    assert (options.proc_rows, options.proc_cols, options.ranks) == (None, None, None)
    assert (options.repetitions, options.precision.code, options.tolerance) == (100, "ddddd", 1e-6)
    assert not (options.verbose or options.raw or options.check or options.doubles)
    assert (options.backend, options.collectives) == ("auto", "auto")


def test_global_sizes_have_their_own_defaults() -> None:
    options = parse("-g")
    assert (options.cols, options.rows) == (10, 5)


def test_every_flag_of_the_original() -> None:
    line = "-pr 2 -pc 3 -g -Nm 40 -Nd 30 -Nt 20 -v -N 5 -raw -t -prec DSsdD -s out -rand"
    options = parse(*line.split())
    assert (options.proc_rows, options.proc_cols) == (2, 3)
    assert (options.cols, options.rows, options.block_size, options.repetitions) == (40, 30, 20, 5)
    assert options.verbose
    assert options.raw
    assert options.check
    assert options.doubles
    assert (options.precision.code, options.save) == ("dssdd", Path("out"))
    assert (parse("-nm", "4", "-nd", "9").cols, parse("-nm", "4", "-nd", "9").rows) == (4, 9)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-Nt 0", "-Nt: expected a positive integer, found '0'"),
        ("-N -5", "-N: expected a positive integer, found '-5'"),
        ("-g -Nm many", "-Nm: expected a positive integer, found 'many'"),
        ("-Nt", "-Nt: expected one argument"),
        ("-prec ddx", "-prec: precision code: expected 5 letters, found 'ddx'"),
        ("-prec ddxdd", "-prec: precision code 'ddxdd': expected letters of d, s, i, h, found 'x'"),
        ("-prec dhddd", "-prec: precision of fft: expected DOUBLE or SINGLE, found FIXED16, a format of sbgemv"),
        ("-prec ddddi", "-prec: precision of unpad_and_reduce: expected DOUBLE or SINGLE, found FIXED32"),
        ("--backend tpu", "--backend: expected one of auto, cpu, cuda, found 'tpu'"),
        ("--collectives tcp", "--collectives: expected one of auto, mpi, nccl, found 'tcp'"),
        ("--path d --tol -1", "--tol: expected a number that is not negative, found '-1'"),
        ("--path d --tol nan", "--tol: expected a number that is not negative, found 'nan'"),
        ("-pr many", "-pr: expected a positive integer or auto, found 'many'"),
        ("-g -pr auto -pc 2", "-pc: expected without -pr auto, which sets the columns, found 2"),
        ("-pr auto", "-pr: expected a number of rows, or global sizes by -g or --path, found auto"),
        ("-Nm 5", "-Nm: expected with -g, found 5"),
        ("-g -nd 5", "-nd: expected without -g, found 5"),
        ("--path d -Nt 5", "-Nt: expected without --path"),
        ("--input x.h5", "--input: expected with --path, found x.h5"),
        ("--path d --expect y.h5", "--expect: expected with --input, found y.h5"),
        ("-t --jsn out", "found --jsn out"),
        ("--json", "--json: expected one argument"),
    ],
)
def test_bad_arguments_say_expected_and_found(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ArgumentError) as caught:
        cli.parse(line.split())
    assert message in str(caught.value)
    assert cli.main(line.split()) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert message in errors


def test_help_tells_the_letters_of_precisions(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "-h"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "unpad and reduce: d or s; SBGEMV also i or h (default ddddd)" in text


def test_help_lists_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["-Nt", "5", "-h"]) == 0
    text = capsys.readouterr().out
    for flag in FLAGS:
        assert f" {flag} " in text or f" {flag}\n" in text, flag


def run(*argv: str) -> int:
    return cli.main(["--backend", "cpu", "-N", "3", *argv])


@pytest.mark.parametrize(
    ("precision", "largest", "item"),
    [("ddddd", 1e-14, 16), ("dssdd", 1e-5, 8), ("ddidd", 1e-8, 8), ("DDHDD", 1e-3, 4)],
)
def test_results_are_checked_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], precision: str, largest: float, item: int
) -> None:
    path = tmp_path / "results.json"
    assert run("-g", "-Nm", "6", "-Nd", "4", "-Nt", "9", "-t", "-prec", precision, "--json", str(path)) == 0
    text = capsys.readouterr().out
    assert "F: checked, relative error" in text
    assert "F*: checked, relative error" in text
    assert text.count("SBGEMV") == 2
    records = results.read_results(path)["records"]
    assert [record["op"] for record in records] == ["F", "F*"]
    assert all(record["shape"] == [6, 4, 9] and record["grid"] == [1, 1] for record in records)
    assert all(0 <= record["rel_error"] < largest for record in records)
    assert all(record["spectrum_bytes"] >= 6 * 4 * 10 * item for record in records)


@pytest.mark.parametrize("precision", ["ddddd", "sssss", "ddidd", "sshss"])
def test_other_data_is_checked_by_the_dot_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    path = tmp_path / "results.json"
    assert run("-rand", "-t", "-prec", precision, "--json", str(path)) == 0
    assert "dot test: passed, relative mismatch" in capsys.readouterr().out
    assert [record["rel_error"] for record in results.read_results(path)["records"]] == [None, None]


def test_raw_timings_are_csv(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-raw") == 0
    rows = list(csv.reader(capsys.readouterr().out.splitlines()))
    totals = [row for row in rows if row[3] == "total"]
    assert [row[:3] for row in totals] == [[op, "0", str(index)] for op in ("F", "F*") for index in range(3)]
    assert all(float(row[4]) > 0 for row in rows)


def test_vectors_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-v", "-raw", "-nm", "2", "-nd", "1", "-Nt", "3") == 0
    text = capsys.readouterr().out
    assert "F input:\n[[1. 1. 1.]\n [1. 1. 1.]]\nF output:\n[[2. 4. 6.]]\n" in text
    assert "F* output:\n[[3. 2. 1.]\n [3. 2. 1.]]\n" in text


def test_output_vectors_are_saved(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    assert run("-s", str(folder), "-nm", "2", "-nd", "1", "-Nt", "3") == 0
    with fm.Comm(backend="cpu") as comm:
        saved = fm.Vector(comm, 1, 3, "row")
        saved.init_vec_from_file(str(folder / "output_F.h5"))
        np.testing.assert_allclose(saved.gather(), [[2.0, 4.0, 6.0]], rtol=1e-14)
        saved = fm.Vector(comm, 2, 3, "col")
        saved.init_vec_from_file(str(folder / "output_F_adjoint.h5"))
        np.testing.assert_allclose(saved.gather(), [[3.0, 2.0, 1.0]] * 2, rtol=1e-14)


def test_a_folder_that_cannot_be_made_is_a_bad_argument(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run("-s", str(tmp_path / "file")) == 2
    assert "-s: expected a directory, found" in capsys.readouterr().err


def test_results_without_a_folder_are_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--json", str(tmp_path / "absent" / "results.json")) == 2
    output = capsys.readouterr()
    assert "--json: expected a file in a folder that exists, found" in output.err
    assert output.out == ""


def write_problem(folder: Path) -> tuple[Path, Path, Path]:
    """Write a random matrix, a parameter vector, and their data vector by the definition of F."""
    rng = np.random.default_rng(7)
    blocks, m = rng.standard_normal((3, 5, 8)), rng.standard_normal((5, 8))
    d = np.array([[sum(blocks[i, :, t - s] @ m[:, s] for s in range(t + 1)) for t in range(8)] for i in range(3)])
    with fm.Comm(backend="cpu") as comm:
        F = fm.Matrix(comm, 5, 3, 8, global_sizes=True)
        F.init_mat_from_array(blocks)
        F.save(str(folder / "matrix"))
        for name, space, values in (("m.h5", "input", m), ("d.h5", "output", d), ("wrong.h5", "output", d + 0.01)):
            vector = F.get_vec(space)
            vector.scatter(values)
            vector.save(str(folder / name))
    return folder / "matrix", folder / "m.h5", folder / "d.h5"


def test_a_matrix_from_a_directory_is_compared_with_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    matrix, m, d = write_problem(tmp_path)
    line = ["--path", str(matrix), "--input", str(m), "--expect"]
    assert run(*line, str(d), "--tol", "1e-13") == 0
    assert "F: checked, relative error" in capsys.readouterr().out
    assert run(*line, str(tmp_path / "wrong.h5")) == 1
    assert "expected a relative error of at most 1.00e-06, found" in capsys.readouterr().err


def test_the_reference_problem(reference_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("test_mat", "test_param_vec_SOTI.h5", "test_obs_vec_SOTI.h5")
    path, m, d = (str(reference_data / name) for name in names)
    assert run("--path", path, "--input", m, "--expect", d) == 0
    assert run("--path", path, "--input", m, "--expect", d, "--tol", "1e-9") == 1
    assert "found 4.58e-08" in capsys.readouterr().err


def test_a_missing_matrix_is_a_bad_argument(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--path", str(tmp_path / "absent")) == 2
    assert "absent" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["scale", "one entry"])
@pytest.mark.parametrize("data", [[], ["-rand"]])
def test_a_wrong_product_fails_the_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], change: str, data: list[str]
) -> None:
    apply = fm.Matrix.apply_product

    def wrong(self: fm.Matrix, product: Product, x: fm.Vector, y: fm.Vector, **options: object) -> None:
        apply(self, product, x, y, **options)
        if product.name != "F":
            return
        values = y.gather()
        if change == "scale":
            values *= 1 + 1e-10
        else:
            values[1, 2] *= 1 + 1e-9
        y.scatter(values)

    monkeypatch.setattr(fm.Matrix, "apply_product", wrong)
    assert run("-t", *data) == 1
    assert "expected" in capsys.readouterr().err


def start(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as from a shell that no launcher started."""
    clean = {name: value for name, value in os.environ.items() if not LAUNCHER_VARIABLES.match(name)}
    clean |= {"PYTHONPATH": str(ROOT), "NUMBA_FFTMATVEC_BACKEND": "cpu"} | environment
    return subprocess.run(command, env=clean, capture_output=True, text=True, timeout=120, cwd=ROOT)


RUNNER = (sys.executable, "-m", "numba_fftmatvec")


@pytest.mark.mpi
def test_four_ranks_in_a_grid(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    line = "-n 4 -pr 2 -pc 2 -g -Nm 7 -Nd 5 -Nt 6 -N 3 -t --json"
    done = start(*RUNNER, *line.split(), str(path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("F: checked") == 1
    assert done.stdout.count("reduce") == 2
    assert [(record["ranks"], record["grid"]) for record in results.read_results(path)["records"]] == [(4, [2, 2])] * 2


@pytest.mark.mpi
def test_without_a_grid_all_ranks_are_columns(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    done = start(sys.executable, "bench/fft_matvec.py", "-n", "3", "-t", "-rand", "-N", "2", "--json", str(path))
    assert done.returncode == 0, done.stderr
    records = results.read_results(path)["records"]
    assert [(record["grid"], record["shape"]) for record in records] == [([1, 3], [9, 2, 7])] * 2


@pytest.mark.mpi
@pytest.mark.parametrize(("sizes", "shape"), [("-Nm 600 -Nd 3", [1, 3]), ("-Nm 3 -Nd 600", [3, 1])])
def test_the_grid_is_chosen_by_the_sizes(tmp_path: Path, sizes: str, shape: list[int]) -> None:
    path = tmp_path / "results.json"
    done = start(*RUNNER, *f"-n 3 -pr auto -g {sizes} -Nt 4 -N 2 --json".split(), str(path))
    assert done.returncode == 0, done.stderr
    assert [record["grid"] for record in results.read_results(path)["records"]] == [shape] * 2


def test_the_grid_is_chosen_by_the_sizes_of_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def best_grid(*sizes: object, **options: object) -> tuple[int, int]:
        asked.append(sizes[:4])
        return fm.best_grid(*sizes, **options)  # type: ignore[arg-type]

    matrix, _, _ = write_problem(tmp_path)
    monkeypatch.setattr("numba_fftmatvec.cli.run.best_grid", best_grid)
    assert run("-pr", "auto", "--path", str(matrix)) == 0
    assert asked == [(3, 5, 8, 1)]
    assert "Nm 5, Nd 3, Nt 8, ddddd, 1 x 1 ranks" in capsys.readouterr().out


def test_no_grid_is_chosen_without_sizes() -> None:
    with (
        pytest.raises(ArgumentError, match="since no sizes are known, found auto"),
        grid.process_grid(parse("-g", "-pr", "auto", "--backend", "cpu")),
    ):
        pass


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-n 5 -pr auto -g -Nm 2 -Nd 3", "expected a block for each of 5 ranks, found 3 x 2 blocks"),
        ("-n 2 -pr auto --path absent", "absent"),
        ("-n 2 -pr 2 -pc 2", "2"),
        ("-n 2 -g -Nm 1", "expected at least one block for each of 2 ranks, found 1 blocks"),
        ("-n 2 --path absent", "absent"),
    ],
)
def test_bad_input_is_told_once_by_several_ranks(line: str, message: str) -> None:
    done = start(*RUNNER, *line.split())
    assert done.returncode == 2
    (error,) = done.stderr.splitlines()
    assert error.startswith("fftmatvec: error: ")
    assert message in error


@pytest.mark.mpi
def test_ranks_that_a_launcher_started_are_counted() -> None:
    mpiexec = launcher.find_mpiexec(sys.executable)
    done = start(mpiexec, "-n", "2", sys.executable, "-m", "mpi4py", "-m", "numba_fftmatvec", "-n", "3")
    assert done.returncode == 2
    assert done.stderr == "fftmatvec: error: -n: expected the launcher's 2 ranks, found 3\n"


ALLOCATION = {"SLURM_JOB_ID": "1", "SLURM_NODELIST": "node[1-2]", "SLURM_NNODES": "2", "SLURM_TASKS_PER_NODE": "1(x2)"}


@pytest.mark.mpi
@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_PROCID": "0", "SLURM_STEP_ID": "0"},
        {"PMI_RANK": "0", "PMI_SIZE": "1"},
        ALLOCATION,
        ALLOCATION | {"SLURM_PROCID": "0", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "2"},
        {"PBS_JOBID": "1", "PBS_ENVIRONMENT": "PBS_BATCH", "PBS_NODEFILE": "/absent", "HYDRA_LAUNCHER": "ssh"},
    ],
    ids=["interactive step", "alone", "SLURM job", "SLURM shell", "PBS job"],
)
def test_ranks_start_in_a_job(environment: dict[str, str]) -> None:
    done = start(*RUNNER, "-n", "2", "-t", "-N", "2", **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("1 x 2 ranks") == 2


@pytest.mark.mpi
def test_a_process_that_a_launcher_started_alone_starts_ranks() -> None:
    mpiexec = launcher.find_mpiexec(sys.executable)
    done = start(mpiexec, "-n", "1", *RUNNER, "-n", "2", "-N", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("1 x 2 ranks") == 2


# Rank 1 alone raises an error in a function of the library.
FAILING = """
import sys
from mpi4py import MPI
import numba_fftmatvec as fm
from numba_fftmatvec import cli
place, name, error = sys.argv[1:4]
place = eval(place)
function = getattr(place, name)
def fail(*arguments, **options):
    if MPI.COMM_WORLD.rank == 1:
        raise eval(error)
    return function(*arguments, **options)
setattr(place, name, fail)
sys.exit(cli.main(sys.argv[4:]))
"""


def start_failing(folder: Path, place: str, error: str, shell: str = "") -> subprocess.CompletedProcess[str]:
    """Run the runner on two ranks of which the second raises an error in a place; `shell` redirects its outputs."""
    script = folder / "failing.py"
    script.write_text(FAILING)
    owner, _, name = place.rpartition(".")
    mpiexec = launcher.find_mpiexec(sys.executable)
    program = [sys.executable, str(script), owner, name, error, "-N", "2"]
    if shell:
        program = ["sh", "-c", f'exec "$@" {shell}', "sh", *program]
    return start(mpiexec, "-n", "2", *program)


@pytest.mark.mpi
@pytest.mark.parametrize(
    "error",
    ["RuntimeError('one rank alone')", "fm.ShapeError('one rank alone')", "KeyboardInterrupt('one rank alone')"],
)
@pytest.mark.parametrize(
    "place", ["fm.Matrix.apply_product", "fm.Comm._choose_collectives", "fm.Matrix.get_block_size"]
)
def test_an_error_on_one_rank_ends_all(tmp_path: Path, place: str, error: str) -> None:
    done = start_failing(tmp_path, place, error)
    assert done.returncode != 0
    assert f"{error.partition('(')[0].removeprefix('fm.')}: one rank alone" in done.stderr


@pytest.mark.mpi
def test_an_error_on_one_rank_ends_all_without_an_error_output(tmp_path: Path) -> None:
    done = start_failing(tmp_path, "fm.Matrix.apply_product", "fm.ShapeError('one rank alone')", shell="2>&-")
    assert done.returncode != 0


@pytest.mark.mpi
def test_an_error_that_all_ranks_agreed_on_is_printed_once(tmp_path: Path) -> None:
    place = "sys.modules['numba_fftmatvec.comm.comm'].select_backend"
    done = start_failing(tmp_path, place, "fm.CapacityError('on one rank')")
    assert (done.returncode, done.stderr) == (2, "fftmatvec: error: on one rank\n")


@pytest.mark.mpi
@pytest.mark.parametrize("line", ["-t", "-t -rand", "--path matrix --input m.h5 --expect wrong.h5"])
def test_a_failed_check_is_printed_once_by_several_ranks(tmp_path: Path, line: str) -> None:
    write_problem(tmp_path)
    script = tmp_path / "strict.py"
    script.write_text(
        "import sys, numba_fftmatvec as fm; from numba_fftmatvec import cli, testing\n"
        "testing.ones_tolerance = lambda *arguments: -1.0\n"
        "fm.Matrix.unit_roundoff = -1.0\n"
        "sys.exit(cli.main())\n"
    )
    arguments = [str(tmp_path / word) if (tmp_path / word).exists() else word for word in line.split()]
    done = start(launcher.find_mpiexec(sys.executable), "-n", "2", sys.executable, str(script), "-N", "2", *arguments)
    assert done.returncode == 1
    (error,) = done.stderr.splitlines()
    assert error.startswith("fftmatvec: error: ")


@pytest.mark.mpi
def test_readme_example_runs_on_several_ranks(tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    products = blocks[0] + next(block for block in blocks if "transpose_matvec" in block)
    script.write_text(products + "print(f'{np.linalg.norm(source - truth) / np.linalg.norm(truth):.3f}')\n")
    mpiexec = launcher.find_mpiexec(sys.executable)
    done = start(mpiexec, "-n", "3", sys.executable, "-m", "mpi4py", str(script), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    errors = re.findall(r"\d\.\d{3}", done.stdout)  # the ranks' lines may share one
    assert len(errors) == 3 and len(set(errors)) == 1
    assert float(errors[0]) < 0.6
