"""Tables, records and the schema of results files."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from numba_fftmatvec.backends.cpu.backend import cpu_model
from numba_fftmatvec.cli import report, results
from numba_fftmatvec.cli.report import Measurement
from numba_fftmatvec.cli.tables import table
from numba_fftmatvec.errors import FileError, FileFormatError

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "bench" / "results"


def phases(**seconds: list[float]) -> dict[str, list[float]]:
    return {phase: seconds.get(phase, []) for phase in report.PHASE_TITLES}


@pytest.fixture
def measurement() -> Measurement:
    ranks = [
        phases(pad=[1e-3, 1e-3], sbgemv=[2e-3, 4e-3], total=[5e-3, 9e-3]),
        phases(sbgemv=[1e-3, 1e-3], total=[6e-3, 8e-3]),
    ]
    return Measurement("F*", ranks, [6_000_000, 3_000_000])


@pytest.fixture
def record(measurement: Measurement) -> dict[str, Any]:
    return measurement.record(shape=(8, 4, 10), precision="dssdd", grid=(1, 2), rel_error=1e-7, peak_bytes=1000)


def test_times_are_those_of_the_slowest_rank(record: dict[str, Any]) -> None:
    assert record == {
        "benchmark": "matvec",
        "op": "F*",
        "shape": [8, 4, 10],
        "precision": "dssdd",
        "ranks": 2,
        "grid": [1, 2],
        "num_vecs": 1,
        "median_ms": pytest.approx(7.5),
        "min_ms": pytest.approx(6.0),
        "rel_error": 1e-7,
        "peak_bytes": 1000,
        "spectrum_bytes": 6_000_000,
    }


def test_table_has_every_phase_over_the_ranks_that_ran_it(measurement: Measurement) -> None:
    output = io.StringIO()
    Console(file=output, width=120).print(measurement.table("title"))
    rows = [line.split() for line in output.getvalue().splitlines() if line.strip()]
    assert rows[1] == ["F*", "[ms]", "min", "mean", "max", "GB/s", "per", "rank"]
    cells = {row[0]: row[1:] for row in rows}
    assert cells["broadcast"] == ["-", "-", "-"]
    assert cells["pad"] == ["1.0000"] * 3
    assert cells["SBGEMV"] == ["1.0000", "2.0000", "3.0000", "2.50"]  # 6 MB in 3 ms, 3 MB in 1 ms
    assert cells["total"] == ["7.0000"] * 3
    order = [row[0] for row in rows if row[0] in report.PHASE_TITLES.values()]
    assert order == list(report.PHASE_TITLES.values())


def test_narrow_tables_keep_every_character() -> None:
    output = io.StringIO()
    cells = "a" * 50, "[b]" * 20
    Console(file=output, width=60).print(table("[title]", ("[ms]", "[MB]"), [cells], left=2))
    text = output.getvalue()
    assert "\u2026" not in text and text.count("a") == 50 and text.count("b") == 20
    assert all(words in text for words in ("[title]", "[ms]", "[MB]"))


def test_phases_are_the_timers() -> None:
    from numba_fftmatvec.plan.timing import PHASES

    assert tuple(report.PHASE_TITLES) == PHASES


def test_raw_lines_have_every_timing(measurement: Measurement) -> None:
    lines = list(measurement.raw_lines())
    assert len(lines) == 10
    assert "F*,0,1,sbgemv,4.000000" in lines
    assert "F*,1,0,total,6.000000" in lines


def test_environment_names_machine_and_versions() -> None:
    found = results.environment()
    assert found["device"] == cpu_model() != ""
    assert {"python", "numpy", "numba", "scipy", "mpi4py"} <= found["versions"].keys()
    assert results.environment("A GPU")["device"] == "A GPU"


def test_a_commit_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FFTMATVEC_COMMIT", "abc")
    assert results.environment()["commit"] == "abc"


@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="no checkout")
def test_the_commit_is_that_of_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FFTMATVEC_COMMIT", raising=False)
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert (results.checkout_commit() or "").removesuffix("-dirty") == head


def test_results_are_read_as_written(tmp_path: Path, record: dict[str, Any]) -> None:
    path = tmp_path / "results.json"
    other = {"benchmark": "kernels", "kernel": "pad", "median_ms": 0.5}
    results.write_results(path, [record, other], "A GPU")
    found = results.read_results(path)
    assert found["records"] == [record, other]
    assert (found["schema"], found["device"]) == (1, "A GPU")
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("op", "F**"),
        ("shape", [8, 4]),
        ("shape", [8, 4, 0]),
        ("precision", "ddd"),
        ("ranks", True),
        ("grid", [2, 2]),
        ("num_vecs", 0),
        ("median_ms", float("nan")),
        ("min_ms", 1e9),
        ("rel_error", "small"),
        ("peak_bytes", -1),
        ("spectrum_bytes", 1.5),
        ("benchmark", None),
    ],
)
def test_a_record_that_breaks_the_schema_is_not_written(
    tmp_path: Path, record: dict[str, Any], field: str, value: object
) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(FileFormatError, match=f"{path}: record 1: .*expected .*found"):
        results.write_results(path, [record, record | {field: value}])
    assert not path.exists()


@pytest.mark.parametrize("field", ["op", "shape", "rel_error", "spectrum_bytes"])
def test_a_matvec_record_has_every_field(tmp_path: Path, record: dict[str, Any], field: str) -> None:
    del record[field]
    with pytest.raises(FileFormatError, match=f"record 0: {field}: expected .*found no such field"):
        results.write_results(tmp_path / "results.json", [record])


@pytest.mark.parametrize(
    ("field", "value"), [("schema", 2), ("device", ""), ("date", "yesterday"), ("commit", 1), ("records", {})]
)
def test_a_file_that_breaks_the_schema_is_rejected(
    tmp_path: Path, record: dict[str, Any], field: str, value: object
) -> None:
    path = tmp_path / "results.json"
    results.write_results(path, [record])
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(FileFormatError, match=f"{field}: expected .*, found"):
        results.read_results(path)


@pytest.mark.parametrize("text", ["", "[1]", "{"])
def test_what_is_no_results_file_is_rejected(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=f"{path}: expected"):
        results.read_results(path)


def test_missing_folders_are_named(tmp_path: Path, record: dict[str, Any]) -> None:
    path = tmp_path / "absent" / "results.json"
    with pytest.raises(FileError, match=str(path)):
        results.read_results(path)
    with pytest.raises(FileError, match=str(path)):
        results.write_results(path, [record])


def test_results_that_cannot_be_written_leave_no_file(tmp_path: Path, record: dict[str, Any]) -> None:
    (tmp_path / "results.json").mkdir()
    with pytest.raises(FileError, match="results.json: expected a regular file, found a directory"):
        results.write_results(tmp_path / "results.json", [record])
    with pytest.raises(FileError, match="absent/results.json: cannot replace the file: No such file"):
        results.write_results(tmp_path / "absent" / "results.json", [record])
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_committed_results_follow_the_schema() -> None:
    for path in RESULTS.glob("*/*.json"):
        assert results.read_results(path)["commit"], f"{path} does not say which commit it measured"
