"""Check every kernel with the four tools of NVIDIA's compute-sanitizer, and each tool with a planted bug.

``python bench/sanitize.py --json bench/results/h100/sanitizer.json [--tools memcheck ...] [--quick]``. The programmes
are those of tests/gpu/sanitized.py. The exit status is an error if a clean run has errors or a planted bug is not
caught.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from numba_fftmatvec.cli.results import write_results

ROOT = Path(__file__).resolve().parents[1]
PROGRAMME = ROOT / "tests" / "gpu" / "sanitized.py"
SECONDS = 500
PARTS = 4  # processes that share a tool's kernels
ERROR_EXIT_CODE = 9
LOST_EXIT_CODE = "couldn't find exit code"  # the tool's message if it lost track of a programme that ended
ATTEMPTS = 3


@dataclass(frozen=True)
class Tool:
    """One of the four tools: its options, and a pattern in its report of the planted bug."""

    finding: str
    options: tuple[str, ...] = ()


# Libraries probe the driver with calls that fail by design; these are not errors of kernels.
TOOLS = {
    "memcheck": Tool("Invalid __global__ write", ("--report-api-errors", "no")),
    "racecheck": Tool("hazard|Race reported"),
    "synccheck": Tool("Barrier error|Divergent thread"),
    "initcheck": Tool("Uninitialized"),
}


@dataclass(frozen=True)
class Outcome:
    """A tool's report on a programme, and the output of both."""

    errors: int | None
    returncode: int
    output: str
    seconds: float

    def kernels(self, which: str) -> set[str]:
        """Return the names that the programme printed as kernels that ``ran``, or that are ``known``."""
        return {name for names in re.findall(rf"^{which}: (.*)$", self.output, re.MULTILINE) for name in names.split()}


def count_errors(output: str) -> int | None:
    """Return the number of errors in the sanitizer's summaries of all processes; None without a summary.

    racecheck's summary is of hazards: its errors are counted, its warnings are not.
    """
    plain = re.findall(r"= ERROR SUMMARY: (\d+) errors?\s*$", output, re.MULTILINE)
    races = re.findall(r"= RACECHECK SUMMARY: \d+ hazards? displayed \((\d+) errors?, \d+ warnings?\)", output)
    counts = [int(count) for count in plain + races]
    return sum(counts) if counts else None


def merge(parts: list[Outcome]) -> Outcome:
    """Return the outcome of a programme that ran in parts: the joined output, and a bad exit code if any."""
    counts = [part.errors for part in parts]
    errors = None if None in counts else sum(filter(None, counts))
    worst = max(parts, key=lambda part: bool(part.returncode))
    output = "\n".join(part.output for part in parts)
    return Outcome(errors, worst.returncode, output, max(part.seconds for part in parts))


def run_tool(tool: str, arguments: list[str]) -> Outcome:
    """Run the programme under a tool, and again if the tool cannot find the programme's exit code."""
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", str(ERROR_EXIT_CODE), "--print-limit", "20"]
    for _ in range(ATTEMPTS):
        outcome = run([*command, *TOOLS[tool].options], arguments)
        if LOST_EXIT_CODE not in outcome.output:
            break
    return outcome


def run(prefix: list[str], arguments: list[str]) -> Outcome:
    """Run the programme after a prefix of the command line."""
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
        told = error.stdout or b""  # bytes in spite of text=True
        text = told if isinstance(told, str) else told.decode(errors="replace")
        returncode, output = 124, f"{text}\nnot done within {SECONDS} s"
    return Outcome(count_errors(output), returncode, output, time.perf_counter() - start)


def run_parts(run_part: Callable[[list[str]], Outcome], arguments: list[str]) -> Outcome:
    """Run the programme as `PARTS` processes at once, each with its share of the kernels."""
    with ThreadPoolExecutor(PARTS) as pool:
        shares = [[*arguments, "--part", str(part), str(PARTS)] for part in range(PARTS)]
        return merge(list(pool.map(run_part, shares)))


def check_clean(tool: str, arguments: list[str], quick: bool) -> tuple[dict[str, Any], str]:
    """Return the record of the run of every kernel, and a description of its problem, if any."""
    outcome = run_parts(partial(run_tool, tool), arguments)
    known = outcome.kernels("known")
    ran = outcome.kernels("ran") & known
    left_out = [] if quick else sorted(known - ran)
    clean = outcome.errors == 0 and outcome.returncode == 0 and ran and not left_out
    wrong = "" if clean else f"expected all kernels to run without errors, left out {left_out}"
    kernels = {"kernels": len(ran), "all_kernels": len(known)}
    return record(tool, "every kernel", outcome, caught=bool(outcome.errors), **kernels), excerpt(wrong, outcome)


def check_planted(tool: str) -> tuple[dict[str, Any], str]:
    """Return the record of the planted bug, and a description of its problem, if any."""
    planted = run_tool(tool, ["--bug", tool])
    caught = bool(planted.errors) and re.search(TOOLS[tool].finding, planted.output) is not None
    wrong = "" if caught else f"expected the planted bug to be caught ({TOOLS[tool].finding})"
    return record(tool, "planted bug", planted, caught=caught), excerpt(wrong, planted)


def record(tool: str, program: str, outcome: Outcome, **fields: Any) -> dict[str, Any]:
    """Return one run's record."""
    about = {"benchmark": "sanitizer", "tool": tool, "program": program}
    return {**about, "errors": outcome.errors, **fields, "seconds": round(outcome.seconds, 1)}


def excerpt(wrong: str, outcome: Outcome) -> str:
    """Return the problem with the head and the end of the output; an empty text without a problem."""
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
    plain = run_parts(partial(run, []), arguments)  # compiles and caches kernels, which takes longer than running them
    if plain.returncode:
        print(excerpt("expected the programme to run without a tool", plain), flush=True)
    checks = [partial(check_planted, tool) for tool in options.tools]
    checks += [partial(check_clean, tool, arguments, options.quick) for tool in options.tools]
    records, problems = [], []
    with ThreadPoolExecutor() as pool:  # all at once: a tool occupies a few cores, and hardly the device
        for future in as_completed([pool.submit(check) for check in checks]):
            found, wrong = future.result()
            print(found, wrong, sep="\n" if wrong else "", flush=True)
            records.append(found)
            problems += [wrong] if wrong else []
            ordered = sorted(records, key=lambda done: (list(TOOLS).index(done["tool"]), done["program"]))
            write_results(options.json, ordered, device)  # after each check, so an interrupted run keeps its results
    sys.exit(f"{len(problems)} of {len(checks)} runs were not as expected" if problems else 0)


if __name__ == "__main__":
    main()
