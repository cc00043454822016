"""The estimate of a run, and its progress bar."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest

import numba_fftmatvec as fm
from numba_fftmatvec import cli, progress
from numba_fftmatvec.cli import estimate, run
from numba_fftmatvec.cli.estimate import Estimate, in_words

SIZES = 20, 30, 50


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_memory_is_that_of_the_matrix_and_time_grows() -> None:
    config = fm.MatvecPrecisionConfig.from_code("ddhdd")
    with fm.Comm(backend="cpu") as comm:
        matrix = fm.Matrix(comm, 30, 20, 50, global_sizes=True, p_config=config)
        matrix.init_mat_ones()
        small = Estimate.of(comm, SIZES, config, ["F"], 10)
        assert small.spectrum == matrix.nbytes
        twice = Estimate.of(comm, SIZES, config, ["F", "F*"], 10)
        filed = Estimate.of(comm, SIZES, config, ["F"], 10, from_file=True)
        large = Estimate.of(comm, (200, 300, 500), config, ["F"], 10)
    assert 0 < small.seconds < twice.seconds < large.seconds and small.seconds < filed.seconds
    assert small.fits and not Estimate(5, 5, 1.0, 9).fits and Estimate(5, 5, 1.0, None).fits


def test_the_words() -> None:
    assert [in_words(seconds) for seconds in (0.2, 44, 90, 9000)] == ["0 s", "44 s", "1.5 min", "2.5 h"]
    assert str(Estimate(2 * 10**9, 10**8, 90.0, None)) == (
        "estimate: 1.5 min, and 2.1 GB of memory on each rank (2.0 GB for the spectrum; free: unknown)"
    )


def run_small(*arguments: str) -> int:
    return cli.main(["run", "--backend", "cpu", "-N", "3", *arguments])


def test_a_long_run_is_estimated_before_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_small("-raw") == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(run, "WORTH_SAYING", 0.0)
    assert run_small("-raw") == 0
    output = capsys.readouterr()
    assert output.err.count("\n") == 1 and output.err.startswith("fftmatvec: estimate: 0 s, and 0.0 GB of memory")
    assert output.err.endswith("; -N 3 sets the number of products\n") and "estimate" not in output.out


@pytest.mark.parametrize("line", ["-g -Nm 1 -Nd 1 -Nt 1", "-nm 2 -nd 2"])
def test_each_kind_of_sizes_is_estimated(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "WORTH_SAYING", 0.0)
    assert run_small(*line.split()) == 0
    assert "estimate" in capsys.readouterr().err


def test_a_directory_is_estimated_and_a_matrix_that_does_not_fit_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with fm.Comm(backend="cpu") as comm:
        matrix = fm.Matrix(comm, 30, 20, 50, global_sizes=True)
        matrix.init_mat_from_array(np.ones((20, 30, 50)))
        matrix.save(str(tmp_path / "m"))
    monkeypatch.setattr(run, "WORTH_SAYING", 0.0)
    assert run_small("--path", str(tmp_path / "m")) == 0
    assert "estimate" in capsys.readouterr().err
    monkeypatch.setattr("numba_fftmatvec.backends.cpu.backend.available_bytes", lambda: 1000)
    assert run_small("--path", str(tmp_path / "m")) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "expected at most the 1000 bytes of memory" in error


def test_progress_is_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    assert run_small("-raw") == 0
    assert "Timing F" in terminal.getvalue() and "Timing F*" in terminal.getvalue()


def test_all_repetitions_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--backend", "cpu", "-N", "130", "-raw"]) == 0
    totals = [line for line in capsys.readouterr().out.splitlines() if ",total," in line]
    assert len(totals) == 2 * 130 and run._PARTS < 130
    assert estimate.WORTH_SAYING == 60
