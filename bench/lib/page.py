"""The page docs/performance.md: the prose of docs/performance.in.md with tables of the figures in bench/results.

A line ``<!-- table: NAME [PATTERN] -->`` becomes the table of that name, one for each environment that the results
files of the pattern (``*`` by default) were measured in. Files are named by their paths below bench/results, such as
h100/products.json. A line ``<!-- picture: FILE CAPTION -->`` becomes a picture of docs/, ``<!-- text: NAME -->``
a sentence from the results. Everything else is copied.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from numba_fftmatvec.cli.results import read_results

from . import gpu, speed, speed_charts
from .answers import inversion, mixed
from .chart import draw, ideal_ms
from .comparison import ratios

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"
TEMPLATE = ROOT / "docs" / "performance.in.md"
PAGE = ROOT / "docs" / "performance.md"

Record = Mapping[str, Any]
Row = dict[str, str]

# Median milliseconds of a whole product, including synchronisation, with the digits that were noted. They were measured
# on one NVIDIA H100 80GB HBM3, and on one and two NVIDIA H200. The original (s769/FFTMatvec, C++ and CUDA) was built
# there. CuPy is rfft, matmul, irfft.
H100, H200 = "NVIDIA H100 80GB HBM3", "NVIDIA H200"
OTHERS: dict[tuple[str, tuple[int, ...], str, tuple[int, ...]], dict[str, dict[str, str]]] = {
    (H100, (5000, 100, 1000), "ddddd", (1, 1)): {
        "original": {"F": "3.081", "F*": "3.121", "F*F": "6.134"},
        "CuPy": {"F": "3.00"},
    },
    (H100, (5000, 100, 1000), "dssdd", (1, 1)): {"original": {"F": "1.720", "F*": "1.779", "F*F": "3.489"}},
    (H100, (5000, 100, 1000), "sssss", (1, 1)): {
        "original": {"F": "1.744", "F*": "1.716", "F*F": "3.402"},
        "CuPy": {"F": "1.65"},
    },
    (H100, (20000, 10, 1000), "ddddd", (1, 1)): {
        "original": {"F": "2.429", "F*": "2.148", "F*F": "4.524"},
        "CuPy": {"F": "2.38"},
    },
    (H100, (1000, 1000, 500), "ddddd", (1, 1)): {
        "original": {"F": "2.761", "F*": "2.688", "F*F": "5.430"},
        "CuPy": {"F": "2.80"},
    },
    (H100, (500, 20, 200), "ddddd", (1, 1)): {
        "original": {"F": "0.0445", "F*": "0.0554", "F*F": "0.0843"},
        "CuPy": {"F": "0.183"},
    },
    (H100, (100, 10, 100), "ddddd", (1, 1)): {
        "original": {"F": "0.0381", "F*": "0.0386", "F*F": "0.0697"},
        "CuPy": {"F": "0.185"},
    },
    (H200, (5000, 100, 1000), "ddddd", (1, 1)): {"original": {"F": "2.046"}},
    (H200, (10000, 100, 1000), "ddddd", (1, 2)): {"original": {"F": "2.064"}},
    (H200, (5000, 100, 1000), "ddddd", (1, 2)): {"original": {"F": "1.168"}},
    (H200, (5000, 200, 1000), "ddddd", (2, 1)): {"original": {"F": "2.203"}},
}
READ_BANDWIDTH = {H100: 3.05e12}  # bytes a second, also measured
CACHE_BYTES = 50e6  # of the H100's L2: a spectrum that fits is not read from memory

STORED = {
    "d": ("complex128", 16),
    "s": ("complex64", 8),
    "i": ("FIXED32", 8),
    "h": ("FIXED16", 4),
}


# Cells


def number(value: float | None, form: str = "#.4g", factor: float = 1.0) -> str:
    """Return a number as a cell, which is empty for None."""
    return "" if value is None else format(value * factor, form)


def error_cell(value: float | None) -> str:
    """Return a relative error as a cell."""
    return "0" if value == 0 else number(value, ".1e")


def shape_cell(record: Record) -> str:
    """Return Nm x Nd x Nt."""
    return " x ".join(map(str, record.get("shape", ())))


def about(record: Record) -> Row:
    """Return the cells that identify the product."""
    return {
        "Nm x Nd x Nt": shape_cell(record),
        "precision": record.get("precision", ""),
        "product": record.get("op", "").replace("*", r"\*"),
    }


def beside(record: Record, device: str) -> Row:
    """Return the cells of the same product of one vector in other programs, where it was measured."""
    key = device, tuple(record["shape"]), record["precision"], tuple(record["grid"])
    known = OTHERS.get(key, {}) if record["num_vecs"] == 1 else {}
    cells = {}
    for program in ("original", "CuPy"):
        theirs = known.get(program, {}).get(record["op"], "")
        cells[f"{program} ms"] = theirs
        cells[f"{program} / ours"] = number(float(theirs) / record["median_ms"], ".2f") if theirs else ""
    return cells


def bound(record: Record, device: str) -> Row:
    """Return the cells of the time to read the spectrum at the device's bandwidth, and its part of our time."""
    nm, nd, nt = record["shape"]
    size = nm * nd * (nt + 1) * STORED[record["precision"][2]][1]
    if device not in READ_BANDWIDTH or record["op"] not in ("F", "F*"):
        return {"bytes / bandwidth ms": "", "bound / ours": ""}
    if size <= CACHE_BYTES:
        return {"bytes / bandwidth ms": "(cache)", "bound / ours": ""}
    least = 1e3 * size / READ_BANDWIDTH[device]
    return {"bytes / bandwidth ms": number(least), "bound / ours": number(least / record["median_ms"], ".1%")}


