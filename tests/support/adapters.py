"""The libraries that operators are adapted to, for tests that skip without them, and the problem that they solve."""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from typing import Any

import numpy as np
import pytest

import numba_fftmatvec as fm
from support.operators import Nd, Nm, Nt, built_leaves, dense_leaves

# With a comma-separated list of libraries in this variable, their tests fail instead of skipping.
REQUIRED = os.environ.get("FFTMATVEC_REQUIRE_ADAPTERS", "").split(",")
MODULES = {"pylops": "pylops", "pylops_mpi": "pylops_mpi", "petsc": "petsc4py.PETSc", "cuqi": "cuqi"}


def imported(library: str) -> Any:
    """Return the module of a library; None if it is not installed and not required."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(MODULES[library])
    except ImportError:
        if library in REQUIRED:
            raise
        return None


def needs(library: str) -> list[pytest.MarkDecorator]:
    """Return the marks of a test that needs a library."""
    missing = importlib.util.find_spec(MODULES[library].partition(".")[0]) is None and library not in REQUIRED
    return [pytest.mark.adapter, pytest.mark.skipif(missing, reason=f"{library} is not installed")]


WEIGHT = 0.5


def problem(comm: fm.Comm) -> fm.LinearOperator:
    """Return an operator of full column rank: a matrix below a weighted identity, composed with a filter."""
    o = built_leaves(comm)
    return fm.VerticalStack([o["F"] @ o["C"], WEIGHT * o["I"]])


def dense_problem() -> Any:
    o = dense_leaves()
    return np.vstack([o["F"] @ o["C"], WEIGHT * o["I"]]).astype(np.float64)


def data() -> Any:
    """Return a right-hand side."""
    return np.random.default_rng(11).standard_normal((Nd + Nm) * Nt)
