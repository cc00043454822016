"""The benchmarks' parsers of NVIDIA's tools: Nsight Compute's CSV and compute-sanitizer's summaries."""

from __future__ import annotations

import pytest

from support.programs import load

counters, sanitize = load("counters"), load("sanitize")

DRAM, READ, REGISTERS = (counters.METRICS[key] for key in ("dram_percent", "dram_bytes_read", "registers_per_thread"))
FORWARD = "_ZN15numba_fftmatvec7kernels6sbgemv29_sbgemv_cuda_nw_DDDD_445d1605B2v1B8abcdefghE5ArrayIdLi3EE"
ADJOINT = "_ZN15numba_fftmatvec7kernels11sbgemv_cuda22_one_cuda_c_0a1b2c3d_4B2v1E5ArrayIdLi3EE"
HEADER = (
    '"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size","Grid Size","Device",'
    '"CC","Section Name","Metric Name","Metric Unit","Metric Value"'
)


def line(number: int, kernel: str, metric: str, unit: str, value: str) -> str:
    where = '"python3.12","127.0.0.1"', '"1","13","(64, 1, 1)","(800, 1, 1)","0","9.0","Command line profiler metrics"'
    return f'"{number}","811",{where[0]},"{kernel}",{where[1]},"{metric}","{unit}","{value}"'


SAMPLE = "\n".join(
    [
        "==PROF== Connected to process 811 (/usr/bin/python3.12)",
        "==WARNING== Some counters are shared with other users of the device",
        HEADER,
        line(0, "product_marker", DRAM, "%", "0"),
        line(1, FORWARD, DRAM, "%", "91.50"),
        line(1, FORWARD, READ, "byte", "8,008,000,000"),
        line(1, FORWARD, REGISTERS, "register/thread", "64"),
        line(2, "product_marker", DRAM, "%", "n/a"),
        line(3, FORWARD, DRAM, "%", "92.50"),
        line(3, FORWARD, READ, "byte", "n/a"),
        "==PROF== a note between",
        line(4, "product_marker", DRAM, "%", "0"),
        line(5, ADJOINT, DRAM, "%", "80"),
        "==PROF== Disconnected from process 811",
    ]
)


def test_launches_have_the_metrics_of_their_lines() -> None:
    launches = counters.parse_csv(SAMPLE)
    assert [launch.kernel for launch in launches[1::2]] == [FORWARD, FORWARD, ADJOINT]
    assert launches[1].metrics == {DRAM: 91.5, READ: 8.008e9, REGISTERS: 64.0}
    assert launches[2].metrics == {}
    assert launches[3].metrics == {DRAM: 92.5}


def test_a_second_header_is_no_launch() -> None:
    assert counters.parse_csv("\n".join([SAMPLE, HEADER])) == counters.parse_csv(SAMPLE)


@pytest.mark.parametrize("text", ["", "==ERROR== Failed to find metric", HEADER])
def test_a_run_without_kernels_has_no_launches(text: str) -> None:
    assert counters.parse_csv(text) == []


def test_products_begin_at_markers() -> None:
    launches = counters.parse_csv(SAMPLE)
    products = counters.split_products(launches)
    assert [[launch.kernel for launch in product] for product in products] == [[FORWARD], [FORWARD], [ADJOINT]]
    assert (
        counters.split_products(launches[1:])[0] == launches[3:4]
    )  # launches before the first marker belong to no product
    assert counters.split_products([launches[0], launches[0]]) == [[], []]


def test_a_summary_has_the_medians_of_what_was_counted() -> None:
    products = counters.split_products(counters.parse_csv(SAMPLE))
    (forward,) = counters.summarise(products[:2])
    assert forward == {
        "kernel": "_sbgemv_cuda_nw_DDDD_445d1605",
        "launches": 2,
        "dram_percent": 92.0,
        "dram_bytes_read": 8.008e9,
        "registers_per_thread": 64.0,
    }
    assert [summary["kernel"] for summary in counters.summarise(products)] == [
        "_sbgemv_cuda_nw_DDDD_445d1605",
        "_one_cuda_c_0a1b2c3d_4",
    ]


@pytest.mark.parametrize(
    ("output", "errors"),
    [
        ("", None),
        ("========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n", 0),
        ("========= ERROR SUMMARY: 1 error\n", 1),
        ("========= ERROR SUMMARY: 128 errors\n========= ERROR SUMMARY: 108 errors were not printed. Use ...\n", 128),
        ("========= ERROR SUMMARY: 2 errors\nran 3 of 4 kernels\n========= ERROR SUMMARY: 0 errors\n", 2),
        ("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n", 0),
        ("========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)\n", 1),
        ("========= RACECHECK SUMMARY: 3 hazards displayed (2 errors, 1 warning)\n", 2),
    ],
)
def test_the_sanitizers_errors_are_counted(output: str, errors: int | None) -> None:
    assert sanitize.count_errors(output) == errors


CLEAN = "ran: a b\nknown: a b c d\n========= ERROR SUMMARY: 0 errors\n"


def checked(monkeypatch: pytest.MonkeyPatch, *outputs: tuple[str, int]) -> tuple[dict[str, object], str]:
    """Return the outcome of a clean run with parts that print these texts and exit with these codes."""
    parts = iter(sanitize.Outcome(sanitize.count_errors(output), code, output, 1.0) for output, code in outputs)
    monkeypatch.setattr(sanitize, "PARTS", len(outputs))
    monkeypatch.setattr(sanitize, "run_tool", lambda tool, arguments: next(parts))
    record, wrong = sanitize.check_clean("memcheck", [], quick=False)
    return record, wrong


def test_the_parts_of_a_clean_run_together_run_every_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    record, wrong = checked(monkeypatch, (CLEAN, 0), (CLEAN.replace("ran: a b", "ran: b c d"), 0))
    assert (record["kernels"], record["all_kernels"], record["errors"], wrong) == (4, 4, 0, "")


@pytest.mark.parametrize(
    ("output", "code", "words"),
    [
        (CLEAN, 0, "['c', 'd']"),
        ("known: a b c d\nran: a b c d\n", 0, "errors None"),
        (CLEAN.replace("a b\nk", "c d\nk").replace("0 errors", "7 errors"), 9, "errors 7"),
        (CLEAN.replace("a b\nk", "c d\nk"), 124, "exit code 124"),
    ],
)
def test_a_part_that_is_not_clean_spoils_the_run(
    monkeypatch: pytest.MonkeyPatch, output: str, code: int, words: str
) -> None:
    _, wrong = checked(monkeypatch, (CLEAN, 0), (output, code))
    assert words in wrong


def test_a_run_whose_end_the_tool_lost_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    lost, kept = (sanitize.Outcome(0, code, output, 1.0) for code, output in ((1, sanitize.LOST_EXIT_CODE), (0, CLEAN)))
    for outcomes, found in (([lost, kept], kept), ([lost] * sanitize.ATTEMPTS, lost)):
        runs = iter(outcomes)
        monkeypatch.setattr(sanitize, "run", lambda prefix, arguments, runs=runs: next(runs))
        assert sanitize.run_tool("racecheck", []) == found
