"""The pages of docs/: their examples run, and their links resolve."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path) -> list[str]:
    """Return the blocks of Python code of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


# Pages whose examples are complete and run one after another; others show parts of a script.
EXAMPLES = [page for page in PAGES if any("import numba_fftmatvec" in block for block in blocks(page)[:1])]


# A block with this text needs an optional library.
OPTIONAL = {"plotting": "matplotlib", "matplotlib": "matplotlib", "torch": "torch"}


def missing(block: str) -> set[str]:
    """Return the libraries that a block needs and that are not installed."""
    needed = {library for text, library in OPTIONAL.items() if re.search(rf"\b{text}\b", block)}
    return {library for library in needed if importlib.util.find_spec(library) is None}


@pytest.mark.parametrize("page", EXAMPLES, ids=named)
def test_examples(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks run in their order; without an optional library those that need it are left out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    absent = {block: missing(block) for block in blocks(page)}
    runnable = [block for block, libraries in absent.items() if not libraries]
    exec(compile("\n".join(runnable), named(page), "exec"), {})
    if lacking := set().union(*absent.values()):
        assert os.environ.get("FFTMATVEC_REQUIRE_TORCH") != "1", f"not installed: {lacking}"
        pytest.skip(f"ran {len(runnable)} of {len(absent)} blocks; the others need {', '.join(sorted(lacking))}")


def test_there_are_examples() -> None:
    assert sum(len(blocks(page)) for page in EXAMPLES) >= 5


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"https?://|mailto:|#", target):
            path = page.parent / target.partition("#")[0]
            assert path.exists(), f"{named(page)}: {target}"


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_code_can_be_pasted_into_a_session(page: str) -> None:
    """A session ends a compound statement at a blank line only."""
    for code in re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE):
        for statement, following in pairwise(ast.parse(code).body):
            if hasattr(statement, "body"):
                assert following.lineno > statement.end_lineno + 1, code.splitlines()[following.lineno - 1]
