"""The command ``fftmatvec bench``: products on this machine, beside its copy bandwidth and NumPy."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..comm import Comm
from ..errors import ArgumentError
from ..kernels.elementwise import map_launcher
from ..matrix import Matrix
from ..plan import time_runs
from ..products import PRODUCTS, Product
from ..progress import show_steps
from ..testing import generate_double
from ..vector import Vector
from . import launcher
from .arguments import one_of
from .parser import Parser
from .report import Measurement
from .results import results_of
from .tables import megabytes, print_json, print_table, table

# (Nm, Nd, Nt) from small to large. Those of which three spectra fit into half of the free memory are measured.
SHAPES = ((200, 20, 100), (500, 20, 500), (2000, 50, 200), (5000, 100, 1000))
_COPY = 1 << 26  # values: larger than caches
_HOST_BYTES = 400 << 20  # the largest spectrum on the CPU, and the largest that NumPy multiplies
_SECONDS, _MOST_RUNS, _WARM_UP = 1.0, 50, 3  # of the repetitions of one product
_IDLE = 0.2  # seconds of the warm-up: OpenBLAS's idle threads keep their cores busy for 0.1 s after NumPy's products
_CODE = "ddddd"


@dataclass(frozen=True)
class Row:
    """A product of one shape: its record, and NumPy's seconds, None if NumPy was not run."""

    record: dict[str, Any]
    numpy_seconds: float | None
    copy_bytes_per_second: float

    @property
    def rate(self) -> float:
        """Bytes of spectrum per second of the whole product."""
        return float(self.record["spectrum_bytes"] / self.record["median_ms"] * 1e3)

    def full_record(self) -> dict[str, Any]:
        """Return the record for JSON, with the comparisons."""
        return self.record | {
            "bytes_per_second": self.rate,
            "part_of_copy_bandwidth": self.rate / self.copy_bytes_per_second,
            "numpy_ms": None if self.numpy_seconds is None else 1e3 * self.numpy_seconds,
        }

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        record, slower = self.record, "-"
        if self.numpy_seconds is not None:
            slower = f"{1e3 * self.numpy_seconds / record['median_ms']:.1f}"
        return (
            " x ".join(map(str, record["shape"])),
            record["op"],
            megabytes(record["spectrum_bytes"]),
            f"{record['median_ms']:.3f}",
            f"{self.rate / 1e9:.1f}",
            f"{100 * self.rate / self.copy_bytes_per_second:.0f}",
            "-" if self.numpy_seconds is None else f"{1e3 * self.numpy_seconds:.3f}",
            slower,
            "-" if record["rel_error"] is None else f"{record['rel_error']:.1e}",
        )


_HEADINGS = (
    "Nm x Nd x Nt",
    "product",
    "spectrum [MB]",
    "time [ms]",
    "spectrum / time [GB/s]",
    "of copy [%]",
    "NumPy [ms]",
    "NumPy / ours",
    "difference to NumPy",
)


