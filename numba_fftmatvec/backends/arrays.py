"""The interface of dense linear algebra and transforms on a backend's arrays."""

from __future__ import annotations

from typing import Any, Protocol


class SparseSolver(Protocol):
    """The factorisation ``Q = B B^T`` of a sparse matrix, where B is a Cholesky factor with permuted rows.

    Attributes
    ----------
    factor : sparse matrix
        B, as `ArrayLibrary.sparse_matrix` returns matrices.
    adjoint_factor : sparse matrix
        The transpose of B.
    log_determinant : float
        The logarithm of the determinant of Q.
    """

    factor: Any
    adjoint_factor: Any
    log_determinant: float

    def __call__(self, values: Any) -> Any:
        """Return the solutions of a system with values of shape (n, k), in a new array."""


class ArrayLibrary(Protocol):
    """The well-kept libraries of a backend, for work that the project's kernels do not do.

    All work is queued on the backend's stream, within `Backend.active`.

    Attributes
    ----------
    numpy : module
        NumPy's functions for the backend's arrays: NumPy or CuPy.
    fft : module
        The functions of scipy.fft for the backend's arrays.
    fft_options : dict
        Keyword arguments of these functions: on the CPU the number of this rank's cores.
    panel_rows : int
        Number of rows of a dense matrix at which its products reach the device's speed.
    """

    numpy: Any
    fft: Any
    fft_options: dict[str, int]
    panel_rows: int

    def cholesky(self, matrix: Any) -> Any:
        """Return the lower Cholesky factor of a symmetric matrix, of which only the lower triangle is read.

        Raises
        ------
        NotPositiveDefiniteError
            The matrix is not positive definite; the error's `row` is the first row at which that shows, or None.
        """

    def solve_triangular(self, factor: Any, values: Any, *, transposed: bool = False) -> Any:
        """Return ``factor^-1 values`` of a lower triangular factor, or ``factor^-T values`` with `transposed`."""

    def solve_right(self, factor: Any, *parts: Any) -> None:
        """Replace each of `parts`, arrays of rows, by ``part factor^-T`` of a lower triangular factor."""

    def set_product(self, target: Any, left: Any, right: Any) -> None:
        """Set a matrix to ``left @ right``.

        Each row of `target` is contiguous, and so is each row or each column of `left` and `right`.
        """

    def add_product(self, target: Any, left: Any, right: Any) -> None:
        """Add ``left @ right`` to a matrix; see `set_product`."""

    def subtract_product(self, target: Any, left: Any, right: Any) -> None:
        """Subtract ``left @ right`` from a matrix; see `set_product`."""

    def subtract_square(self, target: Any, rows: Any) -> None:
        """Subtract ``rows rows^T`` from the lower triangle of a square matrix; its upper triangle is then undefined."""

    def sparse_matrix(self, matrix: Any) -> Any:
        """Return a SciPy sparse matrix as one that multiplies the backend's arrays."""

    def sparse_solver(self, matrix: Any) -> SparseSolver:
        """Return the factorisation of a SciPy sparse, symmetric and positive definite matrix, which solves with it.

        Raises
        ------
        NotPositiveDefiniteError
            The matrix is not positive definite; the error's `row` is the row of the pivot that shows it, or None.
        """
