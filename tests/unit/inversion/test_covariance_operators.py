"""Covariances and precisions as operators on vectors of process grids, against dense matrices made by NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec.inversion import (
    AR1,
    CallablePrior,
    CorrelatedNoise,
    DiagonalPrior,
    ImpulseResponse,
    MaternPrior,
    Noise,
    Prior,
    SensorNoise,
    SensorTimeNoise,
    SparsePrecisionPrior,
    WhiteNoise,
    WhitePrior,
)
from support.harness import run_ranks
from unit.inversion.test_priors import dense_matern, second_differences, times, toeplitz

EPS = np.finfo(np.float64).eps
GRIDS = [(1, 1), (1, 2), (2, 1), (2, 2), (1, 3)]
BACKENDS = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
Nm, Nd, Nt = 6, 4, 5
DEVIATIONS = np.array([0.5, 2.0, 1.5, 3.0, 0.25, 1.0])
MATERN = MaternPrior((2, 3), DEVIATIONS.reshape(2, 3), 2.0)
PRECISION = 0.5 * np.eye(Nm) + second_differences(Nm)
ROOT = np.tril(np.random.default_rng(3).random((Nm, Nm))) + np.eye(Nm)
RESPONSES = np.random.default_rng(6).standard_normal((Nm, Nt)) + np.eye(1, Nt) * 4
SENSORS = np.array([[4.0, 1.0, -0.5, 0.0], [1.0, 3.0, 0.25, 0.5], [-0.5, 0.25, 2.0, 0.0], [0.0, 0.5, 0.0, 1.0]])
TIMES = 0.5 + np.random.default_rng(2).random((Nd, Nt))


def in_time(gamma: np.ndarray, responses: np.ndarray) -> np.ndarray:
    """Return the covariance of sources with a spatial covariance and an impulse response for each of them."""
    filters = np.zeros((Nm, Nt, Nm, Nt))
    for m, response in enumerate(responses):
        filters[m, :, m] = toeplitz(response)
    matrix = filters.reshape(Nm * Nt, -1)
    return matrix @ np.kron(gamma, np.eye(Nt)) @ matrix.T


WHITE_IN_TIME = np.tile(np.eye(1, Nt), (Nm, 1))
PRIORS: dict[str, tuple[Callable[[], Prior], np.ndarray]] = {
    "white": (lambda: WhitePrior(Nm, 1.5), in_time(2.25 * np.eye(Nm), WHITE_IN_TIME)),
    "diagonal": (
        lambda: DiagonalPrior(DEVIATIONS, time=AR1(0.5)),
        in_time(np.diag(DEVIATIONS**2), np.tile(0.5 ** np.arange(Nt), (Nm, 1))),
    ),
    "matern": (lambda: MATERN, in_time(dense_matern(MATERN), WHITE_IN_TIME)),
    "matern in time": (
        lambda: MaternPrior((2, 3), DEVIATIONS, 2.0, time=ImpulseResponse(RESPONSES)),
        in_time(dense_matern(MATERN), RESPONSES),
    ),
    "sparse": (
        lambda: SparsePrecisionPrior(scipy.sparse.csr_array(PRECISION)),
        in_time(np.linalg.inv(PRECISION), WHITE_IN_TIME),
    ),
    "functions": (
        lambda: CallablePrior(Nm, times(ROOT @ ROOT.T), solve=times(np.linalg.inv(ROOT @ ROOT.T))),
        in_time(ROOT @ ROOT.T, WHITE_IN_TIME),
    ),
}
NOISES: dict[str, tuple[Noise, np.ndarray]] = {
    "white": (WhiteNoise(0.5), 0.25 * np.eye(Nd * Nt)),
    "sensors": (SensorNoise(DEVIATIONS[:Nd]), np.diag(np.repeat(DEVIATIONS[:Nd] ** 2, Nt))),
    "sensors and times": (SensorTimeNoise(TIMES), np.diag(TIMES.ravel() ** 2)),
    "correlated": (CorrelatedNoise(SENSORS), np.kron(SENSORS, np.eye(Nt))),
}
KINDS = ["covariance", "precision"]


def on_grid(setting: tuple[tuple[int, int], str]) -> dict[str, Any]:
    """Return products with all operators, dot tests, and errors that are met on one rank."""
    grid, backend = setting
    found: dict[str, Any] = {}
    with fm.Comm(MPI.COMM_WORLD, *grid, backend=backend, collectives="mpi") as comm:
        for kind in KINDS:
            for name, (prior, _) in PRIORS.items():
                found[f"prior {name} {kind}"] = products(getattr(prior(), f"{kind}_operator")(comm, Nt))
            for name, (noise, _) in NOISES.items():
                found[f"noise {name} {kind}"] = products(getattr(noise, f"{kind}_operator")(comm, Nd, Nt))
        found["errors"] = errors(comm)
    return found


def products(operator: fm.LinearOperator) -> Any:
    """Return the dense matrix by products with many vectors, one product with one vector, and the dot test."""
    n = operator.shape[0]
    columns = fm.Vector(operator.comm, *operator.domain.shape, operator.domain.space, global_sizes=True, num_vecs=n)
    columns.scatter(np.eye(n).reshape(n, *operator.domain.shape))
    one = columns.get_vector(n // 2)
    return (
        (operator @ columns).gather().reshape(n, n).T,
        (operator.T @ one).gather().ravel(),
        fm.dot_test(operator),
    )


def errors(comm: fm.Comm) -> dict[str, Any]:
    """Return the kind and the message of the error of each call, after which the Comm is still in step."""
    first = comm.world_rank == 0
    x = fm.Vector(comm, Nm, Nt, "col", global_sizes=True)
    x.init_vec_ones()
    laplacian = SparsePrecisionPrior(scipy.sparse.csr_array(second_differences(Nm)))

    def fails_last(rows: Any) -> Any:
        if x.is_initialized() and broken and comm.world_rank == comm.world_size - 1:
            raise ValueError("out of luck")
        return 2.0 * rows

    broken: list[int] = []
    luckless = CallablePrior(Nm, fails_last).covariance_operator(comm, Nt)
    broken.append(1)
    calls = {
        "not positive": lambda: laplacian.covariance_operator(comm, Nt),
        "other steps": lambda: DiagonalPrior(DEVIATIONS, time=ImpulseResponse(RESPONSES)).covariance_operator(comm, 9),
        "no inverse": lambda: CallablePrior(Nm, times(np.eye(Nm))).precision_operator(comm, Nt) @ x,
        "other sensors": lambda: CorrelatedNoise(SENSORS).precision_operator(comm, Nd + 1, Nt),
        "other prior": lambda: WhitePrior(Nm, 1.0 + first).covariance_operator(comm, Nt),
        "fewer sources than ranks": lambda: WhitePrior(1, 1.0).covariance_operator(comm, Nt),
        "other noise": lambda: SensorNoise(np.full(Nd, 1.0 + first)).precision_operator(comm, Nd, Nt),
        "a function that fails": lambda: luckless @ x,
    }
    found: dict[str, Any] = {}
    for name, call in calls.items():
        try:
            call()
            found[name] = None
        except Exception as error:
            found[name] = type(error).__name__, str(error)
    with comm.agreement("still in step"):
        pass
    return found


def check_products(found: Any, dense: np.ndarray) -> None:
    """Compare with the dense matrix, with a bound of the error of some transforms and solves."""
    matrix, column, difference = found
    bound = 64 * len(dense) * EPS * np.linalg.cond(dense) * np.linalg.norm(dense, 2)
    assert np.linalg.norm(matrix - dense, 2) <= bound
    assert np.linalg.norm(column - dense[:, len(dense) // 2]) <= bound
    assert difference <= 1e-13


def check(found: list[dict[str, Any]], columns: int) -> None:
    assert [rank.keys() for rank in found] == [found[0].keys()] * len(found)
    for rank in found:
        for name, (_, dense) in PRIORS.items():
            check_products(rank[f"prior {name} covariance"], dense)
            check_products(rank[f"prior {name} precision"], np.linalg.inv(dense))
        for name, (_, dense) in NOISES.items():
            check_products(rank[f"noise {name} covariance"], dense)
            check_products(rank[f"noise {name} precision"], np.linalg.inv(dense))
        assert rank["errors"] == found[0]["errors"]
    several = len(found) > 1
    expected = {
        "not positive": ("NotPositiveDefiniteError", "prior: precision: expected a positive definite one, found"),
        "other steps": ("ShapeError", "impulse response: expected at least 9 time steps, found 5"),
        "no inverse": ("ArgumentError", "callable prior: expected the function `solve`, found None"),
        "other sensors": ("ShapeError", f"noise: expected {Nd + 1} sensors, as the data have, found {Nd}"),
        "other prior": ("AgreementError", "prior") if several else None,
        "fewer sources than ranks": ("GridError", f"at least one block for each of {columns} ranks, found 1 blocks")
        if columns > 1
        else None,
        "other noise": ("AgreementError", "noise") if several else None,
        "a function that fails": ("ValueError", "out of luck"),
    }
    assert found[0]["errors"].keys() == expected.keys()
    for name, error in found[0]["errors"].items():
        if expected[name] is None:
            assert error is None
        else:
            assert error[0] == expected[name][0]
            assert expected[name][1] in error[1]


@pytest.mark.mpi
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid[0]}x{grid[1]}")
def test_on_a_grid(grid: tuple[int, int], backend: str) -> None:
    check(run_ranks(grid[0] * grid[1], "unit.inversion.test_covariance_operators:on_grid", (grid, backend)), grid[1])


@pytest.fixture
def comm() -> Any:
    with fm.Comm(MPI.COMM_SELF, backend="cpu") as made:
        yield made


def test_pieces_of_time_steps(comm: fm.Comm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece of two steps, with a rest of one, gives the same result as all steps at once."""
    operator = MATERN.covariance_operator(comm, Nt)
    x = fm.Vector(comm, Nm, Nt, "col", global_sizes=True)
    x.init_vec_doubles()
    whole = (operator @ x).gather()
    monkeypatch.setattr("numba_fftmatvec.inversion.spatial.PIECE_BYTES", 2 * 8 * Nm)
    np.testing.assert_allclose((operator @ x).gather(), whole, rtol=1e-14)


