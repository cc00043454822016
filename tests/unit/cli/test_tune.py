"""The command `fftmatvec tune`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import numba_fftmatvec as fm
from numba_fftmatvec import cli, tuning

F = np.random.default_rng(1).standard_normal((3, 4, 50))
LAUNCH = ["tune", "--backend", "cpu", "--repetitions", "2"]


@pytest.fixture
def matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tuning, "_WARM_UP_SECONDS", 0.0)
    monkeypatch.setattr(tuning, "_ROUNDS_SECONDS", 0.0)
    monkeypatch.setattr(tuning, "candidate_codes", lambda stored: ["ddddd", "ddsdd", "dssdd", "ddhdd"])
    with fm.Comm(backend="cpu") as comm:
        fm.Matrix.from_array(comm, F).save(str(tmp_path / "m"))
    return tmp_path / "m"


def test_the_table_has_units_the_choice_and_the_reason(matrix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*LAUNCH, str(matrix), "--tol", "1e-12"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    for words in ("Nd 3, Nm 4, Nt 50, 1 x 1 ranks", "time [ms]", "relative error", "spectrum per rank [MB]"):
        assert words in output.out
    (chosen,) = (line for line in output.out.splitlines() if " chosen " in line)
    assert chosen.split()[0] == "ddddd"
    assert sum("above the tolerance" in line for line in output.out.splitlines()) == 1  # ddsdd
    assert "2 configs were not measured" in output.out  # dssdd and ddhdd are coarser
    assert output.out.splitlines()[-1] == "ddddd: the fastest within the tolerance"


def test_json(matrix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*LAUNCH, str(matrix), "--tol", "1e-2", "--json", "--product", "F"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {candidate["code"] for candidate in found["candidates"]} == {"ddddd", "ddsdd", "dssdd", "ddhdd"}
    errors = {candidate["code"]: candidate["error"] for candidate in found["candidates"]}
    assert found["best"] == min(found["ties"], key=errors.__getitem__)
    assert found["tolerance"] == 1e-2 and found["skipped"] == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--tol 0", "--tol: expected a positive number, found '0'"),
        ("--tol x", "--tol: expected a number"),
        ("", "expected --tol"),
        ("--tol 1 --product H", "--product: expected one of F"),
        ("--tol 1 --product G", "has no auxiliary matrix"),
        ("--tol 1 --aux absent", "absent"),
        ("--tol 1 -pr auto", "-pr: expected"),
    ],
)
def test_bad_input(
    matrix: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    monkeypatch.chdir(matrix.parent)
    assert cli.main([*LAUNCH, str(matrix), *line.split()]) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1 and message in output.err
    assert list(matrix.parent.iterdir()) == [matrix]


def test_a_directory_that_is_no_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*LAUNCH, str(tmp_path), "--tol", "1"]) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1 and str(tmp_path) in output.err
