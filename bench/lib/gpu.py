"""Rows of the performance page for tiles of SBGEMV, the latency of small products and the clocks of large ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Record = Mapping[str, Any]
Row = dict[str, str]


def tiles(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield each problem of bench/tiles.py: the tile without tensor cores, and the first one with them, if any."""
    found = (record for record in records if record["benchmark"] == "tiles" and "median_ms" in record)
    for operation, group in itertools.groupby(found, key=lambda record: record["operation"]):
        without, *others = group
        row = {"SBGEMV": operation.replace("*", r"\*"), "without ms": f"{without['median_ms']:.2f}"}
        best = without
        for tile in others[:1]:
            ratio = without["median_ms"] / tile["median_ms"]
            row |= {"with ms": f"{tile['median_ms']:.2f}", "without / with": f"{ratio:.2f}"}
            best = min(without, tile, key=lambda each: float(each["median_ms"]))
        yield row | {"of copy": f"{best['of_copy']:.0%}"}


def latency(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield the times of bench/latency.py: the best of the rounds of each product and of its graph alone."""
    rounds: dict[tuple[tuple[int, ...], str], list[Record]] = {}
    for record in records:
        if record["benchmark"] == "latency" and "process" not in record:
            rounds.setdefault((tuple(record["shape"]), record["run"]), []).append(record)
    for (shape, run), found in rounds.items():
        best = min(found, key=lambda record: float(record["both_us"]))
        times = {f"{name} us": f"{best[f'{name}_us']:.1f}" for name in ("call", "wait", "both")}
        yield {"Nm x Nd x Nt": " x ".join(map(str, shape)), "run": run} | times


def clocks(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield the products of bench/clocks.py: times and clocks at three quantiles of the slowest round, and power."""
    cases: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record["benchmark"] == "clocks":
            cases.setdefault((record["precision"], record["op"]), []).append(record)
    for (precision, op), found in cases.items():
        row = {"precision": precision, "product": op.replace("*", r"\*")}
        for name, waited in (("waited", True), ("queued", False)):
            of_mode = [record for record in found if record.get("waited") is waited]
            medians = {record["us"]: record["round"] for record in of_mode if record["quantile"] == 0.5}
            at = {record["quantile"]: record for record in of_mode if record["round"] == medians[max(medians)]}
            for title, key in (("us", "us"), ("MHz", "mhz")):
                row[f"{name} {title}"] = ", ".join(f"{at[quantile][key]:.0f}" for quantile in (0.02, 0.5, 0.98))
        (power,) = (record for record in found if "watts" in record)
        capped = "yes" if power["power_capped"] else "no"
        yield row | {"W of limit": f"{power['watts']:.0f} of {power['limit_watts']:.0f}", "capped": capped}


TABLES = tiles, latency, clocks
