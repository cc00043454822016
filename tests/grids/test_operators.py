"""Every kind of operator, and combinations of them, on process grids, against dense matrices."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from support.harness import RanksError, run_ranks
from support.operators import CODES, COUNT, EXPRESSIONS, references
from support.reference import roundoff
from support.suites import agreed

pytestmark = pytest.mark.mpi

GRIDS = [(1, 1), (1, 2), (2, 1), (2, 2), (1, 3)]
PLACES = [*((grid, "cpu") for grid in GRIDS), pytest.param(((1, 1), "cuda"), marks=pytest.mark.gpu)]
EXACT = references()
DOUBLE = 2.0**-53


@functools.cache
def ranks(grid: tuple[int, int], backend: str) -> list[dict[str, Any]] | RanksError:
    try:
        return run_ranks(grid[0] * grid[1], "support.operators:on_grid", (grid, backend))
    except RanksError as error:
        return error


@pytest.fixture(params=PLACES, ids=lambda place: f"{place[0][0]}x{place[0][1]}-{place[1]}")
def results(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    found = ranks(*request.param)
    if isinstance(found, RanksError):
        pytest.fail(str(found), pytrace=False)
    return found


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expression(results: list[dict[str, Any]], name: str) -> None:
    """Each column of the dense matrix is a product with a unit vector, so the bound of the error holds for it."""
    exact = EXACT[name]
    found = {fact: agreed([rank[name][fact] for rank in results]) for fact in results[0][name]}
    gain, error = found["accuracy"]
    assert found["shape"] == exact.shape
    assert found["repeats"]
    assert np.linalg.norm(exact.astype(float), 2) <= gain * (1 + 1e-12)
    # The accuracy is that of the operator; the bound is not a number so large that every result passes.
    assert error <= 200 * found["roundoff"] * gain
    columns = np.linalg.norm((found["dense"] - exact).astype(float), axis=0)
    rows = np.linalg.norm((found["adjoint"].T - exact).astype(float), axis=1)
    assert columns.max() <= error
    assert rows.max() <= error


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_several_operands(results: list[dict[str, Any]], name: str) -> None:
    exact = EXACT[name]
    found = agreed([rank[name]["several"] for rank in results]).reshape(COUNT, -1)
    cols = exact.shape[1]
    x = np.random.default_rng(1).standard_normal((COUNT, cols))
    # On a GPU two vectors share a transform and its rounding.
    allowed = results[0][name]["accuracy"].error * np.linalg.norm(x)
    for i in range(COUNT):
        assert np.linalg.norm((found[i] - exact @ x[i]).astype(float)) <= allowed
    np.testing.assert_array_equal(agreed([rank[name]["twice adjoint"] for rank in results]).reshape(COUNT, -1), found)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_dot_test(results: list[dict[str, Any]], name: str) -> None:
    """It passed within the ranks; here its result is compared with the precision of the expression."""
    for fact in ("dot test", "dot test of several"):
        assert agreed([rank[name][fact] for rank in results]) <= 50 * results[0][name]["roundoff"]


def test_roundoff_is_the_largest_of_the_parts(results: list[dict[str, Any]]) -> None:
    found = {name: rank["roundoff"] for name, rank in results[0].items()}
    assert found["A + B"] == found["filtered"] == found["stack of spaces"] == DOUBLE
    assert found["mixed precision"] == roundoff(CODES["H"])
    assert found["stack of stacks"] == roundoff(CODES["S"])
