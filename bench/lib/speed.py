"""Rows of the performance page for bench/cpu.py, and the sentence about the size from which the library pays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from .answers import milliseconds

Record = Mapping[str, Any]
Row = dict[str, str]

OPS = ("F", "F*")
FORMATS = {"ddddd": "complex128", "sssss": "complex64", "ddidd": "FIXED32", "ddhdd": "FIXED16"}
NUMPY = "NumPy"


class Growth(NamedTuple):
    """Times against one size: the slope in logarithms, the largest step above linear, and the size where it ends."""

    slope: float
    step: float
    at: int
    reading: float | None  # the step of reading as many bytes


def chosen(records: Iterable[Record], benchmark: str) -> list[Record]:
    """Return the records of one name."""
    return [record for record in records if record["benchmark"] == benchmark]


def machine_label(record: Record) -> str:
    """Return the instructions and threads of a record."""
    threads = record["threads"]
    return f"{record['instructions']}, {threads} thread{'s' if threads > 1 else ''}"


def fastest(record: Record, program: str = "") -> tuple[str, float] | None:
    """Return the name and the median time of the fastest peer whose name begins with `program`."""
    times = [
        (found["median_ms"], name)
        for name, found in record["peers"].items()
        if "median_ms" in found and name.startswith(program)
    ]
    return min(times)[::-1] if times else None


def over_ours(record: Record, program: str = "") -> float | None:
    """Return the time of the fastest peer over ours."""
    found = fastest(record, program)
    return None if found is None else found[1] / record["median_ms"]


def _number(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else format(value, form)


def _shape(record: Record) -> str:
    return " x ".join(map(str, record["shape"]))


def _megabytes(nbytes: float) -> str:
    return f"{nbytes / 1e6:#.3g}".rstrip(".") if nbytes < 1e9 else f"{nbytes / 1e6:.0f}"


def _title(op: str) -> str:
    return op.replace("*", r"\*")


def cpu_machine(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield the machine's own speed."""
    for record in chosen(records, "cpu machine"):
        reads = {f"{read['of']} GB/s": f"{read['gb_per_s']:.1f}" for read in record["reads"]}
        held = ", ".join(f"`{key}={value}`" for key, value in record["settings"].items())
        yield {
            "instructions": record["instructions"],
            "threads": str(record["of_threads"]),
            **reads,
            "double GFLOP/s": f"{record['d_gflops']:.1f}",
            "single GFLOP/s": f"{record['s_gflops']:.1f}",
            "core's cache MB": _megabytes(record["core_cache_bytes"]),
            "last cache MB": _megabytes(record["last_cache_bytes"]),
            "settings": held,
        }


