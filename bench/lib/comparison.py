"""Charts of our times beside those of other programs: ratios of all measurements, and times against size."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
        The contents of a results file of bench/peers.py.
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
