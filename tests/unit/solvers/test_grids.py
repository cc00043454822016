"""Every solver on process grids against dense references, and the same results and errors on every rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support.harness import run_ranks
from support.solvers import DAMPING, ND, NM, NT, SEVERAL, TOLERANCE, first_column, right_hand_sides, toeplitz

Array = NDArray[np.float64]
Results = list[dict[str, Any]]

GRIDS = [(backend, grid) for backend in ("cpu", "cuda") for grid in ((1, 1), (1, 2), (2, 1), (2, 2), (1, 3))]

F = toeplitz(first_column())
NORMAL = F.T @ F + DAMPING**2 * np.eye(NM * NT)
CONDITION = float(np.linalg.cond(NORMAL))


@pytest.fixture(
    scope="module",
    params=[pytest.param(grid, marks=[pytest.mark.gpu] if grid[0] == "cuda" else []) for grid in GRIDS],
    ids=lambda grid: f"{grid[0]}-{grid[1][0]}x{grid[1][1]}",
)
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    backend, grid = request.param
    setting = grid, backend, tmp_path_factory.mktemp("restart")
    return run_ranks(grid[0] * grid[1], "support.solvers:everything", setting)


def expected(name: str) -> Array:
    b = right_hand_sides()
    if name in ("cgls", "lsqr"):
        return np.linalg.solve(NORMAL, F.T @ b["row"].ravel())
    if "block" in name:
        return np.linalg.solve(NORMAL, b["several"].reshape(SEVERAL, -1).T).T
    return np.linalg.solve(NORMAL, b["col"].ravel())


@pytest.mark.mpi
class TestGrids:
    def test_solutions(self, results: Results) -> None:
        """The error is at most the condition number times the relative residual, and twice that for the reference."""
        for rank in results:
            for name, (x, _, converged, _, _) in rank["solutions"].items():
                reference = expected(name)
                error = np.linalg.norm(x.reshape(reference.shape) - reference) / np.linalg.norm(reference)
                assert converged, name
                assert error <= 3 * CONDITION * TOLERANCE, name

    def test_reasons_and_histories(self, results: Results) -> None:
        for rank in results:
            for name, (_, reason, _, iterations, history) in rank["solutions"].items():
                assert "residual" in reason or "norm" in reason
                assert len(history) == iterations + 1
                assert history.ndim == (2 if "block" in name or name in ("cgls", "lsqr") else 1)

    def test_all_ranks_have_the_same_bits(self, results: Results) -> None:
        for rank in results[1:]:
            for name, found in rank["solutions"].items():
                first = results[0]["solutions"][name]
                assert np.array_equal(found[0], first[0])
                assert found[1:4] == first[1:4]
                assert np.array_equal(found[4], first[4])

    def test_eigenvalues(self, results: Results) -> None:
        """The residuals bound the errors of values, to second order; the vectors are orthonormal."""
        values = np.linalg.eigvalsh(NORMAL)[::-1]
        for rank in results:
            for name in ("lanczos", "randomised"):
                found, vectors, residuals, _ = rank["eigen"][name]
                assert abs(found - values[:3]).max() <= 1e-9 * values[0]
                assert residuals.max() <= 1e-9 * values[0]
                rows = vectors.reshape(3, -1)
                assert abs(rows @ rows.T - np.eye(3)).max() <= 1e-13
                assert abs(rows @ NORMAL - found[:, None] * rows).max() <= 2e-9 * values[0]

    def test_singular_values(self, results: Results) -> None:
        values = np.linalg.svd(F, compute_uv=False)
        for rank in results:
            found, u, v, residuals, error = rank["eigen"]["svd"]
            assert abs(found - values[:3]).max() <= 1e-9 * values[0]
            assert residuals.max() <= 1e-9 * values[0]
            left, right = u.reshape(3, -1), v.reshape(3, -1)
            assert abs(right @ F.T - found[:, None] * left).max() <= 2e-9 * values[0]
            assert abs(left @ F - found[:, None] * right).max() <= 2e-9 * values[0]
            assert error >= values[13]  # of what 13 vectors leave at least

    def test_named_errors(self, results: Results) -> None:
        for rank in results:
            kinds = {name: found[0] for name, found in rank["errors"].items() if not name.startswith("not converged")}
            assert kinds == {
                "indefinite": "NotPositiveDefiniteError",
                "indefinite block": "NotPositiveDefiniteError",
                "NaN": "NonFiniteError",
                "one rank": "ArgumentError",
                "product on one rank": "CapacityError",
                "different options": "AgreementError" if len(results) > 1 else "",
            }
            assert "found <p, A p> = -" in rank["errors"]["indefinite"][1]
            assert "expected memory on the last rank, found none" in rank["errors"]["product on one rank"][1]
            assert "right-hand side: expected finite values" in rank["errors"]["NaN"][1]

    def test_no_convergence_on_every_rank(self, results: Results) -> None:
        for rank in results:
            for name, limit in {"cg": 2, "block_cg": 1, "lsqr": 2}.items():
                message, iterations, x, reason = rank["errors"][f"not converged {name}"]
                assert f"after {limit} iterations; try more iterations" in message
                assert "with tolerance 1.0e-08, found" in message
                assert (iterations, reason) == (limit, "max_iterations")
                assert np.array_equal(x, results[0]["errors"][f"not converged {name}"][2])
                assert np.linalg.norm(x) > 0

    def test_resumed_runs_have_the_same_bits(self, results: Results) -> None:
        for rank in results:
            found = dict(rank["restart"])
            kind, message = found.pop("other data")
            assert (kind, "digest of the right-hand side: expected" in message) == ("FileFormatError", True)
            assert found == dict.fromkeys(("cg", "lsqr", "block_cg"), (3, True))

    def test_a_callback_on_one_rank_stops_all(self, results: Results) -> None:
        for rank in results:
            assert rank["callback"] == [[0, 1, 2], 2, "callback", False, 3]

    @pytest.mark.parametrize(("space", "size"), [("col", NM), ("row", ND)])
    def test_products_of_blocks(self, results: Results, space: str, size: int) -> None:
        """Inner products of n terms have an error of at most n u times the product of the magnitudes."""
        coefficients = np.arange(6.0).reshape(3, 2)
        for rank in results:
            found = rank["blocks"][space]
            x, y = found["x"].reshape(3, -1), found["y"].reshape(2, -1)
            bound = 2 * size * NT * 2.0**-53
            assert (abs(found["gram"] - x @ y.T) <= bound * abs(x) @ abs(y).T).all()
            assert (abs(found["grams"][0] - x @ x.T) <= bound * abs(x) @ abs(x).T).all()
            assert (abs(found["grams"][1] - y @ x.T) <= bound * abs(y) @ abs(x).T).all()
            out = found["combine"].reshape(2, -1)
            assert (abs(out - coefficients.T @ x) <= 8 * 2.0**-53 * coefficients.T @ abs(x)).all()
            assert np.array_equal(found["subset"], found["x"][1:])
            exact = [np.sum(x * x), np.sum(y * out)]
            assert (abs(found["inner_products"] - exact) <= 2 * bound * np.sum(x * x)).all()
            assert np.array_equal(found["x"], results[0]["blocks"][space]["x"])


def test_random_values_do_not_depend_on_the_grid(results: Results, record: dict[str, Array]) -> None:
    for space in ("col", "row"):
        values = results[0]["blocks"][space]["x"]
        assert np.array_equal(record.setdefault(space, values), values)


@pytest.fixture(scope="session")
def record() -> dict[str, Array]:
    """The values of the first grid."""
    return {}
