"""Compare the products of two checkouts on one device: before and after a change.

``python bench/compare.py --before CHECKOUT --backend cuda --json bench/results/h100/compare.json``. The checkouts run
their own bench/products.py in alternating processes, each with its own package. Processes differ, for example in their
wait for the device, so each figure is the smallest median of a checkout's processes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from numba_fftmatvec.cli.results import write_results

ROOT = Path(__file__).resolve().parents[1]
FIELDS = ("op", "shape", "precision", "num_vecs")
FIGURES = ("median_ms", "queued_ms", "peak_bytes")


def measure(checkout: Path, commit: str | None, backend: str, repetitions: int, folder: Path) -> dict[str, Any]:
    """Return the results of one process of a checkout's bench/products.py."""
    path = folder / "products.json"
    command = [sys.executable, "bench/products.py", "--backend", backend, "--repetitions", str(repetitions)]
    paths = os.pathsep.join([str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths} | ({"FFTMATVEC_COMMIT": commit} if commit else {})
    subprocess.run(
        [*command, "--json", str(path)], cwd=checkout, env=environment, check=True, stdout=subprocess.DEVNULL
    )
    results: dict[str, Any] = json.loads(path.read_text())
    return results


def smallest(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return for each product the smallest of each figure over several processes."""
    best: dict[str, dict[str, Any]] = {}
    for record in (record for run in runs for record in run["records"]):
        key = json.dumps([record[field] for field in FIELDS])
        found = best.setdefault(key, {field: record[field] for field in FIELDS})
        for figure in FIGURES:
            found[figure] = min(record[figure], found.get(figure, record[figure]))
    return best


def ratios(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records of the products that both checkouts measured: their figures, and those after over before."""
    old, new = smallest(before), smallest(after)
    commits = {"commit_before": before[0]["commit"], "commit_after": after[0]["commit"], "processes": len(after)}
    records = []
    for key in old.keys() & new.keys():
        record = {"benchmark": "compare", **{field: old[key][field] for field in FIELDS}, **commits}
        for figure in FIGURES:
            pair = old[key][figure], new[key][figure]
            record |= {f"{figure}_before": pair[0], f"{figure}_after": pair[1], f"{figure}_ratio": pair[1] / pair[0]}
        records.append(record)
    return sorted(records, key=lambda record: [str(record[field]) for field in FIELDS])


def main() -> None:
    """Measure both checkouts in turn, print the ratios, write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, required=True, help="the checkout to compare with")
    parser.add_argument("--before-commit", help="its commit, if it is a copy without its repository")
    parser.add_argument("--backend", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=3, help="processes of each checkout")
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    if not options.json.absolute().parent.is_dir():  # before the work, whose results would be lost
        parser.error(f"--json: expected a file in a folder that exists, found {options.json}")
    before, after = [], []
    with tempfile.TemporaryDirectory() as name:
        for _ in range(options.rounds):
            for checkout, commit, runs in (
                (options.before.resolve(), options.before_commit, before),
                (ROOT, None, after),
            ):
                runs.append(measure(checkout, commit, options.backend, options.repetitions, Path(name)))
    records = ratios(before, after)
    for record in records:
        line = "{op:>3} {shape} {precision} R={num_vecs}: median {median_ms_ratio:.4f}, queued {queued_ms_ratio:.4f}"
        print(line.format(**record), flush=True)
    write_results(options.json, records, after[0]["device"])


if __name__ == "__main__":
    main()
