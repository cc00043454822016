"""NumPy and SciPy, as a backend's array library."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.fft
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg

from ...errors import NotPositiveDefiniteError

# A pivot is the diagonal value less a sum of squares. A smaller part of the diagonal value is rounding.
SMALLEST_PIVOT = 64 * np.finfo(np.float64).eps


class CpuArrays:
    """Arrays in host memory. See `ArrayLibrary` for the methods.

    Parameters
    ----------
    threads : int
        Number of this rank's cores.
    """

    numpy: Any = np
    fft: Any = scipy.fft
    panel_rows = 512

    def __init__(self, threads: int = 1) -> None:
        self.fft_options = {"workers": threads}

    def cholesky(self, matrix: Any) -> Any:
        """Return the lower Cholesky factor."""
        factor, info = scipy.linalg.lapack.dpotrf(matrix, lower=1, clean=1)
        finite = np.isfinite(np.diagonal(factor))
        if info or not finite.all():
            raise NotPositiveDefiniteError.at_row(info - 1 if info else int(np.argmin(finite)))
        return np.ascontiguousarray(factor)

    def solve_triangular(self, factor: Any, values: Any, *, transposed: bool = False) -> Any:
        """Return the solutions."""
        return scipy.linalg.solve_triangular(factor, values, lower=True, trans=int(transposed), check_finite=False)

    def solve_right(self, factor: Any, *parts: Any) -> None:
        """Solve in place, one part after another."""
        for values in parts:
            values[...] = self.solve_triangular(factor, values.T).T

    def set_product(self, target: Any, left: Any, right: Any) -> None:
        """Multiply."""
        np.matmul(left, right, out=target, dtype=np.float64)

    def add_product(self, target: Any, left: Any, right: Any) -> None:
        """Add in place."""
        target += np.matmul(left, right, dtype=np.float64)

    def subtract_product(self, target: Any, left: Any, right: Any) -> None:
        """Subtract in place."""
        target -= np.matmul(left, right, dtype=np.float64)

    def subtract_square(self, target: Any, rows: Any) -> None:
        """Subtract in place; NumPy computes half of the product."""
        target -= rows @ rows.T

    def sparse_matrix(self, matrix: Any) -> Any:
        """Return the matrix itself."""
        return matrix

    def sparse_solver(self, matrix: Any) -> SuperLU:
        """Factorise by SuperLU."""
        return SuperLU(matrix)


class SuperLU:
    """The factorisation ``P Q P^T = L D L^T`` by SuperLU, which needs no pivots for a positive definite matrix.

    See `SparseSolver` for the attributes; ``B = P^T L D^(1/2)``.
    """

    def __init__(self, matrix: Any) -> None:
        columns = scipy.sparse.csc_array(matrix)
        try:
            self._lu = scipy.sparse.linalg.splu(
                columns, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
            )
        except RuntimeError as error:
            raise NotPositiveDefiniteError(f"sparse matrix: expected a positive definite one, found: {error}") from None
        order, pivots = self._lu.perm_r, self._lu.U.diagonal()
        # A row gets a pivot off its diagonal only if the one on the diagonal is zero.
        found = np.where(order == self._lu.perm_c, pivots[order], 0.0)
        wrong = found <= SMALLEST_PIVOT * columns.diagonal()
        if wrong.any():
            row = int(np.argmax(wrong))
            failure = NotPositiveDefiniteError(
                f"sparse matrix: expected a positive definite one, found the pivot {found[row]} at row {row}"
            )
            failure.row = row
            raise failure
        lower = scipy.sparse.csr_array(self._lu.L)  # older versions of SciPy return a matrix, of which * is the product
        self.factor = scipy.sparse.csr_array(lower[order] * np.sqrt(pivots))
        self.adjoint_factor = self.factor.T.tocsr()
        self.log_determinant = math.fsum(np.log(pivots))

    def __call__(self, values: Any) -> Any:
        """Return the solutions."""
        return self._lu.solve(values)
