"""What a benchmark reports: tables for people, and the one JSON schema of every file in bench/results."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from .backends.cpu import cpu_model
from .errors import FileError, FileFormatError

SCHEMA = 1

# Phases of a product in order, as PhaseTimer names them, with the names that tables show.
PHASE_TITLES = {
    "broadcast": "broadcast",
    "pad": "pad",
    "fft": "FFT",
    "sbgemv": "SBGEMV",
    "ifft": "IFFT",
    "unpad": "unpad",
    "reduce": "reduce",
    "total": "total",
}

_DISTRIBUTIONS = (
    "numba-fftmatvec",
    "numpy",
    "scipy",
    "numba",
    "mpi4py",
    "h5py",
    "numba-cuda",
    "cupy-cuda13x",
    "cupy-cuda12x",
    "nvidia-nccl-cu13",
    "nvidia-nccl-cu12",
    "torch",
)


@dataclass(frozen=True)
class Measurement:
    """The timings of one product, repeated, on all ranks.

    Parameters
    ----------
    op : str
        The product: F, F*, ...
    seconds : list of dict
        For each rank, for each phase, the seconds of every repetition; an empty list where the phase did not run.
    spectrum_bytes : list of int
        For each rank, the bytes of its stored spectrum, all of which SBGEMV reads once.
    """

    op: str
    seconds: list[dict[str, list[float]]]
    spectrum_bytes: list[int]

    def rank_means(self, phase: str) -> list[float | None]:
        """Return each rank's mean seconds of a phase, None where it did not run."""
        return [statistics.fmean(rank[phase]) if rank[phase] else None for rank in self.seconds]

    def totals(self) -> list[float]:
        """Return each repetition's seconds: those of its slowest rank."""
        return [max(ranks) for ranks in zip(*(rank["total"] for rank in self.seconds), strict=True)]

    def bandwidth(self) -> float | None:
        """Return the bytes of spectrum that SBGEMV reads per second, averaged over the ranks; None if untimed."""
        means = self.rank_means("sbgemv")
        rates = [size / mean for size, mean in zip(self.spectrum_bytes, means, strict=True) if mean]
        return statistics.fmean(rates) if rates else None

    def table(self, title: str) -> Table:
        """Return the phases' times: min, mean, max over ranks of each rank's mean, in milliseconds."""
        table = Table(title=title, title_justify="left", box=box.SIMPLE)
        table.add_column(f"{self.op} [ms]")
        for column in ("min", "mean", "max", "GB/s per rank"):
            table.add_column(column, justify="right")
        bandwidth = self.bandwidth()
        for phase, name in PHASE_TITLES.items():
            means = [1e3 * mean for mean in self.rank_means(phase) if mean is not None]
            times = [f"{reduce(means):.4f}" for reduce in (min, statistics.fmean, max)] if means else ["-"] * 3
            beside = f"{bandwidth / 1e9:.2f}" if phase == "sbgemv" and bandwidth else ""
            table.add_row(name, *times, beside, end_section=phase == "reduce")
        return table

    def raw_lines(self) -> Iterator[str]:
        """Yield every timing as a line ``op,rank,repetition,phase,ms``."""
        for rank, phases in enumerate(self.seconds):
            for phase in PHASE_TITLES:
                for repetition, value in enumerate(phases[phase]):
                    yield f"{self.op},{rank},{repetition},{phase},{1e3 * value:.6f}"

    def record(
        self,
        *,
        shape: tuple[int, int, int],
        precision: str,
        grid: tuple[int, int],
        rel_error: float | None,
        peak_bytes: int,
        num_vecs: int = 1,
    ) -> dict[str, Any]:
        """Return the product's record of a results file.

        Times are of the slowest rank, bytes of the rank with the most, so that they compare with one device's.

        Parameters
        ----------
        shape : tuple of int
            (Nm, Nd, Nt), global.
        precision : str
            The five-letter code.
        grid : tuple of int
            (proc_rows, proc_cols).
        rel_error : float or None
            The result's relative error; None where it was not checked.
        peak_bytes : int
            The highest memory use of any rank.
        num_vecs : int, default 1
            Right-hand sides of one product.
        """
        totals = self.totals()
        return {
            "benchmark": "matvec",
            "op": self.op,
            "shape": list(shape),
            "precision": precision,
            "ranks": len(self.seconds),
            "grid": list(grid),
            "num_vecs": num_vecs,
            "median_ms": 1e3 * statistics.median(totals),
            "min_ms": 1e3 * min(totals),
            "rel_error": rel_error,
            "peak_bytes": peak_bytes,
            "spectrum_bytes": max(self.spectrum_bytes),
        }


