"""Matrices of one size in every stored format, for the tests of set-up and memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numba_fftmatvec as fm
from support import reference
from support.tasks import operands, vector

SHAPE = (4, 11, 37)
F, G, X = operands(SHAPE)
ND, NM, NT = SHAPE
# The largest error of a value, relative to the largest one: of a format's rounding, and of the transforms.
ERRORS = {"ddddd": 1e-14, "ddsdd": 1e-6, "ddidd": 1e-8, "ddhdd": 1e-3}
CODES = list(ERRORS)
PRECISIONS = {code: fm.MatvecPrecisionConfig.from_code(code).sbgemv for code in CODES}
STORED = {code: precision.format for code, precision in PRECISIONS.items()}
BACKENDS = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def matrix_of(comm: Any, values: Any = F, code: str = "ddddd") -> Any:
    return fm.Matrix.from_array(comm, values, fm.MatvecPrecisionConfig.from_code(code))


def check_product(matrix: Any, values: np.ndarray) -> None:
    """Assert that F x is right."""
    y = matrix @ vector(matrix, "col", X["col"])
    error = np.linalg.norm(y.gather() - reference.product("F", values, G, X["col"]))
    assert error <= reference.error_bound("F", values, G, X["col"], reference.roundoff("ddddd"))
