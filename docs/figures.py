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


SHADES = ("#2f6690", "#6f9cc0", "#a9c6dd", "#d6e6f2")  # blocks at growing lags


def toeplitz() -> str:
    """Return the figure of the Toeplitz structure and of the order of a vector."""
    drawing = Drawing(
        800,
        430,
        "F is block lower-triangular Toeplitz",
        "A matrix of four by four blocks in the order of time. The blocks F0, F1, F2 and F3 of the first block column "
        "are repeated along the diagonals, and blocks above the diagonal are zero. Each block has Nd rows and Nm "
        "columns. Below, the order of a vector in memory: all time steps of the first block, then of the second.",
    )
    drawing.text(20, 30, "F in the order of time: equal blocks along each diagonal", size=15, bold=True)
    side, left, top = 58, 60, 52
    for row in range(4):
        for col in range(4):
            lag, x, y = row - col, left + side * col, top + side * row
            drawing.box(x, y, side - 4, side - 4, "#ffffff" if lag < 0 else SHADES[lag], GREY, dashed=lag < 0)
            words = "0" if lag < 0 else f"F{lag}"
            drawing.text(x + 27, y + 33, words, fill=INK if lag < 0 or lag > 1 else "#ffffff", bold=True, at="middle")
    drawing.text(left - 12, top + 31, "t = 0", size=12, fill=FAINT, at="end")
    drawing.text(left - 12, top + 31 + 3 * side, "t = 3", size=12, fill=FAINT, at="end")
    notes = (
        "Fk maps the sources of one step to the data k steps later.",
        "It has Nd rows (sensors) and Nm columns (sources).",
        "The same Fk at every step: the system is autonomous.",
        "Zeros above the diagonal: no datum precedes its source.",
        "The first block column F0, F1, ... determines F.",
        "The library stores its Fourier transform, and F[d, m, k]",
        "in files: the value of Fk in row d and column m.",
    )
    for number, words in enumerate(notes):
        drawing.text(325, 78 + 30 * number, words)
    drawing.line([(20, 300), (780, 300)], LIGHT_GREY)
    drawing.text(20, 328, "A vector in memory, SOTI order: space outside, time inside", size=15, bold=True)
    for block in range(3):
        x = 20 + 252 * block
        for step in range(4):
            drawing.box(
                x + 60 * step, 346, 57, 34, SHADES[3] if block % 2 else LIGHT_GREEN, BLUE if block % 2 else GREEN
            )
            drawing.text(x + 60 * step + 28, 368, f"x[{block}, {step}]", size=12, at="middle")
        drawing.text(x + 118, 402, f"block {block}: all time steps of one source", size=12, fill=FAINT, at="middle")
    return drawing.svg()


def real_time() -> str:
    """Return the figure of an inversion in real time."""
    drawing = Drawing(
        800,
        330,
        "Inversion in real time",
        "Before the event: adjoint solves give the blocks of F and G, which with prior and noise give the data-space "
        "Hessian K and its Cholesky factor. In the event: one block row of the factor whitens each step of data, "
        "which updates the forecast and its band at once; the source follows when it is needed.",
    )
    drawing.text(20, 30, "Offline, before the event", size=15, bold=True)
    drawing.text(20, 182, "Online, at each time step", size=15, bold=True)
    rows = (
        (48, LIGHT_ORANGE, ORANGE, _OFFLINE),
        (200, LIGHT_BLUE, BLUE, _ONLINE),
    )
    width, gap = 166, 32
    for y, fill, stroke, steps in rows:
        for number, lines in enumerate(steps):
            x = 20 + number * (width + gap)
            drawing.box(x, y, width, 84, fill, stroke)
            for line, words in enumerate(lines):
                size, shade = (13, INK) if line == 0 else (12, FAINT)
                drawing.text(
                    x + width / 2, y + 24 + 21 * line, words, size=size, bold=line == 0, fill=shade, at="middle"
                )
            if number:
                drawing.arrow([(x - gap, y + 42), (x - 2, y + 42)])
    drawing.text(20, 312, "A step costs one block row of a triangular solve, and the results are exact.", fill=FAINT)
    return drawing.svg()


_OFFLINE = (
    ("adjoint solves", "one for each sensor", "and each quantity"),
    ("blocks of F and G", "Nd + Nq block rows", "of Nm x Nt values"),
    ("K = F \u0393 F* + N", "prior \u0393, noise N;", "no product with F"),
    ("K = L L*", "Cholesky factor,", "in panels over the ranks"),
)
_ONLINE = (
    ("data of step t", "Nd values, some of", "which may be missing"),
    ("whitened data z", "block row t of L", ""),
    ("forecast G m", "mean and 95 % band:", "W z, W = G \u0393 F* L\u207b*"),
    ("source m", "\u0393 F* L\u207b* z,", "when it is needed"),
)

DRAWINGS: dict[str, Callable[[], str]] = {
    "process-grid.svg": process_grid,
    "plan.svg": plan,
    "storage.svg": storage,
    "toeplitz.svg": toeplitz,
    "real-time-inversion.svg": real_time,
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
