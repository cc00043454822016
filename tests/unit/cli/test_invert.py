"""The command `fftmatvec invert`."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numba_fftmatvec as fm
from numba_fftmatvec import cli, inversion
from support.harness import clean_environment

ND, NQ, NM, NT = 4, 2, 30, 20
RANDOM = np.random.default_rng(0)
DECAY = np.exp(-0.2 * np.arange(NT))
F, G = (RANDOM.standard_normal((rows, NM, 1)) * DECAY for rows in (ND, NQ))
DATA = RANDOM.standard_normal((ND, NT))
MODEL = """
[prior]
type = "matern"
shape = [6, 5]
deviation = 2.0
correlation_length = 2.0
time = {type = "ar1", coefficient = 0.5}
active_steps = 10
[noise]
type = "sensors"
deviations = [0.5, 0.6, 0.7, 0.8]
"""
LINE = ["invert", "F", "--data", "data.npy", "--backend", "cpu"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with a problem, and go there."""
    monkeypatch.chdir(tmp_path)
    with fm.Comm(backend="cpu") as comm:
        for name, blocks in {"F": F, "G": G, "wide": np.ones((1, 3, NT))}.items():
            fm.Matrix.from_array(comm, blocks).save(name)
        data = fm.Vector(comm, ND, NT, "row", global_sizes=True)
        data.scatter(DATA)
        data.save("data.h5")
    np.save("data.npy", DATA)
    Path("model.toml").write_text(MODEL)
    return tmp_path


def values(path: Path, shape: tuple[int, int]) -> Any:
    with fm.Comm(backend="cpu") as comm:
        space = "row" if path.name.startswith("forecast") else "col"
        vector = fm.Vector(comm, *shape, space, global_sizes=True)
        vector.init_vec_from_file(path, QoI=space == "row")
        return vector.gather()


def expected() -> Any:
    """Return the library's inversion of the problem."""
    comm = fm.Comm(backend="cpu")
    time = inversion.AR1(0.5)
    prior = inversion.MaternPrior((6, 5), 2.0, 2.0, time=time, active_steps=10)
    noise = inversion.SensorNoise([0.5, 0.6, 0.7, 0.8])
    blocks = (fm.Matrix.from_array(comm, values) for values in (F, G))
    model = inversion.RealTimeInversion(next(blocks), prior, noise, next(blocks))
    model.factorise()
    return model


@pytest.mark.parametrize("data", ["data.npy", "data.h5"])
def test_files_are_those_of_the_library(data: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*LINE, "--data", data, "--forecast", "G", "--model", "model.toml", "--output", "out"]) == 0
    output = capsys.readouterr()
    model, out = expected(), folder / "out"
    forecast = model.forecast(DATA)
    for name, found in {
        "mean": model.infer(DATA).gather(),
        "deviation": np.sqrt(model.posterior_variance().gather()),
        "forecast_mean": forecast.mean,
        "forecast_variance": forecast.variance,
    }.items():
        np.testing.assert_allclose(values(out / f"{name}.h5", found.shape), found, rtol=1e-9, atol=1e-12)
    assert f"{model.chi2(DATA) / DATA.size:.4f}" in output.out
    assert f"{model.log_evidence(DATA):.4f}" in output.out
    assert "factorising [s]" in output.out and output.err == ""
    summary = json.loads((out / "summary.json").read_text())
    assert {path.name for path in out.iterdir()} == set(summary["files"])
    drawn = find_spec("matplotlib") is not None
    assert (out / "picture.png").exists() == drawn == ("no picture" not in output.out)
    assert not [path for path in folder.iterdir() if path.name.startswith(".out")]


def test_json_and_the_default_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*LINE, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((folder / "inversion" / "summary.json").read_text())
    assert found["model"] == "default: WhitePrior, WhiteNoise" and found["shape"]["Nq"] == 0
    model = inversion.RealTimeInversion(
        fm.Matrix.from_array(fm.Comm(backend="cpu"), F),
        inversion.WhitePrior(NM, 1.0),
        inversion.WhiteNoise(0.05 * float(np.sqrt(np.mean(DATA**2)))),
    )
    model.factorise()
    assert found["log_evidence"] == pytest.approx(model.log_evidence(DATA))


