"""The precision tuner: its measurements, its choice, and its errors."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numba_fftmatvec as fm
from numba_fftmatvec import tuning
from numba_fftmatvec.errors import ArgumentError, ArgumentTypeError, ClosedError, PrecisionError, UninitializedError
from numba_fftmatvec.precision import MatvecPrecisionConfig, Precision
from numba_fftmatvec.tuning import Candidate, candidate_codes, pareto_front, tune
from support import reference
from support.harness import run_ranks

SHAPE = (3, 5, 16)
BLOCKS = np.random.default_rng(1).standard_normal(SHAPE)
AUXILIARY = np.random.default_rng(2).standard_normal(SHAPE)
CODES = ("ddddd", "ddsdd", "dssdd", "ddhdd")


@pytest.fixture(autouse=True)
def _cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the warm-up of the clocks: no test depends on the speed of products."""
    monkeypatch.setattr(tuning, "_WARM_UP_SECONDS", 0.0)


def make(code: str = "ddddd", blocks: Any = BLOCKS, **options: Any) -> fm.Matrix:
    return fm.Matrix.from_array(fm.Comm(backend="cpu", **options), blocks, MatvecPrecisionConfig.from_code(code))


def clock(times: dict[str, list[float]]) -> Any:
    """Return a stand-in for `time_runs` with a given time for each code, and one second for all others."""

    def time_runs(comm: fm.Comm, run: partial[None], repetitions: int) -> list[float]:
        run()
        seconds = times.get(run.args[0].precision_config.code, [1.0])
        return [seconds[i % len(seconds)] for i in range(repetitions)]

    return time_runs


def test_all_candidates_of_each_stored_format() -> None:
    for stored, letters in (("d", "disH"), ("i", "ish"), ("s", "sh"), ("h", "h")):
        codes = candidate_codes(Precision(stored))
        assert len(set(codes)) == len(codes) == 16 * len(letters)
        assert {code[2] for code in codes} == set(letters.lower())
        assert {code[:2] + code[3:] for code in codes} == {f"{n:04b}".translate({48: "d", 49: "s"}) for n in range(16)}


@pytest.mark.parametrize("op", ["F", "F*", "F*F", "FF*"])
@pytest.mark.parametrize("code", ["ddsdd", "sdddd", "ddidd", "ddhdd"])
def test_errors_are_those_of_products_made_by_hand(op: str, code: str) -> None:
    seed = 7
    found = tune(make(), 1.0, products=(op,), codes=(code,), repetitions=1, seed=seed).best
    flags = reference.PRODUCTS[op]
    rows, cols, steps = SHAPE
    blocks = cols if flags.source == "col" else rows
    values = np.random.default_rng([seed, flags.source == "row"]).standard_normal((blocks, steps))
    matrix = make(code)
    x, y = (matrix.get_vec("input" if space == "col" else "output") for space in (flags.source, flags.target))
    x.scatter(values)
    getattr(matrix, flags.method)(x, y, full=flags.full)
    exact = reference.product(op, BLOCKS, BLOCKS, values)
    error = np.linalg.norm(y.gather() - exact) / np.linalg.norm(exact)
    assert error > 1e-12
    assert found.error == pytest.approx(error, rel=1e-3)
    assert (found.code, found.config.code, found.spectrum_bytes) == (code, code, matrix.nbytes)


def test_the_finest_config_is_exact_and_others_are_not() -> None:
    result = tune(make(), 1e-300, codes=CODES, repetitions=1)
    assert [candidate.code for candidate in result.candidates] == list(CODES)
    assert [candidate.error == 0.0 for candidate in result.candidates] == [True, False, False, False]
    assert result.best.code == "ddddd"
    assert result.skipped == {}


def test_products_take_random_values_of_the_seed() -> None:
    F = make()
    errors = [tune(F, 1.0, codes=("ddsdd",), repetitions=1, seed=seed).best.error for seed in (0, 0, 1)]
    assert errors[0] == errors[1] != errors[2]


def test_a_candidate_costs_the_sum_of_its_medians_and_the_largest_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "time_runs", clock({"ddsdd": [3.0, 100.0, 5.0]}))
    both = tune(make(), 1.0, codes=("ddsdd",), repetitions=3).best
    assert both.seconds == 10.0
    errors = [tune(make(), 1.0, products=(op,), codes=("ddsdd",), repetitions=1).best.error for op in ("F", "F*")]
    assert both.error == max(errors)


