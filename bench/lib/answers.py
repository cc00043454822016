"""Rows of the performance page for exact inversion and for solvers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Record = Mapping[str, Any]
Row = dict[str, str]

STEPS = {  # columns of the online steps
    "Cholesky ms": "cholesky",
    "offline ms": "offline",
    "infer ms": "infer",
    "forecast ms": "forecast",
    "assimilate ms": "assimilate",
}


def milliseconds(value: float) -> str:
    """Return a time with three digits, and with units of ms in full from 1000 on."""
    return f"{value:.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")


def inversion(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield a row for each shape of bench/inversion.py: the data-space Hessian, its factor, and the online steps."""
    by_shape: dict[tuple[tuple[int, ...], int], dict[str, Record]] = {}
    for record in records:
        if record["benchmark"] in ("hessian", *STEPS.values()) and "ranks" in record:
            by_shape.setdefault((tuple(record["shape"]), record["ranks"]), {})[record["benchmark"]] = record
    for ((cols, rows, steps), ranks), found in by_shape.items():
        hessian = found["hessian"]
        formed = hessian["blocks_ms"] + hessian["median_ms"]
        columns = hessian.get("by_columns_ms")
        yield {
            "Nm, Nd, Nt": f"{cols}, {rows}, {steps}",
            "ranks": str(ranks),
            "data": f"{rows * steps}",
            "Hessian ms": milliseconds(formed),
            "by products": "" if columns is None else f"{columns / formed:.0f} x",
            **{column: milliseconds(found[name]["median_ms"]) for column, name in STEPS.items()},
        }


def mixed(records: Iterable[Record], device: str) -> Iterator[Row]:
    """Yield the rows of bench/solvers.py: CG with cheap products, and block CG, beside CG in double."""
    for record in records:
        if record["benchmark"] == "mixed precision":
            yield {
                "solver": f"refined CG, {record['precision']}",
                "time ms": milliseconds(record["mixed_ms"]),
                "CG in double ms": milliseconds(record["double_ms"]),
                "ratio": f"{record['ratio']:.3f}",
                "difference": f"{record['difference']:.0e}",
            }
        elif record["benchmark"] == "block":
            count = record["num_vecs"]
            yield {
                "solver": f"block CG, {count} right-hand sides",
                "time ms": milliseconds(record["block_ms"]),
                "CG in double ms": f"{count} x {milliseconds(record['single_ms'])}",
                "ratio": f"{1 / record['speedup']:.3f}",
                "difference": "",
            }