@pytest.mark.mpi
def test_ranks_write_the_same(folder: Path) -> None:
    command = [sys.executable, "-m", "numba_fftmatvec", *LINE, "--forecast", "G", "--model", "model.toml", "-n", "2"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, env=clean_environment(), timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ranks"] == 2
    found = values(folder / "inversion" / "mean.h5", (NM, NT))
    np.testing.assert_allclose(found, expected().infer(DATA).gather(), rtol=1e-9, atol=1e-12)


def refused(folder: Path, line: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that writes nothing, and return its one line of error."""
    before = sorted(folder.iterdir())
    assert cli.main(line) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    assert sorted(folder.iterdir()) == before
    return output.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("invert F", "expected --data"),
        ("invert absent --data data.npy", "absent"),
        ("invert F --data absent.npy", "absent.npy: expected a readable file"),
        ("invert F --data absent.h5", "absent.h5"),
        ("invert F --data model.toml", "model.toml"),
        ("invert F --data text.npy", "text.npy: expected a .npy file of numbers"),
        ("invert F --data narrow.npy", "narrow.npy: expected shape (Nd, Nt) = (4, 20), found (4, 3)"),
        ("invert F --data words.npy", "words.npy: expected real numbers"),
        ("invert F --data nan.npy", "--data: expected finite values, found 1 others"),
        ("invert F --data zero.npy", "--model: expected a model, since data of root mean square 0.0"),
        ("invert F --data data.npy --forecast wide", "forecast: expected 30 block columns"),
        ("invert F --data data.npy --model absent.toml", "absent.toml: expected a readable TOML file"),
        ("invert F --data data.npy --output F", "--output: expected a path without a file, found F"),
        ("invert F --data data.npy --output no/where", "--output: expected a path in a directory that exists"),
        ("invert F --data data.npy -pr auto", "-pr: expected"),
    ],
)
def test_bad_input(folder: Path, capsys: pytest.CaptureFixture[str], line: str, message: str) -> None:
    Path("text.npy").write_text("no numbers")
    np.save("narrow.npy", DATA[:, :3])
    np.save("words.npy", np.full((ND, NT), "word"))
    np.save("zero.npy", np.zeros((ND, NT)))
    np.save("nan.npy", np.where(np.arange(ND * NT).reshape(ND, NT) == 3, np.nan, DATA))
    assert message in refused(folder, [*line.split(), "--backend", "cpu"], capsys)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[prior]", "[prior", "expected TOML, found"),
        ("[prior]", "[priors]", "expected prior, noise, found the key 'priors'"),
        ("[noise]", "[noise.x]", "noise: type: expected one of white, sensors, found no such key"),
        ('"matern"', '"mattern"', "prior: type: expected one of white, diagonal, matern, found 'mattern'"),
        ("deviation = 2.0", "sigma = 2.0", "found the key 'sigma'"),
        ("deviation = 2.0", "", "prior: deviation: expected a value, found no such key"),
        ("deviation = 2.0", "deviation = -2.0", "deviation: expected"),
        ("deviation = 2.0", 'deviation = "two"', "deviation"),
        ("[6, 5]", "[6, 6]", "prior: expected the matrix's 30 sources, found 36"),
        ("[6, 5]", '"six"', "shape"),
        ('"ar1"', '"ar2"', "prior: time: type: expected one of none, ar1, found 'ar2'"),
        ("coefficient = 0.5", "coefficient = 1.5", "coefficient: expected a number between -1 and 1"),
        ("{type", "[{type", "expected TOML"),
        ("active_steps = 10", "active_steps = 0", "active_steps: expected a positive integer"),
        ("0.7, 0.8]", "0.7]", "expected"),
    ],
)
def test_a_bad_model(folder: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str) -> None:
    assert old in MODEL
    Path("model.toml").write_text(MODEL.replace(old, new, 1))
    assert message in refused(folder, [*LINE, "--model", "model.toml"], capsys)


def test_a_late_failure_leaves_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any) -> None:
        raise fm.CapacityError("expected less, found more")

    monkeypatch.setattr(inversion.RealTimeInversion, "posterior_variance", fail)
    refused(folder, LINE, capsys)
