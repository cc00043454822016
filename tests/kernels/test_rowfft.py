"""The CPU's transforms with a row in each lane: every length and row, and rows that do not depend on each other."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from numba import njit

from numba_fftmatvec.kernels import Target, rowfft, transforms
from numba_fftmatvec.kernels.lanes import vector_width
from numba_fftmatvec.kernels.rowfft import RADICES, lanes_of, row_plan
from numba_fftmatvec.kernels.rowvectors import copy_values
from numba_fftmatvec.kernels.transforms import transform_launcher
from support.machines import INTERPRETED
from support.transforms import REALS, check_forward, check_inverse, forward, inverse

pytestmark = pytest.mark.skipif(INTERPRETED, reason="intrinsics have no Python function")

DOUBLE = np.dtype(np.float64)
SIZES = 2, 9, 63  # vectors, blocks, time steps: no number of lanes divides the rows; frequencies fill the workspace


@pytest.fixture(autouse=True)
def for_all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transform few values by these kernels too."""
    monkeypatch.setattr(transforms, "LEAST_VALUES", 0)


@pytest.fixture(params=[1, 2, 5])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Share the rows among a number of threads."""
    monkeypatch.setattr(rowfft, "get_num_threads", lambda: request.param)


def planned(lengths: range) -> list[int]:
    return [length for length in lengths if row_plan(length, DOUBLE)]


def launcher(kind: str, allocate: Callable[..., Any] = np.zeros) -> Callable[[Any, Any], None]:
    num_vecs, blocks, steps = SIZES
    return transform_launcher(Target("cpu"), kind, num_vecs, blocks, 2 * steps, (float, float, float), allocate)


def rows_of(seed: int) -> np.ndarray:
    num_vecs, blocks, steps = SIZES
    return np.random.default_rng(seed).standard_normal((num_vecs * blocks, steps))


def test_radices() -> None:
    """They multiply to the length, the largest first; a prime factor above 13 and a length of one have none."""
    assert {row_plan(length, DOUBLE).radices for length in RADICES} == {(length,) for length in RADICES}
    for length in planned(range(1, 2000)):
        radices = row_plan(length, DOUBLE).radices
        assert np.prod(radices) == length and sorted(radices, reverse=True) == list(radices)
    assert set(planned(range(1, 40))) == {*range(2, 40)} - {17, 19, 23, 29, 31, 34, 37, 38}


def test_long_transforms_have_no_plan() -> None:
    """A thread's workspace is bounded."""
    longest = max(planned(range(10_000, 1_000_000, 10_000)))
    assert 8 * np.prod(rowfft.workspace(longest, DOUBLE)) <= rowfft.LARGEST
    assert longest > 200_000 and row_plan(1_000_000, DOUBLE) is None


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("check", [check_forward, check_inverse])
def test_every_length_is_transformed(check, real) -> None:
    for length in [*planned(range(2, 131)), 200, 256, 1000, 4000]:
        check((1, lanes_of(np.dtype(real)) + 1, length), real)


@pytest.mark.parametrize("check", [check_forward, check_inverse])
def test_vectors_of_another_width(monkeypatch, check) -> None:
    """LLVM splits vectors of AVX-512 for AVX2, so one machine tests both."""
    width = 12 - vector_width()
    monkeypatch.setattr(rowfft, "vector_width", lambda: width)
    for sizes in ((1, 1, 2), (3, 5, 33), (1, 17, 63)):
        check(sizes, np.float64)


@pytest.mark.parametrize("check", [check_forward, check_inverse])
def test_every_row_is_transformed(threads, check) -> None:
    for rows in range(1, 4 * lanes_of(DOUBLE), 3):
        check((1, rows, 12), np.float64)
    check((3, 5, 7), np.float64)


