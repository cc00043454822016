"""The gallery: each script runs as a user starts it, is short, and ends in its picture."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest

from support.harness import run_ranks

GALLERY = Path(__file__).resolve().parents[2] / "docs" / "gallery"
SCRIPTS = sorted(path for path in GALLERY.glob("*.py") if not path.stem.startswith("tsunami"))
MOST_LINES = 40  # of a whole inversion with prior, posterior, forecast and picture
MOST_SECONDS = 180  # of the flagship, which takes 25 on two quiet cores; those of CI may be busy


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_draw_their_picture(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="needs matplotlib (extra `plot`)")
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [os.fspath(script)])
    runpy.run_path(os.fspath(script), run_name="__main__")
    assert (tmp_path / f"{script.stem}.png").stat().st_size > 10_000


def test_the_tsunami_is_forecast(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib (extra `plot`)")
    (figures,) = run_ranks(1, "support.gallery:tsunami", (tmp_path, ["--animate"]), timeout=MOST_SECONDS)
    assert figures["relative error of the uplift"] < 0.25
    assert figures["relative error of the forecast"] < 0.05
    assert figures["relative error of the early forecast"] < 0.05
    assert figures["heights within the 95 % band"] > 0.93
    for name in ("tsunami.png", "tsunami.gif"):
        assert 10_000 < (tmp_path / name).stat().st_size < 3_000_000


def test_four_ranks_forecast_the_same_tsunami(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib (extra `plot`)")
    found = []
    for ranks in (1, 4):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        setting = folder, ["--size", "24", "--steps", "40"]
        found += run_ranks(ranks, "support.gallery:tsunami", setting, timeout=MOST_SECONDS)
        assert (folder / "tsunami.png").stat().st_size > 10_000
    assert found[0]["relative error of the forecast"] < 0.1
    for figures in found[1:]:
        assert figures == pytest.approx(found[0], rel=1e-6)


def test_a_whole_inversion_is_short() -> None:
    assert len((GALLERY / "heat_source.py").read_text().splitlines()) <= MOST_LINES