def cpu_products(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield F and F* of each shape and number of vectors, beside the fastest peer and the machine's speed."""
    pairs: dict[tuple[str, str, int], dict[str, Record]] = {}
    for record in chosen(records, "cpu product"):
        pairs.setdefault((machine_label(record), _shape(record), record["num_vecs"]), {})[record["op"]] = record
    for (label, shape, count), pair in pairs.items():
        some = next(iter(pair.values()))
        row = {"machine": label, "Nm x Nd x Nt": shape, "MB": _megabytes(some["spectrum_bytes"]), "vectors": str(count)}
        of = [(_title(op), pair[op]) for op in OPS if op in pair]
        row |= {f"{op} ms": milliseconds(record["median_ms"]) for op, record in of}
        row |= {f"fastest peer / {op}": _number(over_ours(record)) for op, record in of}
        row |= {f"{op} of reading": _number(record["of_read"], ".0%") for op, record in of}
        row |= {f"{op} of FMA peak": _number(record.get("of_peak"), ".0%") for op, record in of}
        failed = {f"{name}: {found['error']}" for name, found in some["peers"].items() if "error" in found}
        yield row | {"failed": "; ".join(sorted(failed))}


def cpu_formats(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield products of one vector in each format of the spectrum."""
    for record in chosen(records, "cpu format"):
        yield {
            "machine": machine_label(record),
            "Nm x Nd x Nt": _shape(record),
            "product": _title(record["op"]),
            "stored as": FORMATS[record["precision"]],
            "MB": _megabytes(record["spectrum_bytes"]),
            "ms": milliseconds(record["median_ms"]),
            "speed": _number(record["speed"]),
            "SBGEMV's speed": _number(record["sbgemv_speed"]),
            "SBGEMV of reading": _number(record["of_read"], ".0%"),
        }


def cpu_transforms(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield the transforms of each number and length of rows, and NumPy's times over theirs."""
    sizes: dict[tuple[str, int, int], dict[str, Record]] = {}
    for record in chosen(records, "cpu transform"):
        sizes.setdefault((machine_label(record), record["rows"], record["steps"]), {})[record["transform"]] = record
    for (label, rows, steps), found in sizes.items():
        row = {"machine": label, "rows": str(rows), "time steps": str(steps)}
        for title, kind in (("forward", "rfft"), ("back", "irfft")):
            row |= {f"{title} ms": milliseconds(found[kind]["median_ms"])}
            row |= {f"NumPy / {title}": _number(over_ours(found[kind]))}
        yield row


def growths(records: Iterable[Record]) -> dict[tuple[str, str, str], list[Record]]:
    """Return the records of `growth` by machine, growing size and product, from small to large."""
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in chosen(records, "cpu growth"):
        groups.setdefault((machine_label(record), record["grows"], record["op"]), []).append(record)
    return {key: sorted(group, key=size_of) for key, group in groups.items()}


def size_of(record: Record) -> int:
    """Return the size that grows."""
    return int(dict(zip(("Nm", "Nd", "Nt", "R"), [*record["shape"], record["num_vecs"]], strict=True))[record["grows"]])


def growth_of(group: Sequence[Record]) -> Growth:
    """Return the growth of at least two records, by their smallest times."""
    sizes, times = [size_of(record) for record in group], [record["min_ms"] for record in group]
    slope = float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
    linear = [after / before for before, after in pairwise(sizes)]
    steps = [after / before / step for (before, after), step in zip(pairwise(times), linear, strict=True)]
    worst = int(np.argmax(steps))
    before, after = group[worst], group[worst + 1]
    reading = after["read_ms"] / before["read_ms"] / linear[worst] if "read_ms" in after else None
    return Growth(slope, steps[worst], sizes[worst + 1], reading)


def cpu_growth(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield the slopes of times against each size, and their largest steps."""
    for (label, grows, op), group in growths(records).items():
        if len(group) < 2:
            continue
        found, ends = growth_of(group), (group[0], group[-1])
        yield {
            "machine": label,
            "grows": grows,
            "product": _title(op),
            "from": str(size_of(ends[0])),
            "to": str(size_of(ends[1])),
            "MB": " to ".join(dict.fromkeys(_megabytes(end["spectrum_bytes"]) for end in ends)),
            "ms": " to ".join(milliseconds(end["median_ms"]) for end in ends),
            "slope": _number(found.slope),
            "largest step / linear": _number(found.step),
            "at": str(found.at),
            "reading's step there": _number(found.reading),
        }


def cpu_loaded(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield products beside NumPy while another program keeps every core busy."""
    for record in chosen(records, "cpu loaded"):
        yield {
            "machine": machine_label(record),
            "Nm x Nd x Nt": _shape(record),
            "product": _title(record["op"]),
            "ours ms": milliseconds(record["median_ms"]),
            "NumPy and SciPy / ours": _number(over_ours(record, NUMPY)),
        }


TABLES = (cpu_machine, cpu_products, cpu_formats, cpu_transforms, cpu_growth, cpu_loaded)


def machines(results: Iterable[Record], benchmark: str) -> Iterator[tuple[str, list[Record]]]:
    """Yield the name of each machine that has records of a benchmark, with these records."""
    for found in results:
        by_label: dict[str, list[Record]] = {}
        for record in chosen(found["records"], benchmark):
            by_label.setdefault(machine_label(record), []).append(record)
        for label, records in by_label.items():
            yield f"{found['device']}, {label}", records


def pays(results: Iterable[Record]) -> str:
    """Return a sentence for each machine: from which size F and F* of one vector are faster than NumPy with SciPy."""
    sentences = []
    for machine, records in machines(results, "cpu product"):
        by_size: dict[tuple[int, str], list[float]] = {}
        for record in records:
            if record["num_vecs"] == 1 and (ratio := over_ours(record, NUMPY)) is not None:
                by_size.setdefault((math.prod(record["shape"]), _shape(record)), []).append(ratio)
        if by_size:
            sentences.append(f"On {machine}, {_from_size(sorted(by_size.items()))}")
    return " ".join(sentences) or "*Not measured yet: the size from which the library is faster than NumPy.*"


def _from_size(ratios: Sequence[tuple[tuple[int, str], Sequence[float]]]) -> str:
    """Return the end of a sentence, from the ratios of each size in ascending order."""
    faster = [min(of) >= 1 for _, of in ratios]
    if not faster[-1]:
        (_, shape), of = ratios[-1]
        return f"NumPy and SciPy take {min(of):.2f} of our time for one vector at the largest size, {shape}."
    first = len(faster) - faster[::-1].index(False) if False in faster else 0
    (_, shape), of = ratios[first]
    least = min(min(of) for _, of in ratios[first:])
    words = (
        f"F and F\\* of one vector are faster than NumPy and SciPy from Nm x Nd x Nt = {shape} on: {least:.2f} times"
    )
    if first == 0:
        return f"{words} and more, at every measured size."
    (_, below), of = ratios[first - 1]
    return f"{words} and more. At {below}, the next smaller size, NumPy and SciPy take {min(of):.2f} of our time."
