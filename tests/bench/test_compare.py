"""The comparison of two checkouts: the smallest figures of each, and their ratios."""

from __future__ import annotations

from typing import Any

import pytest

from support.programs import load

compare = load("compare")


def run(commit: str, **figures: float) -> dict[str, Any]:
    record = {"op": "F", "shape": [3, 2, 5], "precision": "ddddd", "num_vecs": 1, "peak_bytes": 100}
    return {"commit": commit, "records": [record | figures]}


def test_ratios_are_of_the_smallest_figures_of_each_checkout() -> None:
    before = [run("a", median_ms=2.0, queued_ms=1.0), run("a", median_ms=1.0, queued_ms=1.5)]
    after = [run("b", median_ms=1.5, queued_ms=3.0, peak_bytes=50), run("b", median_ms=4.0, queued_ms=2.0)]
    (record,) = compare.ratios(before, after)
    assert (record["commit_before"], record["commit_after"], record["processes"]) == ("a", "b", 2)
    assert record["median_ms_ratio"] == pytest.approx(1.5)
    assert record["queued_ms_ratio"] == pytest.approx(2.0)
    assert record["peak_bytes_ratio"] == pytest.approx(0.5)


def test_products_of_one_checkout_alone_are_left_out() -> None:
    other = run("b", median_ms=1.0, queued_ms=1.0)
    other["records"][0]["op"] = "F*"
    assert compare.ratios([run("a", median_ms=1.0, queued_ms=1.0)], [other]) == []
