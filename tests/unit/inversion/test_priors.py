"""Priors of a source against dense matrices made by NumPy, their samples, and the fields that they describe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.sparse
import scipy.special
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec.inversion import (
    AR1,
    BoundPrior,
    CallablePrior,
    DiagonalPrior,
    ImpulseResponse,
    IntegratedWhiteNoise,
    MaternPrior,
    Prior,
    SparsePrecisionPrior,
    TimeFilter,
    WhitePrior,
)

BACKENDS = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
EPS = np.finfo(np.float64).eps
DEVIATIONS = np.array([0.5, 2.0, 1.5, 3.0, 0.25])


def second_differences(n: int) -> np.ndarray:
    """Return minus the second differences of n cells with reflecting edges."""
    steps = np.diff(np.eye(n), axis=0)
    return steps.T @ steps


def dense_matern(prior: MaternPrior) -> np.ndarray:
    """Return the covariance from the dense elliptic operator; `kappa` is checked by `test_coefficients`."""
    operator = np.eye(prior.size)
    for axis, n in enumerate(prior.shape):
        factors = [np.eye(cells) for cells in prior.shape]
        factors[axis] = second_differences(n) / (prior.kappa[axis] * prior.spacing[axis]) ** 2
        term = np.ones((1, 1))
        for factor in factors:
            term = np.kron(term, factor)
        operator = operator + term
    field = np.linalg.inv(operator @ operator)
    d = len(prior.shape)
    if prior.uniform_variance:
        scale = 1 / np.sqrt(np.diag(field))
    else:
        unbounded = math.gamma(2 - d / 2) / (4 * np.pi) ** (d / 2) * np.prod(np.multiply(prior.kappa, prior.spacing))
        scale = np.full(prior.size, unbounded**-0.5)
    scale = scale * np.ravel(prior.deviation)
    return scale[:, None] * field * scale


class Case(NamedTuple):
    prior: Prior
    dense: np.ndarray


def matern(*arguments: Any, **options: Any) -> Callable[[], Case]:
    def make() -> Case:
        prior = MaternPrior(*arguments, **options)
        return Case(prior, dense_matern(prior))

    return make


def sparse(deviation: float = 1.0, kind: Callable[[Any], Any] = scipy.sparse.csc_array) -> Callable[[], Case]:
    """Return the case of a squared elliptic operator on a grid of 4 x 3 cells."""

    def make() -> Case:
        operator = np.kron(0.3 * np.eye(4) + second_differences(4), np.eye(3)) + np.kron(
            np.eye(4), second_differences(3)
        )
        precision = operator @ operator
        return Case(SparsePrecisionPrior(kind(precision), deviation), deviation**2 * np.linalg.inv(precision))

    return make


def times(matrix: np.ndarray) -> Callable[[Any], Any]:
    """Return the function that applies a matrix to each row of an array of any library."""
    return lambda rows: rows @ np.asarray(matrix.T, like=rows)


def functions(columns: int, **options: Any) -> Callable[[], Case]:
    """Return the case of functions with a dense root of 5 rows."""

    def make() -> Case:
        root = np.random.default_rng(7).standard_normal((5, columns))
        gamma = root @ root.T
        prior = CallablePrior(
            5,
            times(gamma),
            times(root),
            times(root.T),
            times(np.linalg.inv(gamma)),
            root_size=columns,
            log_determinant=np.linalg.slogdet(gamma)[1],
            **options,
        )
        return Case(prior, prior.deviation**2 * gamma)

    return make


CASES: dict[str, Callable[[], Case]] = {
    "white": lambda: Case(WhitePrior(6, 1.5), 2.25 * np.eye(6)),
    "diagonal": lambda: Case(DiagonalPrior(DEVIATIONS), np.diag(DEVIATIONS**2)),
    "one cell": matern((1,), 2.0, 3.0),
    "line": matern(7, 0.5, 3.0),
    "line of even length": matern((8,), 0.5, 2.0, uniform_variance=False),
    "plane": matern((5, 4), 1.5, (3.0, 2.0), (1.0, 0.5)),
    "plane with edges": matern((4, 5), 1.5, 2.0, (1.0, 0.5), uniform_variance=False),
    "plane of given deviations": matern((2, 3), np.arange(1.0, 7).reshape(2, 3), 1.5),
    "volume": matern((3, 2, 4), 0.7, (1.5, 2.0, 2.5), (1.0, 1.5, 0.5)),
    "volume with edges": matern((2, 4, 3), 0.7, 2.0, 1.0, False),
    "sparse": sparse(),
    "scaled sparse matrix": sparse(2.5, scipy.sparse.coo_matrix),
    "functions": functions(5),
    "functions with a wide root": functions(8, deviation=0.5),
}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Any]:
    with fm.Comm(MPI.COMM_SELF, backend=request.param) as comm:
        yield comm.backend


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


def on(backend: Any, function: Callable[[Any], Any], values: Any) -> np.ndarray:
    """Return the result of a function of the backend's arrays on the host."""
    with backend.active():
        argument = backend.arrays.numpy.asarray(values)
        before = backend.download(argument)
        result = backend.download(function(argument))
        np.testing.assert_array_equal(backend.download(argument), before)
    return result