def test_the_fastest_within_the_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"ddddd": [4.0], "ddsdd": [2.0], "dssdd": [3.0], "ddhdd": [1.0]}
    monkeypatch.setattr(tuning, "time_runs", clock(times))
    F = make()
    result = tune(F, 1e-6, codes=CODES, repetitions=1)
    assert [candidate.code for candidate in result.front] == ["ddhdd", "ddsdd", "ddddd"]
    assert result.best.code == "ddsdd"
    assert tune(F, 1e-2, codes=CODES, repetitions=1).best.code == "ddhdd"
    assert tune(F, 1e-12, codes=CODES, repetitions=1).best.code == "ddddd"


def noisy(means: dict[str, float], noise: float, drift: float = 0.0) -> Any:
    """Return a stand-in for `time_runs`: independent noise in each run, and a drift that all codes share."""
    random, calls = np.random.default_rng(5), itertools.count()

    def time_runs(comm: fm.Comm, run: partial[None], repetitions: int) -> list[float]:
        run()
        factor = 1.0 + drift * np.sin(next(calls) / 40)
        mean = factor * means[run.args[0].precision_config.code]
        return [mean * (1.0 + noise * abs(sample)) for sample in random.standard_normal(repetitions)]

    return time_runs


def test_noise_is_a_tie_that_the_most_accurate_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "time_runs", noisy({"ddddd": 1e-6, "ddsdd": 1e-6, "ddhdd": 2e-6}, 0.3))
    result = tune(make(), 1e-2, codes=("ddhdd", "ddsdd", "ddddd"), repetitions=9)
    assert {candidate.code for candidate in result.ties} == {"ddddd", "ddsdd"}
    assert result.best.code == "ddddd"


def test_times_separate_in_spite_of_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    means = {"ddddd": 1.1e-6, "ddsdd": 1e-6}
    for noise, drift in ((0.2, 0.0), (0.05, 0.3)):
        monkeypatch.setattr(tuning, "time_runs", noisy(means, noise, drift))
        result = tune(make(), 1e-2, codes=("ddddd", "ddsdd"), repetitions=15)
        assert [candidate.code for candidate in result.ties] == ["ddsdd"] == [result.best.code]


def test_the_time_of_a_comparison_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds that would take longer than the limit are not run: what overlaps is a tie."""
    runs = []

    def time_runs(comm: fm.Comm, run: partial[None], repetitions: int) -> list[float]:
        run()
        runs.append(run.args[0].precision_config.code)
        return [10.0 + len(runs) % 3 + i for i in range(repetitions)]

    monkeypatch.setattr(tuning, "time_runs", time_runs)
    result = tune(make(), 1e-2, codes=("ddddd", "ddsdd"), repetitions=3)
    assert runs.count("ddsdd") == 4  # a warm-up and a measurement of two products
    assert len(result.ties) == 2 and result.best.code == "ddddd"


def test_codes_far_above_the_tolerance_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A default candidate is no coarser than one that failed; given codes are all measured."""
    made = []
    convert = fm.Matrix.with_precision

    def with_precision(self: fm.Matrix, p_config: MatvecPrecisionConfig) -> fm.Matrix:
        made.append(p_config.code)
        return convert(self, p_config)

    monkeypatch.setattr(fm.Matrix, "with_precision", with_precision)
    result = tune(make(), 1e-12, repetitions=1)
    measured = {candidate.code for candidate in result.candidates}
    assert measured == {"ddddd", "ddidd", "sdddd", "dsddd", "dddsd", "dddds"}
    assert set(made) == measured
    assert measured | result.skipped.keys() == set(candidate_codes(Precision.DOUBLE))
    assert re.fullmatch(r"coarser than \w+, whose error of \S+ exceeds the tolerance", result.skipped["ssdss"])
    assert result.best.code == "ddddd"


def test_pareto_front_has_what_nothing_beats() -> None:
    points = [(1.0, 1e-3), (2.0, 1e-3), (2.0, 1e-6), (3.0, 1e-5), (3.0, 1e-9), (4.0, 0.0), (5.0, 0.0)]
    candidates = [Candidate(str(index), seconds, error, 1) for index, (seconds, error) in enumerate(points)]
    assert [candidate.code for candidate in pareto_front(reversed(candidates))] == ["0", "2", "4", "5"]
    for candidate in candidates:
        beaten = any(
            other.seconds <= candidate.seconds and other.error <= candidate.error and other is not candidate
            for other in candidates
        )
        assert beaten == (candidate not in pareto_front(candidates))


def test_codes_are_taken_once_and_in_either_case() -> None:
    result = tune(make(), 1.0, codes=(code for code in ("DDSDD", "ddsdd", "ddddd")), repetitions=1)
    assert [candidate.code for candidate in result.candidates] == ["ddsdd", "ddddd"]