def build_parser() -> Parser:
    """Return the parser of the command."""
    description = (
        "Time F and F* in double precision for a few shapes that fit this machine, and compare them with the bandwidth "
        "of a copy in the same memory and with NumPy. It takes about a minute."
    )
    parser = Parser("bench", description)
    backend = "the device: auto, cpu or cuda"
    parser.add_argument("--backend", type=one_of("auto", "cpu", "cuda"), default="auto", metavar="NAME", help=backend)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command on one process."""
    options = build_parser().values(arguments)
    if launcher.is_launched(os.environ):
        raise ArgumentError("bench: expected one process, found several ranks; 'fftmatvec run' measures them")
    with Comm(None, backend=options["backend"]) as comm:
        shapes = fitting_shapes(comm)
        with show_steps(1 + 2 * len(shapes), enabled=True) as show:
            show(0, "Copying")
            bandwidth = copy_bandwidth(comm)
            rows: list[Row] = []
            for done, shape in enumerate(shapes):
                rows += _measure(comm, shape, bandwidth, partial(show, 1 + 2 * done))
        name = comm.backend.device_name()
    if options["json"]:
        copy = {"benchmark": "copy", "bytes_per_second": bandwidth}
        print_json(results_of([copy, *(row.full_record() for row in rows)], name))
    else:
        title = f"{name}: copies read and write {bandwidth / 1e9:.1f} GB/s together; precision {_CODE}"
        print_table(table(title, _HEADINGS, [row.cells() for row in rows], left=2))
        print("A spectrum that fits in a cache may be read faster than a copy runs.")
    return 0


def spectrum_bytes(shape: tuple[int, int, int]) -> int:
    """Return the bytes of a spectrum in double precision, without the padding of its rows."""
    Nm, Nd, Nt = shape
    return 16 * Nm * Nd * (Nt + 1)


def fitting_shapes(comm: Comm) -> list[tuple[int, int, int]]:
    """Return the shapes of which three spectra fit into half of the free memory; at least the smallest."""
    free = comm.backend.free_bytes()
    limit = _HOST_BYTES if comm.backend.name == "cpu" else 1 << 60
    largest = limit if free is None else min(limit, free // 6)
    return [shape for index, shape in enumerate(SHAPES) if index == 0 or spectrum_bytes(shape) <= largest]


def copy_bandwidth(comm: Comm) -> float:
    """Return the bytes that a copy reads and writes per second, by the threads or the GPU that products use."""
    free = comm.backend.free_bytes()
    count = _COPY if free is None else min(_COPY, free // 64)
    source, target = (comm.backend.empty((count,), np.float64) for _ in range(2))
    launch = map_launcher(comm.backend.target, "scale")
    for buffer in (source, target):
        launch(buffer.view, buffer.view, a=0.0)  # touches the pages
    seconds = time_runs(comm, lambda: launch(target.view, source.view, a=1.0), 10)
    return 2 * 8 * count / min(seconds)


def _measure(comm: Comm, shape: tuple[int, int, int], bandwidth: float, show: Callable[[str], None]) -> list[Row]:
    """Measure F and F* of one shape."""
    Nm, Nd, Nt = shape
    rows = []
    compared = spectrum_bytes(shape) <= _HOST_BYTES
    with Matrix(comm, Nm, Nd, Nt, global_sizes=True) as matrix:
        show(f"Setting up {Nm} x {Nd} x {Nt}")
        matrix.init_mat_doubles()
        host = _host_spectrum(shape) if compared else None
        for op in ("F", "F*"):
            show(f"{op} of {Nm} x {Nd} x {Nt}")
            product = PRODUCTS[op]
            spaces = product.input_space, product.output_space
            x, y = (Vector.from_layout(comm, matrix.layout.vector(space)) for space in spaces)
            x.init_vec_doubles()
            found = _measurement(comm, matrix, product, x, y)
            error = numpy_seconds = None
            if host is not None:
                numpy_seconds, error = _numpy(host, op, x.gather(), y.gather())
            peak = comm.backend.peak_bytes()
            record = found.record(shape=shape, precision=_CODE, grid=(1, 1), rel_error=error, peak_bytes=peak)
            rows.append(Row(record, numpy_seconds, bandwidth))
    return rows


def _measurement(comm: Comm, matrix: Matrix, product: Product, x: Vector, y: Vector) -> Measurement:
    def run() -> None:
        matrix.apply_product(product, x, y)

    time_runs(comm, run, 1)  # compiles
    seconds = _repeat(lambda count: time_runs(comm, run, count))
    return Measurement(product.name, [{"total": seconds}], [matrix.nbytes])


def _repeat(run: Callable[[int], list[float]]) -> list[float]:
    """Return the seconds of as many runs as take about a second, after a warm-up."""
    end = time.perf_counter() + _IDLE
    expected = max(statistics.median(run(_WARM_UP)), 1e-9)
    while time.perf_counter() < end:
        run(1)
    return run(max(3, min(_MOST_RUNS, int(_SECONDS / expected))))


def _host_spectrum(shape: tuple[int, int, int]) -> npt.NDArray[np.complex128]:
    """Return the spectrum of the same matrix with frequencies first, as NumPy multiplies it fastest."""
    Nm, Nd, Nt = shape
    spectrum = np.empty((Nt + 1, Nd, Nm), np.complex128)
    steps = np.arange(Nt)
    for row in range(Nd):
        index = 2 * Nt * (row * Nm + np.arange(Nm))[:, None] + steps
        spectrum[:, row] = np.fft.rfft(generate_double(index), 2 * Nt).T
    return spectrum


def _numpy(spectrum: npt.NDArray[np.complex128], op: str, x: Any, y: Any) -> tuple[float, float]:
    """Return NumPy's seconds for a product, and the relative difference of its result to ours."""
    Nt = x.shape[1]
    factor = spectrum if op == "F" else spectrum.conj().transpose(0, 2, 1)

    def product() -> Any:
        transformed = np.fft.rfft(x, 2 * Nt).T[:, :, None]
        return np.fft.irfft((factor @ transformed)[:, :, 0].T, 2 * Nt)[:, :Nt]

    def run(count: int) -> list[float]:
        seconds = []
        for _ in range(count):
            start = time.perf_counter()
            product()
            seconds.append(time.perf_counter() - start)
        return seconds

    found = product()
    return statistics.median(_repeat(run)), float(np.linalg.norm(found - y) / np.linalg.norm(found))
