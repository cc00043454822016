"""CuPy, as a backend's array library: cuBLAS, cuSOLVER and cuFFT."""

from __future__ import annotations

import importlib
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
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
JOINED_ROWS = 8192  # rows that are solved together; cuBLAS solves few rows as slowly as many
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
        if not np.isfinite(cupy.asnumpy(cupy.diagonal(factor))).all():
            raise NotPositiveDefiniteError("Cholesky factorisation: expected a positive definite matrix, found NaN")
        return factor

    def solve_triangular(self, factor: Any, values: Any, *, transposed: bool = False) -> Any:
        """Return the solutions."""
        return cupyx.scipy.linalg.solve_triangular(
            factor, values, lower=True, trans=int(transposed), check_finite=False
        )

    def solve_right(self, factor: Any, *parts: Any) -> None:
        """Solve in place. Several parts are solved together, in a copy of their rows."""
        for joined in _groups(parts, JOINED_ROWS):
            if len(joined) == 1:
                self._solve_right(factor, joined[0])
                continue
            values = cupy.concatenate(joined)
            self._solve_right(factor, values)
            first = 0
            for part in joined:
                part[...] = values[first : first + len(part)]
                first += len(part)

    def _solve_right(self, factor: Any, values: Any) -> None:
        """Solve in place, without copies.

        cuBLAS takes columns: it sees the transposes of arrays of rows, and solves ``factor values^T = values^T``.
        """
        _check_rows(values)
        _check_rows(factor, "triangular factor")
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

    def subtract_square(self, target: Any, rows: Any) -> None:
        """Subtract in place, without copies. cuBLAS sees the transposes of arrays of rows."""
        _check_rows(target)
        if 0 in rows.shape:
            return
        _check_rows(rows, "rows of a square")
        handle, (size, inner) = cupy.cuda.device.get_cublas_handle(), rows.shape
        matrices = rows.data.ptr, rows.strides[0] // ITEM, PLUS.ctypes.data, target.data.ptr, target.strides[0] // ITEM
        uplo, op = cublas.CUBLAS_FILL_MODE_UPPER, cublas.CUBLAS_OP_T
        cublas.dsyrk(handle, uplo, op, size, inner, MINUS.ctypes.data, *matrices)

    def sparse_matrix(self, matrix: Any) -> Any:
        """Return a copy of the matrix in the GPU's memory."""
        return cupyx.scipy.sparse.csr_matrix(matrix)

    def sparse_solver(self, matrix: Any) -> SparseFactor:
        """Factorise on the host, and on the GPU too if nvmath-python and cuDSS are installed."""
        return SparseFactor(self, matrix)


def _groups(parts: Sequence[Any], rows: int) -> Iterator[list[Any]]:
    """Yield the parts in groups of at most so many rows, or of one part."""
    group: list[Any] = []
    for part in parts:
        if group and sum(map(len, group)) + len(part) > rows:
            yield group
            group = []
        group.append(part)
    if group:
        yield group


def _not_positive(reason: str) -> NotPositiveDefiniteError:
    """Return the error of cuSOLVER's message, which has the order of the first leading minor that is not positive."""
    if (found := re.search(r"devInfo = \[?(\d+)", reason)) is not None:
        return NotPositiveDefiniteError.at_row(int(found[1]) - 1)
    return NotPositiveDefiniteError(f"Cholesky factorisation: expected a positive definite matrix, found: {reason}")


def _add_product(target: Any, left: Any, right: Any, factor: Any, kept: Any) -> None:
    """Set `target` to ``kept target + factor left @ right``. cuBLAS sees the transposes of arrays of rows."""
    _check_rows(target)
    (rows, inner), cols = left.shape, right.shape[1]
    if 0 in (rows, inner, cols):
        return
    handle, scale, beta = cupy.cuda.device.get_cublas_handle(), factor.ctypes.data, kept.ctypes.data
    left, left_op, left_stride = _operand(left)
    right, right_op, right_stride = _operand(right)
    if cols == 1:
        step = right_stride if right_op == cublas.CUBLAS_OP_N else 1
        flipped = left_op == cublas.CUBLAS_OP_N
        sizes, op = ((inner, rows), cublas.CUBLAS_OP_T) if flipped else ((rows, inner), cublas.CUBLAS_OP_N)
        sums = target.data.ptr, target.strides[0] // ITEM
        cublas.dgemv(handle, op, *sizes, scale, left.data.ptr, left_stride, right.data.ptr, step, beta, *sums)
        return
    matrices = right.data.ptr, right_stride, left.data.ptr, left_stride
    sums = target.data.ptr, target.strides[0] // ITEM
    cublas.dgemm(handle, right_op, left_op, cols, rows, inner, scale, *matrices, beta, *sums)


def _operand(matrix: Any) -> tuple[Any, int, int]:
    """Return a matrix of float64, cuBLAS's operation that gives its transpose, and the distance of cuBLAS's columns.

    A matrix whose rows and columns both have gaps, as the real part of a complex one, is copied.
    """
    (rows, cols), (outer, inner) = matrix.shape, matrix.strides
    if matrix.dtype == np.float64:
        if (inner == ITEM or cols == 1) and outer >= cols * ITEM and outer % ITEM == 0:
            return matrix, cublas.CUBLAS_OP_N, outer // ITEM
        if (outer == ITEM or rows == 1) and inner >= rows * ITEM and inner % ITEM == 0:
            return matrix, cublas.CUBLAS_OP_T, inner // ITEM
    return cupy.array(matrix, np.float64, order="C"), cublas.CUBLAS_OP_N, cols


def _check_rows(target: Any, what: str = "target") -> None:
    """Raise a ValueError unless cuBLAS can take an array as it is: rows of adjacent float64 values.

    An empty array is not used, and CuPy gives it strides of zero.
    """
    cols, (outer, inner) = target.shape[1], target.strides
    apart = (cols > 1 and inner != ITEM) or outer < cols * ITEM or outer % ITEM
    if target.dtype != np.float64 or (target.size and apart):
        raise ValueError(f"{what}: expected rows of adjacent float64 values, found {target.dtype}, {target.strides}")


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
