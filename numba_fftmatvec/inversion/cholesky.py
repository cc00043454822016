"""The Cholesky factorisation of a block matrix in panels of rows, in place, and triangular solves with the factor.

A panel of the factor follows from the panels above it: ``L_ij = (H_ij - sum_{k < j} L_ik L_jk*) L_jj^-*``. When a panel
is complete, its owner broadcasts it, and every rank updates its later panels (Golub & Van Loan, Matrix Computations,
4.2.9). The same formula takes the rows R of further matrices below H to ``W = R L^-*``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..backends.base import DOUBLE
from ..errors import NotPositiveDefiniteError
from .panels import PanelMatrix

PHASE = "factorising the data-space Hessian"


def factorise(matrix: PanelMatrix, borders: Sequence[PanelMatrix] = ()) -> None:
    """Replace a symmetric positive definite matrix by its Cholesky factor L, and each border R by R L^-*. Collective.

    Parameters
    ----------
    matrix : PanelMatrix
        The lower triangle; after an error its values are lost.
    borders : sequence of PanelMatrix
        Matrices with the columns of `matrix`, such as the covariance of forecasts and data.

    Raises
    ------
    NotPositiveDefiniteError
        The matrix is not positive definite. The error names the time step and the block row where that shows.
    """
    comm, index = matrix.comm, matrix.rows
    backend = comm.backend
    for panel, steps in enumerate(index.panels):
        cols = index.rows(steps)
        row = matrix.broadcast(panel, partial(_complete, matrix), PHASE)
        with comm.agreement(PHASE), backend.active():
            done, triangle, rests = row[:, : cols.start], row[:, cols], []
            for lower in (matrix, *borders):
                for other, values in lower.panels.items():
                    if lower is matrix and other <= panel:
                        continue
                    rest = values[:, cols]
                    if cols.start:
                        backend.arrays.subtract_product(rest, values[:, : cols.start], done.T)
                    rests.append(rest)
            backend.arrays.solve_right(triangle, *rests)


def _complete(matrix: PanelMatrix, panel: int) -> Any:
    """Factorise the diagonal block of a panel of this rank; return the complete panel of the factor."""
    backend = matrix.comm.backend
    steps, values = matrix.rows.panels[panel], matrix.panels[panel]
    cols = matrix.rows.rows(steps)
    with backend.active():
        diagonal = values[:, cols]
        whole = backend.download(backend.arrays.numpy.diagonal(diagonal))
        if cols.start:
            backend.arrays.subtract_square(diagonal, values[:, : cols.start])
        try:
            factor = backend.arrays.cholesky(diagonal)
        except NotPositiveDefiniteError as error:
            raise _not_positive(matrix, panel, error.row) from error
        # What is left of a pivot after the subtraction of earlier columns may be rounding alone.
        left = backend.download(backend.arrays.numpy.diagonal(factor)) ** 2
        values[:, cols] = factor
    rounding = matrix.rows.size * np.finfo(np.float64).eps * whole
    if (left <= rounding).any():
        raise _not_positive(matrix, panel, int(np.argmax(left <= rounding)))
    return values


def _not_positive(matrix: PanelMatrix, panel: int, row: int | None) -> NotPositiveDefiniteError:
    steps = matrix.rows.panels[panel]
    where = f"in the time steps {steps.start} to {steps.stop - 1}"
    if row is not None:
        step, block = divmod(row, matrix.rows.blocks)
        where = f"at time step {steps.start + step}, sensor {block}"
    return NotPositiveDefiniteError(
        f"data-space Hessian: expected a positive definite matrix, found one that is singular to rounding {where}; "
        "more noise or a smaller prior deviation makes it regular"
    )


def solve_lower(factor: PanelMatrix, values: Any, first: int = 0) -> Any:
    """Return ``L^-1 values`` for the leading rows. Collective.

    Parameters
    ----------
    factor : PanelMatrix
        The Cholesky factor L.
    values : array
        (n, k) array of the backend's library with the same values on every rank; n may be smaller than the size of L if
        it is a whole number of time steps.
    first : int
        A panel: the values of those before it are zero, and so are the results.

    Returns
    -------
    array
        A new (n, k) array on every rank.
    """
    index, backend = factor.rows, factor.comm.backend
    begin = index.rows(index.panels[first]).start
    with factor.comm.agreement("solving with the factor"), backend.active():
        solved = values.copy()
    for panel, steps in list(enumerate(index.panels))[first:]:
        rows = _leading(index.rows(steps), len(solved))
        if rows.start >= rows.stop:
            break

        def solve(panel: int, rows: slice = rows) -> Any:
            part = factor.panels[panel][: rows.stop - rows.start]
            with backend.active():
                rest = solved[rows] - part[:, begin : rows.start] @ solved[begin : rows.start]
                return backend.arrays.solve_triangular(part[:, rows], rest)

        found = factor.broadcast(panel, solve, "solving with the factor")
        with backend.active():
            solved[rows] = found
    return solved


def solve_upper(factor: PanelMatrix, values: Any) -> Any:
    """Return ``L^-* values`` of the leading part of L; parameters and result are those of `solve_lower`."""
    index, comm, backend = factor.rows, factor.comm, factor.comm.backend
    phase = "solving with the factor's adjoint"
    with comm.agreement(phase), backend.active():
        solved = values.copy()
        # On several ranks each subtracts the terms of its own panels; the sum of them all is `values` less all terms.
        terms = solved if comm.world_size == 1 else backend.zeros(solved.shape, DOUBLE).array
    for panel, steps in reversed(list(enumerate(index.panels))):
        rows = _leading(index.rows(steps), len(solved))
        if rows.start >= rows.stop:
            continue
        total = None if comm.world_size == 1 else factor.total(panel, terms[rows], phase)

        def solve(panel: int, rows: slice = rows, total: Any = total) -> Any:
            part = factor.panels[panel][: rows.stop - rows.start]
            with backend.active():
                right = solved[rows] if total is None else solved[rows] + total
                found = backend.arrays.solve_triangular(part[:, rows], right, transposed=True)
                terms[: rows.start] -= part[:, : rows.start].T @ found
            return found

        found = factor.broadcast(panel, solve, phase)
        with backend.active():
            solved[rows] = found
    return solved


def _leading(rows: slice, count: int) -> slice:
    """Return those of the rows that are among the first `count` rows."""
    return slice(rows.start, min(rows.stop, count))
