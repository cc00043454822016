"""Vectors at the limits: norms of values whose squares are subnormal, and changes of the block size to the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm

BLOCKS, SIZE = 3, 40


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def comm(request: pytest.FixtureRequest) -> Iterator[Any]:
    with fm.Comm(MPI.COMM_SELF, backend=request.param) as made:
        yield made


def vector_of(comm: Any, values: np.ndarray) -> Any:
    x = fm.Vector(comm, *values.shape, "col", global_sizes=True)
    x.scatter(values)
    return x


@pytest.mark.parametrize("exponent", [*range(-168, -138, 2), 150, 152, 154, 155])
def test_norms_where_squares_lose_digits(comm: Any, exponent: int) -> None:
    """Squares of values near 1e-160 are subnormal: a sum of them that is not zero may have few digits."""
    values = np.random.default_rng(exponent % 100).uniform(0.5, 1, (BLOCKS, SIZE)) * float(f"1e{exponent}")
    wide = np.longdouble(2) ** (0 if exponent > 0 else 500)
    exact = float(np.sqrt(np.sum((values * wide) ** 2)) / wide)
    assert abs(vector_of(comm, values).norm() - exact) <= 2**-50 * exact


@pytest.mark.parametrize("method", ["extend", "shrink", "resize"])
def test_the_same_block_size_is_a_copy(comm: Any, method: str) -> None:
    values = np.random.default_rng(0).standard_normal((BLOCKS, SIZE))
    x, target = vector_of(comm, values), fm.Vector(comm, BLOCKS, SIZE, "col", global_sizes=True)
    assert getattr(x, method)(target) is target
    assert getattr(x, method)(x) is x
    copy = getattr(x, method)(SIZE)
    x.scale(2.0)
    for found in (copy, target):
        assert found.layout == x.layout
        np.testing.assert_array_equal(found.gather(), values)