def checkout_commit() -> str | None:
    """Return the commit that the package runs from, with ``-dirty`` where files differ from it; None if unknown.

    The environment variable FFTMATVEC_COMMIT stands in where the files were copied without their repository.
    """
    root = Path(__file__).resolve().parents[1]
    if told := os.environ.get("FFTMATVEC_COMMIT"):
        return told
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that a timing depends on."""
    versions = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def environment(device: str | None = None) -> dict[str, Any]:
    """Return what a figure depends on besides the program: device, date (ISO 8601, UTC), commit, versions.

    Parameters
    ----------
    device : str, optional
        The GPU's name; the processor's by default.
    """
    return {
        "device": device or cpu_model(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": checkout_commit(),
        "versions": installed_versions(),
    }


def write_results(
    path: str | os.PathLike[str], records: Iterable[Mapping[str, Any]], device: str | None = None
) -> None:
    """Write records with the environment they were measured in; the file appears whole or not at all.

    Parameters
    ----------
    path : path-like
        The JSON file.
    records : iterable of mapping
        Each names its `benchmark`; those of "matvec" have every field of the schema.
    device : str, optional
        The GPU's name; the processor's by default.

    Raises
    ------
    FileFormatError
        A record breaks the schema.
    FileError
        The file cannot be written.
    """
    path = Path(path)
    results = {"schema": SCHEMA, **environment(device), "records": [dict(record) for record in records]}
    _validate(results, str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise FileError(f"{path}: expected a file that can be written, found: {error}") from error


def read_results(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of a results file, checked against the schema.

    Raises
    ------
    FileError
        The file cannot be read.
    FileFormatError
        It breaks the schema; the message names the file, the field, what was expected and what was found.
    """
    try:
        results = json.loads(Path(path).read_text())
    except OSError as error:
        raise FileError(f"{path}: expected a readable file, found: {error}") from error
    except ValueError as error:
        raise FileFormatError(f"{path}: expected JSON, found: {error}") from error
    _validate(results, str(path))
    return dict(results)


# One rule a field: the words for what is expected, and the test. A bool is an int to Python, but no count.
_Rule = tuple[str, Callable[[Any], bool]]


def _is_int(value: Any, least: int) -> bool:
    return type(value) is int and value >= least


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < float("inf")


def _are_counts(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length and all(_is_int(item, 1) for item in value)


_FILE_RULES: dict[str, _Rule] = {
    "schema": (str(SCHEMA), lambda value: type(value) is int and value == SCHEMA),
    "device": ("a name", lambda value: isinstance(value, str) and value != ""),
    "date": ("an ISO date", lambda value: isinstance(value, str) and _is_date(value)),
    "commit": ("a commit or null", lambda value: value is None or isinstance(value, str)),
    "versions": (
        "names and versions",
        lambda value: isinstance(value, dict) and all(isinstance(version, str) for version in value.values()),
    ),
    "records": ("a list", lambda value: isinstance(value, list)),
}

_RECORD_RULES: dict[str, _Rule] = {
    "op": ("F, F*, F*F or FF*", lambda value: value in ("F", "F*", "F*F", "FF*")),
    "shape": ("[Nm, Nd, Nt]", lambda value: _are_counts(value, 3)),
    "precision": ("five letters", lambda value: isinstance(value, str) and re.fullmatch("[a-z]{5}", value) is not None),
    "ranks": ("a positive integer", lambda value: _is_int(value, 1)),
    "grid": ("[proc_rows, proc_cols]", lambda value: _are_counts(value, 2)),
    "num_vecs": ("a positive integer", lambda value: _is_int(value, 1)),
    "median_ms": ("a number that is not negative", _is_number),
    "min_ms": ("a number that is not negative", _is_number),
    "rel_error": ("a number that is not negative, or null", lambda value: value is None or _is_number(value)),
    "peak_bytes": ("a count", lambda value: _is_int(value, 0)),
    "spectrum_bytes": ("a count", lambda value: _is_int(value, 0)),
}


def _is_date(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _validate(results: object, where: str) -> None:
    if not isinstance(results, dict):
        raise FileFormatError(f"{where}: expected an object, found {type(results).__name__}")
    _check_fields(results, _FILE_RULES, where, required=True)
    for number, record in enumerate(results["records"]):
        place = f"{where}: record {number}"
        if not isinstance(record, dict) or not isinstance(record.get("benchmark"), str):
            raise FileFormatError(f"{place}: expected an object with the name of its benchmark, found {record!r}")
        matvec = record["benchmark"] == "matvec"
        _check_fields(record, _RECORD_RULES, place, required=matvec)
        if matvec:
            _check_consistent(record, place)


def _check_fields(found: Mapping[str, Any], rules: Mapping[str, _Rule], where: str, *, required: bool) -> None:
    """Check every field that has a rule; those absent are errors only where they are required."""
    for field, (expected, is_valid) in rules.items():
        if field not in found:
            if required:
                raise FileFormatError(f"{where}: {field}: expected {expected}, found no such field")
        elif not is_valid(found[field]):
            raise FileFormatError(f"{where}: {field}: expected {expected}, found {found[field]!r}")


def _check_consistent(record: Mapping[str, Any], where: str) -> None:
    rows, cols = record["grid"]
    if rows * cols != record["ranks"]:
        raise FileFormatError(f"{where}: grid: expected {record['ranks']} ranks, found {rows} x {cols}")
    if record["min_ms"] > record["median_ms"]:
        raise FileFormatError(
            f"{where}: min_ms: expected at most the median {record['median_ms']}, found {record['min_ms']}"
        )
