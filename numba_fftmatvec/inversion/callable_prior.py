"""Gaussian fields given by a user's functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np

from ..arguments import positive_int
from ..backends import Backend
from ..errors import ArgumentError, ArgumentTypeError, NonFiniteError, NotPositiveDefiniteError, ShapeError
from .checks import frozen, positive, positive_factor
from .prior import BoundPrior, Host, Prior

Function = Callable[[Any], Any]
PROBES = 8


@dataclass(frozen=True, eq=False)
class CallablePrior(Prior):
    """A Gaussian field of which functions apply the spatial covariance Gamma, its root C and its inverse.

    The functions take arrays of the backend's library of shape (rows, Nm), or (rows, root_size) for `root`, and return
    arrays of shape (rows, Nm), or (rows, root_size) for `root_adjoint`. They leave their arguments as they are. `bind`
    tests them on the backend's arrays, with random vectors: linearity, symmetry, positivity, and that root and inverse
    belong to the covariance. A call that needs a function that is missing raises an ArgumentError with its name.

    Parameters
    ----------
    size : int
        Number of sources Nm.
    covariance : callable
        Returns ``Gamma x`` of each row x.
    root, root_adjoint : callable, optional
        Return ``C z`` and ``C^T x``, with ``Gamma = C C^T``. Samples need `root`, inversions both.
    solve : callable, optional
        Returns ``Gamma^-1 x``. Precisions need it.
    root_size : int, optional
        Number of columns of C, by default Nm.
    log_determinant : float, optional
        The logarithm of the determinant of Gamma.
    deviation : float
        A factor of the field, 1 by default: covariance and determinant are those of `deviation` 1.
    tolerance : float
        The largest relative error of the tests; larger than the error of the functions' arithmetic.
    mean, time
        As for `Prior`.

    Raises
    ------
    ArgumentTypeError, ShapeError, ArgumentError, NonFiniteError
        An argument is outside its domain; in `bind`, the functions are not linear, return other shapes or values that
        are not finite, or do not belong together.
    NotPositiveDefiniteError
        In `bind`: the covariance is not symmetric or not positive.

    Examples
    --------
    >>> import numba_fftmatvec as fft
    >>> from numba_fftmatvec.inversion import CallablePrior
    >>> prior = CallablePrior(3, covariance=lambda x: 4 * x, root=lambda z: 2 * z, root_adjoint=lambda x: 2 * x)
    >>> bound = prior.bind(fft.Comm(backend="cpu").backend)
    >>> bound.variances()
    array([4., 4., 4.])
    >>> bound.solve(np.ones(3))
    Traceback (most recent call last):
    ...
    numba_fftmatvec.errors.ArgumentError: callable prior: expected the function `solve`, found None
    """

    size: int
    covariance: Function
    root: Function | None = None
    root_adjoint: Function | None = None
    solve: Function | None = None
    root_size: int | None = None
    log_determinant: float | None = None
    deviation: float = 1.0
    tolerance: float = 1e-8

    def __post_init__(self) -> None:
        """Check the arguments other than the functions' results."""
        object.__setattr__(self, "size", positive_int(self.size, "callable prior: size"))
        columns = self.size if self.root_size is None else self.root_size
        object.__setattr__(self, "root_size", positive_int(columns, "callable prior: root_size"))
        for name in ("covariance", "root", "root_adjoint", "solve"):
            function = getattr(self, name)
            if not callable(function) and (function is not None or name == "covariance"):
                raise ArgumentTypeError(f"callable prior: {name}: expected a function, found {function!r}")
        if self.log_determinant is not None:
            object.__setattr__(
                self, "log_determinant", _number(self.log_determinant, "callable prior: log_determinant")
            )
        object.__setattr__(self, "deviation", float(positive(self.deviation, "callable prior: deviation", [0])))
        object.__setattr__(self, "tolerance", positive_factor(self.tolerance, "callable prior: tolerance"))
        super().__post_init__()

    def bind(self, backend: Backend) -> BoundPrior:
        """Return the spatial covariance on a backend, after tests of the functions on its arrays."""
        bound = CallableCovariance(backend, self)
        with backend.calling_thread, backend.active():
            bound.check()
        return bound

    def scaled(self, factor: float) -> Self:
        """Return the prior with another factor of the field."""
        return replace(self, deviation=self.deviation * positive_factor(factor, "callable prior: factor"))


class Probe(NamedTuple):
    """Random rows and a function's results for them, on the host."""

    rows: Host
    results: Host


