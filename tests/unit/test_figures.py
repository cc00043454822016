"""The figures of the documentation are up to date, and have titles and descriptions."""

from __future__ import annotations

import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from numba_fftmatvec.kernels import formats

DOCS = Path(__file__).resolve().parents[2] / "docs"
FIGURES: dict[str, str] = runpy.run_path(str(DOCS / "figures.py"))["figures"]()
SVG = "{http://www.w3.org/2000/svg}"


def test_the_folder_holds_the_figures_alone() -> None:
    assert {path.name for path in (DOCS / "figures").iterdir()} == FIGURES.keys()


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_up_to_date(name: str) -> None:
    assert (DOCS / "figures" / name).read_text(encoding="utf-8") == FIGURES[name], "run python docs/figures.py"


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_readable(name: str) -> None:
    """It is XML with a title and a description, a white background and no text below 12 px inside its frame."""
    svg = ElementTree.fromstring(FIGURES[name])
    width, height = int(svg.attrib["width"]), int(svg.attrib["height"])
    title, description, background = list(svg)[:3]
    assert (title.tag, description.tag) == (f"{SVG}title", f"{SVG}desc")
    assert title.text and description.text
    assert background.attrib == {"width": str(width), "height": str(height), "fill": "#ffffff"}
    for text in svg.iter(f"{SVG}text"):
        assert int(text.attrib["font-size"]) >= 12
        assert 0 <= float(text.attrib["x"]) <= width and 0 <= float(text.attrib["y"]) <= height


def test_the_storage_figure_has_the_formats_of_the_kernels() -> None:
    drawn = runpy.run_path(str(DOCS / "figures.py"))
    assert (drawn["ALIGNMENT"], drawn["RUN"]) == (formats.ALIGNMENT, formats.RUN)
    expected = [(format.name, format.part.itemsize, format.is_fixed) for format in formats.FORMATS]
    assert [(name.lower(), part, fixed) for name, _, part, fixed in drawn["FORMATS"]] == expected
