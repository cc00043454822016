"""The CPU's transforms between rows of blocks and tiles: every row, padded and rounded, for any threads and pieces."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest

from numba_fftmatvec.kernels import Target, pocketfft, transforms
from numba_fftmatvec.kernels.transforms import rows_together, transform_launcher
from support.machines import INTERPRETED
from support.transforms import REALS, check_forward, check_inverse, complex_rows, forward, inverse

# Vectors, blocks and time steps: no block, one, as many as a piece has, one more; frequencies that tiles divide or not.
SIZES = [(1, 0, 3), (1, 1, 1), (1, 7, 5), (1, 64, 8), (1, 65, 3), (1, 100, 6), (2, 3, 7), (3, 9, 4), (5, 1, 11)]


@pytest.fixture(params=["compiled", "from Python"])
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take NumPy's compiled loops, or what replaces them if NumPy names them otherwise."""
    if request.param != "compiled":
        monkeypatch.setattr(pocketfft, "MODULE", "numpy.fft.absent")
    pocketfft.loop.cache_clear()
    yield
    pocketfft.loop.cache_clear()


@pytest.fixture(params=[1, 2, 5])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Share the rows among a number of threads."""
    count: int = request.param
    monkeypatch.setattr(transforms, "get_num_threads", lambda: count)
    return count


@pytest.mark.parametrize("real", REALS)
def test_every_row_is_transformed_and_padded(loops, threads, real) -> None:
    for sizes in SIZES:
        check_forward(sizes, real)


@pytest.mark.parametrize("real", REALS)
def test_every_row_is_transformed_back_and_unpadded(loops, threads, real) -> None:
    for sizes in SIZES:
        check_inverse(sizes, real)


def test_rounding() -> None:
    """Values are rounded on the way in and out, whatever the precisions of the transform and of the vector."""
    sizes = 1, 4, 5
    values = np.random.default_rng(1).standard_normal((4, 5))
    for rounding, real, stored in product(REALS, repeat=3):
        rows = values.astype(stored)
        tiles = forward(rows, sizes, rounding, real)
        np.testing.assert_array_equal(tiles, forward(rows.astype(rounding), sizes, np.float64, real))
        found, unrounded = np.empty((4, 5), stored), np.empty((4, 5))
        for target, unit in ((found, rounding), (unrounded, np.float64)):
            dtypes = target.dtype, unit, real
            transform_launcher(Target("cpu"), "irfft", 1, 4, 10, dtypes)(tiles, target)
        np.testing.assert_array_equal(found, unrounded.astype(rounding).astype(stored))


def test_rows_have_tails_that_are_neither_read_nor_written() -> None:
    """With a timer the rows are padded before, and unpadded afterwards."""
    sizes = 1, 3, 4
    rows = np.full((3, 8), np.nan)
    rows[:, :4] = np.random.default_rng(1).standard_normal((3, 4))
    tiles = forward(rows, sizes, np.float64, np.float64)
    np.testing.assert_array_equal(tiles, forward(rows[:, :4].copy(), sizes, np.float64, np.float64))
    found = np.full((3, 8), np.nan)
    transform_launcher(Target("cpu"), "irfft", 1, 3, 8, (float, float, float))(tiles, found)
    np.testing.assert_array_equal(found[:, :4], inverse(tiles, sizes, np.float64))
    assert np.isnan(found[:, 4:]).all()


@pytest.mark.skipif(INTERPRETED, reason="the interpreter prints the error")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_rows_that_cannot_be_transformed_become_nan(monkeypatch) -> None:
    """A loop cannot raise: NumPy's own have no memory, and what replaces them has an error in Python."""
    sizes = 1, 3, 4
    callback = pocketfft.LOOP(lambda *arguments: 1 // 0)
    address = pocketfft.ctypes.cast(callback, pocketfft.ADDRESS).value
    monkeypatch.setattr(transforms, "loop", lambda kind, real: pocketfft.Loop(address, 0))
    tiles = forward(np.ones((3, 4)), sizes, np.float64, np.float64)
    assert np.isnan(complex_rows(tiles)[:, 0].real).all()
    found = np.ones((3, 4))
    transform_launcher(Target("cpu"), "irfft", 1, 3, 8, (float, float, float))(np.ones((1, 2, 3, 8)), found)
    assert np.isnan(found).all()


def test_this_numpy_has_the_compiled_loops() -> None:
    """Otherwise products are slower, and the names in `FUNCTIONS` need those of the new version."""
    for kind, real in product(pocketfft.FUNCTIONS, REALS):
        assert pocketfft._compiled_loop(kind, np.dtype(real)) == pocketfft.loop(kind, real)


def test_a_loop_of_other_results_is_not_used(monkeypatch) -> None:
    monkeypatch.setattr(pocketfft, "_agrees", lambda *loop: False)
    pocketfft.loop.cache_clear()
    try:
        assert pocketfft.loop("rfft", np.float64) != pocketfft._compiled_loop("rfft", np.dtype(np.float64))
    finally:
        pocketfft.loop.cache_clear()
    other = pocketfft._compiled_loop("rfft", np.dtype(np.float32))
    assert other is not None and not pocketfft._agrees("irfft", np.dtype(np.float32), other)


def test_rows_are_shared_among_threads_and_fit_a_cache() -> None:
    double = np.dtype(np.float64)
    assert [rows_together(*about, double, 4) for about in ((0, 10), (1, 10), (16, 10), (17, 10))] == [1, 1, 4, 5]
    assert [rows_together(1000, length, double, 4) for length in (10, 256, 512, 10**6)] == [64, 64, 32, 1]


@pytest.mark.parametrize(
    ("tiles", "rows", "error", "message"),
    [
        ((1, 2, 3, 8), (3, 9), ValueError, "rows: expected at most 8 time steps, found 9"),
        ((1, 2, 3, 8), (4, 4), ValueError, r"rows: expected shape \(3, 'any'\), found \(4, 4\)"),
        ((1, 1, 3, 8), (3, 4), ValueError, r"tiles: expected shape \(1, 2, 3, 8\), found \(1, 1, 3, 8\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tiles, rows, error, message) -> None:
    launch = transform_launcher(Target("cpu"), "rfft", 1, 3, 8, (float, float, float))
    with pytest.raises(error, match=message):
        launch(np.zeros(tiles), np.zeros(rows))
    with pytest.raises(TypeError, match="rows: expected dtype float64, found float32"):
        launch(np.zeros((1, 2, 3, 8)), np.zeros((3, 4), np.float32))
