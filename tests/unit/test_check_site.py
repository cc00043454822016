"""`.ci/check_site.py` finds the faults of a built site."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

CHECK: dict[str, Any] = runpy.run_path(str(Path(__file__).resolve().parents[2] / ".ci" / "check_site.py"))

GOOD = (
    '<h1 id="top">A</h1><a href="#top">x</a><a href="folder/b.html#end">b</a><a href="folder/">b</a>'
    '<a href="https://example.org/">elsewhere</a><img src="p%20q.png" alt="a picture"><img src="data:,x" alt="dot">'
)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "index.html").write_text(GOOD)
    for name in ("b.html", "index.html"):
        (folder / name).write_text('<p id="end"></p><a href="../index.html">up</a>')
    (tmp_path / "p q.png").touch()
    (tmp_path / "404.html").write_text('<a href="/folder/b.html">b</a>')
    return tmp_path


def test_a_sound_site(site: Path) -> None:
    assert CHECK["faults"](site) == []
    assert CHECK["main"]([str(site)]) == 0


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ('<a href="c.html">x</a>', "c.html does not exist"),
        ('<a href="folder/b.html#middle">x</a>', "folder/b.html#middle has no such anchor"),
        ('<a href="#bottom">x</a>', "#bottom has no such anchor"),
        ('<a href="/folder/b.html">x</a>', "/folder/b.html does not exist"),
        ('<img src="r.png" alt="r">', "r.png does not exist"),
        ('<img src="p%20q.png">', "a picture without an alternative text: p%20q.png"),
        ('<img src="p%20q.png" alt=" ">', "a picture without an alternative text: p%20q.png"),
        ('<script src="https://example.org/x.js"></script>', "loads https://example.org/x.js from a network"),
        ('<link href="//example.org/x.css">', "loads //example.org/x.css from a network"),
        ("x" * 1_000_000, f"expected at most 1000000 bytes, found {1_000_000 + len(GOOD)}"),
    ],
)
def test_faults(site: Path, html: str, fault: str) -> None:
    (site / "index.html").write_text(GOOD + html)
    assert CHECK["faults"](site) == [f"index.html: {fault}"]
    assert CHECK["main"]([str(site)]) == 1


def test_a_site_without_pages(tmp_path: Path) -> None:
    assert CHECK["main"]([str(tmp_path)]) == 1