def test_several_right_hand_sides() -> None:
    result = tune(make(), 1e-6, codes=("ddddd", "ddsdd"), repetitions=1, num_vecs=3)
    assert result.candidates[0].error == 0.0
    assert 1e-9 < result.candidates[1].error < 1e-6


def test_products_with_an_auxiliary_matrix() -> None:
    F = make()
    F.init_mat_from_array(AUXILIARY, aux_mat=True)
    result = tune(F, 1e-5, products=("G", "FG*"), codes=("ddddd", "ddsdd"), repetitions=1)
    assert result.candidates[0].error == 0.0
    assert 1e-9 < result.candidates[1].error < 1e-5
    assert result.candidates[0].spectrum_bytes == F.nbytes


def test_the_matrix_stays_as_it_was() -> None:
    F = make("dssdd")
    x = F.get_vec("input")
    x.init_vec_ones()
    before = (F @ x).gather()
    result = tune(F, 1.0, codes=("ddsdd", "ddhdd"), repetitions=1)
    assert result.candidates[0].error == 0.0
    assert F.get_precision_config().code == "dssdd"
    np.testing.assert_array_equal((F @ x).gather(), before)


def test_a_matrix_of_zeros_has_no_errors() -> None:
    result = tune(make(blocks=np.zeros(SHAPE)), 1e-9, codes=CODES, repetitions=1)
    assert [candidate.error for candidate in result.candidates] == [0.0] * len(CODES)


def refuse(monkeypatch: pytest.MonkeyPatch, *codes: str) -> None:
    """Make matrices in these configs exceed the memory."""
    convert = fm.Matrix.with_precision

    def with_precision(self: fm.Matrix, p_config: MatvecPrecisionConfig) -> fm.Matrix:
        if p_config.code in codes:
            raise fm.CapacityError(f"{p_config.code}: expected less")  # as all ranks raise a memory error
        return convert(self, p_config)

    monkeypatch.setattr(fm.Matrix, "with_precision", with_precision)


def test_what_does_not_fit_in_memory_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "ddhdd", "dssdd")
    result = tune(make(), 1e-6, codes=("ddddd", "ddsdd", "dssdd", "ddhdd", "sshss"), repetitions=1)
    assert [candidate.code for candidate in result.candidates] == ["ddddd", "ddsdd"]
    assert result.skipped == {
        "dssdd": "dssdd: expected less",
        "ddhdd": "ddhdd: expected less",
        "sshss": "ddhdd: expected less",
    }


def test_nothing_fits_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "ddhdd")
    with pytest.raises(ArgumentError, match=r"^codes: expected one that can be measured, found .*ddhdd: expected less"):
        tune(make(), 1.0, codes=("ddhdd",), repetitions=1)


def test_each_matrix_is_closed_and_each_format_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    convert = fm.Matrix.with_precision
    made: list[tuple[str, fm.Matrix]] = []

    def with_precision(self: fm.Matrix, p_config: MatvecPrecisionConfig) -> fm.Matrix:
        stored = {matrix.get_precision_config().sbgemv for _, matrix in made if matrix.is_initialized()}
        assert stored <= {Precision.DOUBLE} or stored <= {p_config.sbgemv}, "a format was not closed before the next"
        matrix = convert(self, p_config)
        if self.get_precision_config().sbgemv is not p_config.sbgemv:
            made.append((p_config.code, matrix))
        return matrix

    monkeypatch.setattr(fm.Matrix, "with_precision", with_precision)
    tune(make(), 1.0, codes=("dshdd", "ddsdd", "ddhdd", "dssdd", "sdddd"), repetitions=1)
    assert [code for code, _ in made] == ["ddsdd", "ddhdd"]
    assert not any(matrix.is_initialized() for _, matrix in made)


def test_a_result_that_overflows_is_skipped() -> None:
    result = tune(make(blocks=1e200 * BLOCKS), 1e-6, codes=("ddddd", "ddsdd", "dddsd"), repetitions=1)
    assert [candidate.code for candidate in result.candidates] == ["ddddd"]
    assert result.skipped.keys() == {"ddsdd", "dddsd"}
    assert "finite transform, to be stored as SINGLE" in result.skipped["ddsdd"]
    assert result.skipped["dddsd"] == "a result is not finite"


