"""bench/cpu.py: its loops, a whole run, and the rows and the sentence of the page."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import config

from numba_fftmatvec.cli.results import read_results
from support.programs import load

cpu, host, machine, speed = load("cpu"), load("lib.host"), load("lib.machine"), load("lib.speed")
MACHINE = {"instructions": "AVX2", "threads": 2}
NUMPY = "NumPy and SciPy, [t, block]"


def test_the_loop_of_the_peak_has_packed_multiply_adds() -> None:
    """Each chain of a pass is one instruction on whole vectors, so none is scalar and none waits for another."""
    found = machine.instructions()
    text = machine.assembly(machine.compiled_peak("d", found.width, found.chains))
    assert len(re.findall(found.multiply_add, text)) >= found.chains
    if found.name.startswith("AVX"):
        assert not re.findall(r"vfn?m(?:add|sub)\w+sd", text)
        assert len(re.findall(found.multiply_add.replace("pd", "ps"), text)) == 0
        single = machine.assembly(machine.compiled_peak("s", found.width, found.chains))
        assert len(re.findall(found.multiply_add.replace("pd", "ps"), single)) >= found.chains


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("vfmadd213pd %zmm1, %zmm2, %zmm3", "AVX-512"),
        ("vfmadd213pd\t%ymm1, %ymm2, %ymm3", "AVX2"),
        ("mulpd\t%xmm0, %xmm1", "SSE2"),
        ("fmla\tv0.2d, v1.2d, v2.2d", "NEON"),
        ("fmla\tz0.d, p0/m, z1.d, z2.d", "SVE"),
    ],
)
def test_instructions_are_those_of_the_assembly(text: str, name: str) -> None:
    first = next(found for found in machine.INSTRUCTIONS if re.search(found.registers, text))
    assert first.name == name
    assert re.search(first.multiply_add, text)


@pytest.mark.parametrize(("threads", "nbytes"), [(1, 1), (2, 100_000)])
def test_reading_adds_up_all_bytes(threads: int, nbytes: int) -> None:
    """The memory holds ones, so the sum is the number of values of all passes."""
    threads = min(threads, config.NUMBA_NUM_THREADS)
    memory = machine.Memory(threads)
    read, found = memory.reader(nbytes, 3)
    assert nbytes <= found <= nbytes + threads * machine.SUMS * machine.LINE
    assert read() == 3 * found / 8
    again, _ = memory.reader(2 * nbytes)
    assert again() >= 2 * nbytes / 8


def test_the_multiplier_counts_its_operations() -> None:
    run, operations = machine.multiplier("s", 1, steps=10)
    found = machine.instructions()
    assert operations == 2 * 10 * found.chains * found.width // 4
    starts = (1.0 + chain for chain in range(found.chains))
    ends = [start * 0.999**10 + 0.001 * sum(0.999**k for k in range(10)) for start in starts]
    assert run() == pytest.approx(sum(ends) * found.width // 4, rel=1e-2)


def test_programs_alternate_and_run_at_least_once() -> None:
    calls: list[str] = []
    programs = {name: lambda name=name: calls.append(name) for name in "ab"}
    found = host.alternate(programs, host.Effort(2, 0.0, 0.0))
    assert calls == ["a", "b", "a", "b"]
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 2, "b": 2}


def test_a_peer_with_another_result_is_recorded_as_failed() -> None:
    peer = host.Peer("wrong", "[block, t]", lambda: lambda x: 2 * x)
    with pytest.raises(ArithmeticError, match=r"expected a result within .* of ours, found 1\.00e\+00"):
        host.checked_run(peer, np.ones((1, 2, 3)), np.ones((1, 2, 3)))
    assert host.failure(ModuleNotFoundError("No module named 'pylops'"))["error"].startswith("not installed")


def test_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cpu.json"
    line = ["--shapes", "6x4x8", "--num-vecs", "1", "2", "--rounds", "1", "--seconds", "0.0001"]
    monkeypatch.setattr(cpu, "GROWTH_SHAPE", (4, 2, 8))
    monkeypatch.setattr(cpu, "VECTORS_SHAPE", (4, 2, 8))
    monkeypatch.setattr(cpu, "MOST_VECS", 32)
    monkeypatch.setattr(cpu, "cache_bytes", lambda: {2: 1 << 16, 3: 1 << 17})
    monkeypatch.setattr(sys, "argv", ["cpu.py", *line, "--largest", "5000", "--json", str(path)])
    cpu.main()
    records = read_results(path)["records"]
    assert len(capsys.readouterr().out.splitlines()) == len(records)
    of = {name: [r for r in records if r["benchmark"] == f"cpu {name}"] for name in ("machine", "product", "loaded")}
    assert {record["of_threads"] for record in of["machine"]} == {1, records[0]["threads"]}
    assert all(read["gb_per_s"] > 0 for record in of["machine"] for read in record["reads"])
    assert [(r["op"], r["num_vecs"], "of_peak" in r) for r in of["product"]] == [
        ("F", 1, False),
        ("F*", 1, False),
        ("F", 2, True),
        ("F*", 2, True),
    ]
    assert all("median_ms" in r["peers"][NUMPY] and r["of_read"] > 0 for r in of["product"])
    assert [len(r["peers"]) for r in of["loaded"]] == [2, 2]
    formats = [(r["precision"], r["spectrum_bytes"]) for r in records if r["benchmark"] == "cpu format"]
    assert formats[:4] == [("ddddd", 3456), ("sssss", 1728), ("ddidd", 1728), ("ddhdd", 864)]
    transforms = [r for r in records if r["benchmark"] == "cpu transform"]
    assert [(r["transform"], r["rows"], r["steps"]) for r in transforms] == [("rfft", 6, 8), ("irfft", 6, 8)]
    grown = speed.growths(records)
    assert {grows: [speed.size_of(r) for r in group] for (_, grows, op), group in grown.items() if op == "F"} == {
        "Nm": [4, 8, 16],
        "Nd": [2, 4, 8],
        "Nt": [8, 16, 32],
        "R": [1, 2, 4, 8, 16, 32],
    }
    for table in speed.TABLES:
        assert list(table(records, "a CPU")), table.__name__


def test_busy_processes_end() -> None:
    with cpu.busy_cores() as processes:
        assert len(processes) == host.CORES
        assert all(process.poll() is None for process in processes)
    assert all(process.poll() is not None for process in processes)


def product(op: str, shape: list[int], median_ms: float, num_vecs: int = 1, **peers: float) -> dict[str, Any]:
    times = {NUMPY: {"median_ms": peers["numpy"]}, "PyLops, [t, block]": {"error": "not installed (no pylops)"}}
    fields = {"op": op, "shape": shape, "precision": "ddddd", "num_vecs": num_vecs, "spectrum_bytes": 80_400_000}
    found = {"median_ms": median_ms, "min_ms": median_ms, "sbgemv_ms": 1.0, "read_ms": 0.875, "of_read": 0.875}
    peak = {"of_peak": 0.25} if num_vecs > 1 else {}
    return MACHINE | {"benchmark": "cpu product", "peers": times} | fields | found | peak


def test_products_stand_beside_peers_and_the_machine() -> None:
    records = [product("F", [500, 50, 200], 2.0, 4, numpy=3.0), product("F*", [500, 50, 200], 4.0, 4, numpy=3.0)]
    (row,) = speed.cpu_products(records, "a CPU")
    assert row == {
        "machine": "AVX2, 2 threads",
        "Nm x Nd x Nt": "500 x 50 x 200",
        "MB": "80.4",
        "vectors": "4",
        "F ms": "2.00",
        r"F\* ms": "4.00",
        "fastest peer / F": "1.50",
        r"fastest peer / F\*": "0.75",
        "F of reading": "88%",
        r"F\* of reading": "88%",
        "F of FMA peak": "25%",
        r"F\* of FMA peak": "25%",
        "failed": "PyLops, [t, block]: not installed (no pylops)",
    }


def test_transforms_stand_beside_those_of_numpy() -> None:
    about = MACHINE | {"benchmark": "cpu transform", "rows": 500, "steps": 200}
    records = [
        about | {"transform": kind, "median_ms": ms, "peers": {"NumPy": {"median_ms": 3.0}}}
        for kind, ms in (("rfft", 1.0), ("irfft", 2.0))
    ]
    assert list(speed.cpu_transforms(records, "a CPU")) == [
        {
            "machine": "AVX2, 2 threads",
            "rows": "500",
            "time steps": "200",
            "forward ms": "1.00",
            "NumPy / forward": "3.00",
            "back ms": "2.00",
            "NumPy / back": "1.50",
        }
    ]


def grown(size: int, min_ms: float, read_ms: float) -> dict[str, Any]:
    fields = {"op": "F", "shape": [size, 2, 8], "num_vecs": 1, "spectrum_bytes": 1_000_000 * size, "grows": "Nm"}
    return MACHINE | {"benchmark": "cpu growth", "median_ms": min_ms, "min_ms": min_ms, "read_ms": read_ms} | fields


def test_growth_has_a_slope_and_its_largest_step() -> None:
    linear = speed.growth_of([grown(n, 3.0 * n, 1.0 * n) for n in (1, 2, 4)])
    assert (linear.slope, linear.step) == (pytest.approx(1), pytest.approx(1))
    records = [grown(4, 14.0, 6.0), grown(1, 1.0, 1.0), grown(2, 2.0, 2.0)]
    (row,) = speed.cpu_growth(records, "a CPU")
    keys = ("from", "to", "MB", "ms", "largest step / linear", "at", "reading's step there")
    assert [row[key] for key in keys] == ["1", "4", "1.00 to 4.00", "1.00 to 14.0", "3.50", "4", "1.50"]
    assert list(speed.cpu_growth(records[:1], "a CPU")) == []


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        (
            (0.5, 1.2, 1.5),
            "faster than NumPy and SciPy from Nm x Nd x Nt = 20 x 2 x 8 on: 1.20 times and more. At 10 x",
        ),
        ((1.3, 1.2, 1.5), "from Nm x Nd x Nt = 10 x 2 x 8 on: 1.20 times and more, at every measured size."),
        ((1.3, 1.2, 0.8), "NumPy and SciPy take 0.80 of our time for one vector at the largest size, 30 x 2 x 8."),
        ((0.5, 0.75, 2.0), "At 20 x 2 x 8, the next smaller size, NumPy and SciPy take 0.75 of our time."),
    ],
)
def test_the_size_from_which_the_library_pays(ratios: tuple[float, ...], words: str) -> None:
    records = [
        product(op, [10 * number, 2, 8], 1.0, numpy=ratio if op == "F" else 9.0)
        for number, ratio in enumerate(ratios, 1)
        for op in ("F", "F*")
    ]
    found = speed.pays([{"device": "A CPU", "records": records[::-1]}])
    assert found.startswith("On A CPU, AVX2, 2 threads, ")
    assert words in found
    assert speed.pays([]).startswith("*Not measured yet")


def test_a_reader_follows_memory_that_grows() -> None:
    """Reading the released memory would end the process, or read another's values."""
    memory = machine.Memory(1)
    read, nbytes = memory.reader(1 << 16)
    memory.reader(1 << 28)
    memory._values[:] = 2.0
    assert read() == 2.0 * nbytes / 8
