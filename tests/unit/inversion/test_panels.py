"""Matrices in panels of rows: their layout, and factorisation and solves of every leading part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numba_fftmatvec as fm
from numba_fftmatvec.comm.exchange import bcast_array, sum_array
from numba_fftmatvec.inversion.cholesky import factorise, solve_lower, solve_upper
from numba_fftmatvec.inversion.panels import PanelMatrix, TimeMajor
from support.harness import run_ranks

BLOCKS, STEPS = 3, 11
COMM = fm.Comm(backend="cpu")
BACKENDS = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@given(blocks=st.integers(1, 50), steps=st.integers(1, 200), rows=st.integers(1, 400))
def test_panels_have_every_step_once_and_about_the_rows(blocks: int, steps: int, rows: int) -> None:
    index = TimeMajor.of(blocks, steps, rows)
    assert [step for panel in index.panels for step in panel] == list(range(steps))
    sizes = [len(panel) * blocks for panel in index.panels]
    assert max(sizes) <= max(blocks, 2 * rows)
    assert all(index.panel_of(step) == i for i, panel in enumerate(index.panels) for step in panel)


def spd(size: int) -> Any:
    root = np.random.default_rng(1).standard_normal((size, size))
    return root @ root.T + np.eye(size)


def matrix_of(comm: fm.Comm, values: Any, rows: TimeMajor, cols: TimeMajor, *, lower: bool) -> PanelMatrix:
    found = PanelMatrix(comm, rows, cols, lower=lower)
    found.allocate()
    for panel, part in found.panels.items():
        comm.backend.upload(part, np.ascontiguousarray(values[rows.rows(rows.panels[panel]), : part.shape[1]]))
    return found


@pytest.fixture(scope="module", params=BACKENDS)
def comm(request: pytest.FixtureRequest) -> Any:
    with fm.Comm(backend=request.param) as found:
        yield found


@pytest.mark.parametrize("rows", [1, 7, 12, 100])
def test_the_factor_and_its_solves_are_those_of_numpy(comm: fm.Comm, rows: int) -> None:
    index, other = TimeMajor.of(BLOCKS, STEPS, rows), TimeMajor.of(2, STEPS, rows)
    values, border = spd(index.size), np.random.default_rng(2).standard_normal((other.size, index.size))
    matrix = matrix_of(comm, values, index, index, lower=True)
    weights = matrix_of(comm, border, other, index, lower=False)
    np.testing.assert_array_equal(matrix.gather(), values)
    factorise(matrix, [weights])
    factor = np.linalg.cholesky(values)
    np.testing.assert_allclose(np.tril(matrix.gather()), factor, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(weights.gather(), np.linalg.solve(factor, border.T).T, rtol=1e-9, atol=1e-11)
    right = np.random.default_rng(3).standard_normal((index.size, 2))
    for steps in (1, 5, STEPS):
        count = steps * BLOCKS
        leading = factor[:count, :count]
        with comm.backend.active():
            given_values = comm.backend.arrays.numpy.asarray(right[:count])
        for solve, triangle in ((solve_lower, leading), (solve_upper, leading.T)):
            found = comm.backend.download(solve(matrix, given_values))
            np.testing.assert_allclose(found, np.linalg.solve(triangle, right[:count]), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("device", [False, True])
@pytest.mark.parametrize("ranks", [2, 3])
def test_solves_on_several_ranks(ranks: int, device: bool) -> None:
    index = TimeMajor.of(BLOCKS, STEPS, 7)
    values, right = spd(index.size), np.random.default_rng(3).standard_normal((index.size, 2))
    factor = np.linalg.cholesky(values)
    for found in run_ranks(ranks, "support.inversion:solves", (values, right, index, device)):
        for solution, triangle in zip(found, (factor, factor.T), strict=True):
            np.testing.assert_allclose(solution, np.linalg.solve(triangle, right), rtol=1e-9, atol=1e-11)


def test_a_solve_may_start_at_a_later_panel() -> None:
    index = TimeMajor.of(BLOCKS, STEPS, 7)
    values = spd(index.size)
    matrix = matrix_of(COMM, values, index, index, lower=True)
    factorise(matrix)
    first = 2
    right = np.random.default_rng(3).standard_normal((index.size, 2))
    right[: index.rows(index.panels[first]).start] = 0.0
    np.testing.assert_allclose(solve_lower(matrix, right, first), solve_lower(matrix, right), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("place", [0, 8, BLOCKS * STEPS - 1])
def test_a_matrix_that_is_not_positive_definite_names_the_place(place: int) -> None:
    index = TimeMajor.of(BLOCKS, STEPS, 7)
    values = spd(index.size)
    values[place, place] = -1.0
    matrix = matrix_of(COMM, values, index, index, lower=True)
    step, sensor = divmod(place, BLOCKS)
    with pytest.raises(
        fm.NotPositiveDefiniteError, match=f"singular to rounding at time step {step}, sensor {sensor};"
    ):
        factorise(matrix)


def test_messages_of_arrays_want_c_order() -> None:
    values = np.ones((3, 2)).T
    for send in (lambda: bcast_array(COMM, values, 0, "sending"), lambda: sum_array(COMM, values, "summing")):
        with pytest.raises(fm.ArgumentError, match="expected an array in C order, found strides"):
            send()
    np.testing.assert_array_equal(sum_array(COMM, np.arange(3.0), "summing"), np.arange(3.0))
