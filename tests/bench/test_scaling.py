"""bench/scaling.py: its cases, a whole run on the CPU, failing jobs, and the chart."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from numba_fftmatvec.cli.results import read_results
from support.programs import BENCH, load

scaling, chart, page = load("scaling"), load("lib.chart"), load("lib.page")
SVG = "{http://www.w3.org/2000/svg}"


def record(scaling: str, grid: tuple[int, int], median_ms: float, **fields: Any) -> dict[str, Any]:
    about = {"benchmark": "scaling", "op": "F", "precision": "ddddd", "shape": [5000, 100, 1000], "rel_error": 1e-16}
    times = {"median_ms": median_ms, "min_ms": median_ms, "predicted_ms": 1.1 * median_ms}
    return about | times | {"scaling": scaling, "grid": list(grid), "ranks": grid[0] * grid[1]} | fields


RECORDS = [
    record("single", (1, 1), 2.752),
    record("strong", (1, 2), 1.402),
    record("weak", (1, 2), 2.768),
    record("strong", (2, 2), 0.834),
    record("single", (1, 1), 1.5, precision="dssdd"),
    record("single", (1, 1), 2.8, op="F*"),
    record("weak", (4, 1), 2.987, op="F*"),
]


def run(monkeypatch: pytest.MonkeyPatch, *line: str) -> None:
    monkeypatch.setattr(sys, "argv", ["scaling.py", *line])
    scaling.main()


def texts(svg: str) -> list[str]:
    """Return the texts of a chart; they are readable and inside its frame."""
    drawing = ElementTree.fromstring(svg)
    width, height = int(drawing.attrib["width"]), int(drawing.attrib["height"])
    found = list(drawing.iter(f"{SVG}text"))
    for text in found:
        assert int(text.attrib["font-size"]) >= 12
        assert 0 <= float(text.attrib["x"]) <= width and 0 <= float(text.attrib["y"]) <= height
    return [text.text or "" for text in found]


def test_every_grid_is_measured_strongly_and_weakly() -> None:
    found = list(scaling.cases([4, 1, 2, 2], (50, 10, 7)))
    assert found[0] == ("single", (1, 1), (50, 10, 7))
    assert found[1:5] == [
        ("strong", (1, 2), (50, 10, 7)),
        ("weak", (1, 2), (100, 10, 7)),
        ("strong", (2, 1), (50, 10, 7)),
        ("weak", (2, 1), (50, 20, 7)),
    ]
    assert [grid for kind, grid, _ in found if kind == "weak"] == [(1, 2), (2, 1), (1, 4), (2, 2), (4, 1)]


@pytest.mark.mpi
def test_a_run_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path, svg = tmp_path / "new" / "scaling.json", tmp_path / "scaling.svg"
    line = ["--backend", "cpu", "--ranks", "1", "2", "--shape", "12", "4", "8", "--repetitions", "2", "--json"]
    run(monkeypatch, *line, str(path), "--svg", str(svg))
    records = read_results(path)["records"]
    expected = [(kind, list(grid), list(shape)) for kind, grid, shape in scaling.cases([1, 2], (12, 4, 8))]
    assert [(r["scaling"], r["grid"], r["shape"]) for r in records if r["op"] == "F"] == expected
    assert [r["op"] for r in records] == ["F", "F*"] * len(expected)
    assert all(r["benchmark"] == "scaling" and 0 <= r["rel_error"] < 1e-14 for r in records)
    assert all(0 < r["min_ms"] <= r["median_ms"] and r["predicted_ms"] > 0 for r in records)
    assert capsys.readouterr().out.count("predicted") == len(records)
    assert {"F, ddddd: strong scaling", "F*, ddddd: weak scaling"} <= set(texts(svg.read_text()))


@pytest.mark.mpi
def test_a_job_that_fails_leaves_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scaling.json"
    written = []
    monkeypatch.setattr(scaling, "write_results", lambda path, records, device: written.append(list(records)))
    monkeypatch.setattr(scaling, "cases", lambda ranks, shape: [("strong", (1, 2), shape), ("weak", (1, 2), (2, 1, 4))])
    with pytest.raises(SystemExit, match="expected the times of every grid"):
        run(monkeypatch, *["--backend", "cpu", "--shape", "1", "1", "4", "--repetitions", "1", "--json"], str(path))
    assert [len(records) for records in written] == [1, 3]
    failed, *others = written[-1]
    assert failed["error"].startswith("exit status 2: fftmatvec: error: ")
    assert "expected at least one block for each of 2 ranks" in failed["error"]
    assert all("error" not in other for other in others)


def test_a_job_that_takes_too_long_is_ended() -> None:
    assert scaling.run_job(["sh", "-c", "trap '' TERM; sleep 60 & wait; wait"], 0.2) == "not finished after 0.2 s"
    assert scaling.run_job(["sh", "-c", "echo one; echo two; exit 3"], 10.0) == "exit status 3: two"
    assert scaling.run_job(["true"], 10.0) == ""


@pytest.mark.parametrize("line", [[], ["--json", "a"], ["--draw", "a"], ["--json", "a", "--draw", "b"]])
def test_it_measures_or_draws(line: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, *line)


def test_ideal_scaling() -> None:
    assert chart.ideal_ms(RECORDS[3], RECORDS) == 2.752 / 4
    assert chart.ideal_ms(RECORDS[2], RECORDS) == 2.752
    assert chart.ideal_ms(RECORDS[6], RECORDS) == 2.8
    assert chart.ideal_ms(RECORDS[3], RECORDS[1:]) is None


def test_the_chart_shows_every_grid() -> None:
    failed = {"benchmark": "scaling", "scaling": "weak", "grid": [2, 2], "ranks": 4, "shape": [1, 1, 1], "error": "x"}
    svg = chart.draw([*RECORDS, failed | {"precision": "ddddd"}], "A GPU")
    found = texts(svg)
    assert "A GPU, Nm x Nd x Nt = 5000 x 100 x 1000 on one rank" in found
    assert [found.count(value) for value in ("2.75", "1.40", "0.834", "2.99")] == [2, 1, 1, 1]
    assert found.count("2 \u00d7 2") == 1
    assert found.count("4 ranks") == 2
    assert svg.count("<polyline") == chart.draw(RECORDS, "A GPU").count("<polyline")
    assert ElementTree.fromstring(chart.draw([], "A GPU")).tag == f"{SVG}svg"


@pytest.mark.parametrize(
    ("largest", "expected"), [(2.99, (0.5, 6)), (0.02, (0.005, 5)), (70.0, (20.0, 4)), (1.0, (0.2, 6))]
)
def test_an_axis_has_a_few_round_steps(largest: float, expected: tuple[float, int]) -> None:
    step, ticks = chart._ticks(largest)
    assert (step, ticks) == pytest.approx(expected)
    assert step * ticks > largest


def test_the_table_compares_with_ideal_scaling_and_the_model() -> None:
    strong = list(page.TABLES["scaling"](RECORDS, "A GPU"))[3]
    assert [strong[title] for title in ("scaling", "grid", "ours ms", "ideal ms", "ideal / ours")] == [
        "strong",
        "2 x 2",
        "0.8340",
        "0.6880",
        "82.5%",
    ]
    assert (strong["model ms"], strong["model / ours"], strong["error"]) == ("0.9174", "1.10", "1.0e-16")
    failed = {"benchmark": "scaling", "scaling": "weak", "grid": [2, 1], "shape": [1, 1, 1], "error": "exit status 2"}
    (row,) = page.TABLES["scaling"]([failed], "A GPU")
    assert {title: cell for title, cell in row.items() if cell} == {
        "scaling": "weak",
        "grid": "2 x 1",
        "Nm x Nd x Nt": "1 x 1 x 1",
        "failed": "exit status 2",
    }


def test_committed_charts_are_up_to_date() -> None:
    docs = BENCH.parent / "docs"
    drawn = {}
    for path in (BENCH / "results").glob("*/scaling.json"):
        results = read_results(path)
        drawn[f"scaling-{path.parent.name}.svg"] = chart.draw(results["records"], results["device"])
    found = {path.name: path.read_text(encoding="utf-8") for path in docs.glob("scaling-*.svg")}
    assert found == drawn, "run bench/scaling.py --draw"
