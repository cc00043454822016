"""Mutated files, killed saves, and readers beside a writer; `faults.soak` does the same with more of each."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from faults import mutants
from faults.mutants import try_mutants
from faults.saves import read_beside_a_writer

TESTS = Path(__file__).resolve().parents[1]


def test_mutants() -> None:
    """2,000 damaged files: read right or refused by name. Without digests, a flipped value is not noticed."""
    found = try_mutants(2000)
    assert found["failures"] == []
    assert (found["wrong"], found["unnamed"], found["crashes"], found["hangs"]) == (0, 0, 0, 0)
    assert found["right"] >= 400 and found["refused"] >= 800
    assert found["right"] + found["refused"] + found["wrong without digests"] == 2000


def test_the_harness_finds_wrong_values_crashes_and_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test of the harness: readers that return other values, raise, end the process or never return."""
    case = mutants.Case("x.h5", True, np.ones(3), lambda path: np.zeros(3))
    assert mutants.outcome(case, tmp_path)[0] == "wrong"
    unnamed = mutants.Case("x.h5", True, np.ones(3), lambda path: 1 // 0)  # type: ignore[arg-type, return-value]
    assert mutants.outcome(unnamed, tmp_path)[0] == "unnamed"
    program = """
import os, sys, time
from faults import mutants
mutants.SECONDS = 1
work = {"crash": os.abort, "hang": lambda: time.sleep(60)}[sys.argv.pop(1)]
original = mutants.outcome
mutants.outcome = lambda *case: work() if b"31" in open(sys.argv[2], "rb").read() else original(*case)
mutants.read_mutants(*map(mutants.Path, sys.argv[1:3]), 1, range(30, 33))
"""
    for kind in ("crash", "hang"):
        folder = tmp_path / kind
        folder.mkdir()
        found = subprocess.run(
            [sys.executable, "-c", program, kind, str(folder), str(folder / "progress")],
            cwd=TESTS,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert found.returncode != 0
        assert int((folder / "progress").read_text()) == 31
        assert ("Timeout" in found.stderr) == (kind == "hang")


def test_every_mutation_is_seeded() -> None:
    content = bytes(range(256)) * 8
    for mutation in mutants.MUTATIONS:
        first, second = bytearray(content), bytearray(content)
        mutation(first, random.Random(3))
        mutation(second, random.Random(3))
        assert first == second != content


@pytest.mark.mpi
@pytest.mark.parametrize("call", ["Vector.save", "Matrix.save"])
def test_killed_saves(call: str) -> None:
    """The old version or the new one remains, and the next save removes everything else."""
    found = subprocess.run(
        [sys.executable, "-m", "faults.saves", "kill", call, "5", "2"],
        cwd=TESTS,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), "NUMBA_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert found.returncode == 0, found.stderr
    counts = json.loads(found.stdout.splitlines()[-1])
    assert counts["old"] + counts["new"] >= 5
    assert (counts["neither"], counts["left over"]) == (0, 0)


@pytest.mark.mpi
@pytest.mark.parametrize("grid", [(1, 2), (2, 1)])
def test_readers_beside_a_writer(grid: tuple[int, int]) -> None:
    found = read_beside_a_writer(60, grid, timeout=240)
    assert found["mixtures"] == 0
    assert found["one version"] >= 50
