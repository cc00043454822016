"""NumPy and SciPy, as a backend's array library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.fft
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg

from ...errors import NotPositiveDefiniteError


class CpuArrays:
    """Arrays in host memory. See `ArrayLibrary` for the methods."""

    numpy: Any = np
    fft: Any = scipy.fft
    panel_rows = 512

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

    def sparse_matrix(self, matrix: Any) -> Any:
        """Return the matrix itself."""
        return matrix

    def sparse_solver(self, matrix: Any) -> Callable[[Any], Any]:
        """Factorise by SuperLU, which needs no pivots for a positive definite matrix."""
        try:
            factor = scipy.sparse.linalg.splu(
                scipy.sparse.csc_matrix(matrix),
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=0.0,
                options={"SymmetricMode": True},
            )
        except RuntimeError as error:
            raise NotPositiveDefiniteError(f"sparse matrix: expected a positive definite one, found: {error}") from None
        return factor.solve  # type: ignore[no-any-return]
