"""CuPy, as a backend's array library: cuBLAS, cuSOLVER and cuFFT."""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Callable
from typing import Any

import cupy
import cupyx
import cupyx.scipy.fft
import cupyx.scipy.linalg
import cupyx.scipy.sparse
import numpy as np

from ...errors import NotPositiveDefiniteError
from ..cpu.arrays import CpuArrays

PANEL_COLUMNS = 64


class CudaArrays:
    """Arrays in a GPU's memory. See `ArrayLibrary` for the methods."""

    numpy: Any = cupy
    fft: Any = cupyx.scipy.fft
    fft_options: dict[str, int] = {}  # noqa: RUF012 - never changed
    panel_rows = 2048

    def cholesky(self, matrix: Any) -> Any:
        """Return the lower Cholesky factor; waits for it, since only the result shows whether it exists."""
        try:
            with cupyx.errstate(linalg="raise"):
                factor = cupy.linalg.cholesky(matrix)
        except np.linalg.LinAlgError as error:
            raise NotPositiveDefiniteError(
                f"Cholesky factorisation: expected a positive definite matrix, found: {error}"
            ) from None
        if not bool(cupy.isfinite(cupy.diagonal(factor)).all()):
            raise NotPositiveDefiniteError("Cholesky factorisation: expected a positive definite matrix, found NaN")
        return factor

    def solve_triangular(self, factor: Any, values: Any, *, transposed: bool = False) -> Any:
        """Return the solutions."""
        return cupyx.scipy.linalg.solve_triangular(
            factor, values, lower=True, trans=int(transposed), check_finite=False
        )

    def sparse_matrix(self, matrix: Any) -> Any:
        """Return a copy of the matrix in the GPU's memory."""
        return cupyx.scipy.sparse.csr_matrix(matrix)

    def sparse_solver(self, matrix: Any) -> SparseFactor:
        """Factorise on the host, and on the GPU too if nvmath-python and cuDSS are installed."""
        return SparseFactor(self, matrix)


class SparseFactor:
    """The factorisation of a sparse matrix. See `SparseSolver` for the attributes.

    The host's factorisation checks the matrix and gives B, which cuDSS does not return.
    """

    def __init__(self, arrays: CudaArrays, matrix: Any) -> None:
        host = CpuArrays().sparse_solver(matrix)
        self.factor = arrays.sparse_matrix(host.factor)
        self.adjoint_factor = arrays.sparse_matrix(host.adjoint_factor)
        self.log_determinant = host.log_determinant
        self._solve = _direct_solver(arrays.sparse_matrix(matrix)) or _host_solver(host)

    def __call__(self, values: Any) -> Any:
        """Return the solutions."""
        return self._solve(values)


def _host_solver(solve: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a solver on the host; the values of each solve travel there and back."""
    return lambda values: cupy.asarray(solve(values.get()))


def _direct_solver(matrix: Any) -> Callable[[Any], Any] | None:
    """Return nvmath-python's sparse direct solver of a positive definite matrix; None if it or cuDSS is not installed.

    The solver keeps the shape and the memory of its right-hand sides, so values pass through one panel of columns.
    """
    panel = cupy.zeros((matrix.shape[0], PANEL_COLUMNS), order="F")
    try:
        advanced = importlib.import_module("nvmath.sparse.advanced")
        options = {"sparse_system_type": advanced.DirectSolverMatrixType.SPD}
        solver = advanced.DirectSolver(matrix, panel, options=options)
    except (ImportError, RuntimeError):
        return None
    solver.plan()
    solver.factorize()

    def solve(values: Any) -> Any:
        solutions = cupy.empty_like(values)
        for first in range(0, values.shape[1], PANEL_COLUMNS):
            columns = slice(first, first + PANEL_COLUMNS)
            count = values[:, columns].shape[1]
            panel[:, :count] = values[:, columns]
            solutions[:, columns] = solver.solve()[:, :count]
        return solutions

    weakref.finalize(solve, solver.free).atexit = False
    return solve
