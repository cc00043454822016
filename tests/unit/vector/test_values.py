"""What enters a vector or a matrix as values, and what copies of a vector are."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def comm(request: pytest.FixtureRequest) -> Iterator[Any]:
    with fm.Comm(MPI.COMM_SELF, backend=request.param) as made:
        yield made


MASKED = np.ma.masked_invalid(np.where(np.arange(12.0).reshape(3, 4) == 5, np.nan, 1.0))
ENTRANCES = {
    "scatter": lambda x, F: x.scatter(MASKED),
    "from_numpy": lambda x, F: x.from_numpy(MASKED),
    "from_dlpack": lambda x, F: x.from_dlpack(MASKED),
    "init_mat_from_array": lambda x, F: F.init_mat_from_array(MASKED[None]),
    "rows of a callable": lambda x, F: F.init_mat_from_array(lambda d: MASKED),
    "from_array": lambda x, F: fm.Matrix.from_array(x.comm, MASKED[None]),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_masked_values_are_refused(comm: Any, entrance: str) -> None:
    """An array with a mask is taken only if the mask hides nothing."""
    x, F = fm.Vector(comm, 3, 4, "col", global_sizes=True), fm.Matrix(comm, 3, 1, 4, global_sizes=True)
    with pytest.raises(fm.ArgumentTypeError, match="expected values without a mask, found 1 of 12 masked"):
        ENTRANCES[entrance](x, F)
    assert not x.is_initialized() and not F.is_initialized()
    x.scatter(np.ma.array(np.ones((3, 4)), mask=False))
    assert x.norm(1) == 12


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copies_share_no_memory(comm: Any, duplicate: Any) -> None:
    x = fm.Vector(comm, 3, 4, "col", global_sizes=True, num_vecs=2)
    assert not duplicate(x).is_initialized()
    x.init_vec_consecutive()
    y = duplicate(x)
    y.scale(2.0)
    np.testing.assert_array_equal(y.gather(), 2 * x.gather())
    assert duplicate([x, x])[0].layout == x.layout
    x.close()
    with pytest.raises(fm.ClosedError):
        duplicate(x)


def test_vectors_are_not_pickled(comm: Any) -> None:
    x = fm.Vector(comm, 3, 4, "col", global_sizes=True)
    with pytest.raises(fm.ArgumentTypeError, match=r"expected its values \(gather, to_numpy\) or a file \(save\)"):
        pickle.dumps(x)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_files_with_values_that_are_not_finite(comm: Any, tmp_path: Any, value: float) -> None:
    """A result may overflow, so it can be saved; whoever reads it says that it may have."""
    x = fm.Vector(comm, 3, 4, "col", global_sizes=True)
    values = np.arange(12.0).reshape(3, 4)
    values[1, 2] = value
    x.scatter(values)
    x.save(tmp_path / "x.h5")
    y = fm.Vector(x, deep_copy=False)
    with pytest.raises(fm.FileFormatError, match="expected finite values"):
        y.init_vec_from_file(tmp_path / "x.h5")
    assert not y.is_initialized()
    y.init_vec_from_file(tmp_path / "x.h5", allow_nonfinite=True)
    np.testing.assert_array_equal(y.gather(), values)
