"""The choice of a process grid: its model against measured products, and the grids that it chooses."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import numba_fftmatvec as fm
from numba_fftmatvec.cli.results import read_results
from numba_fftmatvec.comm.grids import CPU, H100, H200, Machine, best_grid, grids_of, predict_seconds
from numba_fftmatvec.errors import ArgumentError, GridError, ShapeError

ROOT = Path(__file__).resolve().parents[3]
RESULTS, DOCS = ROOT / "bench" / "results", ROOT / "docs"
SIZES = (100, 5000, 1000)  # Nd, Nm, Nt

# Median milliseconds of F in double on up to four NVIDIA H100 with NVLink and NCCL, at commit e1b828c. Strong: the
# matrix of SIZES. Weak: that matrix on each GPU.
STRONG = {(1, 1): 2.752, (1, 2): 1.402, (1, 4): 0.735, (2, 2): 0.834, (4, 1): 1.035}
WEAK = {(1, 2): 2.768, (1, 4): 2.785, (2, 2): 2.920, (4, 1): 2.987}


def weak(grid: tuple[int, int]) -> tuple[int, int, int]:
    return SIZES[0] * grid[0], SIZES[1] * grid[1], SIZES[2]


def test_the_model_agrees_with_four_gpus() -> None:
    for grid, measured in STRONG.items():
        assert 1e3 * predict_seconds(grid, SIZES, "F") == pytest.approx(measured, rel=0.02), grid
    for grid, measured in WEAK.items():
        assert 1e3 * predict_seconds(grid, weak(grid), "F") == pytest.approx(measured, rel=0.02), grid


def test_the_model_orders_the_grids_as_measured() -> None:
    predicted = {grid: predict_seconds(grid, SIZES, "F") for grid in STRONG}
    assert sorted(predicted, key=predicted.__getitem__) == sorted(STRONG, key=STRONG.__getitem__)
    predicted = {grid: predict_seconds(grid, weak(grid), "F") for grid in WEAK}
    assert sorted(predicted, key=predicted.__getitem__) == sorted(WEAK, key=WEAK.__getitem__)


def committed() -> Iterator[tuple[str, str, tuple[int, int], tuple[int, int, int], str, float]]:
    """Yield the products of one vector in the results of GPUs: those of several, and double ones of a single one."""
    for path in sorted([*RESULTS.glob("h*/products.json"), *RESULTS.glob("h200x2/*.json")]):
        results = read_results(path)
        for record in results["records"]:
            if record["num_vecs"] == 1 and record["precision"] == "ddddd":
                nm, nd, nt = record["shape"]
                grid = record["grid"][0], record["grid"][1]
                yield path.name, results["device"], grid, (nd, nm, nt), record["op"], record["median_ms"]


def test_the_model_agrees_with_the_committed_results() -> None:
    found = list(committed())
    assert {name for name, *_ in found} >= {"products.json", "nccl-weak-2x1.json", "nccl-strong-1x2.json"}
    for name, device, grid, sizes, op, measured in found:
        predicted = 1e3 * predict_seconds(grid, sizes, op, machine=Machine.of(device, "cuda"))
        several = grid != (1, 1)
        assert predicted == pytest.approx(measured, rel=0.03 if several else 0.17), (name, grid, sizes, op)


def test_the_adjoint_exchanges_rows_and_columns() -> None:
    Nd, Nm, Nt = SIZES
    config = fm.MatvecPrecisionConfig.from_code("dsisd")
    turned = predict_seconds((4, 2), (Nm, Nd, Nt), "F*", config)
    assert predict_seconds((2, 4), SIZES, "F", config) == pytest.approx(turned, rel=1e-14)
    both = predict_seconds((2, 4), SIZES, "F") + predict_seconds((2, 4), SIZES, "F*")
    assert predict_seconds((2, 4), SIZES, "F*F") == pytest.approx(both, rel=1e-14)


@pytest.mark.parametrize(("code", "pitch", "item", "real"), [("ddddd", 56, 16, 8), ("ddsss", 64, 8, 4)])
def test_the_terms_of_the_model(code: str, pitch: int, item: int, real: int) -> None:
    """At unit speeds a term is its bytes: 51 frequencies are stored as `pitch`, in whole lines of 128 bytes."""
    machine = Machine(read=1.0, transform=1.0, overhead=7.0, latency=1000.0, link=1.0)
    config = fm.MatvecPrecisionConfig.from_code(code)
    spectrum, operand, result = 10 * 6 * pitch * item, 6 * 50 * 8, 10 * 50 * real
    expected = 7 + spectrum + operand + result + 2 * 1000 + 1.5 * result
    assert predict_seconds((1, 4), (10, 24, 50), "F", config, machine) == pytest.approx(expected)


def test_a_broadcast_travels_in_its_own_precision() -> None:
    unit = Machine(read=float("inf"), transform=float("inf"), overhead=0.0, latency=0.0, link=1.0)
    for code, item in (("ddddd", 8), ("sdddd", 4)):
        config = fm.MatvecPrecisionConfig.from_code(code)
        assert predict_seconds((2, 1), (4, 6, 10), "F", config, unit) == 6 * 10 * item
    assert predict_seconds((1, 1), (4, 6, 10), "F", None, unit) == 0.0


@pytest.mark.parametrize(
    ("sizes", "ranks", "grid"),
    [
        (SIZES, 1, (1, 1)),
        (SIZES, 4, (1, 4)),
        ((5000, 100, 1000), 4, (4, 1)),
        ((1000, 1000, 500), 16, (4, 4)),
        ((3, 2, 10), 6, (3, 2)),
        ((1, 7, 10), 7, (1, 7)),
        ((7, 1, 10), 7, (7, 1)),
    ],
)
def test_the_best_grid(sizes: tuple[int, int, int], ranks: int, grid: tuple[int, int]) -> None:
    assert fm.best_grid(*sizes, ranks) == grid


def test_the_best_grid_is_the_fastest_by_the_model() -> None:
    config = fm.MatvecPrecisionConfig.from_code("dssdd")
    for Nd, Nm, ranks, machine in itertools.product((3, 40, 900), (5, 60, 5000), (1, 6, 8), (H100, H200, CPU)):

        def seconds(grid: tuple[int, int], sizes: tuple[int, int, int] = (Nd, Nm, 200), of: Machine = machine) -> float:
            return predict_seconds(grid, sizes, "F*F", config, of)

        chosen = best_grid(Nd, Nm, 200, ranks, config, products=["F*F"], machine=machine)
        possible = [grid for grid in grids_of(ranks) if grid[0] <= Nd and grid[1] <= Nm]
        assert chosen in possible
        assert seconds(chosen) == min(map(seconds, possible))


def test_machines_have_names() -> None:
    assert Machine.of("NVIDIA H200", "cuda") is H200
    assert Machine.of("NVIDIA H100 80GB HBM3", "cuda") is H100
    assert Machine.of("a new GPU", "cuda") is H100
    assert Machine.of("a processor", "cpu") is CPU


def test_bad_arguments() -> None:
    with pytest.raises(GridError, match="expected a block for each of 7 ranks, found 3 x 5 blocks"):
        best_grid(3, 5, 10, 7)
    with pytest.raises(ShapeError, match="ranks: expected a positive integer, found 0"):
        best_grid(3, 5, 10, 0)
    with pytest.raises(ShapeError, match="Nm: expected a positive integer, found 1.5"):
        best_grid(3, 1.5, 10, 2)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="product: expected one of"):
        best_grid(3, 5, 10, 2, products=["F**"])


def test_the_examples_of_the_page_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NUMBA_FFTMATVEC_BACKEND", "cpu")
    examples = re.findall(r"```python\n(.*?)```", (DOCS / "grids.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, "grids.md", "exec"), names)
    grid, seconds = capsys.readouterr().out.splitlines()
    assert grid == str(best_grid(100, 5000, 1000, ranks=8, machine=names["mine"]))
    assert 0 < float(seconds) < 1
    assert (names["rows"], names["cols"]) == (1, 1)
    names["comm"].close()