def dense(bound: BoundPrior, name: str) -> np.ndarray:
    """Return the matrix of one of the four maps: its columns are the images of the unit vectors."""
    inputs = bound.root_size if name == "root" else bound.size
    return on(bound.backend, getattr(bound, name), np.eye(inputs)).T


def rounding(matrix: np.ndarray) -> float:
    """Return a bound of the relative error, in the 2-norm, of a few products and solves with a covariance."""
    return float(16 * len(matrix) * EPS * np.linalg.cond(matrix))


def assert_near(found: np.ndarray, expected: np.ndarray, bound: float) -> None:
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected, 2) <= bound * np.linalg.norm(expected, 2)


def test_innovations_may_end() -> None:
    prior = WhitePrior(2, 1.0, active_steps=3)
    assert [prior.active(Nt) for Nt in (2, 3, 9)] == [2, 3, 3]
    assert prior.scaled(2.0).active_steps == 3
    assert WhitePrior(2, 1.0).active(9) == 9
    assert prior.fingerprint() != WhitePrior(2, 1.0).fingerprint()
    with fm.Comm(backend="cpu") as comm:
        with pytest.raises(fm.NotPositiveDefiniteError, match="in all 5 time steps, found 3 active"):
            prior.precision_operator(comm, 5)
        assert np.array_equal(prior.precision_operator(comm, 3).todense(), np.eye(6))
        covariance = prior.covariance_operator(comm, 5).todense()
        assert np.array_equal(covariance, np.diag([1.0, 1.0, 1.0, 0.0, 0.0] * 2))


@pytest.mark.parametrize("steps", [0, -1, 1.5, "all"])
def test_active_steps_that_are_no_number(steps: object) -> None:
    with pytest.raises((fm.ShapeError, fm.ArgumentTypeError), match="prior: active_steps: expected"):
        WhitePrior(2, 1.0, active_steps=steps)  # type: ignore[arg-type]


def test_maps(backend: Any, case: Case) -> None:
    prior, gamma = case
    bound = prior.bind(backend)
    assert bound.size == prior.size == len(gamma)
    small = rounding(gamma)
    covariance, root = dense(bound, "covariance"), dense(bound, "root")
    assert_near(covariance, gamma, small)
    assert_near(covariance.T, covariance, small)
    assert np.linalg.eigvalsh(covariance + covariance.T).min() > 0
    assert_near(root @ root.T, gamma, small)
    assert_near(dense(bound, "root_adjoint"), root.T, small)
    assert_near(dense(bound, "solve"), np.linalg.inv(gamma), small)


def test_diagonal_and_determinant(backend: Any, case: Case) -> None:
    bound = case.prior.bind(backend)
    np.testing.assert_allclose(bound.variances(), np.diag(case.dense), rtol=rounding(case.dense))
    sign, expected = np.linalg.slogdet(case.dense)
    assert sign == 1
    assert bound.log_determinant() == pytest.approx(expected, rel=1e-13, abs=len(case.dense) * rounding(case.dense))


