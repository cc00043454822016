"""Products of several vectors on tensor cores, against those of single vectors."""

from __future__ import annotations

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec.kernels.sbgemv.cuda import tensor_height

pytestmark = pytest.mark.gpu

SIZES = ND, NM, NT = 64, 600, 512  # the narrowest spectrum does not fit the cache
NUM_VECS = 13


@pytest.mark.parametrize("code", ["ddddd", "ddhdd"])
def test_columns_are_those_of_single_vectors(code: str) -> None:
    config = fm.MatvecPrecisionConfig.from_code(code)
    values = np.random.default_rng(1).standard_normal(SIZES)
    with fm.Comm(MPI.COMM_SELF, backend="cuda") as comm:
        units = "on tensor cores" if tensor_height() else "without tensor cores"
        with fm.Matrix.from_array(comm, values, p_config=config) as F:
            for name, several, single, (operand, result) in (
                ("F", F.matmat, F.matvec, ("input", "output")),
                ("F*", F.transpose_matmat, F.transpose_matvec, ("output", "input")),
            ):
                assert units in str(F.plan(name, num_vecs=NUM_VECS))
                X, Y = (F.get_vec(space, num_vecs=NUM_VECS) for space in (operand, result))
                x, y = (F.get_vec(space) for space in (operand, result))
                X.init_vec_doubles()
                several(X, Y)
                for column, found in zip(X.gather(), Y.gather(), strict=True):
                    x.scatter(column)
                    single(x, y)
                    expected = y.gather()
                    assert np.linalg.norm(found - expected) < 1e-13 * np.linalg.norm(expected), (code, name)
