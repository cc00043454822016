"""The choice of the CPU's blocks by measurement: when, how long, what is kept, and that damaged files do no harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numba_fftmatvec.kernels.formats import COMPLEX128, FIXED16, FORMATS
from numba_fftmatvec.kernels.lanes import Block
from numba_fftmatvec.kernels.sbgemv import blocks
from numba_fftmatvec.kernels.sbgemv.blocks import FILE, candidates, choose_block, sample_of
from numba_fftmatvec.kernels.sbgemv.problem import Problem

DOUBLE = np.complex128


def problem(nd: int = 50, nm: int = 500, steps: int = 200, adjoint: bool = False, num_vecs: int = 1) -> Problem:
    return Problem(nd, nm, 2 * steps, adjoint, COMPLEX128, DOUBLE, DOUBLE, DOUBLE, num_vecs)


class Stub:
    """SBGEMVs that take some time by a clock of their own."""

    def __init__(self, seconds: dict[Block, float]) -> None:
        self.seconds, self.now, self.runs, self.problems = seconds, 0.0, 0, []

    def launcher(self, problem: Problem, block: Block) -> Any:
        self.problems.append(problem)

        def multiply(result: Any, spectrum: Any, vector: Any) -> None:
            assert spectrum.values.shape == problem.format.tiled(problem.nd, problem.nm, problem.frequencies)[0]
            self.now += self.seconds[block]
            self.runs += 1

        return multiply


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep choices in a new folder, and in a process that has none."""
    monkeypatch.setattr(blocks, "cache_folder", lambda: str(tmp_path / "cache"))
    monkeypatch.setattr(blocks, "_choices", {})
    monkeypatch.delenv(blocks.VARIABLE, raising=False)
    return tmp_path / "cache"


def measured(monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, float], of: Problem) -> tuple[Block, Stub]:
    stub = Stub(dict(zip(candidates(of), seconds, strict=True)))
    monkeypatch.setattr(blocks.time, "perf_counter", lambda: stub.now)
    return choose_block(of, stub.launcher), stub


def test_the_fastest_is_chosen_and_kept(monkeypatch, folder) -> None:
    for number, seconds in enumerate([(2e-4, 1e-4), (1e-4, 2e-4)]):
        of = problem(adjoint=bool(number))
        first, second = candidates(of)
        wanted = (second, first)[number]
        found, stub = measured(monkeypatch, seconds, of)
        assert (found, stub.runs) == (wanted, 2 * blocks.RUNS)
        assert stub.problems == [sample_of(of)] * 2
        # The same process takes it again, and so does another one, although the times now differ.
        for _ in range(2):
            again, unused = measured(monkeypatch, seconds[::-1], of)
            assert (again, unused.runs) == (wanted, 0)
            monkeypatch.setattr(blocks, "_choices", {})
    assert len(json.loads((folder / FILE).read_text())) == 2
    assert [path.name for path in folder.iterdir()] == [FILE]


def test_a_slow_machine_measures_each_block_once(monkeypatch) -> None:
    found, stub = measured(monkeypatch, (2.0, 1.0), problem())
    assert (found, stub.runs) == (candidates(problem())[1], 2)


@pytest.mark.parametrize("of", [problem(8, 196, 80), problem(50, 500, 200, True, 3)], ids=["small", "one candidate"])
def test_what_is_not_measured(of, monkeypatch) -> None:
    monkeypatch.setattr(blocks, "candidates", lambda of: blocks.ONE[False][: 2 if of.num_vecs == 1 else 1])
    assert choose_block(of, lambda *about: pytest.fail("measured")) == blocks.ONE[False][0]


def test_the_measurement_is_switched_off(monkeypatch) -> None:
    monkeypatch.setenv(blocks.VARIABLE, "0")
    assert choose_block(problem(), lambda *about: pytest.fail("measured")) == candidates(problem())[0]
    for value in ("no", "", "2"):
        monkeypatch.setenv(blocks.VARIABLE, value)
        with pytest.raises(ValueError, match=f"NUMBA_FFTMATVEC_MEASURE: expected 0 or 1, found '{value}'"):
            choose_block(problem(), lambda *about: pytest.fail("measured"))


def test_without_a_folder_the_process_keeps_the_choice(monkeypatch, tmp_path) -> None:
    def none() -> str:
        raise RuntimeError("cannot cache function")

    (tmp_path / "file").touch()
    for folder in (none, lambda: str(tmp_path / "file" / "cache")):
        monkeypatch.setattr(blocks, "_choices", {})
        monkeypatch.setattr(blocks, "cache_folder", folder)
        wanted = candidates(problem())[1]
        assert measured(monkeypatch, (2e-4, 1e-4), problem())[0] == wanted
        again, stub = measured(monkeypatch, (1e-4, 2e-4), problem())
        assert (again, stub.runs) == (wanted, 0)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"KEY": 7}', '{"KEY": [1, 2, 3, 4]}', '{"KEY": [3, 3, 3]}'])
def test_a_damaged_file_is_replaced(content, monkeypatch, folder) -> None:
    folder.mkdir()
    (folder / FILE).write_text(content.replace("KEY", blocks._key(sample_of(problem()))))
    assert measured(monkeypatch, (2e-4, 1e-4), problem())[0] == candidates(problem())[1]
    monkeypatch.setattr(blocks, "_choices", {})
    again, stub = measured(monkeypatch, (1e-4, 2e-4), problem())
    assert (again, stub.runs) == (candidates(problem())[1], 0)


def test_candidates_fit_the_problem() -> None:
    for nd in (1, 4, 8, 16, 50):
        for num_vecs in (1, 2, 3, 4, 5, 6, 7, 8, 16):
            for adjoint in (False, True):
                found = candidates(problem(nd=nd, adjoint=adjoint, num_vecs=num_vecs))
                assert 1 <= len(found) <= 2 and len(set(found)) == len(found)
                for block in found:
                    assert (num_vecs + num_vecs % 2 * (num_vecs > 1)) % block.vecs == 0
                    assert num_vecs == 1 or len(found) == 1 or block.down <= nd


def test_samples_have_about_a_megabyte() -> None:
    for nd, nm, steps in [(50, 500, 200), (4, 5000, 100), (1, 1, 10**6), (1000, 1000, 10), (50, 50, 4000)]:
        for format in FORMATS:
            whole = Problem(nd, nm, 2 * steps, True, format, DOUBLE, DOUBLE, DOUBLE, 4)
            sample = sample_of(whole)
            assert sample.format is format and sample.adjoint and sample.num_vecs == 4
            assert (sample.nd, sample.nm) == (min(nd, 64), min(nm, 512)) and sample.frequencies <= whole.frequencies
            assert 16 * sample.nd * sample.nm * sample.frequencies <= 2.1 * blocks.SAMPLE


def test_a_measurement_runs_the_kernels() -> None:
    """Without stubs, for a format with scales."""
    from numba_fftmatvec.kernels import Target
    from numba_fftmatvec.kernels.sbgemv.cpu import block_launcher

    of = Problem(20, 4000, 160, False, FIXED16, DOUBLE, DOUBLE, DOUBLE, 1)
    assert of.spectrum_bytes >= blocks.LARGE
    found = choose_block(of, lambda problem, block: block_launcher(Target("cpu"), problem, block))
    assert found in candidates(of) and len(blocks._choices) == 1
