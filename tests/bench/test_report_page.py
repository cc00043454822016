"""The generated page of figures is up to date, and its tables agree with the records."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from numba_fftmatvec.cli.results import read_results, write_results
from support.programs import load

H100 = "NVIDIA H100 80GB HBM3"

page = load("lib.page")


def matvec(**fields: Any) -> dict[str, Any]:
    record = {
        "benchmark": "matvec",
        "op": "F",
        "shape": [5000, 100, 1000],
        "precision": "ddddd",
        "ranks": 1,
        "grid": [1, 1],
        "num_vecs": 1,
        "median_ms": 2.75,
        "min_ms": 2.7,
        "rel_error": 0.0,
        "peak_bytes": 9 * 10**9,
        "spectrum_bytes": 8_064_000_000,
    }
    return record | fields


def rows(name: str, *records: dict[str, Any], device: str = H100) -> list[dict[str, str]]:
    """Return the cells of a table that are not empty."""
    return [{title: cell for title, cell in row.items() if cell} for row in page.TABLES[name](records, device)]


def results(*records: dict[str, Any], **fields: Any) -> dict[str, Any]:
    about = {
        "schema": 1,
        "device": H100,
        "date": "2026-01-02T03:04:05+00:00",
        "commit": "abc",
        "versions": {"numba": "1"},
    }
    return about | {"records": list(records)} | fields


def test_the_page_is_up_to_date() -> None:
    assert page.PAGE.read_text() == page.committed_page(), "run make bench-report"


@pytest.mark.parametrize("name", page.CHARTS)
def test_a_chart_is_up_to_date(name: str) -> None:
    """A chart without a measurement has no file, and the page says so."""
    chart, text = page.PAGE.parent / name, page.committed_charts()[name]
    assert (chart.read_text(encoding="utf-8") if chart.exists() else None) == text, "run make bench-report"
    assert (f"`docs/{name}`" if text is None else f"]({name})") in page.PAGE.read_text()


def test_charts_of_peers_have_a_mark_for_each_ratio() -> None:
    about = {"benchmark": "peers", "op": "F", "shape": [50, 2, 10], "precision": "ddddd", "num_vecs": 1}
    ours = about | {"program": "numba-fftmatvec", "median_ms": 2.0, "time_over_ours": 1.0}
    theirs = [about | {"program": f"CuPy, {n}", "median_ms": 2.0 * n, "time_over_ours": float(n)} for n in (1, 3)]
    single = about | {"program": "CuPy", "precision": "sssss", "median_ms": 1.0, "time_over_ours": 9.0}
    failed = {"benchmark": "peers", "program": "JAX", "error": "not installed"}
    chart = page.ratios(results(ours, *theirs, single, failed))
    assert chart.count("<rect") - 1 == len(theirs)
    assert "CuPy, 1: 1.00 to 3.00." in chart


def test_the_template_asks_for_every_table() -> None:
    asked = set(re.findall(r"^<!-- table: (\w+)", page.TEMPLATE.read_text(), re.MULTILINE))
    assert asked == set(page.TABLES)


def test_the_generator_replaces_markers_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "there.png").touch()
    template = "a <!-- table: vectors -->\n<!-- table: vectors -->\n<!-- else -->\n<!-- picture: there.png A b -->\nz"
    record = {"benchmark": "vectors", "operation": "copy", "gb_per_s": 3000.4}
    found = page.render(template, {"v.json": results(record)}, tmp_path)
    first, title, rule, row, empty, source, *rest = found.split("\n")
    assert first == "a <!-- table: vectors -->"
    assert [title, rule, row, empty] == ["| operation | GB/s |", "| --- | ---: |", "| copy | 3000 |", ""]
    assert source == f"{H100}; `bench/results/v.json` (2026-01-02); commit `abc`; numba 1."
    assert rest == ["<!-- else -->", "![A b](there.png)", "z"]


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    template = "<!-- table: kernels k-*.json -->\n<!-- picture: absent.png A -->\n"
    record = {
        "benchmark": "kernels",
        "operation": "copy",
        "bytes": 1,
        "median_ms": 1.0,
        "gb_per_s": 1.0,
        "of_copy": 1.0,
    }
    missing = "*Not measured yet: no results of `kernels` in `bench/results/k-*.json`.*\n"
    assert page.render(template, {}, tmp_path) == f"{missing}*Not drawn yet: `docs/absent.png`.*\n"
    other = {"k-1.json": results(matvec()), "other.json": results(record)}
    assert page.render(template, other, tmp_path).startswith(missing)
    assert "| copy |" in page.render(template, {"k-1.json": results(record)}, tmp_path)


def test_brackets_make_no_links() -> None:
    assert page.markdown([{"program": "GEMM, [k][out][in]"}])[-1] == r"| GEMM, [k]\[out]\[in] |"


README = (page.ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("row", "file", "programs"),
    [
        ("NumPy and SciPy, CPU", "cpu/epyc.json", "NumPy and SciPy"),
        ("PyLops MDC, CPU", "cpu/epyc.json", "PyLops"),
        ("plain CuPy, H100", "h100/peers.json", "CuPy"),
    ],
)
def test_the_readme_has_the_measured_ratios(row: str, file: str, programs: str) -> None:
    records = read_results(page.RESULTS / file)["records"]
    gpu = [(r["num_vecs"], r["program"], r["time_over_ours"]) for r in page.of(records, "peers", precision="ddddd")]
    cpu = [
        (record["num_vecs"], program, peer["median_ms"] / record["median_ms"])
        for record in page.of(records, "cpu product")
        for program, peer in record["peers"].items()
    ]
    ratios = {
        num_vecs: [ratio for count, program, ratio in gpu + cpu if count == num_vecs and program.startswith(programs)]
        for num_vecs in (1, 16)
    }
    one, several = (f"{min(found):.2f} to {max(found):.2f}" for found in ratios.values())
    assert f"| {row} | {one} | {several} | `bench/results/{file}` |" in README


def test_the_readme_has_the_ratios_of_the_original() -> None:
    file = "h100/products.json"
    found = page.TABLES["products"](read_results(page.RESULTS / file)["records"], H100)
    ratios = [
        row["original / ours"]
        for row in found
        if row["precision"] == "ddddd" and row["product"] in ("F", r"F\*") and row["original / ours"]
    ]
    assert f"| the original in C++, H100 | {min(ratios)} to {max(ratios)} | | `bench/results/{file}` |" in README


def test_an_unknown_table_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^table: expected one of products, .*, found 'speed'$"):
        page.render("<!-- table: speed -->", {})


def test_files_of_one_environment_share_a_table() -> None:
    files = {"a.json": results(matvec()), "b.json": results(matvec(op="F*")), "c.json": results(matvec(), commit=None)}
    together, apart = page.table("products", files).split("\n\nNVIDIA")[0], page.table("products", files)
    assert together.count("\n| 5000") == 2
    assert "`bench/results/a.json` (2026-01-02), `bench/results/b.json` (2026-01-02); commit `abc`" in apart
    assert "`bench/results/c.json` (2026-01-02); commit `unknown`" in apart
    assert apart.count("| Nm x Nd x Nt | ") == 2


def test_products_stand_beside_the_others_and_the_bound() -> None:
    assert rows("products", matvec(), matvec(num_vecs=2), matvec(ranks=2, grid=[1, 2])) == [
        {
            "Nm x Nd x Nt": "5000 x 100 x 1000",
            "precision": "ddddd",
            "product": "F",
            "ours ms": "2.750",
            "bytes / bandwidth ms": "2.626",  # 5000 * 100 * 1001 * 16 bytes at 3.05 TB/s
            "bound / ours": "95.5%",
            "original ms": "3.081",
            "original / ours": "1.12",
            "CuPy ms": "3.00",
            "CuPy / ours": "1.09",
            "error": "0",
        }
    ]
    fixed, small, full = rows(
        "products",
        matvec(precision="ddhdd", median_ms=0.9, rel_error=3.2e-5),
        matvec(shape=[100, 10, 100], op="F*", median_ms=0.02),
        matvec(op="F*F", median_ms=6.134),
    )
    assert (fixed["bytes / bandwidth ms"], fixed["bound / ours"], fixed["error"]) == ("0.6564", "72.9%", "3.2e-05")
    assert "original ms" not in fixed
    assert (small["bytes / bandwidth ms"], small["original ms"], small["product"]) == ("(cache)", "0.0386", r"F\*")
    assert (full["original / ours"], "bytes / bandwidth ms" in full) == ("1.00", False)
    (elsewhere,) = rows("products", matvec(), device="Another GPU")
    assert elsewhere.keys() == {"Nm x Nd x Nt", "precision", "product", "ours ms", "error"}


def test_several_right_hand_sides_stand_beside_one() -> None:
    (with_one,) = rows("several", matvec(), matvec(num_vecs=16, median_ms=5.5), matvec(op="F*", median_ms=9.0))
    assert (with_one["vectors"], with_one["ms a vector"], with_one["gain"]) == ("16", "0.3438", "8.00")
    (alone,) = rows("several", matvec(num_vecs=4))
    assert "gain" not in alone


def test_storage_formats_stand_beside_double() -> None:
    h = matvec(precision="ddhdd", median_ms=0.825, spectrum_bytes=2_016_000_000, rel_error=3e-5)
    other = matvec(shape=[1, 1, 1])
    double, fixed = rows("storage", matvec(), h, other)
    assert (double["stored as"], double["of double's time"]) == ("complex128", "1.00")
    assert [fixed[key] for key in ("stored as", "GB", "of double's bytes", "ms", "of double's time", "error")] == [
        "FIXED16",
        "2.016",
        "0.25",
        "0.8250",
        "0.30",
        "3.0e-05",
    ]
    assert rows("storage", h) == []


def test_setup() -> None:
    record = {
        "benchmark": "setup",
        "shape": [5000, 100, 1000],
        "precision": "ddddd",
        "seconds": 0.5,
        "peak_bytes": 8_400_000_000,
        "spectrum_bytes": 8_000_000_000,
        "peak_over_stored": 1.05,
    }
    (row,) = rows("setup", record)
    assert (row["seconds"], row["spectrum GB"], row["peak GB"], row["peak / stored"]) == (
        "0.500",
        "8.000",
        "8.400",
        "1.050",
    )


def test_kernels_and_what_failed() -> None:
    good = {"operation": "pad ddd", "bytes": 2 * 10**9, "median_ms": 0.7, "gb_per_s": 2857.1, "of_copy": 0.951}
    bad = {"operation": "sbgemv F* fixed16", "error": "CapacityError: expected less | found more"}
    first, second = rows("kernels", *({"benchmark": "kernels"} | record for record in (good, bad)))
    assert first == {"kernel": "pad ddd", "GB": "2.000", "ms": "0.7000", "GB/s": "2857", "of copy": "95.1%"}
    assert second == {"kernel": r"sbgemv F\* fixed16", "failed": bad["error"]}
    assert page.markdown([second])[-1].endswith(r"expected less \| found more |")


def test_peers_and_who_is_faster() -> None:
    about = {"benchmark": "peers", "op": "F*", "shape": [500, 20, 200], "precision": "sssss", "num_vecs": 16}
    ours = about | {"program": "numba-fftmatvec", "median_ms": 2.0, "min_ms": 2.0, "time_over_ours": 1.0}
    slower = about | {"program": "CuPy", "median_ms": 3.0, "min_ms": 3.0, "time_over_ours": 1.5}
    faster = about | {"program": "JAX", "median_ms": 1.5, "min_ms": 1.4, "time_over_ours": 0.75}
    failed = {"benchmark": "peers", "program": "PyLops", "error": "not installed"}
    first, second, third = rows("peers", ours, slower, faster, failed)
    assert [first[key] for key in ("program", "product", "vectors", "its ms", "our ms", "its / ours", "faster")] == [
        "CuPy",
        r"F\*",
        "16",
        "3.000",
        "2.000",
        "1.50",
        "ours",
    ]
    assert (second["our ms"], second["faster"]) == ("2.000", "**the peer**")
    assert third == {"program": "PyLops", "failed": "not installed"}


def test_several_ranks() -> None:
    two = {"ranks": 2, "grid": [1, 2], "shape": [10000, 100, 1000], "median_ms": 2.0}
    several = two | {"num_vecs": 4}
    first, second = rows("nccl", matvec(), matvec(**two), matvec(**several), device="NVIDIA H200")
    assert (first["grid"], first["ours ms"], first["original ms"], first["original / ours"]) == (
        "1 x 2",
        "2.000",
        "2.064",
        "1.03",
    )
    assert (second["vectors"], "original ms" in second) == ("4", False)


def test_vectors_and_overhead() -> None:
    records = (
        {"benchmark": "vectors", "operation": "copy", "gb_per_s": 3000.0},
        {
            "benchmark": "vectors",
            "operation": "dot",
            "median_ms": 0.68,
            "gb_per_s": 3150.0,
            "of_copy": 1.05,
            "cupy_time_over_ours": 2.0,
        },
        {"benchmark": "host overhead", "operation": "+=", "host_us": 28.31},
    )
    assert rows("vectors", *records) == [
        {"operation": "copy", "GB/s": "3000"},
        {"operation": "dot", "ms": "0.6800", "GB/s": "3150", "of copy": "105.0%", "CuPy / ours": "2.00"},
    ]
    assert rows("overhead", *records) == [{"operation": "`+=`", "host µs": "28.3"}]


def test_counters() -> None:
    about = {"benchmark": "counters", "op": "F", "precision": "ddidd", "shape": [5000, 100, 1000], "num_vecs": 1}
    metrics = {
        "dram_percent": 91.26,
        "dram_bytes_read": 4.01e9,
        "duration_ns": 1_400_000.0,
        "registers_per_thread": 40.0,
    }
    good, bad = rows("counters", about | {"kernel": "_sbgemv"} | metrics, about | {"error": "no kernel was profiled"})
    assert (good["kernel"], good["DRAM throughput"], good["GB read"], good["µs"], good["registers"]) == (
        "`_sbgemv`",
        "91.3",
        "4.010",
        "1400.0",
        "40",
    )
    assert "L2" not in good
    assert bad["failed"] == "no kernel was profiled"


def test_counters_are_those_that_are_recorded() -> None:
    assert {key for key, _, _ in page.COUNTERS.values()} <= load("counters").METRICS.keys()


def test_sanitizer() -> None:
    about = {"benchmark": "sanitizer", "tool": "memcheck"}
    clean = about | {"program": "every kernel", "errors": 0, "caught": False, "kernels": 40, "all_kernels": 40}
    planted = about | {"program": "planted bug", "errors": 3, "caught": True}
    lost = about | {"program": "planted bug", "errors": None, "caught": False}
    assert [row["errors"] for row in rows("sanitizer", clean, planted, lost)] == ["0", "3", "no report"]
    assert [row["caught"] for row in rows("sanitizer", clean, planted)] == ["no", "yes"]
    assert rows("sanitizer", clean)[0]["kernels"] == "40 of 40"


def point(op: str, code: str, median_ms: float, rel_error: float, *, on_front: bool) -> dict[str, Any]:
    about = {"benchmark": "pareto", "op": op, "shape": [50, 10, 100], "precision": code, "spectrum_bytes": 10**9}
    return about | {"median_ms": median_ms, "rel_error": rel_error, "on_front": on_front}


POINTS = (
    point("F", "ddddd", 3.0, 0.0, on_front=True),
    point("F", "ddhdd", 1.0, 3e-5, on_front=True),
    point("F", "ddsdd", 2.0, 1e-4, on_front=False),
    point("F*", "ddddd", 2.0, 0.0, on_front=True),
)


def test_the_front_is_sorted_by_time() -> None:
    found = rows(
        "pareto", POINTS[3], *POINTS[:3], {"benchmark": "pareto", "op": "F", "precision": "ddidd", "error": "x"}
    )
    assert [(row["product"], row["precision"], row["ms"], row["error"]) for row in found] == [
        ("F", "ddhdd", "1.000", "3.0e-05"),
        ("F", "ddddd", "3.000", "0"),
        (r"F\*", "ddddd", "2.000", "0"),
    ]


def test_pareto_measures_both_products(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pareto = load("pareto")
    monkeypatch.setattr(pareto, "candidate_codes", lambda coarsest: ("ddddd", "ddsdd"))
    path = tmp_path / "pareto.json"
    line = ["--backend", "cpu", "--shape", "6", "4", "8", "--repetitions", "2", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["pareto.py", *line])
    pareto.main()
    records = read_results(path)["records"]
    assert [(record["op"], record["precision"]) for record in records] == [
        (op, code) for op in ("F", "F*") for code in ("ddddd", "ddsdd")
    ]
    for record in records:
        assert record.keys() >= POINTS[0].keys()
        assert record["shape"] == [6, 4, 8]
        assert (record["rel_error"] == 0) == (record["precision"] == "ddddd")
    assert all(record["on_front"] for record in records if record["precision"] == "ddddd")


@pytest.mark.parametrize("line", [[], ["--png", "x.png"], ["--draw", "x.json"], ["--json", "a", "--draw", "b"]])
def test_pareto_measures_or_draws(line: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pareto.py", *line])
    with pytest.raises(SystemExit, match="2"):
        load("pareto").main()


def test_the_front_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib (extra `plot`)")
    write_results(tmp_path / "pareto.json", POINTS, H100)
    picture = tmp_path / "pareto.png"
    monkeypatch.setattr(sys, "argv", ["pareto.py", "--draw", str(tmp_path / "pareto.json"), "--png", str(picture)])
    load("pareto").main()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_tiles_of_sbgemv() -> None:
    """The first tile has no tensor cores, the second may have; the share of the copy is that of the faster."""
    fast = {"benchmark": "tiles", "operation": "F* fixed16", "tile": "mma", "median_ms": 2.0, "of_copy": 0.8}
    slow = fast | {"tile": "fma", "median_ms": 5.0, "of_copy": 0.32}
    alone = slow | {"operation": "F fixed16"}
    assert rows("tiles", slow, fast, alone) == [
        {"SBGEMV": r"F\* fixed16", "without ms": "5.00", "with ms": "2.00", "without / with": "2.50", "of copy": "80%"},
        {"SBGEMV": "F fixed16", "without ms": "5.00", "of copy": "32%"},
    ]


def test_latencies_are_of_the_best_round() -> None:
    first = {
        "benchmark": "latency",
        "run": "matvec",
        "shape": [1, 2, 3],
        "call_us": 6.0,
        "wait_us": 9.0,
        "both_us": 15.1,
    }
    found = rows("latency", first, first | {"call_us": 5.0, "both_us": 14.0}, first | {"process": 1, "both_us": 1.0})
    assert found == [
        {"Nm x Nd x Nt": "1 x 2 x 3", "run": "matvec", "call us": "5.0", "wait us": "9.0", "both us": "14.0"}
    ]


def test_clocks_are_of_the_slowest_round() -> None:
    about = {"benchmark": "clocks", "op": "F*", "precision": "ddhdd", "shape": [1, 2, 3]}
    found = [about | {"watts": 660.4, "limit_watts": 700.0, "power_capped": True}]
    for waited, number, quantile in itertools.product((True, False), (0, 1), (0.02, 0.5, 0.98)):
        us = 900 + 100 * quantile + 10 * (number if waited else -number)
        found.append(about | {"waited": waited, "round": number, "quantile": quantile, "us": us, "mhz": 2000 - us})
    assert rows("clocks", *found) == [
        {
            "precision": "ddhdd",
            "product": r"F\*",
            "waited us": "912, 960, 1008",
            "waited MHz": "1088, 1040, 992",
            "queued us": "902, 950, 998",
            "queued MHz": "1098, 1050, 1002",
            "W of limit": "660 of 700",
            "capped": "yes",
        }
    ]
