"""Products of blocks of vectors with small matrices: named errors, non-finite values, and bits that repeat."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec.vector import combine, fill_normal, gram, grams, inner_products, subset


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def comm(request: pytest.FixtureRequest) -> Iterator[fm.Comm]:
    with fm.Comm(MPI.COMM_SELF, backend=request.param) as made:
        yield made


def block(comm: fm.Comm, count: int, blocks: int = 5, steps: int = 4, space: str = "col") -> fm.Vector:
    made = fm.Vector(comm, blocks, steps, space, global_sizes=True, num_vecs=count)
    fill_normal(made, count)
    return made


CALLS: dict[str, Callable[[fm.Vector, fm.Vector], object]] = {
    "gram": gram,
    "grams": lambda x, y: grams((x, x), (x, y)),
    "combine": lambda x, y: combine(x, np.ones((x.num_vecs, y.num_vecs)), y),
}


@pytest.mark.parametrize("name", CALLS)
def test_blocks_that_do_not_fit(comm: fm.Comm, name: str) -> None:
    call, x = CALLS[name], block(comm, 3)
    with pytest.raises(fm.ShapeError, match="expected 2 vectors of 5 blocks of 4, found 2 vectors of 6 blocks of 4"):
        call(x, block(comm, 2, blocks=6))
    with pytest.raises(fm.SpaceError, match="expected a 'col' vector, found a 'row' vector"):
        call(x, block(comm, 2, space="row"))
    with pytest.raises(fm.ArgumentTypeError, match="expected a Vector, found ndarray"):
        combine(x, np.ones((3, 2)), np.ones((2, 5, 4)))  # type: ignore[arg-type]
    with pytest.raises(fm.UninitializedError, match="expected an initialised vector"):
        call(fm.Vector.from_layout(comm, x.layout), x)
    with (
        fm.Comm(MPI.COMM_SELF, backend=comm.backend.name) as other,
        pytest.raises(fm.ArgumentError, match="another Comm"),
    ):
        call(x, block(other, 2))
    closed = block(comm, 2)
    closed.close()
    with pytest.raises(fm.ClosedError):
        call(x, closed)


def test_coefficients_that_do_not_fit(comm: fm.Comm) -> None:
    x, out = block(comm, 3), block(comm, 2)
    before = out.gather()
    with pytest.raises(fm.ShapeError, match=r"expected coefficients of shape \(3, 2\), found \(2, 3\)"):
        combine(x, np.ones((2, 3)), out)
    assert np.array_equal(out.gather(), before)


def test_results_in_the_operands_memory_are_refused(comm: fm.Comm) -> None:
    x = block(comm, 4)
    before = x.gather()
    for out in (x, subset(x, 0, 2), x.get_vector(3)):
        with pytest.raises(fm.ArgumentError, match="a result with memory of its own"):
            combine(x, np.ones((4, out.num_vecs)), out)
    assert np.array_equal(x.gather(), before)
    combine(subset(x, 0, 2), np.array([[2.0], [-1.0]]), subset(x, 3, 4))
    np.testing.assert_array_equal(x.gather()[3], 2 * before[0] - before[1])


def test_subsets_share_memory(comm: fm.Comm) -> None:
    x = block(comm, 4)
    part = subset(x, 1, 3)
    part.scale(2.0)
    assert np.array_equal(x.gather()[1:3], part.gather())
    assert not subset(fm.Vector.from_layout(comm, x.layout), 0, 2).is_initialized()
    for start, stop in ((0, 5), (-1, 2), (2, 2), (3, 1)):
        with pytest.raises(fm.ShapeError, match=f"start < stop <= 4, found {start} and {stop}"):
            subset(x, start, stop)


def test_values_that_are_not_finite(comm: fm.Comm) -> None:
    x = block(comm, 3)
    x.array[1, 2, 3] = np.nan
    finite = np.isfinite(gram(x, x))
    assert np.array_equal(finite, np.outer([True, False, True], [True, False, True]))
    x.array[1, 2, 3] = np.inf
    assert gram(x, x)[1, 1] == np.inf
    assert inner_products((x, x))[0] == np.inf


def test_results_repeat(comm: fm.Comm) -> None:
    x = block(comm, 8, blocks=300, steps=301)
    assert np.array_equal(gram(x, x), gram(x, x))
    assert inner_products((x, x), (x, x)).tolist() == [x.dot(x)] * 2


def test_inner_products_of_vectors_that_do_not_fit(comm: fm.Comm) -> None:
    x = block(comm, 3)
    with pytest.raises(fm.ShapeError, match="inner products: expected 3 vectors of 5"):
        inner_products((x, x), (x, block(comm, 2)))
    with pytest.raises(fm.UninitializedError):
        inner_products((x, fm.Vector.from_layout(comm, x.layout)))
    row = block(comm, 2, space="row")
    assert inner_products((x, x), (row, row)) == pytest.approx([x.norm() ** 2, row.norm() ** 2])


def test_seeds_are_checked(comm: fm.Comm) -> None:
    x = block(comm, 1)
    for seed in (-1, 1.5):
        with pytest.raises(fm.ArgumentError, match="seed: expected an integer that is not negative"):
            fill_normal(x, seed)  # type: ignore[arg-type]
    assert x.is_initialized()
