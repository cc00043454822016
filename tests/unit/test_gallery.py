"""The gallery: each script runs as a user starts it, is short, and ends in its picture."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.harness import clean_environment, required, run_ranks

GALLERY = Path(__file__).resolve().parents[2] / "docs" / "gallery"
PAGE = (GALLERY / "index.md").read_text(encoding="utf-8")
SCRIPTS = sorted(path for path in GALLERY.glob("*.py") if not path.stem.startswith("tsunami"))
SECTIONS = [*SCRIPTS, GALLERY / "tsunami.py"]
MOST_LINES = 100
INVERSION_LINES = 40  # of a whole inversion with prior, posterior, forecast and picture
MOST_SECONDS = 180  # of the flagship, which takes 25 on two quiet cores; those of CI may be busy
PICTURE_BYTES, ANIMATION_BYTES, PICTURES_BYTES = 120_000, 1_500_000, 1_000_000
#: The packages of extras: a script that imports one is skipped without it, unless an environment variable demands it.
OPTIONAL = {"matplotlib", "torch", "pylops", "pylops_mpi", "cuqi"}
QUICK = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "MPLBACKEND": "Agg"}


def imported(script: Path) -> set[str]:
    """Return the names of the packages that a script imports."""
    nodes = list(ast.walk(ast.parse(script.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    torch = ["torch"] if "numba_fftmatvec.torch" in names else []
    return {name.split(".")[0] for name in names + torch}


def skip_without(packages: set[str]) -> None:
    """Skip a test if a package of an extra is missing, unless the environment demands that package."""
    demanded = set(filter(None, os.environ.get("FFTMATVEC_REQUIRE_ADAPTERS", "").split(",")))
    demanded |= {"torch"} if required("FFTMATVEC_REQUIRE_TORCH") else set()
    for package in sorted(packages & OPTIONAL):
        if importlib.util.find_spec(package) is None:
            (pytest.fail if package in demanded else pytest.skip)(f"needs {package}")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_draw_their_picture(script: Path, tmp_path: Path) -> None:
    skip_without(imported(script))
    command, env = [sys.executable, os.fspath(script)], clean_environment() | QUICK
    job = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=MOST_SECONDS)
    assert job.returncode == 0, job.stderr[-3000:]
    assert (tmp_path / f"{script.stem}.png").stat().st_size > 10_000


def test_the_tsunami_is_forecast(tmp_path: Path) -> None:
    skip_without({"matplotlib"})
    (figures,) = run_ranks(1, "support.gallery:tsunami", (tmp_path, ["--animate"]), timeout=MOST_SECONDS)
    assert figures["relative error of the uplift"] < 0.25
    assert figures["relative error of the forecast"] < 0.05
    assert figures["relative error of the early forecast"] < 0.05
    assert figures["heights within the 95 % band"] > 0.93
    for name in ("tsunami.png", "tsunami.gif"):
        assert 10_000 < (tmp_path / name).stat().st_size < 3_000_000


def test_four_ranks_forecast_the_same_tsunami(tmp_path: Path) -> None:
    skip_without({"matplotlib"})
    found = []
    for ranks in (1, 4):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        setting = folder, ["--size", "24", "--steps", "72"]
        found += run_ranks(ranks, "support.gallery:tsunami", setting, timeout=MOST_SECONDS)
        assert (folder / "tsunami.png").stat().st_size > 10_000
    assert found[0]["relative error of the forecast"] < 0.1
    for figures in found[1:]:
        assert figures == pytest.approx(found[0], rel=1e-6)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_are_short_and_check_themselves(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    assert re.search(r"^ *assert ", text, re.MULTILINE)


def test_a_whole_inversion_is_short() -> None:
    assert len((GALLERY / "heat_source.py").read_text(encoding="utf-8").splitlines()) <= INVERSION_LINES


@pytest.mark.parametrize("script", SECTIONS, ids=lambda path: path.stem)
def test_each_script_has_a_section_with_its_picture(script: Path) -> None:
    sections = [part for part in PAGE.split("\n## ")[1:] if f"]({script.name})" in part]
    assert len(sections) == 1, f"index.md: expected one section with a link to {script.name}, found {len(sections)}"
    pictures = re.findall(r"!\[([^]]*)\]\((images/[^)]+)\)", sections[0])
    assert pictures and any(Path(name).stem == script.stem for _, name in pictures)
    assert all(len(text) > 20 for text, _ in pictures), "expected alternative texts of more than 20 characters"


def test_pictures_are_small() -> None:
    named = set(re.findall(r"\((images/[^)]+)\)", PAGE))
    files = {f"images/{path.name}": path.stat().st_size for path in (GALLERY / "images").iterdir()}
    assert named == set(files)
    for name, size in files.items():
        assert 1_000 < size <= (ANIMATION_BYTES if name.endswith(".gif") else PICTURE_BYTES), f"{name}: {size} bytes"
    assert sum(size for name, size in files.items() if not name.endswith(".gif")) <= PICTURES_BYTES