def test_a_mean_of_other_steps(comm: fm.Comm) -> None:
    with pytest.raises(fm.ShapeError, match="prior: mean: expected 4 time steps, found 5"):
        WhitePrior(1, 1.0, mean=np.ones((1, 5))).covariance_operator(comm, 4)


def test_representation(comm: fm.Comm) -> None:
    assert repr(MATERN.precision_operator(comm, Nt)) == "<prior precision of 6 blocks of 5>"


def test_fingerprints() -> None:
    """They tell the values of every field apart, and the kinds."""
    different = [
        WhitePrior(3, 1.0),
        WhitePrior(3, 2.0),
        WhitePrior(4, 1.0),
        WhitePrior(3, 1.0, mean=[0.0, 0.0, 1.0]),
        WhitePrior(3, 1.0, time=AR1(0.5)),
        WhitePrior(3, 1.0, time=AR1(0.25)),
        WhitePrior(3, 1.0, time=ImpulseResponse([1.0, 2.0])),
        WhitePrior(3, 1.0, time=ImpulseResponse([1.0, 3.0])),
        DiagonalPrior([1.0, 1.0, 1.0]),
        MaternPrior((3,), 1.0, 2.0),
        MaternPrior((3,), 1.0, 2.0, uniform_variance=False),
        SparsePrecisionPrior(scipy.sparse.csc_array(np.eye(3))),
        SparsePrecisionPrior(scipy.sparse.csc_array(2 * np.eye(3))),
        CallablePrior(3, times(np.eye(3))),
        CallablePrior(3, times(np.eye(3)), deviation=2.0),
        WhiteNoise(1.0),
        SensorNoise([1.0]),
        SensorTimeNoise([[1.0]]),
        CorrelatedNoise([[1.0]]),
        CorrelatedNoise([[2.0]]),
    ]
    prints = [value.fingerprint() for value in different]
    assert len(set(prints)) == len(prints)
    assert MaternPrior((3,), 1, (2.0,), [1.0]).fingerprint() == MaternPrior(3, 1.0, 2.0).fingerprint()
    assert SensorNoise(np.float32([1, 2])).fingerprint() == SensorNoise([1.0, 2.0]).fingerprint()
