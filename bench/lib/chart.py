"""The chart of bench/scaling.py: times on every process grid, beside ideal scaling and the model of comm/grids.py."""

from __future__ import annotations

import itertools
import math
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_figures = runpy.run_path(str(Path(__file__).resolve().parents[2] / "docs" / "figures.py"))
Drawing: Any = _figures["Drawing"]
INK, FAINT, GREY, LIGHT_GREY, BLUE, LIGHT_BLUE, ORANGE, GREEN = (
    _figures[name] for name in ("INK", "FAINT", "GREY", "LIGHT_GREY", "BLUE", "LIGHT_BLUE", "ORANGE", "GREEN")
)

Record = Mapping[str, Any]

KINDS = ("strong", "weak")
SLOT, BAR = 60, 40  # pixels of a grid along the axis
HEIGHT, MARGIN = 190, 60


def ideal_ms(record: Record, records: Sequence[Record]) -> float | None:
    """Return the time of a product under ideal scaling from one rank; None if one rank was not measured."""
    for other in records:
        same = all(other.get(field) == record[field] for field in ("op", "precision"))
        if same and other.get("scaling") == "single" and "median_ms" in other:
            return float(other["median_ms"] / (record["ranks"] if record["scaling"] == "strong" else 1))
    return None


def draw(records: Sequence[Record], device: str) -> str:
    """Return the SVG text of the records of one results file.

    Each precision and product has a row with two panels, strong and weak scaling. A panel has a bar for the median time
    on each grid. A line connects the ideal times, and a mark across a bar is the model's prediction.
    """
    measured = [record for record in records if "median_ms" in record]
    rows = list(dict.fromkeys((record["precision"], record["op"]) for record in measured))
    widest = max((len(_panel(measured, row, kind)) for row, kind in itertools.product(rows, KINDS)), default=1)
    width = 2 * (MARGIN + max(SLOT * widest, 260) + 20)
    shapes = {tuple(record["shape"]) for record in measured if record["scaling"] == "single"}
    shape = ", ".join(" x ".join(map(str, shape)) for shape in shapes) or "several shapes"
    drawing = Drawing(
        width,
        100 + len(rows) * (HEIGHT + 110),
        "Scaling of products over process grids",
        f"Times of products on {device}, {shape} (Nm x Nd x Nt) on one rank: " + _in_words(measured),
    )
    drawing.text(20, 28, f"{device}, Nm x Nd x Nt = {shape} on one rank", size=15, bold=True)
    _legend(drawing)
    for number, row in enumerate(rows):
        top = 120 + number * (HEIGHT + 110)
        for column, kind in enumerate(KINDS):
            _draw_panel(drawing, (column * width / 2 + MARGIN, top), _panel(measured, row, kind), measured, row, kind)
    return str(drawing.svg())


def _panel(records: Sequence[Record], row: tuple[str, str], kind: str) -> list[Record]:
    """Return the records of a panel in the order of its axis: those of one rank first."""
    found = [r for r in records if (r["precision"], r["op"]) == row and r["scaling"] in (kind, "single")]
    return sorted(found, key=lambda record: (record["ranks"], record["grid"]))


def _in_words(records: Sequence[Record]) -> str:
    """Return the times as a sentence for a screen reader."""
    words = "{op} {precision} {scaling} on {grid[0]} x {grid[1]} {median_ms:.3f} ms, predicted {predicted_ms:.3f} ms"
    return "; ".join(words.format(**record) for record in records) + "."


def _legend(drawing: Any) -> None:
    drawing.box(20, 44, 22, 14, LIGHT_BLUE, BLUE)
    drawing.text(50, 56, "measured, median")
    drawing.line([(190, 51), (222, 51)], GREY)
    drawing.text(230, 56, "ideal scaling")
    drawing.line([(340, 51), (372, 51)], ORANGE)
    drawing.text(380, 56, "model of best_grid")


def _draw_panel(
    drawing: Any,
    place: tuple[float, float],
    bars: Sequence[Record],
    records: Sequence[Record],
    row: tuple[str, str],
    kind: str,
) -> None:
    """Draw one panel, whose axes meet below `place`, its upper left corner."""
    left, top = place
    precision, op = row
    drawing.text(left, top - 14, f"{op}, {precision}: {kind} scaling", bold=True)
    step, ticks = _ticks(max((max(bar["median_ms"], bar["predicted_ms"]) for bar in bars), default=1.0))
    bottom, scale = top + HEIGHT, HEIGHT / (step * ticks)
    for tick in range(ticks + 1):
        y = bottom - tick * step * scale
        drawing.line([(left - 4, y), (left, y)], GREY)
        drawing.text(left - 8, y + 4, f"{tick * step:g}", size=12, fill=FAINT, at="end")
    drawing.text(left - 8, top - 14, "ms", size=12, fill=FAINT, at="end")
    drawing.line([(left, top), (left, bottom), (left + SLOT * max(len(bars), 1), bottom)], INK)
    ideal = []
    for number, bar in enumerate(bars):
        x = left + SLOT * (number + 0.5)
        height = bar["median_ms"] * scale
        drawing.box(x - BAR / 2, bottom - height, BAR, height, LIGHT_BLUE, BLUE)
        drawing.text(x, bottom - 6, f"{bar['median_ms']:#.3g}".rstrip("."), size=12, at="middle")
        y = bottom - bar["predicted_ms"] * scale
        drawing.line([(x - BAR / 2 - 6, y), (x + BAR / 2 + 6, y)], ORANGE)
        drawing.text(x, bottom + 17, f"{bar['grid'][0]} \u00d7 {bar['grid'][1]}", size=12, at="middle")
        if (best := ideal_ms(bar | {"scaling": kind}, records)) is not None:
            ideal.append((x, bottom - best * scale))
    if ideal:
        drawing.line(ideal, GREY)
    for ranks, group in itertools.groupby(enumerate(bars), key=lambda pair: pair[1]["ranks"]):
        numbers = [number for number, _ in group]
        x = left + SLOT * (numbers[0] + len(numbers) / 2)
        drawing.text(x, bottom + 35, f"{ranks} rank{'s' if ranks > 1 else ''}", size=12, fill=FAINT, at="middle")


def _ticks(largest: float) -> tuple[float, int]:
    """Return the step of an axis from 0, which is 1, 2 or 5 times a power of ten, and the number of steps."""
    power = 10.0 ** math.floor(math.log10(largest))
    step = next(step for step in (power / 5, power / 2, power, 2 * power) if largest / step <= 6)
    return step, math.floor(largest / step) + 1
