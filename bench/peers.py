"""Compare F and F* with other ways to write them on a GPU, in one run on one device.

``python bench/peers.py --json bench/results/h100/peers.json``. Each peer alternates with ours in a separate process, so
that leaked memory or a crash in one does not affect the next. A peer has separate spectra of F and F*, in its best
layout. Its vectors are in our order, ``[block, t]``, or in the other one, ``[t, block]``. Its result is compared with
ours before the timing. Times are wall-clock times and include synchronisation.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import numba_fftmatvec as fm
from lib.libraries import PEERS, Library, Peer, Variant
from numba_fftmatvec.cli.results import write_results
from numba_fftmatvec.kernels.elementwise import fill_launcher

SHAPES = ((5000, 100, 1000), (500, 20, 200))
NUM_VECS = (1, 16)
OURS = "numba-fftmatvec"
# Our precision code: the peers' complex and real dtypes, and the largest relative distance of their results.
PRECISIONS = {
    "ddddd": (np.complex128, np.float64, 1e-12),
    "sssss": (np.complex64, np.float32, 1e-4),
}
ROUNDS = 10
WARM_UP_SECONDS = 0.1
PIECE_BYTES = 2**29
PEER_SECONDS = 300


def peer_spectrum(backend: Any, shape: tuple[int, int, int], op: str, layout: str, dtype: Any) -> Any:
    """Return the spectrum of F or F* for values of `init_mat_doubles`, made on the device piece by piece."""
    import cupy

    nm, nd, nt = shape
    data_last = (op == "F") == (layout == "[k][in][out]")  # block rows are the last axis
    spectrum = cupy.empty((nt + 1, nm, nd) if data_last else (nt + 1, nd, nm), dtype)
    step = max(1, PIECE_BYTES // (16 * nm * (nt + 1)))
    for start in range(0, nd, step):
        stop = min(start + step, nd)
        values = backend.empty(((stop - start) * nm * nt,), np.float64)
        fill_launcher(backend.target, "doubles")(values.view, start * nm * nt, nt)
        transforms = cupy.fft.rfft(values.array.reshape(stop - start, nm, nt), 2 * nt)
        transforms = transforms if op == "F" else transforms.conj()
        if data_last:
            spectrum[:, :, start:stop] = transforms.transpose(2, 1, 0)
        else:
            spectrum[:, start:stop, :] = transforms.transpose(2, 0, 1)
    return spectrum


class Ours(NamedTuple):
    """Our product with its vectors."""

    run: Callable[[], None]
    x: fm.Vector
    y: fm.Vector


def our_product(comm: fm.Comm, matrix: fm.Matrix, shape: tuple[int, int, int], op: str, num_vecs: int) -> Ours:
    """Return our product, ready to run; it waits for its result."""
    nm, nd, nt = shape
    several = {} if num_vecs == 1 else {"num_vecs": num_vecs}
    vectors = {space: fm.Vector(comm, n, nt, space, True, **several) for space, n in (("col", nm), ("row", nd))}
    x, y = (vectors[space] for space in (("col", "row") if op == "F" else ("row", "col")))
    x.init_vec_doubles()
    names = {("F", False): "matvec", ("F*", False): "transpose_matvec"}
    names |= {("F", True): "matmat", ("F*", True): "transpose_matmat"}
    product = getattr(matrix, names[op, num_vecs > 1])

    def run() -> None:
        product(x, y)
        comm.synchronize()

    return Ours(run, x, y)


def peer_operand(library: Library, order: str, x: Any, real: Any) -> Any:
    """Return our operand as a peer's array, in the peer's order and dtype."""
    import cupy

    vectors = x.reshape(-1, *x.shape[-2:]).astype(real)
    return library.adopt(cupy.ascontiguousarray(vectors if order == "[block, t]" else vectors.transpose(2, 1, 0)))


def distance(library: Library, order: str, found: Any, expected: Any) -> float:
    """Return the relative 2-norm of the difference between a peer's result and ours."""
    import cupy

    found = library.to_cupy(found).astype(np.float64)
    found = found if order == "[block, t]" else found.transpose(2, 1, 0)
    expected = expected.reshape(found.shape)
    return float(cupy.linalg.norm((found - expected).ravel()) / cupy.linalg.norm(expected.ravel()))


