"""A Comm of one rank on each backend."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mpi4py import MPI

import numba_fftmatvec as fm


@pytest.fixture(scope="package", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def comm(request: pytest.FixtureRequest) -> Iterator[fm.Comm]:
    with fm.Comm(MPI.COMM_SELF, backend=request.param) as made:
        yield made
