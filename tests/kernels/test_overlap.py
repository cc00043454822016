"""The choice of products whose kernels overlap."""

from __future__ import annotations

import pytest

from numba_fftmatvec.kernels.overlap import overlaps


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((20, 500, 201), True), ((64, 64, 1024), True), ((64, 64, 1025), False), ((100, 5000, 1001), False)],
)
def test_kernels_of_small_products_overlap(sizes, expected) -> None:
    assert overlaps(*sizes) is expected
