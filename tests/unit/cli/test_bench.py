"""The command `fftmatvec bench`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import numba_fftmatvec as fm
from numba_fftmatvec import cli
from numba_fftmatvec.cli import bench
from numba_fftmatvec.cli.results import read_results

SHAPES = ((31, 6, 20), (5, 7, 9), (4000, 4000, 4000))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Measure small shapes for a short time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "SHAPES", SHAPES)
    monkeypatch.setattr(bench, "_COPY", 1 << 16)
    monkeypatch.setattr(bench, "_SECONDS", 0.001)


def test_the_table_has_units_and_a_row_for_each_product(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--backend", "cpu"]) == 0
    output = capsys.readouterr()
    assert output.err == "" and list(tmp_path.iterdir()) == []
    for heading in ("spectrum [MB]", "time [ms]", "spectrum / time [GB/s]", "of copy [%]", "NumPy [ms]"):
        assert heading in output.out
    rows = [line.split() for line in output.out.splitlines() if " x " in line and "[MB]" not in line]
    assert [(row[:5], row[5]) for row in rows] == [
        ([str(shape[0]), "x", str(shape[1]), "x", str(shape[2])], op) for shape in SHAPES[:2] for op in ("F", "F*")
    ]


def test_json_has_the_schema_of_results_and_products_are_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "--backend", "cpu", "--json"]) == 0
    text = capsys.readouterr().out
    path = tmp_path / "results.json"
    path.write_text(text)
    copy, *products = read_results(path)["records"]
    assert json.loads(text)["device"] and copy["benchmark"] == "copy" and copy["bytes_per_second"] > 0
    assert [(record["shape"], record["op"]) for record in products] == [
        (list(shape), op) for shape in SHAPES[:2] for op in ("F", "F*")
    ]
    for record in products:
        assert record["rel_error"] < 1e-14
        assert record["numpy_ms"] > 0
        rate = record["spectrum_bytes"] / record["median_ms"] * 1e3
        assert record["bytes_per_second"] == pytest.approx(rate)
        assert record["part_of_copy_bandwidth"] == pytest.approx(rate / copy["bytes_per_second"])


def test_shapes_fit_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with fm.Comm(backend="cpu") as comm:
        sizes = {"nothing": 1, "the first two": 6 * bench.spectrum_bytes(SHAPES[0])}
        found = {}
        for name, free in sizes.items():
            monkeypatch.setattr(type(comm.backend), "free_bytes", lambda self, free=free: free)
            found[name] = bench.fitting_shapes(comm)
    assert found == {"nothing": [SHAPES[0]], "the first two": list(SHAPES[:2])}


def test_ranks_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("PMI_SIZE", "2")
    assert cli.main(["bench"]) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1 and "expected one process, found several" in output.err


@pytest.mark.parametrize("flag", ["--backend tpu", "-N 3", "extra"])
def test_bad_input(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *flag.split()]) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1 and "found" in output.err
    assert list(tmp_path.iterdir()) == []
