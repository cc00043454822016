"""Charts of our times beside those of other programs: ratios of all measurements, and times against size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .chart import BLUE, FAINT, GREEN, GREY, INK, LIGHT_BLUE, LIGHT_GREY, ORANGE, Drawing

Record = Mapping[str, Any]

OURS = "numba-fftmatvec"
WIDTH, LEFT, RIGHT = 760, 210, 740  # pixels
COLOURS = (BLUE, ORANGE, GREEN, GREY)


def _program(record: Record) -> str:
    return str(record["program"]).partition(",")[0]


def ratios(results: Record) -> str:
    """Return the SVG text of each program's time over ours, a mark for each product, shape and order of vectors.

    Parameters
    ----------
    results : mapping
        The contents of a results file of bench/peers.py or bench/peers_cpu.py.
    """
    found = [record for record in results["records"] if "median_ms" in record and record["program"] != OURS]
    found = [record for record in found if record["precision"] == "ddddd"]
    rows = list(dict.fromkeys((_program(record), record["num_vecs"]) for record in found))
    values = {row: [r["time_over_ours"] for r in found if (_program(r), r["num_vecs"]) == row] for row in rows}
    words = "; ".join(f"{name}, {count}: {min(of):.2f} to {max(of):.2f}" for (name, count), of in values.items())
    drawing = Drawing(
        WIDTH,
        110 + 30 * len(rows),
        "Times of other programs over ours",
        f"Ratios of times on {results['device']}, by program and number of vectors: {words}.",
    )
    drawing.text(20, 28, f"Time over ours on {results['device']}, in double precision", size=15, bold=True)
    drawing.text(20, 50, "A mark is a product F or F* of one shape. Right of 1, ours is faster.", size=12, fill=FAINT)
    ends = [math.floor(math.log2(min(map(min, values.values())))), math.ceil(math.log2(max(map(max, values.values()))))]
    low, high = min(ends[0], -1), max(ends[1], 1)

    def place(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * (math.log2(value) - low) / (high - low)

    bottom = 76 + 30 * len(rows)
    for power in range(low, high + 1):
        drawing.line([(place(2.0**power), 64), (place(2.0**power), bottom)], INK if power == 0 else LIGHT_GREY)
        drawing.text(place(2.0**power), bottom + 18, f"{2.0**power:g}", size=12, at="middle")
    for number, (row, of) in enumerate(values.items()):
        y = 84 + 30 * number
        drawing.text(LEFT - 14, y + 4, f"{row[0]}, {row[1]} vector{'s' if row[1] > 1 else ''}", size=12, at="end")
        drawing.line([(place(min(of)), y), (place(max(of)), y)], BLUE)
        for value in of:
            drawing.box(place(value) - 3, y - 6, 6, 12, LIGHT_BLUE, BLUE)
    return str(drawing.svg())


def sizes(results: Record, op: str = "F") -> str:
    """Return the SVG text of the times of one product of one vector against the number of values of F.

    Parameters
    ----------
    results : mapping
        The contents of a results file of bench/peers_cpu.py.
    op : str
        The product.
    """
    found = [r for r in results["records"] if (r["op"], r["num_vecs"]) == (op, 1) and "median_ms" in r]
    names = list(dict.fromkeys(record["program"] for record in found))
    lines = {
        name: sorted((math.prod(r["shape"]), r["median_ms"]) for r in found if r["program"] == name) for name in names
    }
    words = "; ".join(
        f"{name}: " + ", ".join(f"{ms:.3g} ms at {size}" for size, ms in line) for name, line in lines.items()
    )
    drawing = Drawing(WIDTH, 420, "Time against size", f"{op} on {results['device']}. {words}.")
    drawing.text(20, 28, f"{op} of one vector on {results['device']}", size=15, bold=True)
    left, right, top, bottom = 70, 500, 60, 360
    x_low, x_high = _decades([size for line in lines.values() for size, _ in line])
    y_low, y_high = _decades([ms for line in lines.values() for _, ms in line])

    def place(size: float, ms: float) -> tuple[float, float]:
        across, up = (math.log10(size) - x_low) / (x_high - x_low), (math.log10(ms) - y_low) / (y_high - y_low)
        return left + (right - left) * across, bottom - (bottom - top) * up

    for power in range(x_low, x_high + 1):
        x, _ = place(10.0**power, 10.0**y_low)
        drawing.line([(x, top), (x, bottom)], LIGHT_GREY)
        drawing.text(x, bottom + 18, f"1e{power}", size=12, at="middle")
    for power in range(y_low, y_high + 1):
        _, y = place(10.0**x_low, 10.0**power)
        drawing.line([(left, y), (right, y)], LIGHT_GREY)
        drawing.text(left - 8, y + 4, f"{10.0**power:g}", size=12, at="end")
    drawing.text(left - 8, top - 12, "ms", size=12, fill=FAINT, at="end")
    drawing.text((left + right) / 2, bottom + 42, "values of F: Nm x Nd x Nt", size=12, fill=FAINT, at="middle")
    for number, (name, line) in enumerate(lines.items()):
        points, colour = [place(*point) for point in line], COLOURS[number % len(COLOURS)]
        drawing.line(points, colour)
        for x, y in points:
            drawing.box(x - 3, y - 3, 6, 6, colour, colour)
        drawing.line([(520, 80 + 26 * number), (546, 80 + 26 * number)], colour)
        drawing.text(554, 84 + 26 * number, name, size=12)
    return str(drawing.svg())


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Return the powers of ten that enclose values."""
    return math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
