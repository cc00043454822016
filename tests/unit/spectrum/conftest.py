"""Fixture of the tests of set-up and memory: one rank on each backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from support.spectra import BACKENDS


@pytest.fixture(scope="module", params=BACKENDS)
def comm(request: pytest.FixtureRequest) -> Iterator[Any]:
    with fm.Comm(MPI.COMM_SELF, backend=request.param) as made:
        yield made