def test_a_row_has_the_same_bits_beside_all_others(threads) -> None:
    rows = rows_of(1)
    tiles = forward(rows, SIZES, np.float64, np.float64)
    back = inverse(tiles, SIZES, np.float64)
    for i, row in enumerate(rows):
        alone = 1, 1, SIZES[2]
        tile = forward(row[None].copy(), alone, np.float64, np.float64)
        np.testing.assert_array_equal(tile[0, :, 0], tiles[i // SIZES[1], :, i % SIZES[1]])
        np.testing.assert_array_equal(inverse(tile, alone, np.float64)[0], back[i])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_not_finite_stay_alone(value) -> None:
    rows = rows_of(1)
    tiles = forward(rows, SIZES, np.float64, np.float64)
    back = inverse(tiles, SIZES, np.float64)
    spoilt = rows.copy()
    spoilt[4, 7] = value
    found = forward(spoilt, SIZES, np.float64, np.float64)
    assert not np.isfinite(found[0, :, 4]).all()
    found_back = inverse(found, SIZES, np.float64)
    assert not np.isfinite(found_back[4]).all()
    found[0, :, 4] = tiles[0, :, 4]
    np.testing.assert_array_equal(found, tiles)
    np.testing.assert_array_equal(np.delete(found_back, 4, 0), np.delete(back, 4, 0))


def test_tails_are_neither_read_nor_written() -> None:
    """With a timer rows are padded before, and unpadded afterwards; the bits are the same."""
    rows = np.full((SIZES[0] * SIZES[1], 2 * SIZES[2]), np.nan)
    rows[:, : SIZES[2]] = rows_of(1)
    tiles = forward(rows, SIZES, np.float64, np.float64)
    np.testing.assert_array_equal(tiles, forward(rows_of(1), SIZES, np.float64, np.float64))
    found = np.full_like(rows, np.nan)
    launcher("irfft")(tiles, found)
    np.testing.assert_array_equal(found[:, : SIZES[2]], inverse(tiles, SIZES, np.float64))
    assert np.isnan(found[:, SIZES[2] :]).all()


def test_shorter_rows_are_padded() -> None:
    rows = rows_of(1)
    rows[:, 31:] = 0
    tiles = forward(rows, SIZES, np.float64, np.float64)
    np.testing.assert_array_equal(tiles, forward(rows[:, :31].copy(), SIZES, np.float64, np.float64))


def test_workspace_is_what_the_kernels_use() -> None:
    """Values before and after it stay, and what it holds from before is not read."""
    guarded = []

    def allocate(shape: tuple[int], dtype: Any) -> np.ndarray:
        guarded.append(np.full(shape[0] + 64, np.nan, dtype))
        return guarded[-1][32:-32]

    rows = rows_of(1)
    tiles = forward(rows, SIZES, np.float64, np.float64)
    found, back = np.full_like(tiles, np.nan), np.full_like(rows, np.nan)
    launcher("rfft", allocate)(found, rows)
    launcher("irfft", allocate)(tiles, back)
    np.testing.assert_array_equal(found, tiles)
    np.testing.assert_array_equal(back, inverse(tiles, SIZES, np.float64))
    assert len(guarded) == 2
    assert all(np.isnan(each[[*range(32), *range(-32, 0)]]).all() for each in guarded)


def test_few_values_and_other_lengths_are_numpys(monkeypatch) -> None:
    """A kernel takes seconds to compile."""
    monkeypatch.undo()
    chosen = []
    for name in ("group_launcher", "piece_launcher"):
        monkeypatch.setattr(transforms, name, lambda *about, name=name: chosen.append(name))
    for rows, steps in ((128, 64), (127, 64), (1000, 62), (1, 10**6)):
        transform_launcher(Target("cpu"), "rfft", 1, rows, 2 * steps, (float, float, float))
    assert chosen == ["group_launcher", *["piece_launcher"] * 3]


def copies(count: int, dtypes: Any, lanes: int) -> Callable[..., None]:
    """Return a function that copies values into a buffer and back."""
    into, back = copy_values(True, count, dtypes, lanes), copy_values(False, count, dtypes, lanes)

    @njit
    def copy(values, found, first, last, t, buffer):
        into(values, first, last, t, buffer)
        back(found, first, last, t, buffer)

    return copy  # type: ignore[no-any-return]


@pytest.mark.parametrize(("rows", "rounding", "real"), [*product(REALS, repeat=3)])
def test_values_are_rounded_on_the_way(rows, rounding, real) -> None:
    """The last row fills the lanes that have none; even and odd steps change places on the way back."""
    dtypes = np.dtype(rows), np.dtype(rounding), np.dtype(real)
    lanes = lanes_of(dtypes[2])
    values = np.random.default_rng(1).standard_normal((lanes + 1, lanes + 2)).astype(rows)
    expected = values.astype(rounding).astype(real)
    for count in (1, lanes):
        copy = copies(count, dtypes, lanes)
        buffer, found = np.full((lanes + 3, lanes), np.nan, real), np.full_like(values, np.nan)
        buffer[0:2] = 0
        copy(values, found, 3, lanes, 2, buffer.reshape(-1))
        source = expected[np.minimum(np.arange(3, lanes + 3), lanes), 2 : 2 + count]
        np.testing.assert_array_equal(buffer[2 : 2 + count], source.T)
        steps = np.arange(2, 2 + count) ^ 1
        np.testing.assert_array_equal(
            found[3:, 2 : 2 + count], buffer[steps, : lanes - 2].T.astype(rounding).astype(rows)
        )
        assert np.isnan(found[:3]).all() and np.isnan(found[:, :2]).all() and np.isnan(found[:, 2 + count :]).all()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads the assembly of x86-64")
def test_the_passes_have_packed_multiply_adds_and_an_aligned_stack() -> None:
    """A vector of AVX2 across two lines of cache takes twice as long to store and load."""
    kernel = rowfft.group_kernel("rfft", *[DOUBLE] * 3, lanes_of(DOUBLE))
    compiled = njit(parallel=True, nogil=True)(kernel.function("cpu"))  # cached code has no assembly
    compiled.compile(tuple(kernel.nests["cpu"].signature))
    assembly = "\n".join(compiled.inspect_asm().values())
    (group,) = re.findall(r"^_ZN\w+_forward_group.*?^\.Lfunc_end", assembly, re.MULTILINE | re.DOTALL)
    register = "zmm" if vector_width() == 8 else "ymm"
    packed = len(re.findall(rf"\tvfn?m(?:add|sub)\d+pd\t.*{register}", group))
    if packed == 0 and "vfmadd" not in assembly:
        pytest.skip("the processor has no fused multiply-add")
    assert packed >= 2 * sum(2 * (radix - 1) for radix in RADICES)  # the products with roots alone have as many
    assert not re.search(r"\tv(?:fn?m(?:add|sub)\d+|add|sub|mul)sd\t", group)
    assert f"andq\t$-{8 * vector_width()}, %rsp" in group
