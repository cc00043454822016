"""CuPy, as a backend's array library: cuBLAS, cuSOLVER and cuFFT."""

from __future__ import annotations

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


class CudaArrays:
    """Arrays in a GPU's memory. See `ArrayLibrary` for the methods."""

    numpy: Any = cupy
    fft: Any = cupyx.scipy.fft
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

    def sparse_solver(self, matrix: Any) -> Callable[[Any], Any]:
        """Factorise on the host; the values of each solve travel there and back."""
        solve = CpuArrays().sparse_solver(matrix)
        return lambda values: cupy.asarray(solve(values.get()))
