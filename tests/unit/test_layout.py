"""Block-split arithmetic: the properties of a partition, and the errors of invalid sizes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numba_fftmatvec as fm
from numba_fftmatvec.arguments import check_shape, positive_int
from numba_fftmatvec.errors import GridError, ShapeError
from numba_fftmatvec.layout import (
    MatrixLayout,
    Space,
    VectorLayout,
    block_count,
    block_range,
    block_ranges,
    block_start,
    global_blocks,
)

totals = st.integers(0, 10**12)
parts_of = st.integers(1, 64)


@given(totals, parts_of)
def test_ranges_cover_every_block_once_and_in_order(total: int, parts: int) -> None:
    ranges = [block_range(total, parts, index) for index in range(parts)]
    assert ranges[0].start == 0
    assert ranges[-1].stop == total
    assert all(left.stop == right.start for left, right in itertools.pairwise(ranges))


@given(totals, parts_of)
def test_first_parts_have_one_block_more(total: int, parts: int) -> None:
    counts = list(map(len, block_ranges(total, parts)))
    assert sum(counts) == total
    assert counts == [total // parts + 1] * (total % parts) + [total // parts] * (parts - total % parts)


@given(totals, parts_of, st.data())
def test_start_and_count_agree_with_the_range(total: int, parts: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, parts - 1))
    found = block_range(total, parts, index)
    assert found.start == block_start(total, parts, index)
    assert found.stop - found.start == block_count(total, parts, index)


@given(st.integers(0, 300), parts_of)
def test_split_is_that_of_numpy(total: int, parts: int) -> None:
    expected = [len(chunk) for chunk in np.array_split(np.empty(total), parts)]
    assert list(map(len, block_ranges(total, parts))) == expected


@given(st.integers(1, 10**6), parts_of)
def test_local_sizes_are_multiplied(blocks: int, parts: int) -> None:
    assert global_blocks(blocks, parts, global_sizes=False, what="columns") == blocks * parts


@given(st.integers(1, 10**6), parts_of)
def test_global_sizes_need_a_block_for_each_rank(blocks: int, parts: int) -> None:
    if blocks >= parts:
        assert global_blocks(blocks, parts, global_sizes=True, what="columns") == blocks
        assert min(map(len, block_ranges(blocks, parts))) >= 1
    else:
        with pytest.raises(GridError, match=rf"^columns: .*\b{parts}\b.*\b{blocks}\b"):
            global_blocks(blocks, parts, global_sizes=True, what="columns")


@pytest.mark.parametrize("value", [0, -1, True, 2.0, "3", None, np.float64(2)])
def test_no_positive_integer(value: Any) -> None:
    with pytest.raises(ShapeError, match=r"^rows: expected a positive integer, found "):
        positive_int(value, "rows")


@pytest.mark.parametrize("value", [3, np.int32(3), np.uint64(3)])
def test_positive_integer(value: Any) -> None:
    found = positive_int(value, "rows")
    assert found == 3
    assert type(found) is int


def test_check_shape() -> None:
    check_shape([2, 3], (2, 3), "array")
    with pytest.raises(ShapeError, match=r"^array: expected shape \(2, 3\), found \(3, 2\)$"):
        check_shape((3, 2), (2, 3), "array")


def test_spaces_are_the_strings_of_the_interface() -> None:
    assert [Space.of("col"), Space.of("row")] == ["col", "row"]
    assert f"{Space.COL!r} {Space.ROW}" == "'col' row"
    for value in ("diagonal", None, 3, ["col"]):
        with pytest.raises(fm.SpaceError, match="expected 'row' or 'col', found"):
            Space.of(value)


def test_layouts_of_a_matrix_and_its_vectors() -> None:
    layout = MatrixLayout.of((5, 7, 4), grid=(2, 3), place=(1, 0))
    assert (layout.sizes, layout.nd, layout.nm) == ((5, 7, 4), 2, 3)
    assert (layout.padded_size, layout.frequencies) == (8, 5)
    assert layout.vector(Space.COL) == VectorLayout(Space.COL, 7, 4, 1, range(0, 3))
    data = layout.vector(Space.ROW, 6)
    assert data == VectorLayout(Space.ROW, 5, 4, 6, range(3, 5))
    assert (data.shape, data.local_shape, data.rows, data.size) == ((6, 5, 4), (6, 2, 4), 12, 120)
    assert str(data) == "6 vectors of 5 blocks of 4"
    one = layout.vector(Space.COL)
    assert (one.shape, one.local_shape, one.rows, one.size) == ((7, 4), (3, 4), 3, 28)
    assert str(one) == "7 blocks of 4"
    assert layout.vector(Space.COL, 2).shape == (2, 7, 4)
