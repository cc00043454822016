"""The command `fftmatvec info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numba_fftmatvec as fm
from numba_fftmatvec import cli
from numba_fftmatvec.cli import info
from numba_fftmatvec.io import MatrixMeta, manifest_path
from support.files import write_matrix

F = np.random.default_rng(1).standard_normal((3, 4, 50))
LAUNCH = ["info", "--backend", "cpu"]


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    with fm.Comm(backend="cpu") as comm:
        values = fm.Matrix(comm, 4, 3, 50, global_sizes=True)
        values.init_mat_from_array(F)
        values.save(str(tmp_path / "m"))
    return tmp_path / "m"


def record(capsys: pytest.CaptureFixture[str], *arguments: Path | str) -> tuple[int, Any]:
    status = cli.main([*LAUNCH, "--json", *map(str, arguments)])
    output = capsys.readouterr()
    assert output.err == ""
    return status, json.loads(output.out)


def test_sizes_memory_and_files(
    matrix: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NUMBA_FFTMATVEC_THREADS", "1")
    assert cli.main([*LAUNCH, str(matrix)]) == 0
    text = capsys.readouterr().out
    for words in ("Nd, block rows 3", "Nm, block columns 4", "Nt, time steps 50", "manifest present"):
        assert words in " ".join(text.split())
    assert "spectrum of F [MB]" in text and "with set-up and buffers [MB]" in text
    assert "threads 1, by NUMBA_FFTMATVEC_THREADS" in " ".join(text.split())
    assert "block rows with digests 3 of 3" in " ".join(text.split())


def test_the_memory_is_that_of_a_matrix(matrix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = record(capsys, matrix)
    described = found["matrices"]["F"]
    assert status == 0 and described["file_bytes"] == F.nbytes and found["fits"]["d"] is True
    for code in "dsih":
        with fm.Comm(backend="cpu") as comm:
            config = fm.MatvecPrecisionConfig.from_code(f"dd{code}dd")
            values = fm.Matrix(comm, str(matrix), p_config=config)
            x, y = values.get_vec("input"), values.get_vec("output")
            x.init_vec_ones()
            values.matvec(x, y)
            values.transpose_matvec(y, x)
            assert values.nbytes == described["spectrum_bytes"][code]
            if code == "d":
                rows = 2 * 2 * 8 * comm.threads * 7 * 104  # a thread transforms the rows of either vector together
                assert 0.6 * described["buffer_bytes"] < values.memory_usage().workspace
                assert values.memory_usage().workspace < described["buffer_bytes"] + rows


def test_a_format_that_does_not_fit(matrix: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    _, found = record(capsys, matrix)
    free = found["total_bytes"]["d"] - 1
    monkeypatch.setattr("numba_fftmatvec.backends.cpu.backend.available_bytes", lambda: free)
    _, found = record(capsys, matrix)
    assert found["device"]["free"] == free
    assert found["fits"] == {"d": False, "s": True, "i": True, "h": True}
    monkeypatch.setattr("numba_fftmatvec.backends.cpu.backend.available_bytes", lambda: None)
    _, found = record(capsys, matrix)
    assert set(found["fits"].values()) == {None}


def test_the_auxiliary_matrix(matrix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_matrix(tmp_path / "g", F[:2])
    status, found = record(capsys, matrix, "--aux", tmp_path / "g")
    F_, G = found["matrices"]["F"], found["matrices"]["G"]
    assert (status, G["Nd"], G["manifest"], G["rows_with_digests"]) == (0, 2, False, 0)
    parts = F_["spectrum_bytes"]["d"] + G["spectrum_bytes"]["d"] + F_["setup_bytes"]
    assert found["total_bytes"]["d"] == parts + F_["buffer_bytes"] + G["buffer_bytes"]
    write_matrix(tmp_path / "other", F[:, :3])
    assert cli.main([*LAUNCH, str(matrix), "--aux", str(tmp_path / "other")]) == 2
    assert "--aux: expected Nm 4 and Nt 50" in capsys.readouterr().err


def test_block_rows_that_are_missing(matrix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    meta = MatrixMeta(3, 4, 50, prefix=(matrix / "binary" / "meta_adj").read_text().splitlines()[3])
    meta.block_row_path(matrix, 1).unlink()
    status, found = record(capsys, matrix)
    (damaged,) = found["matrices"]["F"]["damaged"]
    assert status == 1 and "000001.h5: cannot read the file" in damaged
    manifest_path(matrix, meta).write_text("another\n")
    assert cli.main([*LAUNCH, str(matrix)]) == 1
    assert "3 damaged block rows; 'fftmatvec check DIR' explains each of them" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["absent"], ["file"], ["folder"], ["m", "--backend", "tpu"]])
def test_bad_input(
    arguments: list[str], matrix: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(matrix.parent)
    (matrix.parent / "folder").mkdir()
    (matrix.parent / "file").write_text("x")
    before = sorted(matrix.parent.rglob("*"))
    assert cli.main(["info", "--json", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    assert "expected" in output.err and ("; give the folder" in output.err or "-h' lists the arguments" in output.err)
    assert sorted(matrix.parent.rglob("*")) == before


def test_no_gpu(matrix: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("numba_fftmatvec.backends.select.cuda_devices", lambda: (0, "no driver"))
    assert cli.main(["info", str(matrix), "--backend", "cuda"]) == 2
    assert capsys.readouterr() == (
        "",
        "fftmatvec: error: backend 'cuda': expected a working CUDA device, found none (no driver)\n",
    )
    monkeypatch.setattr(info, "cuda_devices", lambda: (0, "no driver"))
    monkeypatch.delenv("NUMBA_FFTMATVEC_BACKEND", raising=False)
    assert info.Device.of("auto").backend == "cpu"
