"""Writes, reads and checks the results of benchmarks: JSON files of one schema, as in bench/results."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ..backends.cpu import cpu_model
from ..errors import FileError, FileFormatError
from ..io.atomic import os_errors, replacing

SCHEMA = 1

# The packages whose versions a timing depends on.
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


def checkout_commit() -> str | None:
    """Return the commit that the package runs from, with ``-dirty`` if files differ from it; None if unknown.

    The environment variable FFTMATVEC_COMMIT replaces it, for files that were copied without their repository.
    """
    if commit := os.environ.get("FFTMATVEC_COMMIT"):
        return commit
    root = Path(__file__).resolve().parents[2]
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
    """Return the device, date (ISO 8601, UTC), commit and versions that records were measured with.

    Parameters
    ----------
    device : str, optional
        The GPU's name; by default the processor's name.
    """
    return {
        "device": device or cpu_model(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": checkout_commit(),
        "versions": installed_versions(),
    }


def results_of(
    records: Iterable[Mapping[str, Any]], device: str | None = None, where: str = "results"
) -> dict[str, Any]:
    """Return the content of a results file, checked against the schema; the parameters are those of `write_results`."""
    results = {"schema": SCHEMA, **environment(device), "records": [dict(record) for record in records]}
    _validate(results, where)
    return results


def write_results(
    path: str | os.PathLike[str], records: Iterable[Mapping[str, Any]], device: str | None = None
) -> None:
    """Write records and the environment of their measurement; the file is replaced in one step (see `replacing`).

    Parameters
    ----------
    path : path-like
        The JSON file.
    records : iterable of mapping
        Each names its `benchmark`; those of "matvec" have every field of the schema.
    device : str, optional
        The GPU's name; by default the processor's name.

    Raises
    ------
    FileFormatError
        A record breaks the schema.
    FileError
        The file cannot be written.
    """
    path = Path(path)
    results = results_of(records, device, str(path))
    text = json.dumps(results, indent=2, allow_nan=False) + "\n"
    with replacing(path) as temporary, os_errors(path, "write the file"):
        temporary.write_text(text)


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


# The rule of a field: a description of the value that is expected, and the test.
_Rule = tuple[str, Callable[[Any], bool]]


def _is_int(value: Any, least: int) -> bool:
    """Return whether a value is an integer of at least `least`; a bool is not, although it is a Python int."""
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
    """Check every field that has a rule; an absent field is an error if it is required."""
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
