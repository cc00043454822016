"""memcheck finds no error in a few kernels, and finds a planted bug; bench/sanitize.py runs all four tools."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from numba_fftmatvec.cli.results import read_results

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the records of memcheck's two runs, by programme."""
    if shutil.which("compute-sanitizer") is None:
        pytest.skip("needs compute-sanitizer on the PATH")
    results = tmp_path_factory.mktemp("sanitizer") / "memcheck.json"
    command = [sys.executable, str(ROOT / "bench" / "sanitize.py"), "--tools", "memcheck", "--quick", "--json"]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    run = subprocess.run(
        [*command, str(results)], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert results.exists(), run.stdout + run.stderr
    return {record["program"]: record | {"log": run.stdout} for record in read_results(results)["records"]}


def test_a_clean_run_has_no_errors(runs: dict[str, Any]) -> None:
    clean = runs["every kernel"]
    assert clean["errors"] == 0, clean["log"]
    assert clean.get("kernels", 0) > 20, clean["log"]


def test_a_planted_bug_is_caught(runs: dict[str, Any]) -> None:
    planted = runs["planted bug"]
    assert planted["caught"] and planted["errors"] > 0, planted["log"]
