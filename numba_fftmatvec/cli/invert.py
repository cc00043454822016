"""The command ``fftmatvec invert``: the source of measured data and a forecast, by exact Bayesian inversion."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..comm import Comm
from ..errors import ArgumentError, BackendError, FileError, FileFormatError
from ..inversion import Noise, Prior, RealTimeInversion
from ..io import read_meta
from ..io.atomic import os_errors
from ..layout import MatrixLayout, Space
from ..matrix import Matrix
from ..plotting.overview import save_overview
from ..progress import show_steps
from ..vector import Vector
from . import grid, model
from .parser import Parser
from .tables import print_json, print_table, table

PICTURE = "picture.png"
_STAGES = ("reading", "factorising", "inferring", "posterior deviations", "writing")
_PATIENCE = 10.0  # seconds of an expected duration that is printed before the work
_PROBE = 512  # rows and columns of the product that measures the speed of this machine


@dataclass
class Outcome:
    """The results of an inversion, the same on every rank, but for the vectors, which are distributed."""

    mean: Vector
    variance: Vector
    forecast: tuple[Any, Any] | None
    chi2: float
    log_evidence: float


@dataclass
class Clock:
    """Measures the seconds of each stage on this rank, and shows the progress."""

    show: Callable[[int, str], None]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the body."""
        self.show(len(self.seconds), name.capitalize())
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def build_parser() -> Parser:
    """Return the parser of the command."""
    description = (
        "Infer the source of data that F maps it to: the posterior mean and deviation and, with --forecast, the mean "
        "and the variance of quantities of interest. Write them with a summary and a picture to a new directory."
    )
    parser = Parser("invert", description)
    flag = parser.add_argument
    flag("directory", type=Path, metavar="DIR", help="the matrix directory of F")
    flag(
        "--data", type=Path, required=True, metavar="FILE", help="the data: a vector's file, or .npy of shape (Nd, Nt)"
    )
    flag("--forecast", type=Path, metavar="DIR", help="the matrix directory of the map to quantities of interest")
    default = f"white, deviation 1; noise {100 * model.DEFAULT_NOISE:g} %% of the data's root mean square"
    flag("--model", type=Path, metavar="FILE", help=f"prior and noise in TOML (default: {default})")
    flag("--output", type=Path, default=Path("inversion"), metavar="OUT", help="a new directory (default inversion)")
    flag("--json", action="store_true", help="print JSON")
    grid.add(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command, on as many ranks as ``-n`` has."""
    options = build_parser().values(arguments)
    on_grid = grid.grid_options(options)
    grid.start_ranks(on_grid, "invert", arguments)
    with grid.process_grid(on_grid) as comm, _new_directory(comm, options["output"]) as folder:
        with show_steps(len(_STAGES), enabled=comm.world_rank == 0) as show:
            clock = Clock(show)
            summary = _invert(comm, options, folder, clock)
        with comm.agreement("writing the summary"):
            if comm.world_rank == 0:
                summary["seconds"] = clock.seconds
                with os_errors(options["output"], "write the summary"):
                    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    if comm.world_rank == 0:
        print_json(summary) if options["json"] else _print(summary, options)
    return 0


@contextmanager
def _new_directory(comm: Comm, path: Path) -> Iterator[Path]:
    """Yield a hidden directory that becomes `path` when the body succeeds, and is removed otherwise; collective."""
    made: Path | None = None
    with comm.agreement("creating the output"):
        if comm.world_rank == 0:
            if path.exists() or path.is_symlink():
                raise FileError(f"--output: expected a path without a file, found {path}; remove it or name another")
            if not path.absolute().parent.is_dir():
                raise FileError(f"--output: expected a path in a directory that exists, found {path}")
            with os_errors(path, "create the directory"):
                made = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.absolute().parent))
    try:
        temporary: Any = comm.bcast(made)
        yield temporary
        with comm.agreement("creating the output"):
            if made is not None:
                with os_errors(path, "create the directory"):
                    made.chmod(0o755)
                    made.rename(path.absolute())
    except BaseException:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        raise


def _invert(comm: Comm, options: dict[str, Any], folder: Path, clock: Clock) -> dict[str, Any]:
    """Invert, write the results and return their summary; collective."""
    with clock.stage("reading"):
        F = _matrix(comm, options["directory"])
        G = None if options["forecast"] is None else _matrix(comm, options["forecast"])
        data = _data(comm, options["data"], F.layout)
        prior, noise = _model(comm, options["model"], data, F.layout)
    inversion = RealTimeInversion(F, prior, noise, G)
    estimate = _estimate(F.layout, 0 if G is None else G.layout.Nd, comm)
    if comm.world_rank == 0 and not options["json"] and estimate > _PATIENCE:
        print(f"{F.layout.Nd * F.layout.Nt} data: expected to take about {estimate:.0f} s", flush=True)
    outcome = _outcome(inversion, data, clock)
    with clock.stage("writing"):
        picture = _write(comm, folder, outcome, G, getattr(prior, "shape", None))
    count = F.layout.Nd * F.layout.Nt
    return {
        "output": str(options["output"]),
        "files": [*sorted(path.name for path in folder.iterdir()), "summary.json"] if comm.world_rank == 0 else [],
        "picture": picture,
        "shape": {"Nd": F.layout.Nd, "Nm": F.layout.Nm, "Nt": F.layout.Nt, "Nq": 0 if G is None else G.layout.Nd},
        "ranks": comm.world_size,
        "backend": comm.backend.name,
        "model": _described(options["model"], prior, noise),
        "chi2_per_datum": outcome.chi2 / count,
        "log_evidence": outcome.log_evidence,
    }


def _matrix(comm: Comm, path: Path) -> Matrix:
    """Return the matrix of a directory, of observations or of quantities."""
    qoi = False
    with comm.agreement(f"reading {path}"):
        if comm.world_rank == 0:
            qoi = read_meta(path).is_p2q
    return Matrix(comm, path, QoI=bool(comm.bcast(qoi)))


def _data(comm: Comm, path: Path, layout: MatrixLayout) -> Any:
    """Return the global data, an (Nd, Nt) array on every rank."""
    if path.suffix != ".npy":
        vector = Vector.from_layout(comm, layout.vector(Space.ROW))
        vector.init_vec_from_file(path)
        return vector.gather()
    values = None
    with comm.agreement(f"reading {path}"):
        if comm.world_rank == 0:
            values = _array(path)
            if values.shape != (layout.Nd, layout.Nt):
                sizes = (layout.Nd, layout.Nt)
                raise FileFormatError(f"{path}: expected shape (Nd, Nt) = {sizes}, found {values.shape}")
    return comm.bcast(values)


def _array(path: Path) -> Any:
    """Return the real numbers of a file of NumPy."""
    try:
        values = np.load(path, allow_pickle=False)
    except OSError as error:
        raise FileError(f"{path}: expected a readable file, found: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise FileFormatError(f"{path}: expected a .npy file of numbers, found: {error}") from error
    if values.dtype.kind not in "fiu":
        raise FileFormatError(f"{path}: expected real numbers, found {values.dtype}")
    return values.astype(np.float64)


def _model(comm: Comm, path: Path | None, data: Any, layout: MatrixLayout) -> tuple[Prior, Noise]:
    """Return the prior and the noise of a file, or the default ones."""
    text = ""
    with comm.agreement("reading the model"):
        if path is not None and comm.world_rank == 0:
            text = model.read_text(path)
    text = comm.bcast(text)
    with comm.agreement("reading the model"):
        if not np.isfinite(data).all():
            raise ArgumentError(f"--data: expected finite values, found {int((~np.isfinite(data)).sum())} others")
        return model.default(data, layout.Nm) if path is None else model.parse(text, path, layout.Nm)


def _estimate(layout: MatrixLayout, quantities: int, comm: Comm) -> float:
    """Return the expected seconds by the operations and the speed of a product on this CPU; 0 on a GPU."""
    if comm.backend.name != "cpu":
        return 0.0
    data, sources = layout.Nd * layout.Nt, layout.Nm * layout.Nt
    operations = data**3 / 3 + data**2 * (sources + quantities * layout.Nt)
    values = np.ones((_PROBE, _PROBE))
    start = time.perf_counter()
    values @ values
    return max(comm.allgather(operations / (2 * _PROBE**3) * (time.perf_counter() - start))) / comm.world_size


def _outcome(inversion: RealTimeInversion, data: Any, clock: Clock) -> Outcome:
    with clock.stage("factorising"):
        inversion.factorise()
    with clock.stage("inferring"):
        mean = inversion.infer(data)
        found = inversion.forecast(data) if inversion.factor.forecast is not None else None
        chi2, log_evidence = inversion.chi2(data), inversion.log_evidence(data)
    with clock.stage("posterior deviations"):
        variance = inversion.posterior_variance()
    forecast = None if found is None else (found.mean, found.variance)
    return Outcome(mean, variance, forecast, chi2, log_evidence)


def _write(comm: Comm, folder: Path, outcome: Outcome, G: Matrix | None, shape: Any) -> str | None:
    """Write the vectors and the picture; return the picture's name, None without matplotlib. Collective."""
    mean, variance = outcome.mean.gather(), outcome.variance.gather()
    deviation = Vector.from_layout(comm, outcome.variance.layout)
    deviation.scatter(np.sqrt(variance))
    outcome.mean.save(folder / "mean.h5")
    deviation.save(folder / "deviation.h5")
    if G is not None and outcome.forecast is not None:
        for name, values in zip(("mean", "variance"), outcome.forecast, strict=True):
            vector = Vector.from_layout(comm, G.layout.vector(Space.ROW))
            vector.scatter(values)
            vector.save(folder / f"forecast_{name}.h5", QoI=True)
    drawn = None
    with comm.agreement("drawing the picture"):
        if comm.world_rank == 0:
            try:
                plane = shape if shape is not None and len(shape) <= 2 else None
                save_overview(folder / PICTURE, mean, variance, shape=plane, forecast=outcome.forecast)
                drawn = PICTURE
            except BackendError:
                drawn = None
    return drawn


def _described(path: Path | None, prior: Prior, noise: Noise) -> str:
    source = "default" if path is None else str(path)
    return f"{source}: {type(prior).__name__}, {type(noise).__name__}"


def _print(summary: dict[str, Any], options: dict[str, Any]) -> None:
    shape = summary["shape"]
    title = "Nd {Nd}, Nm {Nm}, Nt {Nt}, Nq {Nq}".format(**shape) + f", {summary['ranks']} ranks, {summary['backend']}"
    rows = [
        ("model", summary["model"]),
        ("chi2 per datum [1]", f"{summary['chi2_per_datum']:.4f}"),
        ("log evidence [nat]", f"{summary['log_evidence']:.4f}"),
        *((f"{stage} [s]", f"{seconds:.3f}") for stage, seconds in summary["seconds"].items()),
    ]
    print_table(table(title, ("quantity", "value"), rows))
    if options["model"] is None:
        print("The default prior and noise are guesses; --model names a TOML file with yours.")
    for name in summary["files"]:
        print(options["output"] / name)
    if summary["picture"] is None:
        print("no picture: matplotlib is not installed; pip install 'numba-fftmatvec[plot]' adds it")
