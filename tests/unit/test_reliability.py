"""The page docs/reliability.md: each test that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "reliability.md"


def test_every_named_test_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", PAGE.read_text())
    assert len(named) > 20
    for file, function in named:
        assert (TESTS / file).exists(), file
        assert not function or f"def {function}(" in (TESTS / file).read_text(), (file, function)


def test_every_promise_has_a_test() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "---" not in line]
    promises = [row for row in rows if not row.startswith("| promise")]
    assert promises
    assert all(re.search(r"`[\w/]+\.py", row.split("|")[2]) for row in promises)
