"""bench/inversion.py: its random maps, a whole run, and the number of times that it repeats the offline part."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numba_fftmatvec as fm
from numba_fftmatvec.cli.results import read_results
from support.programs import load

inversion = load("inversion")


def test_blocks_are_the_decaying_waves_of_their_formula() -> None:
    """A row depends on its index and the seed alone, and the rows are independent at each step."""
    rows, cols, steps = 6, 9, 30
    with fm.Comm(backend="cpu") as comm:
        row = inversion.decaying(comm.backend, rows, cols, steps, seed=4)
    t = np.arange(steps)
    for d in (5, 0):
        rng = np.random.default_rng([4, d])
        amplitude, phase = rng.standard_normal((cols, 1)), rng.uniform(0, 6, (cols, 1))
        np.testing.assert_allclose(row(d), amplitude * np.exp(-0.05 * t) * np.sin(0.3 * t + phase), atol=1e-14)
    blocks = np.stack([row(d) for d in range(rows)])
    assert all(np.linalg.cond(blocks[..., step]) < 100 for step in t)
    with pytest.raises(IndexError, match=r"expected one of 6, found 6"):
        row(6)


@pytest.mark.parametrize(("repetitions", "offline"), [(1, 2), (2, 5)])
def test_a_run_forms_each_hessian_once(
    repetitions: int, offline: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With one repetition: once by itself, and once in the whole offline part."""
    made: Counter[tuple[int, ...]] = Counter()
    create = fm.inversion.hessian.RootBlocks.__init__

    def counting(self: Any, source: Any, prior: Any) -> None:
        made[source.matrix.layout.sizes] += 1
        create(self, source, prior)

    monkeypatch.setattr(fm.inversion.hessian.RootBlocks, "__init__", counting)
    file = tmp_path / "inversion.json"
    options = f"--backend cpu --shape 90 6 20 --repetitions {repetitions} --json {file}"
    monkeypatch.setattr(sys, "argv", ["inversion.py", *options.split()])
    inversion.main()
    assert made[6, 90, 20] == offline
    records = read_results(file)["records"]
    names = ["hessian", "cholesky", "offline", "infer", "forecast", "assimilate", "stream forecast"]
    assert [record["benchmark"] for record in records] == names
    assert all(record["shape"] == [90, 6, 20] and record["median_ms"] > 0 for record in records)
    assert records[0]["by_columns_ms"] > 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == len(names)
    assert "6 x 90 blocks of 20 steps are set up" in printed.err and "infer took" in printed.err
