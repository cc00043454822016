"""NVIDIA's compute-sanitizer over every kernel: all four tools find nothing, and each finds the bug planted for it.

``python bench/sanitize.py --json bench/results/sanitizer-h100.json [--tools memcheck ...] [--quick]``. The programmes
are those of tests/gpu/sanitized.py. It exits with an error where a clean run has errors or a planted bug is not caught.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numba_fftmatvec.report import write_results

ROOT = Path(__file__).resolve().parents[1]
PROGRAMME = ROOT / "tests" / "gpu" / "sanitized.py"
SECONDS = 500
ERROR_EXIT_CODE = 9


@dataclass(frozen=True)
class Tool:
    """One of the four tools: its own options, and words of the report on the bug that is planted for it."""

    finding: str
    options: tuple[str, ...] = ()


# Calls that libraries make to see what the driver can do, and that fail by design, are no errors of kernels.
TOOLS = {
    "memcheck": Tool("Invalid __global__ write", ("--report-api-errors", "no")),
    "racecheck": Tool("hazard|Race reported"),
    "synccheck": Tool("Barrier error|Divergent thread"),
    "initcheck": Tool("Uninitialized"),
}


@dataclass(frozen=True)
class Outcome:
    """What a tool reported of a programme, and what the programme printed."""

    errors: int | None
    returncode: int
    output: str
    seconds: float


def count_errors(output: str) -> int | None:
    """Return the errors that the sanitizer's summaries count, of every process; None where there is no summary.

    racecheck counts hazards: its errors are counted, its warnings are not.
    """
    plain = re.findall(r"= ERROR SUMMARY: (\d+) errors?\s*$", output, re.MULTILINE)
    races = re.findall(r"= RACECHECK SUMMARY: \d+ hazards? displayed \((\d+) errors?, \d+ warnings?\)", output)
    counts = [int(count) for count in plain + races]
    return sum(counts) if counts else None


def run_tool(tool: str, arguments: list[str]) -> Outcome:
    """Run the programme under a tool."""
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", str(ERROR_EXIT_CODE), "--print-limit", "20"]
    return run([*command, *TOOLS[tool].options], arguments)


def run(prefix: list[str], arguments: list[str]) -> Outcome:
    """Run the programme behind a prefix."""
    command = [*prefix, sys.executable, str(PROGRAMME), *arguments]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
        returncode, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        told = error.stdout or b""  # bytes even where text was asked for
        text = told if isinstance(told, str) else told.decode(errors="replace")
        returncode, output = 124, f"{text}\nnot done within {SECONDS} s"
    return Outcome(count_errors(output), returncode, output, time.perf_counter() - start)


def check_tool(tool: str, arguments: list[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the records of the clean run and of the planted bug, each with what is wrong with it, if anything."""
    clean = run_tool(tool, arguments)
    complete = re.search(r"^ran (\d+) of (\d+) kernels", clean.output, re.MULTILINE)
    wrong = "" if clean.errors == 0 and clean.returncode == 0 and complete else "expected a complete run without errors"
    kernels = {"kernels": int(complete[1]), "all_kernels": int(complete[2])} if complete else {}
    yield record(tool, "every kernel", clean, caught=bool(clean.errors), **kernels), excerpt(wrong, clean)

    planted = run_tool(tool, ["--bug", tool])
    caught = bool(planted.errors) and re.search(TOOLS[tool].finding, planted.output) is not None
    wrong = "" if caught else f"expected the planted bug to be caught ({TOOLS[tool].finding})"
    yield record(tool, "planted bug", planted, caught=caught), excerpt(wrong, planted)


def record(tool: str, program: str, outcome: Outcome, **fields: Any) -> dict[str, Any]:
    """Return one run's record."""
    about = {"benchmark": "sanitizer", "tool": tool, "program": program}
    return {**about, "errors": outcome.errors, **fields, "seconds": round(outcome.seconds, 1)}


def excerpt(wrong: str, outcome: Outcome) -> str:
    """Return what is wrong and the head and the end of what was printed; nothing where nothing is wrong."""
    if not wrong:
        return ""
    lines = outcome.output.splitlines()
    shown = lines if len(lines) <= 120 else [*lines[:80], "...", *lines[-40:]]
    return "\n".join([f"{wrong}, found errors {outcome.errors}, exit code {outcome.returncode}:", *shown])


def main() -> None:
    """Run the tools, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--quick", action="store_true", help="a few kernels instead of all")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    import cupy

    device = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    arguments = ["--quick"] if options.quick else []
    plain = run([], arguments)  # compiles the kernels, which takes longer than running them, and caches them
    if plain.returncode:
        print(excerpt("expected the programme to run without a tool", plain), flush=True)
    records, problems = [], []
    with ThreadPoolExecutor() as pool:  # at once: a tool keeps one core busy, and the device hardly at all
        for checked in pool.map(lambda tool: list(check_tool(tool, arguments)), options.tools):
            for found, wrong in checked:
                print(found, wrong, sep="\n" if wrong else "", flush=True)
                records.append(found)
                problems += [wrong] if wrong else []
            write_results(options.json, records, device)  # after each: a run that is cut short has what it had
    sys.exit(f"{len(problems)} of {len(records)} runs were not as expected" if problems else 0)


if __name__ == "__main__":
    main()
