"""CuPy, as a backend's array library: cuBLAS, cuSOLVER and cuFFT."""

from __future__ import annotations

import importlib
import re
import weakref
from collections.abc import Callable
from typing import Any

import cupy
import cupyx
import cupyx.scipy.fft
import cupyx.scipy.linalg
import cupyx.scipy.sparse
import numpy as np
from cupy_backends.cuda.libs import cublas

from ...errors import NotPositiveDefiniteError
from ..cpu.arrays import CpuArrays

PANEL_COLUMNS = 64
ITEM = 8  # bytes of a value
ZERO, PLUS, MINUS = np.array(0.0), np.array(1.0), np.array(-1.0)


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
            raise _not_positive(str(error)) from None
        if not bool(cupy.isfinite(cupy.diagonal(factor)).all()):
            raise NotPositiveDefiniteError("Cholesky factorisation: expected a positive definite matrix, found NaN")
        return factor

    def solve_triangular(self, factor: Any, values: Any, *, transposed: bool = False) -> Any:
        """Return the solutions."""
        return cupyx.scipy.linalg.solve_triangular(
            factor, values, lower=True, trans=int(transposed), check_finite=False
        )

    def solve_right(self, factor: Any, values: Any) -> None:
        """Solve in place, without copies.

        cuBLAS takes columns: it sees the transposes of arrays of rows, and solves ``factor values^T = values^T``.
        """
        rows, cols = values.shape
        if rows and cols:
            sides = cublas.CUBLAS_SIDE_LEFT, cublas.CUBLAS_FILL_MODE_UPPER, cublas.CUBLAS_OP_T
            handle, diagonal = cupy.cuda.device.get_cublas_handle(), cublas.CUBLAS_DIAG_NON_UNIT
            matrices = factor.data.ptr, factor.strides[0] // ITEM, values.data.ptr, values.strides[0] // ITEM
            cublas.dtrsm(handle, *sides, diagonal, cols, rows, PLUS.ctypes.data, *matrices)

    def set_product(self, target: Any, left: Any, right: Any) -> None:
        """Multiply without copies."""
        if left.shape[1]:
            _add_product(target, left, right, PLUS, ZERO)
        else:
            target[...] = 0.0

    def add_product(self, target: Any, left: Any, right: Any) -> None:
        """Add in place, without copies."""
        _add_product(target, left, right, PLUS, PLUS)

    def subtract_product(self, target: Any, left: Any, right: Any) -> None:
        """Subtract in place, without copies."""
        _add_product(target, left, right, MINUS, PLUS)

    def sparse_matrix(self, matrix: Any) -> Any:
        """Return a copy of the matrix in the GPU's memory."""
        return cupyx.scipy.sparse.csr_matrix(matrix)

    def sparse_solver(self, matrix: Any) -> SparseFactor:
        """Factorise on the host, and on the GPU too if nvmath-python and cuDSS are installed."""
        return SparseFactor(self, matrix)


def _not_positive(reason: str) -> NotPositiveDefiniteError:
    """Return the error of cuSOLVER's message, which has the order of the first leading minor that is not positive."""
    if (found := re.search(r"devInfo = \[?(\d+)", reason)) is not None:
        return NotPositiveDefiniteError.at_row(int(found[1]) - 1)
    return NotPositiveDefiniteError(f"Cholesky factorisation: expected a positive definite matrix, found: {reason}")


def _add_product(target: Any, left: Any, right: Any, factor: Any, kept: Any) -> None:
    """Set `target` to ``kept target + factor left @ right``. cuBLAS sees the transposes of arrays of rows."""
    (rows, inner), cols = left.shape, right.shape[1]
    if 0 in (rows, inner, cols):
        return
    handle, scale, beta = cupy.cuda.device.get_cublas_handle(), factor.ctypes.data, kept.ctypes.data
    left_op, left_stride = _columns_of(left)
    if cols == 1:
        sizes = (inner, rows) if left_op == cublas.CUBLAS_OP_N else (rows, inner)
        op = cublas.CUBLAS_OP_T if left_op == cublas.CUBLAS_OP_N else cublas.CUBLAS_OP_N
        vector, sums = (right.data.ptr, right.strides[0] // ITEM), (target.data.ptr, target.strides[0] // ITEM)
        cublas.dgemv(handle, op, *sizes, scale, left.data.ptr, left_stride, *vector, beta, *sums)
        return
    right_op, right_stride = _columns_of(right)
    matrices = right.data.ptr, right_stride, left.data.ptr, left_stride
    sums = target.data.ptr, target.strides[0] // ITEM
    cublas.dgemm(handle, right_op, left_op, cols, rows, inner, scale, *matrices, beta, *sums)


def _columns_of(matrix: Any) -> tuple[int, int]:
    """Return cuBLAS's operation that gives the transpose of a matrix, and the distance of its columns."""
    outer, inner = matrix.strides
    if inner == ITEM:
        return cublas.CUBLAS_OP_N, max(outer // ITEM, matrix.shape[1])
    return cublas.CUBLAS_OP_T, max(inner // ITEM, matrix.shape[0])


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
