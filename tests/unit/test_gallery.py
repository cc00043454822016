"""The gallery: each script runs as a user starts it, is short, and ends in its picture."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest

GALLERY = Path(__file__).resolve().parents[2] / "docs" / "gallery"
SCRIPTS = sorted(path for path in GALLERY.glob("*.py") if path.stem != "tsunami")
MOST_LINES = 40  # of a whole inversion with prior, posterior, forecast and picture


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_draw_their_picture(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="needs matplotlib (extra `plot`)")
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [os.fspath(script)])
    runpy.run_path(os.fspath(script), run_name="__main__")
    assert (tmp_path / f"{script.stem}.png").stat().st_size > 10_000


def test_the_tsunami_is_forecast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib (extra `plot`)").use("Agg")
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(os.fspath(GALLERY / "tsunami.py"))["main"]
    figures = main(["--size", "32", "--steps", "48", "--animate"])
    assert figures["relative error of the uplift"] < 0.4
    assert figures["relative error of the forecast"] < 0.08
    assert figures["heights within the 95 % band"] > 0.9
    for name in ("tsunami.png", "tsunami.gif"):
        assert (tmp_path / name).stat().st_size > 10_000


def test_a_whole_inversion_is_short() -> None:
    assert len((GALLERY / "heat_source.py").read_text().splitlines()) <= MOST_LINES
