"""Write the figures of the documentation: SVG files in docs/figures.

``python docs/figures.py``. The standard library is enough, and every run writes the same bytes.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from xml.sax.saxutils import escape

FIGURES = Path(__file__).resolve().parent / "figures"

INK, FAINT = "#1a1a1a", "#595959"
BLUE, LIGHT_BLUE = "#2f6690", "#d6e6f2"
GREEN, LIGHT_GREEN = "#3a7d44", "#dcefdc"
ORANGE, LIGHT_ORANGE = "#b35c00", "#fbe6cc"
GREY, LIGHT_GREY = "#8c8c8c", "#ececec"


class Drawing:
    """An SVG drawing on a white rectangle, in pixels.

    Parameters
    ----------
    width, height : int
        Size of the drawing.
    title, description : str
        What a screen reader says of it.
    """

    def __init__(self, width: int, height: int, title: str, description: str) -> None:
        self._lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img" aria-labelledby="title description" '
            f"font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\">",
            f'<title id="title">{escape(title)}</title>',
            f'<desc id="description">{escape(description)}</desc>',
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        ]

    def box(
        self, x: float, y: float, width: float, height: float, fill: str, stroke: str, *, dashed: bool = False
    ) -> None:
        """Draw a rectangle."""
        dashes = ' stroke-dasharray="5 4"' if dashed else ""
        self._lines.append(
            f'<rect x="{_number(x)}" y="{_number(y)}" width="{_number(width)}" height="{_number(height)}" rx="3" '
            f'fill="{fill}" stroke="{stroke}" stroke-width="1.5"{dashes}/>'
        )

    def text(
        self, x: float, y: float, words: str, *, size: int = 13, bold: bool = False, fill: str = INK, at: str = "start"
    ) -> None:
        """Write a line of text, whose baseline is at `y` and whose start, middle or end is at `x`."""
        weight = ' font-weight="bold"' if bold else ""
        self._lines.append(
            f'<text x="{_number(x)}" y="{_number(y)}" font-size="{size}" fill="{fill}" text-anchor="{at}"{weight}>'
            f"{escape(words)}</text>"
        )

    def line(self, points: Sequence[tuple[float, float]], stroke: str = INK) -> None:
        """Draw a line through points."""
        path = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
        self._lines.append(f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="1.5"/>')

    def arrow(self, points: Sequence[tuple[float, float]], stroke: str = INK) -> None:
        """Draw a line through points with a head at the last one."""
        (x0, y0), (x1, y1) = points[-2:]
        length = math.hypot(x1 - x0, y1 - y0)
        dx, dy = 8 * (x1 - x0) / length, 8 * (y1 - y0) / length
        self.line([*points[:-1], (x1 - dx, y1 - dy)], stroke)
        head = [(x1, y1), (x1 - dx - dy / 2, y1 - dy + dx / 2), (x1 - dx + dy / 2, y1 - dy - dx / 2)]
        path = " ".join(f"{_number(x)},{_number(y)}" for x, y in head)
        self._lines.append(f'<polygon points="{path}" fill="{stroke}"/>')

    def svg(self) -> str:
        """Return the file's text."""
        return "\n".join([*self._lines, "</svg>", ""])


def _number(value: float) -> str:
    return format(round(value, 1), "g")