def alternate(programs: dict[str, Callable[[], None]], repetitions: int) -> dict[str, list[float]]:
    """Return each program's wall-clock seconds, in alternating rounds, so that a disturbance affects all programs."""

    def timed(run: Callable[[], None]) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for run in programs.values():
        begin = time.perf_counter()
        while time.perf_counter() - begin < WARM_UP_SECONDS:
            run()
    for _ in range(ROUNDS):
        for name, run in programs.items():
            run()  # untimed: the previous program's data may be in caches and queues
            seconds[name] += [timed(run) for _ in range(-(-repetitions // ROUNDS))]
    return seconds


@dataclass(frozen=True)
class Case:
    """One comparison: a product on a matrix."""

    peer: str
    shape: tuple[int, int, int]
    precision: str
    op: str
    num_vecs: int

    def record(self, program: str, **fields: Any) -> dict[str, Any]:
        """Return a record of this case."""
        about = {"op": self.op, "shape": list(self.shape), "precision": self.precision, "num_vecs": self.num_vecs}
        return {"benchmark": "peers", "program": program, "beside": self.peer, **about, **fields}

    def failure(self, program: str, error: Exception | str) -> dict[str, Any]:
        """Return the record of a failure."""
        return self.record(program, error=error if isinstance(error, str) else describe(error))


def describe(error: Exception) -> str:
    """Return an error's type and the first line of its message."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def compare(
    case: Case, ours: Ours, library: Library, variants: list[tuple[Variant, Any]], repetitions: int
) -> Iterator[dict[str, Any]]:
    """Yield the records of our product and of the variants with their spectra, in one alternating run."""
    _, real, tolerance = PRECISIONS[case.precision]
    programs: dict[str, Callable[[], None]] = {OURS: ours.run}
    ours.run()
    for variant, spectrum in variants:
        try:
            x = peer_operand(library, variant.order, ours.x.array, real)
            error = distance(library, variant.order, variant.product(spectrum, x), ours.y.array)
            if not error <= tolerance:
                yield case.failure(variant.name, f"expected a result within {tolerance} of ours, found {error:.2e}")
                continue
            programs[variant.name] = lambda v=variant, s=spectrum, x=x: library.wait(v.product(s, x))
        except Exception as error:  # one variant's failure is recorded; the others are compared
            yield case.failure(variant.name, error)
    seconds = alternate(programs, repetitions)
    medians = {name: 1e3 * statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        ratio = median / medians[OURS]
        yield case.record(name, median_ms=median, min_ms=1e3 * min(seconds[name]), time_over_ours=ratio)


def compare_spectra(
    comm: fm.Comm, matrix: fm.Matrix, cases: list[Case], peer: Peer, repetitions: int
) -> Iterator[dict[str, Any]]:
    """Yield the records of one op with one and several right-hand sides, for each layout of the peer's spectrum."""
    library, variants = peer
    shape, precision, op = cases[0].shape, cases[0].precision, cases[0].op
    for layout in dict.fromkeys(variant.layout for variant in variants):
        dtype = PRECISIONS[precision][0]
        spectrum = library.adopt(peer_spectrum(comm.backend, shape, op, layout, dtype))
        free_memory()
        for case in cases:
            chosen = [(v, spectrum) for v in variants if v.layout == layout and v.most_vecs >= case.num_vecs]
            try:
                if chosen:
                    ours = our_product(comm, matrix, shape, op, case.num_vecs)
                    yield from compare(case, ours, library, chosen, repetitions)
            except Exception as error:  # recorded, as for one variant
                yield case.failure(case.peer, error)
            free_memory()
        del spectrum, chosen
        free_memory()


def free_memory() -> None:
    """Free CuPy's cached plans and unused memory."""
    import cupy

    cupy.fft.config.get_plan_cache().clear()
    cupy.get_default_memory_pool().free_all_blocks()


def compare_peer(name: str, repetitions: int) -> Iterator[dict[str, Any]]:
    """Yield all records of one peer."""
    try:
        comm = fm.Comm(backend="cuda")
        peer = PEERS[name]()
    except ImportError as error:
        yield {"benchmark": "peers", "program": name, "error": f"not installed ({error})"}
        return
    for shape, precision in itertools.product(SHAPES, PRECISIONS):
        nm, nd, nt = shape
        config = fm.MatvecPrecisionConfig.from_code(precision)
        with comm.backend.active(), fm.Matrix(comm, nm, nd, nt, global_sizes=True, p_config=config) as matrix:
            matrix.init_mat_doubles()
            for op in ("F", "F*"):
                cases = [Case(name, shape, precision, op, num_vecs) for num_vecs in NUM_VECS]
                try:
                    yield from compare_spectra(comm, matrix, cases, peer, repetitions)
                except Exception as error:  # such as no memory for a spectrum
                    yield cases[0].failure(name, error)
        free_memory()


def run_peer(name: str, repetitions: int) -> list[dict[str, Any]]:
    """Return the records of a peer from a separate process; a failure of the process is the last record."""
    # By default JAX allocates most of the GPU's memory when it starts.
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with tempfile.TemporaryDirectory() as folder:
        lines, log = Path(folder, "records"), Path(folder, "log")
        command = [sys.executable, __file__, "--peer", name, "--repetitions", str(repetitions), "--json", str(lines)]
        with log.open("w") as output:
            try:
                code = subprocess.run(
                    command, env=environment, stdout=output, stderr=output, timeout=PEER_SECONDS, check=False
                ).returncode
                problem = f"exit code {code}" if code else ""
            except subprocess.TimeoutExpired:
                problem = f"not done within {PEER_SECONDS} s"
        records = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
        if problem:
            last = log.read_text().strip().splitlines()[-3:]
            error = f"{problem}: {' '.join(last)}"
            records.append({"benchmark": "peers", "program": name, "error": error})
    return records


def line_of(record: dict[str, Any]) -> str:
    """Return the line to print for a record."""
    about = f"{record.get('op', ''):>3} {record.get('shape', '')} {record.get('precision', '')}"
    outcome = record.get("error") or "{median_ms:.4f} ms, {time_over_ours:.2f} x our time".format(**record)
    return f"{about} R={record.get('num_vecs', '')} {record['program']}: {outcome}"


def main() -> None:
    """Run every peer, print ratios, and write; or with ``--peer`` compare one peer in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=60)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--peer", choices=PEERS, help="compare this peer in this process; write a record per line")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    if options.peer:
        with options.json.open("w") as lines:
            for record in compare_peer(options.peer, options.repetitions):
                print(json.dumps(record), file=lines, flush=True)
        return
    import cupy

    device = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    records = []
    for name in options.peers:
        found = run_peer(name, options.repetitions)
        print(*map(line_of, found), sep="\n", flush=True)
        records += found
        write_results(options.json, records, device)  # after each peer, so an interrupted run keeps its results


if __name__ == "__main__":
    main()