def test_variances_from_the_root(backend: Any, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The general way, of which panels of 2 sources are enough here, equals the closed form."""
    bound = case.prior.bind(backend)
    monkeypatch.setattr(type(backend.arrays), "panel_rows", 2)
    np.testing.assert_allclose(BoundPrior.variances(bound), np.diag(case.dense), rtol=rounding(case.dense))


def test_leading_axes(backend: Any, case: Case) -> None:
    bound = case.prior.bind(backend)
    for name in ("root", "root_adjoint", "covariance", "solve"):
        columns = bound.root_size if name == "root" else bound.size
        values = np.random.default_rng(3).standard_normal((2, 3, columns))
        rows = values @ dense(bound, name).T
        found = on(backend, getattr(bound, name), values)
        assert found.shape == rows.shape
        np.testing.assert_allclose(found, rows, rtol=0, atol=rounding(case.dense) * np.abs(rows).max())
        np.testing.assert_allclose(on(backend, getattr(bound, name), values[1, 2]), found[1, 2], rtol=1e-12)
    with pytest.raises(fm.ShapeError, match=rf"expected {bound.size} values on the last axis, found shape \(2, 3, "):
        bound.covariance(values[..., :0])


def test_samples(backend: Any, case: Case) -> None:
    """The entries of a sample covariance have the deviation sqrt((G_ii G_jj + G_ij^2) / count)."""
    count, gamma = 20_000, case.dense
    bound = case.prior.bind(backend)
    samples = backend.download(bound.sample(np.random.default_rng(11), count))
    assert samples.shape == (count, bound.size)
    spread = np.sqrt((np.outer(np.diag(gamma), np.diag(gamma)) + gamma**2) / count)
    assert (np.abs(samples.T @ samples / count - gamma) <= 5 * spread).all()
    assert (np.abs(samples.mean(axis=0)) <= 5 * np.sqrt(np.diag(gamma) / count)).all()
    np.testing.assert_array_equal(backend.download(bound.sample(5, 2)), backend.download(bound.sample(5, 2)))


def test_scaled(backend: Any, case: Case) -> None:
    scaled = case.prior.scaled(3.0)
    assert type(scaled) is type(case.prior)
    bound = scaled.bind(backend)
    small = rounding(case.dense)
    assert_near(dense(bound, "covariance"), 9 * case.dense, small)
    assert_near(dense(bound, "root") @ dense(bound, "root").T, 9 * case.dense, small)
    assert_near(dense(bound, "solve"), np.linalg.inv(9 * case.dense), small)
    expected = np.linalg.slogdet(9 * case.dense)[1]
    assert bound.log_determinant() == pytest.approx(expected, rel=1e-13, abs=len(case.dense) * small)
    for factor in (0.0, -1.0, np.nan):
        with pytest.raises(fm.ArgumentError, match="prior: factor: expected a positive number, found"):
            case.prior.scaled(factor)
    with pytest.raises(fm.NonFiniteError, match="prior: factor: expected a finite number, found inf"):
        case.prior.scaled(np.inf)


# Matern fields


def correlation(nu: float, r: np.ndarray) -> np.ndarray:
    """Return the Matern correlation at the scaled distance r > 0."""
    return 2 ** (1 - nu) / math.gamma(nu) * r**nu * scipy.special.kv(nu, r)


@pytest.mark.parametrize("cells_per_length", [6, 12])
@pytest.mark.parametrize(("dimensions", "order"), [(1, 2), (2, 2), (3, 1)], ids=["line", "plane", "volume"])
def test_interior(backend: Any, dimensions: int, order: int, cells_per_length: int) -> None:
    """Variance and correlations in the middle of a grid are those of the Matern function, up to the grid's error.

    The error of second differences is of order min(2, 2 nu) in kappa h, with a factor log(1 / kappa h) in 2-D. The
    other cells are within six correlation lengths, where the edges change the variance by less than 1e-5.
    """
    shape = (6 * cells_per_length + 1,) * dimensions
    prior = MaternPrior(shape, 0.5, 3.0, 3.0 / cells_per_length, uniform_variance=False)
    bound = prior.bind(backend)
    unit = np.zeros(shape)
    middle = (shape[0] // 2,) * dimensions
    unit[middle] = 1.0
    row = on(backend, bound.covariance, unit.ravel()).reshape(shape)[(*middle[:-1], slice(middle[-1], None))]
    assert bound.variances().reshape(shape)[middle] == pytest.approx(row[0], rel=1e-12)
    scaled = np.sqrt(8 * prior.smoothness) / cells_per_length  # kappa h
    error = scaled**order
    steps = np.arange(1, int(1.5 * cells_per_length))
    np.testing.assert_allclose(row[0], 0.25, rtol=error)
    np.testing.assert_allclose(
        row[steps] / row[0], correlation(prior.smoothness, scaled * steps), rtol=0, atol=error / 3
    )


def test_edges_raise_the_variance() -> None:
    """A reflecting edge in 1-D doubles the variance at it, where the field and its mirror image are the same."""
    with fm.Comm(MPI.COMM_SELF, backend="cpu") as comm:
        prior = MaternPrior((2000,), 1.0, 100.0, uniform_variance=False)
        variances = prior.bind(comm.backend).variances()
        assert variances[0] == pytest.approx(2 * variances[1000], rel=1e-3)
        uniform = MaternPrior((2000,), 1.0, 100.0).bind(comm.backend)
        np.testing.assert_allclose(uniform.variances(), 1.0, rtol=1e-12)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_coefficients(axes: int) -> None:
    """They give the deviation and the length back, by the formulas of Lindgren et al. for alpha = 2 and tau = gamma."""
    prior = MaternPrior((4,) * axes, 0.3, 7.0, 0.5)
    gamma, delta = prior.coefficients
    nu = 2 - axes / 2
    kappa = np.sqrt(delta / gamma[0])
    assert prior.smoothness == nu
    assert np.sqrt(8 * nu) / kappa == pytest.approx(7.0)
    variance = math.gamma(nu) / (math.gamma(2) * (4 * np.pi) ** (axes / 2) * kappa ** (2 * nu) * gamma[0] ** 2)
    assert variance == pytest.approx(0.3**2)
    assert prior.kappa == pytest.approx((kappa,) * axes)


# Sparse precisions and functions


def test_a_sparse_prior_is_the_matern_field_of_its_operator() -> None:
    """The same elliptic operator, once by cosine transforms and once by its sparse matrix."""
    matern = MaternPrior((6, 5), 1.0, 4.0, uniform_variance=False)
    laplacian = np.kron(second_differences(6), np.eye(5)) + np.kron(np.eye(6), second_differences(5))
    gamma, delta = matern.coefficients
    operator = scipy.sparse.csc_array(delta * np.eye(30) + gamma[0] * laplacian)
    with fm.Comm(MPI.COMM_SELF, backend="cpu") as comm:
        found = SparsePrecisionPrior(operator @ operator).bind(comm.backend)
        expected = matern.bind(comm.backend)
        np.testing.assert_allclose(found.variances(), expected.variances(), rtol=1e-11)
        assert found.log_determinant() == pytest.approx(expected.log_determinant(), rel=1e-12)


def test_a_sparse_precision_that_is_not_positive(backend: Any) -> None:
    """The Laplacian alone gives no precision to the mean of the field."""
    prior = SparsePrecisionPrior(scipy.sparse.csr_array(second_differences(9)))
    with pytest.raises(fm.NotPositiveDefiniteError, match="prior: precision: expected a positive definite one, found"):
        prior.bind(backend)


def test_missing_functions(backend: Any) -> None:
    bound = CallablePrior(3, lambda x: 4.0 * x).bind(backend)
    np.testing.assert_array_equal(bound.variances(), [4.0, 4.0, 4.0])
    rows = backend.arrays.numpy.ones((2, 3))
    calls = {
        "function `root`": lambda: bound.sample(0, 2),
        "function `root_adjoint`": lambda: bound.root_adjoint(rows),
        "function `solve`": lambda: bound.solve(rows),
        "number `log_determinant`": bound.log_determinant,
    }
    for name, call in calls.items():
        with pytest.raises(fm.ArgumentError, match=f"callable prior: expected the {name}, found None"):
            call()


NEGATIVE = np.diag([1.0, 2.0, 3.0, -1.0])
SKEW = np.eye(4) + np.array([[0, 1e-6, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
SYMMETRIC = np.diag([1.0, 4.0, 9.0, 16.0])
ROOT = np.diag([1.0, 2.0, 3.0, 4.0])
REFUSED = {
    "not positive": (fm.NotPositiveDefiniteError, "covariance: expected a positive map, found", times(NEGATIVE), {}),
    "not symmetric": (fm.NotPositiveDefiniteError, "covariance: expected a symmetric map, found", times(SKEW), {}),
    "not linear": (fm.ArgumentError, r"covariance: f\(x \+ y\): expected", lambda x: x + 1e-6, {}),
    "zero": (fm.NotPositiveDefiniteError, "covariance: expected a positive map, found", lambda x: 0 * x, {}),
    "shape": (fm.ShapeError, r"covariance: expected results of shape \(5, 4\), found \(5, 3\)", lambda x: x[:, 1:], {}),
    "no array": (fm.ShapeError, r"covariance: expected results of shape \(5, 4\), found NoneType", lambda x: None, {}),
    "NaN": (fm.NonFiniteError, "covariance: expected finite results, found NaN", lambda x: x * np.nan, {}),
    "other root": (
        fm.ArgumentError,
        r"root_adjoint: \|C\^T x\|\^2: expected x\^T Gamma x to 1e-08, found a relative difference of",
        times(SYMMETRIC),
        {"root": times(1.1 * ROOT), "root_adjoint": times(1.1 * ROOT)},
    ),
    "other adjoint": (
        fm.ArgumentError,
        r"root: C C\^T x: expected Gamma x to 1e-08",
        times(SYMMETRIC),
        {"root": times(ROOT @ SKEW), "root_adjoint": times(ROOT)},
    ),
    "other inverse": (
        fm.ArgumentError,
        r"solve: Gamma Gamma\^-1 x: expected x to",
        times(SYMMETRIC),
        {"solve": times(1.01 * np.linalg.inv(SYMMETRIC))},
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_functions_that_are_no_prior(backend: Any, name: str) -> None:
    kind, message, covariance, others = REFUSED[name]
    with pytest.raises(kind, match=f"callable prior: {message}"):
        CallablePrior(4, covariance, **others).bind(backend)


def test_functions_of_lower_accuracy(backend: Any) -> None:
    """A covariance in single precision passes with a tolerance that says so."""
    gamma = (SYMMETRIC + 0.5).astype(np.float32)
    single = CallablePrior(4, lambda x: times(gamma)(x.astype(np.float32)).astype(np.float64), tolerance=1e-5)
    assert single.bind(backend).variances() == pytest.approx(np.diag(gamma), rel=1e-6)
    with pytest.raises(fm.ArgumentError, match="callable prior: covariance: "):
        CallablePrior(4, single.covariance).bind(backend)


# Means, filters and bad values


def toeplitz(response: np.ndarray) -> np.ndarray:
    """Return the lower-triangular Toeplitz matrix of an impulse response."""
    n = len(response)
    return np.array([[response[t - s] if t >= s else 0.0 for s in range(n)] for t in range(n)])


FILTERS: dict[str, tuple[TimeFilter, np.ndarray]] = {
    "AR1": (AR1(0.8), 0.8 ** np.arange(6)),
    "alternating AR1": (AR1(-0.5), (-0.5) ** np.arange(6)),
    "white": (AR1(0.0), np.eye(6)[0]),
    "normalised AR1": (AR1(0.6, normalised=True), 0.8 * 0.6 ** np.arange(6)),
    "running sum": (IntegratedWhiteNoise(), np.ones(6)),
    "impulse response": (ImpulseResponse([2.0, -1.0, 0.5, 0.0, 0.25, 3.0, 99.0]), [2.0, -1.0, 0.5, 0.0, 0.25, 3.0]),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters(name: str) -> None:
    time, expected = FILTERS[name]
    found = time.impulse_response(6)
    np.testing.assert_allclose(found, expected, rtol=1e-15)
    inverse = toeplitz(time.inverse_response(6))
    np.testing.assert_allclose(inverse @ toeplitz(found), np.eye(6), atol=1e-13)
    assert time.sources is None
    assert time.impulse_response(1).shape == time.inverse_response(1).shape == (1,)


def test_filters_of_each_source() -> None:
    values = np.array([[1.0, 2.0, 3.0], [2.0, 0.0, -1.0]])
    time = ImpulseResponse(values)
    values[:] = 0  # the filter has a copy
    assert time.sources == 2
    for response, inverse in zip(time.impulse_response(3), time.inverse_response(3), strict=True):
        np.testing.assert_allclose(toeplitz(inverse) @ toeplitz(response), np.eye(3), atol=1e-14)
    with pytest.raises(fm.ShapeError, match="prior: time: expected 3 impulse responses, found 2"):
        WhitePrior(3, 1.0, time=time)
    with pytest.raises(fm.ShapeError, match="impulse response: expected at least 4 time steps, found 3"):
        WhitePrior(2, 1.0, time=time).check(2, 4)


def test_an_inverse_that_overflows() -> None:
    with pytest.raises(fm.NonFiniteError, match="expected finite numbers in 2000 steps, found an impulse response th"):
        ImpulseResponse([1.0, 2.0, *np.zeros(1998)]).inverse_response(2000)


def test_the_variance_of_an_ar1_process() -> None:
    """It tends to 1 / (1 - c^2), or to 1 with `normalised`."""
    assert np.sum(AR1(0.9).impulse_response(300) ** 2) == pytest.approx(1 / 0.19)
    assert np.sum(AR1(0.9, normalised=True).impulse_response(300) ** 2) == pytest.approx(1.0)
    nearly = AR1(1 - 1e-12, normalised=True).impulse_response(1)
    assert nearly[0] == pytest.approx(np.sqrt(2e-12), rel=1e-3)


def test_means() -> None:
    given = np.arange(3.0)
    prior = WhitePrior(3, 1.0, mean=given)
    given[:] = 99
    np.testing.assert_array_equal(prior.source_mean(2), [[0, 0], [1, 1], [2, 2]])
    np.testing.assert_array_equal(WhitePrior(2, 1.0).source_mean(2), np.zeros((2, 2)))
    full = DiagonalPrior([1.0, 2.0], mean=[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], time=AR1(0.5))
    np.testing.assert_array_equal(full.scaled(2.0).source_mean(3), [[1, 2, 3], [4, 5, 6]])
    assert full.scaled(2.0).time == AR1(0.5)
    with pytest.raises(fm.ShapeError, match="prior: mean: expected 4 time steps, found 3"):
        full.source_mean(4)
    with pytest.raises(fm.ShapeError, match="prior: expected 5 sources, as the matrix has, found 2"):
        full.check(5, 3)


SHAPE, TYPE, VALUE = fm.ShapeError, fm.ArgumentTypeError, fm.ArgumentError
NOT_FINITE, NOT_POSITIVE = fm.NonFiniteError, fm.NotPositiveDefiniteError
PLANE = 2, 3
csc = scipy.sparse.csc_array
BAD = [
    (SHAPE, "prior: size: expected a positive integer, found 0", lambda: WhitePrior(0, 1.0)),
    (NOT_POSITIVE, "prior: deviation: expected positive numbers, found -1", lambda: WhitePrior(2, -1.0)),
    (NOT_POSITIVE, "found 0.0 at index 1", lambda: DiagonalPrior([1.0, 0.0, -1.0])),
    (NOT_POSITIVE, "square is a double, found 1e-200", lambda: WhitePrior(2, 1e-200)),
    (NOT_POSITIVE, r"square is a double, found 1e\+200", lambda: WhitePrior(2, 1e200)),
    (NOT_FINITE, "deviations: expected finite numbers, found nan at index 2", lambda: DiagonalPrior([1, 2, np.nan])),
    (TYPE, "expected real numbers, found dtype", lambda: DiagonalPrior(["a"])),
    (SHAPE, r"expected an array of 1 dimensions with values, found shape \(1, 2\)", lambda: DiagonalPrior([[1.0, 2]])),
    (SHAPE, r"expected an array of 1 dimensions with values, found shape \(0,\)", lambda: DiagonalPrior([])),
    (SHAPE, r"mean: expected shape \(2,\) or \(2, Nt\), found \(3,\)", lambda: WhitePrior(2, 1.0, mean=np.zeros(3))),
    (SHAPE, r"mean: expected shape .*, found \(\)", lambda: WhitePrior(2, 1.0, mean=1.0)),
    (NOT_FINITE, "mean: expected finite numbers, found inf at index 1", lambda: WhitePrior(2, 1.0, mean=[0.0, np.inf])),
    (TYPE, "prior: time: expected a TimeFilter, found float", lambda: WhitePrior(2, 1.0, time=0.5)),
    (SHAPE, "expected 1 to 3 axes, found 4", lambda: MaternPrior((2, 2, 2, 2), 1.0, 1.0)),
    (SHAPE, "Matern prior: shape: expected a positive integer, found 0", lambda: MaternPrior((2, 0), 1.0, 1.0)),
    (SHAPE, r"one number or shape \(2, 3\), found \(3, 2\)", lambda: MaternPrior(PLANE, np.ones((3, 2)), 1.0)),
    (SHAPE, "correlation_length: .* or 2 of them, .*, found 3", lambda: MaternPrior(PLANE, 1.0, (1, 2, 3))),
    (VALUE, "correlation_length: expected a positive number, found -1", lambda: MaternPrior(PLANE, 1.0, -1.0)),
    (VALUE, "length: expected 1e-12 to 1e\\+12 times the spacing, found 1e\\+200", lambda: MaternPrior(2, 1.0, 1e200)),
    (
        VALUE,
        "length: expected .* times the spacing, found 1 at spacing 1e\\+20",
        lambda: MaternPrior(2, 1.0, 1.0, 1e20),
    ),
    (NOT_FINITE, "spacing: expected a finite number, found inf", lambda: MaternPrior(PLANE, 1.0, 1.0, np.inf)),
    (TYPE, "precision: expected a SciPy sparse matrix, found ndarray", lambda: SparsePrecisionPrior(np.eye(2))),
    (SHAPE, r"precision: expected shape \(Nm, Nm\), found \(2, 3\)", lambda: SparsePrecisionPrior(csc(np.eye(2, 3)))),
    (TYPE, "precision: expected real numbers, found dtype complex", lambda: SparsePrecisionPrior(csc(1j * np.eye(2)))),
    (
        NOT_FINITE,
        "precision: expected finite numbers, found nan",
        lambda: SparsePrecisionPrior(csc(np.eye(2) * np.nan)),
    ),
    (
        NOT_POSITIVE,
        "precision: expected positive values on the diagonal, found 0.0 at row 1",
        lambda: SparsePrecisionPrior(csc(np.diag([1.0, 0.0]))),
    ),
    (NOT_POSITIVE, "precision: expected a symmetric matrix, found .* at ", lambda: SparsePrecisionPrior(csc(SKEW))),
    (
        NOT_POSITIVE,
        "prior: deviation: expected positive numbers, found 0.0",
        lambda: SparsePrecisionPrior(csc(np.eye(2)), 0.0),
    ),
    (TYPE, "callable prior: covariance: expected a function, found None", lambda: CallablePrior(2, None)),
    (TYPE, "callable prior: solve: expected a function, found 1.0", lambda: CallablePrior(2, times(ROOT), solve=1.0)),
    (SHAPE, "callable prior: size: expected a positive integer, found 0", lambda: CallablePrior(0, times(ROOT))),
    (SHAPE, "root_size: expected a positive integer, found -1", lambda: CallablePrior(2, times(ROOT), root_size=-1)),
    (
        SHAPE,
        "log_determinant: expected one number, found",
        lambda: CallablePrior(2, times(ROOT), log_determinant=[1.0]),
    ),
    (
        NOT_FINITE,
        "log_determinant: expected finite numbers",
        lambda: CallablePrior(2, times(ROOT), log_determinant=np.inf),
    ),
    (VALUE, "tolerance: expected a positive number, found 0", lambda: CallablePrior(2, times(ROOT), tolerance=0)),
    (VALUE, "AR1: coefficient: expected a number between -1 and 1, found 1.0", lambda: AR1(1.0)),
    (VALUE, "AR1: coefficient: expected .*, found nan", lambda: AR1(np.nan)),
    (VALUE, "AR1: coefficient: expected .*, found '0.5'", lambda: AR1("0.5")),
    (NOT_POSITIVE, "that is not zero, found 0.0 of source 1", lambda: ImpulseResponse([[1.0], [0.0]])),
    (NOT_POSITIVE, "that is not zero, found 0.0; a delay", lambda: ImpulseResponse([0.0, 1.0])),
    (SHAPE, r"impulse response: expected shape .*, found \(0,\)", lambda: ImpulseResponse([])),
    (NOT_FINITE, "response: expected finite numbers, found nan at index 1", lambda: ImpulseResponse([1.0, np.nan])),
]


@pytest.mark.parametrize(("kind", "message", "make"), BAD, ids=[message for _, message, _ in BAD])
def test_bad_values(kind: type[Exception], message: str, make: Callable[[], Any]) -> None:
    with pytest.raises(kind, match=message):
        make()


def test_a_prior_is_a_constant() -> None:
    given = DEVIATIONS.copy()
    prior = DiagonalPrior(given)
    given[:] = 1.0
    np.testing.assert_array_equal(prior.deviations, DEVIATIONS)
    with pytest.raises(ValueError, match="read-only"):
        prior.deviations[0] = 1.0
    with pytest.raises(AttributeError):
        prior.size = 3
