"""Operators in the form of other libraries, each of which only its own module imports."""

from __future__ import annotations

import importlib
from typing import Any

from ...errors import ArgumentError, BackendError
from ..interface import OperatorInterface

# The package to install for each library.
PACKAGES = {
    "scipy": "scipy",
    "cupy": "numba-fftmatvec[cuda13]",
    "pylops": "numba-fftmatvec[pylops]",
    "pylops_mpi": "numba-fftmatvec[pylops]",
    "petsc": "numba-fftmatvec[petsc]",
    "cuqi": "numba-fftmatvec[cuqi]",
}


def adapted(operator: OperatorInterface, library: str, **options: Any) -> Any:
    """Return an operator in the form of a library. See `LinearOperator.as_linear_operator`."""
    with operator.comm.agreement("adapting an operator", {"library": library}):
        if library not in PACKAGES:
            raise ArgumentError(f"library: expected one of {', '.join(PACKAGES)}, found {library!r}")
        try:
            module = importlib.import_module(f"{__package__}.{library}")
        except ImportError as error:
            raise BackendError(
                f"{library}: expected it to be installed (pip install '{PACKAGES[library]}'), found: {error}"
            ) from error
        adapter = module.adapt(operator, **options)
    return adapter