# Tables: from the records of one environment to rows


def products(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield products with one vector on one rank."""
    for record in of(records, "matvec", ranks=1, num_vecs=1):
        ours = {"ours ms": number(record["median_ms"]), "queued ms": number(record.get("queued_ms"))}
        others = bound(record, device) | beside(record, device)
        yield about(record) | ours | others | {"error": error_cell(record["rel_error"])}


def several(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield products with several right-hand sides, compared with one right-hand side if that was measured."""
    alone = {json.dumps(about(record)): record["median_ms"] for record in of(records, "matvec", ranks=1, num_vecs=1)}
    for record in of(records, "matvec", ranks=1):
        if record["num_vecs"] > 1:
            each = record["median_ms"] / record["num_vecs"]
            one = alone.get(json.dumps(about(record)))
            yield about(record) | {
                "vectors": str(record["num_vecs"]),
                "ms": number(record["median_ms"]),
                "ms a vector": number(each),
                "one vector ms": number(one),
                "gain": "" if one is None else number(one / each, ".2f"),
            }


def storage(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield products that were measured with several formats of the spectrum, compared with double."""
    found = list(of(records, "matvec", ranks=1, num_vecs=1))
    for record in found:
        same = [other for other in found if (other["shape"], other["op"]) == (record["shape"], record["op"])]
        double = next((other for other in same if other["precision"] == "ddddd"), None)
        if double is not None and len({other["precision"][2] for other in same}) > 1:
            yield about(record) | {
                "stored as": STORED[record["precision"][2]][0],
                "GB": number(record["spectrum_bytes"], ".3f", 1e-9),
                "of double's bytes": number(record["spectrum_bytes"] / double["spectrum_bytes"], ".2f"),
                "ms": number(record["median_ms"]),
                "of double's time": number(record["median_ms"] / double["median_ms"], ".2f"),
                "error": error_cell(record["rel_error"]),
            }


def setup(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield the time and the memory of a matrix's set-up from host memory."""
    for record in of(records, "setup"):
        yield about(record) | {
            "seconds": number(record.get("seconds"), "#.3g"),
            "spectrum GB": number(record.get("spectrum_bytes"), ".3f", 1e-9),
            "peak GB": number(record.get("peak_bytes"), ".3f", 1e-9),
            "peak / stored": number(record.get("peak_over_stored"), ".3f"),
            "failed": record.get("error", ""),
        }


def kernels(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield each kernel, compared with a device copy in the same run."""
    for record in of(records, "kernels"):
        yield {
            "kernel": record["operation"].replace("*", r"\*"),
            "GB": number(record.get("bytes"), ".3f", 1e-9),
            "ms": number(record.get("median_ms")),
            "GB/s": number(record.get("gb_per_s"), ".0f"),
            "of copy": number(record.get("of_copy"), ".1%"),
            "failed": record.get("error", ""),
        }


def peers(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield other programs, each compared with ours in the same run."""
    for record in of(records, "peers"):
        ratio = record.get("time_over_ours")
        if ratio == 1 and "error" not in record:  # our own record
            continue
        yield (
            {"program": record["program"]}
            | about(record)
            | {
                "vectors": str(record.get("num_vecs", "")),
                "its ms": number(record.get("median_ms")),
                "our ms": "" if ratio is None else number(record["median_ms"] / ratio),
                "its / ours": number(ratio, ".2f"),
                "faster": "" if ratio is None else "ours" if ratio >= 1 else "**the peer**",
                "failed": record.get("error", ""),
            }
        )


def nccl(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield products on several ranks."""
    for record in of(records, "matvec"):
        if record["ranks"] > 1:
            grid = {"grid": " x ".join(map(str, record["grid"])), "vectors": str(record["num_vecs"])}
            yield grid | about(record) | {"ours ms": number(record["median_ms"])} | beside(record, device)


def scaling(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield products on every process grid, compared with ideal scaling from one rank and with the model."""
    found = list(of(records, "scaling"))
    for record in found:
        ideal = ideal_ms(record, found) if "median_ms" in record else None
        ours, predicted = record.get("median_ms"), record.get("predicted_ms")
        yield (
            {"scaling": record["scaling"].replace("single", ""), "grid": " x ".join(map(str, record["grid"]))}
            | about(record)
            | {
                "ours ms": number(ours),
                "ideal ms": number(ideal),
                "ideal / ours": "" if ideal is None else number(ideal / ours, ".1%"),
                "model ms": number(predicted),
                "model / ours": "" if predicted is None else number(predicted / ours, ".2f"),
                "error": error_cell(record["rel_error"]) if "rel_error" in record else "",
                "failed": record.get("error", ""),
            }
        )


def vectors(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield vector arithmetic, compared with a device copy and CuPy's fused kernels."""
    for record in of(records, "vectors"):
        yield {
            "operation": record["operation"],
            "ms": number(record.get("median_ms")),
            "GB/s": number(record.get("gb_per_s"), ".0f"),
            "of copy": number(record.get("of_copy"), ".1%"),
            "CuPy / ours": number(record.get("cupy_time_over_ours"), ".2f"),
        }


def overhead(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield the host time of an operation on a small vector."""
    for record in of(records, "host overhead"):
        yield {"operation": f"`{record['operation']}`", "host µs": number(record["host_us"], ".1f")}


COUNTERS = {
    "DRAM throughput": ("dram_percent", ".1f", 1.0),
    "GB read": ("dram_bytes_read", ".3f", 1e-9),
    "GB written": ("dram_bytes_written", ".3f", 1e-9),
    "µs": ("duration_ns", ".1f", 1e-3),
    "L2": ("l2_percent", ".1f", 1.0),
    "L1": ("l1_percent", ".1f", 1.0),
    "issue slots": ("issue_percent", ".1f", 1.0),
    "FP64 pipe": ("fp64_pipe_percent", ".1f", 1.0),
    "occupancy": ("occupancy_percent", ".1f", 1.0),
    "registers": ("registers_per_thread", ".0f", 1.0),
    "local loads": ("local_loads", ".0f", 1.0),
}


def counters(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield the hardware counters of SBGEMV's kernels; shares are percentages of the device's peak."""
    for record in of(records, "counters"):
        kernel = {"kernel": f"`{record['kernel']}`" if "kernel" in record else ""}
        cells = {title: number(record.get(key), form, factor) for title, (key, form, factor) in COUNTERS.items()}
        yield (
            about(record)
            | {"vectors": str(record.get("num_vecs", ""))}
            | kernel
            | cells
            | {"failed": record.get("error", "")}
        )


def sanitizer(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield the reports of compute-sanitizer's tools."""
    for record in of(records, "sanitizer"):
        seen = f"{record['kernels']} of {record['all_kernels']}" if "all_kernels" in record else ""
        yield {
            "tool": record["tool"],
            "program": record["program"],
            "kernels": seen,
            "errors": "no report" if record["errors"] is None else str(record["errors"]),
            "caught": "yes" if record["caught"] else "no",
        }


def pareto(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield the configs that no other one beats in time and error."""
    for record in sorted(of(records, "pareto", on_front=True), key=lambda record: (record["op"], record["median_ms"])):
        yield about(record) | {
            "ms": number(record["median_ms"]),
            "error": error_cell(record["rel_error"]),
            "spectrum GB": number(record["spectrum_bytes"], ".3f", 1e-9),
        }


TABLES: dict[str, Callable[[Iterable[Record], str], Iterator[Row]]] = {
    table.__name__: table
    for table in (
        products,
        several,
        storage,
        setup,
        kernels,
        peers,
        nccl,
        scaling,
        vectors,
        overhead,
        counters,
        sanitizer,
        pareto,
        inversion,
        mixed,
        *gpu.TABLES,
        *speed.TABLES,
    )
}


def of(records: Iterable[Record], benchmark: str, **fields: Any) -> Iterator[Record]:
    """Yield the records of a benchmark that have these values in these fields."""
    for record in records:
        if record["benchmark"] == benchmark and all(record.get(name) == value for name, value in fields.items()):
            yield record


# The page


def markdown(rows: list[Row]) -> list[str]:
    """Return the lines of a table: empty columns are left out, and numbers are aligned to the right."""
    titles = [
        title for title in dict.fromkeys(title for row in rows for title in row) if any(r.get(title) for r in rows)
    ]
    # Of [k][out][in] Markdown makes a reference to a link, unless a bracket is escaped.
    cells = [[row.get(title, "").replace("|", r"\|").replace("][", r"]\[") for title in titles] for row in rows]
    numeric = [
        all(re.fullmatch(r"[\d.]+(e[+-]\d+)?%?|\(cache\)|", cell) for cell in column)
        for column in zip(*cells, strict=True)
    ]
    rule = ["---:" if right else "---" for right in numeric]
    return [f"| {' | '.join(line)} |" for line in (titles, rule, *cells)]


def environments(results: Mapping[str, Record]) -> list[dict[str, Record]]:
    """Return groups of files that were measured on one device with the same commit and versions."""
    groups: dict[str, dict[str, Record]] = {}
    for name, found in sorted(results.items()):
        groups.setdefault(json.dumps([found[key] for key in ("device", "commit", "versions")]), {})[name] = found
    return list(groups.values())


def source(group: Mapping[str, Record]) -> str:
    """Return the line below a table: the environment of its files, and their dates."""
    same = next(iter(group.values()))
    files = ", ".join(f"`bench/results/{name}` ({found['date'][:10]})" for name, found in group.items())
    versions = ", ".join(f"{name} {version}" for name, version in same["versions"].items())
    return f"{same['device']}; {files}; commit `{same['commit'] or 'unknown'}`; {versions}."


def table(name: str, results: Mapping[str, Record], pattern: str = "*") -> str:
    """Return the tables of a name from the results files whose paths match a pattern, or a line without results."""
    if name not in TABLES:
        raise ValueError(f"table: expected one of {', '.join(TABLES)}, found {name!r}")
    chosen = {file: found for file, found in results.items() if fnmatch(file, pattern)}
    rows = {file: list(TABLES[name](found["records"], found["device"])) for file, found in chosen.items()}
    parts = []
    for group in environments({file: found for file, found in chosen.items() if rows[file]}):
        lines = markdown([row for file in group for row in rows[file]])
        parts.append("\n".join([*lines, "", source(group)]))
    return "\n\n".join(parts) or f"*Not measured yet: no results of `{name}` in `bench/results/{pattern}`.*"


def picture(file: str, folder: Path, caption: str) -> str:
    """Return a picture in the folder of the page, or a line if the file does not exist."""
    return f"![{caption}]({file})" if (folder / file).exists() else f"*Not drawn yet: `docs/{file}`.*"


def render(template: str, results: Mapping[str, Record], folder: Path = PAGE.parent) -> str:
    """Return the page: the template with its markers replaced by tables and pictures.

    Parameters
    ----------
    template : str
        The text with markers.
    results : mapping
        Contents of results files, by their paths below bench/results.
    folder : Path
        The folder of the pictures.
    """

    def replace(marker: re.Match[str]) -> str:
        kind, name, rest = marker.groups(default="")
        if kind == "text":
            return TEXTS[name](results.values())
        return table(name, results, rest or "*") if kind == "table" else picture(name, folder, rest)

    return re.sub(r"^<!-- (table|picture|text): (\S+)(?: (.+?))? -->$", replace, template, flags=re.MULTILINE)


# Sentences of the page, from all results.
TEXTS: dict[str, Callable[[Iterable[Record]], str]] = {"pays": speed.pays}

# The charts of the page, by their files in docs/: a function, and the results file or files that it draws.
CHARTS: dict[str, tuple[Callable[[Any], str | None], str]] = {
    "charts/peers-h100.svg": (ratios, "h100/peers.json"),
    "charts/cpu-bandwidth.svg": (speed_charts.bandwidth, "cpu/*.json"),
    "charts/cpu-peers.svg": (speed_charts.fastest_peers, "cpu/*.json"),
    "charts/cpu-growth.svg": (speed_charts.growth, "cpu/*.json"),
    "scaling-h100x4.svg": (lambda results: draw(results["records"], results["device"]), "h100x4/scaling.json"),
    "scaling-h100x2.svg": (lambda results: draw(results["records"], results["device"]), "h100x2/scaling.json"),
}


def committed_charts() -> dict[str, str | None]:
    """Return the text of each chart that results from the files of this checkout, None without a measurement."""
    charts = {}
    for name, (draw_chart, pattern) in CHARTS.items():
        found = [read_results(path) for path in sorted(RESULTS.glob(pattern))]
        charts[name] = draw_chart(found if "*" in pattern else found[0])
    return charts


def committed_page() -> str:
    """Return the page that results from the files of this checkout."""
    results = {path.relative_to(RESULTS).as_posix(): read_results(path) for path in sorted(RESULTS.glob("*/*.json"))}
    return render(TEMPLATE.read_text(), results)