def test_no_candidate_is_within_the_tolerance() -> None:
    F = make()
    smallest = min(c.error for c in tune(F, 1.0, codes=("ddsdd", "dssdd"), repetitions=1).candidates)
    message = f"^tol: expected at least {smallest:.3e}, the smallest error of a candidate .ddsdd., found 1e-12$"
    with pytest.raises(ArgumentError, match=message):
        tune(F, 1e-12, codes=("ddsdd", "dssdd"), repetitions=1)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        *(
            ({"tol": tol}, ArgumentError, "^tol: ")
            for tol in (0, -1e-3, float("nan"), float("inf"), "1e-3", None, True)
        ),
        ({"products": ("F", "H")}, ArgumentError, r"^products: expected names of F, F\*F?.*, found 'H'"),
        ({"products": ()}, ArgumentError, "^products: .* found none"),
        (
            {"products": ("G",)},
            UninitializedError,
            r"^products: expected some of F, F\*, F\*F, FF\*, since the matrix has no auxiliary matrix; found",
        ),
        ({"codes": ()}, ArgumentError, "^codes: expected at least one, found none"),
        ({"codes": ("ddxdd",)}, PrecisionError, "found 'x'"),
        ({"codes": "ddddd"}, PrecisionError, "expected 5 letters, found 'd'"),
        ({"codes": ("hdddd",)}, PrecisionError, "^precision of broadcast_and_pad: "),
        ({"repetitions": 0}, ArgumentError, "^repetitions: expected a positive integer, found 0"),
        ({"num_vecs": 1.5}, ArgumentError, "^num_vecs: expected a positive integer, found 1.5"),
        ({"seed": -1}, ArgumentError, "^seed: expected an integer that is not negative, found -1"),
        ({"seed": "x"}, ArgumentError, "^seed: expected an integer that is not negative, found 'x'"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        tune(make(), **{"tol": 1e-3} | arguments)


def test_a_format_that_is_finer_than_the_matrix_stores_is_refused() -> None:
    message = "^code 'ddidd': expected a spectrum no finer than the matrix stores, SINGLE, found FIXED32"
    with pytest.raises(PrecisionError, match=message):
        tune(make("ddsdd"), 1e-3, codes=("ddsdd", "ddidd"))


def test_matrices_that_cannot_be_tuned_are_refused() -> None:
    F = fm.Matrix(fm.Comm(backend="cpu"), 5, 3, 16)
    with pytest.raises(UninitializedError, match="^tune: expected an initialised matrix"):
        tune(F, 1e-3)
    F.close()
    with pytest.raises(ClosedError):
        tune(F, 1e-3)
    with pytest.raises(ArgumentTypeError, match="^tune: expected a Matrix, found ndarray$"):
        tune(BLOCKS, 1e-3)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_matrix_that_is_not_finite_is_refused(value: float) -> None:
    blocks = BLOCKS.copy()
    blocks[1, 2, 3] = value
    with pytest.raises(ArgumentError, match=r"^tune: expected a matrix with finite products, found F x of norm "):
        tune(fm.Matrix.from_array(fm.Comm(backend="cpu"), blocks, allow_nonfinite=True), 1e-3, codes=("ddddd",))


def test_the_example_of_the_guide_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NUMBA_FFTMATVEC_BACKEND", "cpu")
    monkeypatch.setattr(tuning, "candidate_codes", lambda stored: list(CODES))
    page = Path(__file__).resolve().parents[2] / "docs" / "tuning.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, str(page), "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [candidate.code for candidate in names["result"].front]
    assert names["result"].best.error <= 1e-6
    assert names["fast"].get_precision_config().code == names["result"].best.code
    assert names["y"].is_initialized()


def tune_on_grid(proc_rows: int) -> tuple[Any, Any]:
    """Return one rank's results, with measured times and with times that differ between the ranks."""
    F = make(proc_rows=proc_rows)
    found = tune(F, 1e-6, codes=CODES, repetitions=2)
    times = {"ddsdd": [1.0 + F.comm.world_rank], "dssdd": [2.0], "ddhdd": [9.0]}
    tuning.time_runs = clock(times)  # type: ignore[attr-defined]
    return found, tune(F, 1e-6, codes=CODES[1:], repetitions=1)


@pytest.mark.mpi
def test_all_ranks_of_a_grid_return_the_same() -> None:
    results = run_ranks(4, "unit.test_tuning:tune_on_grid", 2)
    assert all(result == results[0] for result in results)
    found, timed = results[0]
    assert {candidate.code: candidate.seconds for candidate in timed.candidates}["ddsdd"] == 2 * 4.0
    assert timed.best.code == "dssdd"
    alone = {candidate.code: candidate for candidate in tune(make(), 1e-6, codes=CODES, repetitions=1).candidates}
    for candidate in found.candidates:
        same = replace(candidate, seconds=0.0, error=0.0, spectrum_bytes=0)
        assert same == replace(alone[candidate.code], seconds=0.0, error=0.0, spectrum_bytes=0)
        assert candidate.error == pytest.approx(alone[candidate.code].error, rel=0.3)
        assert candidate.spectrum_bytes < alone[candidate.code].spectrum_bytes