class CallableCovariance(BoundPrior):
    """The covariance of a user's functions on a backend, multiplied by the square of the prior's deviation."""

    def __init__(self, backend: Backend, prior: CallablePrior) -> None:
        super().__init__(backend, prior.size, prior.root_size)
        self._prior = prior

    def log_determinant(self) -> float:
        """Return the logarithm of the determinant that the user gave."""
        if self._prior.log_determinant is None:
            raise ArgumentError("callable prior: expected the number `log_determinant`, found None")
        return 2 * self.size * math.log(self._prior.deviation) + self._prior.log_determinant

    def check(self) -> None:
        """Test the functions with random rows, the same ones on every rank; raise an error by name."""
        tolerance = self._prior.tolerance
        covariance = self._probe("covariance", self.size)
        norm = _norms(covariance.results).max() / _norms(covariance.rows).min()
        _check_positive(covariance, tolerance)
        if self._prior.root is not None and self._prior.root_adjoint is not None:
            adjoint = self._probe("root_adjoint", self.root_size)
            gram = adjoint.results @ adjoint.results.T
            _check_equal(
                gram, covariance.rows @ covariance.results.T, tolerance, "root_adjoint: |C^T x|^2", "x^T Gamma x"
            )
            back = self._rows("root", adjoint.results, self.size)
            _check_equal(back, covariance.results, tolerance, "root: C C^T x", "Gamma x")
        if self._prior.solve is not None:
            solved = self._probe("solve", self.size)
            back = self._rows("covariance", solved.results, self.size)
            size = 1 + norm * _norms(solved.results).max()
            _check_equal(back, solved.rows, tolerance * size, "solve: Gamma Gamma^-1 x", "x")

    def _probe(self, name: str, columns: int) -> Probe:
        """Apply a function to random rows and to their sum, and check that the results add up."""
        rows = np.random.default_rng(0).standard_normal((min(PROBES, self.size), self.size))
        results = self._rows(name, np.vstack([rows, rows.sum(axis=0)]), columns)
        _check_equal(results[-1], results[:-1].sum(axis=0), self._prior.tolerance, f"{name}: f(x + y)", "f(x) + f(y)")
        return Probe(rows, results[:-1])

    def _rows(self, name: str, rows: Host, columns: int) -> Host:
        """Return a function's results for rows of the host, after a check of their shape and values."""
        results = getattr(self._prior, name)(self.backend.arrays.numpy.asarray(rows))
        if tuple(getattr(results, "shape", ())) != (len(rows), columns):
            found = getattr(results, "shape", type(results).__name__)
            raise ShapeError(f"callable prior: {name}: expected results of shape {(len(rows), columns)}, found {found}")
        host = np.asarray(self.backend.download(results), np.float64)
        if not np.isfinite(host).all():
            raise NonFiniteError(f"callable prior: {name}: expected finite results, found NaN or infinity")
        return host

    def _apply(self, name: str, values: Any) -> Any:
        function = getattr(self._prior, name)
        if function is None:
            raise ArgumentError(f"callable prior: expected the function `{name}`, found None")
        return function(values)

    def _root(self, values: Any) -> Any:
        return self._prior.deviation * self._apply("root", values)

    def _root_adjoint(self, values: Any) -> Any:
        return self._prior.deviation * self._apply("root_adjoint", values)

    def _covariance(self, values: Any) -> Any:
        return self._prior.deviation**2 * self._apply("covariance", values)

    def _solve(self, values: Any) -> Any:
        return self._apply("solve", values) / self._prior.deviation**2

    def _diagonal(self, units: Any, start: int) -> Host:
        """Return the variances of some sources, by one product with the covariance for each."""
        return self.backend.download(self.backend.arrays.numpy.diagonal(self._covariance(units), start))


def _number(value: Any, what: str) -> float:
    """Return a finite number; an error names `what`."""
    number = frozen(value, what)
    if number.ndim:
        raise ShapeError(f"{what}: expected one number, found shape {number.shape}")
    return float(number)


def _norms(rows: Host) -> Host:
    """Return the 2-norms of the rows."""
    return np.asarray(np.linalg.norm(rows, axis=-1))


def _check_positive(probe: Probe, tolerance: float) -> None:
    """Check that ``x^T Gamma y`` is symmetric, and that the matrix of these numbers of all probes is positive."""
    gram = probe.rows @ probe.results.T
    bounds = tolerance * np.outer(_norms(probe.rows), _norms(probe.results))
    wrong = np.abs(gram - gram.T) - bounds - bounds.T
    x, y = (int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
    if wrong[x, y] > 0:
        raise NotPositiveDefiniteError(
            "callable prior: covariance: expected a symmetric map, "
            f"found x^T Gamma y = {gram[x, y]:.17g} and y^T Gamma x = {gram[y, x]:.17g}"
        )
    smallest = float(np.linalg.eigvalsh((gram + gram.T) / 2).min())
    if smallest < -bounds.max() or not (np.diag(gram) > 0).all():
        found = min(smallest, float(np.diag(gram).min()))
        raise NotPositiveDefiniteError(
            f"callable prior: covariance: expected a positive map, found x^T Gamma x = {found:.6g} for a vector x"
        )


def _check_equal(found: Host, expected: Host, tolerance: float, left: str, right: str) -> None:
    """Check that two sets of results are equal, relative to the largest one."""
    size = np.abs(expected).max()
    error = np.abs(found - expected).max()
    if error > tolerance * size:
        raise ArgumentError(
            f"callable prior: {left}: expected {right} to {tolerance:.2g}, found a relative difference of "
            f"{error / size if size else math.inf:.2g}"
        )
