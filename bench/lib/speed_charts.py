"""Charts of bench/cpu.py: fractions of the machine's speed, times beside the fastest peer, and growth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .chart import BLUE, FAINT, GREEN, GREY, INK, LIGHT_BLUE, LIGHT_GREY, ORANGE, Drawing
from .speed import OPS, growth_of, growths, machines, over_ours, size_of

Record = Mapping[str, Any]

COLOURS = {"F": BLUE, "F*": ORANGE}
PEERS = (BLUE, ORANGE, GREEN)
SIZES = {"Nm": "Nm", "Nd": "Nd", "Nt": "Nt", "R": "vectors"}
GOAL = 0.85  # of the rate of reading


class Axes(NamedTuple):
    """Axes of a panel: its corners in pixels, and the ends of the axes, whose values may be logarithms."""

    left: float
    top: float
    right: float
    bottom: float
    x: tuple[float, float]
    y: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the pixels of a point."""
        across, up = (x - self.x[0]) / (self.x[1] - self.x[0]), (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + (self.right - self.left) * across, self.bottom - (self.bottom - self.top) * up

    def grid_x(self, drawing: Any, at: float, label: str) -> None:
        """Draw a vertical line with its label."""
        x, _ = self.place(at, self.y[0])
        drawing.line([(x, self.top), (x, self.bottom)], LIGHT_GREY)
        drawing.text(x, self.bottom + 18, label, size=12, at="middle")

    def grid_y(self, drawing: Any, at: float, label: str, stroke: str = LIGHT_GREY) -> None:
        """Draw a horizontal line with its label."""
        _, y = self.place(self.x[0], at)
        drawing.line([(self.left, y), (self.right, y)], stroke)
        drawing.text(self.left - 8, y + 4, label, size=12, at="end")


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Return the powers of ten that enclose values, which differ."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _mark(drawing: Any, x: float, y: float, colour: str, fill: str = "") -> None:
    drawing.box(x - 3, y - 3, 6, 6, fill or colour, colour)


def _legend(drawing: Any, place: tuple[float, float], names: Iterable[tuple[str, str]]) -> None:
    """Draw a mark and a name after another."""
    x, y = place
    for name, colour in names:
        _mark(drawing, x, y - 4, colour)
        drawing.text(x + 10, y, name, size=12)
        x += 34 + 7 * len(name)


def bandwidth(results: Iterable[Record]) -> str | None:
    """Return the SVG text of SBGEMV's fractions of the reading rate against the spectrum's size, a panel a machine."""
    panels: dict[str, list[Record]] = {}
    results = list(results)
    for benchmark in ("cpu product", "cpu growth"):
        for name, records in machines(results, benchmark):
            panels.setdefault(name, []).extend(r for r in records if r["num_vecs"] == 1 and "of_read" in r)
    panels = {name: records for name, records in panels.items() if records}
    if not panels:
        return None
    words = "; ".join(f"{name}: {_middle(records)}" for name, records in panels.items())
    title = "SBGEMV's fraction of the rate of reading"
    drawing = Drawing(760, 70 + 320 * len(panels), title, f"One vector, against the spectrum's bytes. {words}.")
    drawing.text(20, 28, "SBGEMV of one vector: time of reading the spectrum's bytes / time", size=15, bold=True)
    _legend(drawing, (20, 52), COLOURS.items())
    drawing.text(150, 52, f"The line is at {GOAL:.0%}. A mark is a shape.", size=12, fill=FAINT)
    every = [record["spectrum_bytes"] / 1e6 for records in panels.values() for record in records]
    highest = max(1.0, *(record["of_read"] for records in panels.values() for record in records))
    for number, (name, records) in enumerate(panels.items()):
        top = 100 + 320 * number
        axes = Axes(70, top, 730, top + 220, _decades(every), (0.0, math.ceil(5 * highest) / 5))
        _fractions(drawing, axes, name, records)
    return str(drawing.svg())


def _middle(records: Sequence[Record]) -> str:
    """Return the range of the fractions of each product."""
    parts = []
    for op in OPS:
        if found := [record["of_read"] for record in records if record["op"] == op]:
            parts.append(f"{op} {min(found):.2f} to {max(found):.2f}")
    return ", ".join(parts)


def _fractions(drawing: Any, axes: Axes, name: str, records: Sequence[Record]) -> None:
    drawing.text(axes.left, axes.top - 12, name, bold=True)
    for power in range(int(axes.x[0]), int(axes.x[1]) + 1):
        axes.grid_x(drawing, power, f"{10.0**power:g} MB")
    for fifth in range(round(5 * axes.y[1]) + 1):
        axes.grid_y(drawing, fifth / 5, f"{fifth / 5:.0%}")
    drawing.line([axes.place(axes.x[0], GOAL), axes.place(axes.x[1], GOAL)], INK)
    for record in records:
        _mark(
            drawing, *axes.place(math.log10(record["spectrum_bytes"] / 1e6), record["of_read"]), COLOURS[record["op"]]
        )
    drawing.text(
        (axes.left + axes.right) / 2, axes.bottom + 42, "bytes of the spectrum", size=12, fill=FAINT, at="middle"
    )


def fastest_peers(results: Iterable[Record]) -> str | None:
    """Return the SVG text of the fastest peer's time over ours for each shape, a panel a machine."""
    panels = {
        name: [(record, ratio) for record in records if (ratio := over_ours(record)) is not None]
        for name, records in machines(results, "cpu product")
    }
    panels = {name: found for name, found in panels.items() if found}
    if not panels:
        return None
    ratios = [ratio for found in panels.values() for _, ratio in found]
    x_axis = min(-1, math.floor(math.log2(min(ratios)))), max(1, math.ceil(math.log2(max(ratios))))
    counts = sorted({record["num_vecs"] for found in panels.values() for record, _ in found})
    colours = dict(zip(counts, (PEERS * len(counts))[: len(counts)], strict=True))
    shapes = {name: _by_shape(found) for name, found in panels.items()}
    height = 90 + sum(80 + 26 * len(rows) for rows in shapes.values())
    words = "; ".join(
        f"{name}: {min(r for _, r in of):.2f} to {max(r for _, r in of):.2f}" for name, of in panels.items()
    )
    drawing = Drawing(760, height, "The fastest peer's time over ours", f"Ratios of times by shape. {words}.")
    drawing.text(20, 28, "Time of the fastest of NumPy with SciPy and PyLops over ours", size=15, bold=True)
    _legend(drawing, (20, 52), [(f"{n} vector{'s' if n > 1 else ''}", colour) for n, colour in colours.items()])
    drawing.text(330, 52, "Filled: F, light: F*. Right of 1, ours is faster.", size=12, fill=FAINT)
    top = 92.0
    for name, rows in shapes.items():
        bottom = top + 16 + 26 * len(rows)
        axes = Axes(170, top + 8, 730, bottom, x_axis, (0, 1))
        drawing.text(20, top, name, bold=True)
        for power in range(x_axis[0], x_axis[1] + 1):
            axes.grid_x(drawing, power, f"{2.0**power:g}")
        drawing.line([axes.place(0, 0), axes.place(0, 1)], INK)
        for number, (shape, found) in enumerate(rows.items()):
            y = top + 26 + 26 * number
            drawing.text(156, y + 4, shape, size=12, at="end")
            for record, ratio in found:
                light = "#ffffff" if record["op"] == "F*" else ""
                offset = 7 * (counts.index(record["num_vecs"]) - (len(counts) - 1) / 2)
                _mark(drawing, axes.place(math.log2(ratio), 0)[0], y + offset, colours[record["num_vecs"]], light)
        top = bottom + 64
    return str(drawing.svg())


def _by_shape(found: Iterable[tuple[Record, float]]) -> dict[str, list[tuple[Record, float]]]:
    """Return records and ratios by shape, from the smallest spectrum to the largest."""
    rows: dict[str, list[tuple[Record, float]]] = {}
    for record, ratio in sorted(found, key=lambda pair: pair[0]["spectrum_bytes"]):
        rows.setdefault(" x ".join(map(str, record["shape"])), []).append((record, ratio))
    return rows


def growth(results: Iterable[Record]) -> str | None:
    """Return the SVG text of times against Nm, Nd, Nt and the number of vectors, a row of panels a machine."""
    rows = {}
    for name, records in machines(results, "cpu growth"):
        groups = {(grows, op): group for (_, grows, op), group in growths(records).items() if len(group) > 1}
        if groups:
            rows[name] = groups
    if not rows:
        return None
    words = "; ".join(
        f"{name}: " + ", ".join(f"{op} against {grows} {_slope(group)}" for (grows, op), group in groups.items())
        for name, groups in rows.items()
    )
    drawing = Drawing(
        1000, 70 + 330 * len(rows), "Growth of the times of products", f"Both axes are logarithmic. {words}."
    )
    drawing.text(20, 28, "Time of a product against one size; the grey lines are linear", size=15, bold=True)
    _legend(drawing, (20, 52), COLOURS.items())
    for number, (name, groups) in enumerate(rows.items()):
        top = 112 + 330 * number
        drawing.text(20, top - 28, name, bold=True)
        y_axis = _decades([record["min_ms"] for group in groups.values() for record in group])
        for column, grows in enumerate(dict.fromkeys(grows for grows, _ in groups)):
            lines = {op: group for (of, op), group in groups.items() if of == grows}
            sizes = [size_of(record) for group in lines.values() for record in group]
            left = 55 + 245 * column
            axes = Axes(left, top, left + 190, top + 190, (math.log10(min(sizes)), math.log10(max(sizes))), y_axis)
            _growth_panel(drawing, axes, SIZES[grows], lines)
    return str(drawing.svg())


def _slope(group: Sequence[Record]) -> str:
    found = growth_of(group)
    return f"slope {found.slope:.2f}, largest step {found.step:.2f}"


def _growth_panel(drawing: Any, axes: Axes, name: str, lines: Mapping[str, Sequence[Record]]) -> None:
    for power in range(int(axes.y[0]), int(axes.y[1]) + 1):
        axes.grid_y(drawing, power, f"{10.0**power:g} ms")
    for x in axes.x:
        axes.grid_x(drawing, x, f"{round(10**x)}")
    drawing.text((axes.left + axes.right) / 2, axes.bottom + 18, name, size=12, fill=FAINT, at="middle")
    for number, (op, group) in enumerate(lines.items()):
        points = [(math.log10(size_of(record)), math.log10(record["min_ms"])) for record in group]
        (x_end, y_end), x_start = points[-1], points[0][0]
        y_start = y_end - (x_end - x_start)
        if y_start < axes.y[0]:  # the line ends at the axis
            x_start, y_start = x_start + axes.y[0] - y_start, axes.y[0]
        drawing.line([axes.place(x_start, y_start), axes.place(x_end, y_end)], GREY)
        drawing.line([axes.place(*point) for point in points], COLOURS[op])
        for point in points:
            _mark(drawing, *axes.place(*point), COLOURS[op], LIGHT_BLUE if op == "F" else "")
        drawing.text(axes.left, axes.bottom + 42 + 18 * number, f"{op}: {_slope(group)}", size=12)