def _parts(count: int, ranks: int) -> list[range]:
    """Return which of `count` blocks each of some ranks holds: the first ``count % ranks`` hold one more."""
    sizes = [count // ranks + (rank < count % ranks) for rank in range(ranks)]
    return [range(last - size, last) for last, size in zip(accumulate(sizes), sizes, strict=True)]


def _span(blocks: range) -> str:
    return f"{blocks[0]}\u2013{blocks[-1]}"


PROC_ROWS, PROC_COLS, ND, NM = 2, 3, 5, 8


def process_grid() -> str:
    """Return the figure of the process grid."""
    drawing = Drawing(
        800,
        640,
        "The process grid",
        "Six ranks in a grid of two rows and three columns. The block rows of F are split over the rows of the grid, "
        "its block columns over the columns. A col vector is split over the columns, owned by the first row and "
        "broadcast down each column. A row vector is split over the rows, owned by the first column, and the partial "
        "results of each row are reduced into it.",
    )
    rows, cols = _parts(ND, PROC_ROWS), _parts(NM, PROC_COLS)
    _shares_of_matrix(drawing, rows, cols)
    drawing.text(20, 345, "x, a \u201ccol\u201d vector (parameters)", size=15, bold=True)
    drawing.text(20, 367, "split over the columns, owned by the first row")
    drawing.text(420, 345, "y, a \u201crow\u201d vector (data)", size=15, bold=True)
    drawing.text(420, 367, "split over the rows, owned by the first column")
    width, height, left, top = 96, 74, 20, 392
    for rank in range(PROC_ROWS * PROC_COLS):
        row, col = rank % PROC_ROWS, rank // PROC_ROWS
        x, y = left + col * (width + 18), top + row * (height + 44)
        _piece(drawing, (x, y, width, height), rank, f"x blocks {_span(cols[col])}", owns=row == 0)
        if row:
            drawing.arrow([(x + width / 2, y - 42), (x + width / 2, y - 2)], BLUE)
        x, y = left + 400 + col * (width + 36), top + row * (height + 44)
        _piece(drawing, (x, y, width, height), rank, f"y blocks {_span(rows[row])}", owns=col == 0)
        if col:
            drawing.arrow([(x - 2, y + height / 2), (x - 34, y + height / 2)], BLUE)
    drawing.text(20, 612, "F x broadcasts x down each column of the grid.")
    drawing.text(420, 612, "F x reduces the partial sums of y along each row.")
    drawing.text(20, 631, "F* reverses both: it broadcasts along the rows and reduces up the columns.", fill=FAINT)
    return drawing.svg()


def _shares_of_matrix(drawing: Drawing, rows: list[range], cols: list[range]) -> None:
    """Draw F with the share of each rank, and the rules beside it."""
    drawing.text(20, 30, f"F: {ND} block rows, {NM} block columns", size=15, bold=True)
    side, left, top = 42, 80, 90
    drawing.text(left, 60, "block columns", fill=FAINT)
    drawing.text(20, top - 10, "block rows", size=12, fill=FAINT)
    for col, blocks in enumerate(cols):
        drawing.text(left + col * 8 + side * (blocks[0] + len(blocks) / 2), 80, _span(blocks), at="middle")
    for row, blocks in enumerate(rows):
        y = top + row * 8 + side * blocks[0]
        drawing.text(left - 12, y + side * len(blocks) / 2 + 4, _span(blocks), at="end")
        for col, across in enumerate(cols):
            x, rank = left + col * 8 + side * across[0], row + col * PROC_ROWS
            drawing.box(x, y, side * len(across), side * len(blocks), LIGHT_GREEN, GREEN)
            middle = x + side * len(across) / 2, y + side * len(blocks) / 2
            drawing.text(middle[0], middle[1] - 2, f"rank {rank}", bold=True, at="middle")
            drawing.text(middle[0], middle[1] + 15, f"{len(blocks)} \u00d7 {len(across)}", at="middle")
    notes = (
        f"Grid: proc_rows = {PROC_ROWS}, proc_cols = {PROC_COLS}.",
        "Rank r stands at",
        "    row r % proc_rows,",
        "    column r // proc_rows.",
        "Of n blocks over p ranks, each of the",
        "first n % p ranks holds one more.",
    )
    for number, words in enumerate(notes):
        drawing.text(510 + 16 * words.startswith(" "), 110 + 26 * number, words.strip())
    drawing.line([(20, 316), (780, 316)], LIGHT_GREY)


def _piece(drawing: Drawing, place: tuple[float, float, float, float], rank: int, blocks: str, *, owns: bool) -> None:
    """Draw what a rank holds of a vector: its own values, or a buffer of the product."""
    x, y, width, _ = place
    drawing.box(*place, LIGHT_BLUE if owns else "#ffffff", BLUE if owns else GREY, dashed=not owns)
    drawing.text(x + width / 2, y + 22, f"rank {rank}", bold=True, at="middle")
    drawing.text(x + width / 2, y + 42, blocks, size=12, at="middle")
    drawing.text(x + width / 2, y + 61, "owner" if owns else "buffer", size=12, fill=FAINT, at="middle")


# Stages of F x, each with a remark, and where it writes: name, dtype and a note.
STAGES = (
    ("broadcast", "down the columns", "wire.col", "float64", "ranks that own no x; an owner sends from the slot"),
    ("pad", "to 2 Nt steps", "padded.col", "float32", "pairs of rows on CUDA: complex64; the tail stays zero"),
    ("FFT", "forward", "spectrum.col", "complex64", "frequencies of this rank's block columns"),
    (
        "SBGEMV",
        "reads F_hat, complex64",
        "spectrum.row",
        "complex128",
        "SBGEMV casts as it stores; no pass for the cast",
    ),
    ("IFFT", "inverse", "time.row", "float64", "pairs of rows on CUDA: complex128"),
    ("unpad", "to Nt steps", "wire.row", "float64", "this rank's partial sums"),
    ("reduce", "along the rows", "result", "float64", "slot: the caller's y, on the first column"),
)
CODE = (("d", 0, 1), ("s", 2, 2), ("s", 3, 3), ("d", 4, 4), ("d", 5, 6))  # each letter with its first and last stage


def plan() -> str:
    """Return the figure of a product's plan."""
    drawing = Drawing(
        880,
        750,
        "The plan of F x and of F*F x",
        "F x in the precision dssdd is a chain of seven stages: broadcast, pad, FFT, SBGEMV, IFFT, unpad and reduce. "
        "Each stage reads one buffer and writes the next; the operand and the result are slots, bound to the caller's "
        "vectors. The dtypes are float64, float64, float32, complex64, complex128, float64, float64 and float64. "
        "F*F is two factors: F writes an intermediate vector of float64, which F* reads.",
    )
    drawing.text(20, 30, "The plan of F x in the precision dssdd", size=15, bold=True)
    for x, words in ((20, "code"), (70, "stage"), (310, "buffer or slot")):
        drawing.text(x, 60, words, size=12, fill=FAINT)
    top, pitch = 105, 66
    for letter, first, last in CODE:
        drawing.line([(52, top + pitch * first), (52, top + pitch * last + 42)], ORANGE)
        drawing.text(34, top + pitch * (first + last) / 2 + 26, letter, size=15, bold=True, fill=ORANGE, at="middle")
    _buffer(drawing, top - 28, "operand", "float64", "slot: the caller's x, on the first row", slot=True)
    for number, (stage, remark, buffer, dtype, note) in enumerate(STAGES):
        y = top + pitch * number
        drawing.box(70, y, 160, 42, LIGHT_ORANGE, ORANGE)
        drawing.text(150, y + 18, stage, bold=True, at="middle")
        drawing.text(150, y + 34, remark, size=12, fill=FAINT, at="middle")
        drawing.arrow([(310, y - 4), (265, y - 4), (265, y + 13), (232, y + 13)])
        drawing.arrow([(230, y + 29), (265, y + 29), (265, y + 46), (308, y + 46)])
        _buffer(drawing, y + 38, buffer, dtype, note, slot=buffer == "result")
    _factors(drawing, 605)
    return drawing.svg()


def _buffer(drawing: Drawing, y: float, name: str, dtype: str, note: str, *, slot: bool) -> None:
    drawing.box(310, y, 214, 32, LIGHT_BLUE if slot else LIGHT_GREY, BLUE if slot else GREY, dashed=slot)
    drawing.text(320, y + 21, name, bold=True)
    drawing.text(514, y + 21, dtype, at="end")
    drawing.text(534, y + 21, note, size=12, fill=FAINT)


def _factors(drawing: Drawing, y: float) -> None:
    """Draw F*F as two factors."""
    drawing.line([(20, y), (860, y)], LIGHT_GREY)
    drawing.text(20, y + 30, "F*F x: two factors with an intermediate vector", size=15, bold=True)
    kinds = {"slot": (LIGHT_BLUE, BLUE), "factor": (LIGHT_ORANGE, ORANGE), "buffer": (LIGHT_GREY, GREY)}
    chain = (
        ("slot", "operand", "float64, \u201ccol\u201d"),
        ("factor", "F", "seven stages"),
        ("buffer", "intermediate", "float64, \u201crow\u201d"),
        ("factor", "F*", "seven stages"),
        ("slot", "result", "float64, \u201ccol\u201d"),
    )
    width, gap = 136, 40
    for number, (kind, name, about) in enumerate(chain):
        x = 20 + number * (width + gap)
        drawing.box(x, y + 48, width, 48, *kinds[kind], dashed=kind == "slot")
        drawing.text(x + width / 2, y + 68, name, bold=True, at="middle")
        drawing.text(x + width / 2, y + 86, about, size=12, fill=FAINT, at="middle")
        if number:
            drawing.arrow([(x - gap, y + 72), (x - 2, y + 72)])
    drawing.text(
        20,
        y + 124,
        "The owners of a \u201crow\u201d vector hold the intermediate; both factors share the other buffers.",
    )


ALIGNMENT, RUN, NT = 128, 64, 1000

# Format, letter, bytes of a part, whether it has scales.
FORMATS = (
    ("complex128", "d", 8, False),
    ("complex64", "s", 4, False),
    ("FIXED32", "i", 4, True),
    ("FIXED16", "h", 2, True),
)


def storage() -> str:
    """Return the figure of the stored spectrum."""
    drawing = Drawing(
        800,
        660,
        "The stored spectrum",
        "The spectrum is an array [d][m][k] with the frequency k innermost. The run of frequencies of one block row d "
        "and one block column m is padded to a multiple of 128 bytes. In the fixed-point formats each 64 frequencies "
        "of a run share one float64 scale, in an array of its own. A table gives the bytes per frequency: 16 for "
        "complex128, 8 for complex64, 8 and an eighth for FIXED32, 4 and an eighth for FIXED16.",
    )
    drawing.text(20, 30, "The spectrum: [d][m][k], frequency innermost", size=15, bold=True)
    for d in range(2):
        y = 50 + 46 * d
        drawing.text(20, y + 21, f"d = {d}")
        for m in range(3):
            x = 75 + m * 205
            drawing.box(x, y, 160, 32, LIGHT_GREEN, GREEN)
            drawing.text(x + 80, y + 21, f"m = {m}: k = 0 \u2026 Nt", at="middle")
            drawing.box(x + 160, y, 36, 32, LIGHT_GREY, GREY)
            drawing.text(x + 178, y + 21, "pad", size=12, at="middle")
        drawing.text(698, y + 21, "\u2026")
    drawing.text(75, 156, f"Each run of Nt + 1 frequencies is padded to a multiple of {ALIGNMENT} bytes.", fill=FAINT)
    _run(drawing, 185)
    _formats(drawing, 415)
    return drawing.svg()


def _run(drawing: Drawing, y: float) -> None:
    """Draw one run, with the scales of its parts."""
    frequencies = NT + 1
    drawing.text(20, y + 20, f"One run, Nt = {NT}, and its scales in the fixed-point formats", size=15, bold=True)
    last = frequencies // RUN
    groups = (("0\u201363", 110), ("64\u2013127", 110), ("\u2026", 60), (f"{RUN * last}\u2013{NT}", 110))
    drawing.text(20, y + 64, "values")
    drawing.text(20, y + 152, "scales")
    x = 90.0
    for number, (span, width) in enumerate(groups):
        drawing.box(x, y + 42, width, 34, LIGHT_GREEN, GREEN)
        drawing.text(x + width / 2, y + 64, span if span == "\u2026" else f"k = {span}", at="middle")
        drawing.box(x, y + 130, width, 34, LIGHT_ORANGE, ORANGE)
        scale = "\u2026" if span == "\u2026" else f"scale {last if number == 3 else number}"
        drawing.text(x + width / 2, y + 152, scale, at="middle")
        if span != "\u2026":
            drawing.arrow([(x + width / 2, y + 128), (x + width / 2, y + 78)], ORANGE)
        x += width
    drawing.box(x, y + 42, 50, 34, LIGHT_GREY, GREY)
    drawing.text(x + 25, y + 64, "pad", size=12, at="middle")
    drawing.text(x + 64, y + 57, "real and imaginary part of a", size=12, fill=FAINT)
    drawing.text(x + 64, y + 73, "frequency side by side", size=12, fill=FAINT)
    drawing.text(x + 64, y + 145, "an array of its own, float64,", size=12, fill=FAINT)
    drawing.text(x + 64, y + 161, f"one for each {RUN} frequencies", size=12, fill=FAINT)
    drawing.text(
        90,
        y + 194,
        "A part is an integer count; value = count \u00d7 scale. Each (d, m) has scales of its own.",
        fill=FAINT,
    )


def _formats(drawing: Drawing, y: float) -> None:
    """Draw the table of formats, with a bar for the bytes of a frequency."""
    drawing.text(20, y + 20, "The four formats", size=15, bold=True)
    columns = (20, 150, 335, 470, 610)
    titles = ("format (letter)", "bytes per frequency", "", "pitch, frequencies", f"run of {NT + 1}, bytes")
    for x, title in zip(columns, titles, strict=True):
        drawing.text(x, y + 50, title, size=12, fill=FAINT)
    for number, (name, letter, part, fixed) in enumerate(FORMATS):
        base = y + 82 + 36 * number
        of_line = ALIGNMENT // (2 * part)
        pitch = -(-(NT + 1) // of_line) * of_line
        values, scales = pitch * 2 * part, 8 * -(-(NT + 1) // RUN) if fixed else 0
        drawing.text(columns[0], base, f"{name} ({letter})", bold=True)
        drawing.box(columns[1], base - 16, 10 * 2 * part, 22, LIGHT_GREEN, GREEN)
        drawing.text(columns[2], base, f"{2 * part} + 1/8" if fixed else str(2 * part))
        drawing.text(columns[3], base, f"multiple of {of_line}")
        drawing.text(columns[4], base, f"{values:,} + {scales} = {values + scales:,}" if fixed else f"{values:,}")
    drawing.text(
        20,
        y + 228,
        f"1/8: a scale of 8 bytes for {RUN} frequencies. A bar shows the bytes of the values alone.",
        fill=FAINT,
    )


DRAWINGS: dict[str, Callable[[], str]] = {
    "process-grid.svg": process_grid,
    "plan.svg": plan,
    "storage.svg": storage,
}


def figures() -> dict[str, str]:
    """Return the text of each figure, by the name of its file."""
    return {name: draw() for name, draw in DRAWINGS.items()}


def main() -> None:
    """Write the figures."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    FIGURES.mkdir(exist_ok=True)
    for name, text in figures().items():
        (FIGURES / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
