"""Gaussian priors of a source, and the white and the diagonal prior."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..arguments import positive_int
from ..backends import Backend
from ..comm import Comm
from ..errors import ArgumentTypeError, NotPositiveDefiniteError, ShapeError
from ..layout import Space, VectorLayout
from ..operators import CausalFilter, LinearOperator
from ..vector.data import checked_layout
from .checks import fingerprint, frozen, positive, positive_factor
from .filters import TimeFilter
from .spatial import SpatialOperator, diagonal_operator

Host = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Prior(ABC):
    """The Gaussian prior of a source m of shape (Nm, Nt): ``m = mean + filter o w``.

    The innovations w are independent between time steps, with one spatial covariance Gamma of shape (Nm, Nm). They are
    zero after the active steps, as those of a rupture that ends. The filter is a causal convolution in time. A prior is
    a value: it depends on no process grid and on no device. `bind` returns Gamma on a backend, where it can be applied,
    solved with and sampled.

    Attributes
    ----------
    size : int
        Number of sources Nm.

    Parameters
    ----------
    mean : array_like, optional
        The mean of m, of shape (Nm,) or (Nm, Nt); zero by default.
    time : TimeFilter, optional
        The correlation in time; by default the time steps are independent.
    active_steps : int, optional
        Number of time steps, from the first, with innovations; by default all.

    Raises
    ------
    ShapeError
        The mean or the filter has another number of sources than the prior.
    NonFiniteError, ArgumentTypeError
        The mean is not of finite real numbers, or `time` is no TimeFilter.
    """

    size: int = field(init=False)
    mean: npt.ArrayLike | None = field(default=None, kw_only=True)
    time: TimeFilter | None = field(default=None, kw_only=True)
    active_steps: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Check the mean and the filter against the size."""
        if self.mean is not None:
            mean = frozen(self.mean, "prior: mean")
            if mean.ndim not in (1, 2) or len(mean) != self.size:
                raise ShapeError(f"prior: mean: expected shape ({self.size},) or ({self.size}, Nt), found {mean.shape}")
            object.__setattr__(self, "mean", mean)
        if self.time is not None and not isinstance(self.time, TimeFilter):
            raise ArgumentTypeError(f"prior: time: expected a TimeFilter, found {type(self.time).__name__}")
        if self.time is not None and self.time.sources not in (None, self.size):
            raise ShapeError(f"prior: time: expected {self.size} impulse responses, found {self.time.sources}")
        if self.active_steps is not None:
            steps = positive_int(self.active_steps, "prior: active_steps")
            object.__setattr__(self, "active_steps", steps)

    def active(self, Nt: int) -> int:
        """Return the number of the first Nt time steps that have innovations."""
        return Nt if self.active_steps is None else min(self.active_steps, Nt)

    @abstractmethod
    def bind(self, backend: Backend) -> BoundPrior:
        """Return the spatial covariance on a backend. It factorises what must be factorised."""

    @abstractmethod
    def scaled(self, factor: float) -> Self:
        """Return the prior with all deviations multiplied by a positive factor; the mean stays."""

    def check(self, Nm: int, Nt: int) -> None:
        """Raise a ShapeError unless the prior, its mean and its filter fit a source of shape (Nm, Nt)."""
        if self.size != Nm:
            raise ShapeError(f"prior: expected {Nm} sources, as the matrix has, found {self.size}")
        shape = np.shape(self.mean) if self.mean is not None else ()
        if len(shape) == 2 and shape[1] != Nt:
            raise ShapeError(f"prior: mean: expected {Nt} time steps, found {shape[1]}")
        if self.time is not None:
            self.time.check(Nt)

    def fingerprint(self) -> str:
        """Return a digest of the prior: equal priors have equal ones. The functions of a user count by their names."""
        return fingerprint(self)

    def source_mean(self, Nt: int) -> Host:
        """Return the mean of the source, of shape (Nm, Nt)."""
        self.check(self.size, Nt)
        mean = np.zeros(self.size) if self.mean is None else np.asarray(self.mean)
        return np.array(np.broadcast_to(mean if mean.ndim == 2 else mean[:, None], (self.size, Nt)))

    def covariance_operator(self, comm: Comm, Nt: int) -> LinearOperator:
        """Return the covariance ``filter Gamma filter*`` of the source as an operator on ``"col"`` vectors. Collective.

        Parameters
        ----------
        comm : Comm
            The process grid of the vectors.
        Nt : int
            Number of time steps.

        Raises
        ------
        ShapeError, GridError
            The prior does not fit Nt steps, or there are fewer sources than ranks to own them.
        NotPositiveDefiniteError
            `bind` finds that Gamma is not positive definite.
        AgreementError
            The ranks have different priors.
        """
        with comm.agreement("creating a prior's covariance", {"prior": self.fingerprint(), "Nt": Nt}):
            layout = self._layout(comm, Nt)
            spatial: LinearOperator = self.bind(comm.backend).operator(comm, layout, inverse=False)
            if (active := self.active(Nt)) < Nt:
                spatial = spatial @ diagonal_operator(comm, layout, (np.arange(Nt) < active).astype(np.float64))
            if self.time is None:
                return spatial
            time = CausalFilter(comm, layout, self.time.impulse_response(Nt))
            return time @ spatial @ time.T

    def precision_operator(self, comm: Comm, Nt: int) -> LinearOperator:
        """Return the inverse of `covariance_operator`, with the inverse of the filter, as an operator. Collective.

        Parameters and errors are those of `covariance_operator`.

        Raises
        ------
        NonFiniteError
            The impulse response of the inverse filter overflows.
        NotPositiveDefiniteError
            The innovations end before the last step, so that the covariance is singular.
        """
        with comm.agreement("creating a prior's precision", {"prior": self.fingerprint(), "Nt": Nt}):
            if (active := self.active(Nt)) < Nt:
                raise NotPositiveDefiniteError(
                    f"prior's precision: expected innovations in all {Nt} time steps, found {active} active steps"
                )
            layout = self._layout(comm, Nt)
            spatial = self.bind(comm.backend).operator(comm, layout, inverse=True)
            if self.time is None:
                return spatial
            time = CausalFilter(comm, layout, self.time.inverse_response(Nt))
            return time.T @ spatial @ time

    def _layout(self, comm: Comm, Nt: int) -> VectorLayout:
        """Return the layout of the source on a process grid."""
        self.check(self.size, Nt)
        return checked_layout(comm, self.size, Nt, Space.COL, True, True, 1)


class BoundPrior(ABC):
    """The spatial covariance Gamma of a prior on one backend, with ``Gamma = C C^T``.

    The methods take and return arrays of the backend's library, of any leading axes, and leave their arguments as they
    are. The last axis has one value for each source; for `root` and for the result of `root_adjoint` it has
    `root_size` values.

    Parameters
    ----------
    backend : Backend
        The backend of the arrays.
    size : int
        Number of sources Nm.
    root_size : int, optional
        Number of columns of C, by default `size`.
    """

    def __init__(self, backend: Backend, size: int, root_size: int | None = None) -> None:
        self.backend = backend
        self.size = size
        self.root_size = size if root_size is None else root_size

    def root(self, values: Any) -> Any:
        """Return ``C values``."""
        return self._on_rows(self._root, values, self.root_size, "prior root")

    def root_adjoint(self, values: Any) -> Any:
        """Return ``C^T values``."""
        return self._on_rows(self._root_adjoint, values, self.size, "prior root_adjoint")

    def covariance(self, values: Any) -> Any:
        """Return ``Gamma values``."""
        return self._on_rows(self._covariance, values, self.size, "prior covariance")

    def solve(self, values: Any) -> Any:
        """Return ``Gamma^-1 values``."""
        return self._on_rows(self._solve, values, self.size, "prior solve")

    def sample(self, rng: np.random.Generator | int, count: int) -> Any:
        """Return `count` samples of N(0, Gamma), of shape (count, size).

        NumPy draws the numbers on the host, so one generator gives the same samples on every backend.
        """
        count = positive_int(count, "prior sample: count")
        draws = np.random.default_rng(rng).standard_normal((count, self.root_size))
        with self.backend.calling_thread, self.backend.active():
            return self.root(self.backend.arrays.numpy.asarray(draws))

    def operator(self, comm: Comm, layout: VectorLayout, *, inverse: bool) -> LinearOperator:
        """Return Gamma or its inverse as an operator on vectors of a layout, the same at each time step. Collective."""
        function, name = (self.solve, "prior precision") if inverse else (self.covariance, "prior covariance")
        return SpatialOperator(comm, layout, function, name)

    def variances(self) -> Host:
        """Return the diagonal of Gamma, of shape (size,), on the host.

        Here it is the squared norms of the rows of C, found by `root_adjoint` of the unit vectors, some at a time.
        """
        xp, found = self.backend.arrays.numpy, np.empty(self.size)
        step = min(self.size, self.backend.arrays.panel_rows)
        with self.backend.calling_thread, self.backend.active():
            for start in range(0, self.size, step):
                units = xp.eye(min(step, self.size - start), self.size, start)
                found[start : start + step] = self._diagonal(units, start)
        return found

    @abstractmethod
    def log_determinant(self) -> float:
        """Return the logarithm of the determinant of Gamma."""

    def _diagonal(self, units: Any, start: int) -> Host:
        """Return the variances of some sources; `units` are their unit vectors, and `start` is the first one."""
        return self.backend.download(self.backend.arrays.numpy.square(self._root_adjoint(units)).sum(axis=-1))

    def _on_rows(self, function: Callable[[Any], Any], values: Any, length: int, what: str) -> Any:
        """Apply a function of (rows, length) arrays to the last axis."""
        shape = tuple(values.shape)
        if not shape or shape[-1] != length:
            raise ShapeError(f"{what}: expected {length} values on the last axis, found shape {shape}")
        with self.backend.calling_thread, self.backend.active():
            result = function(values.reshape(-1, length))
            return result.reshape(*shape[:-1], result.shape[-1])

    @abstractmethod
    def _root(self, values: Any) -> Any:
        """Return ``C values`` of a (rows, root_size) array."""

    @abstractmethod
    def _root_adjoint(self, values: Any) -> Any:
        """Return ``C^T values`` of a (rows, size) array."""

    @abstractmethod
    def _solve(self, values: Any) -> Any:
        """Return ``Gamma^-1 values`` of a (rows, size) array."""

    def _covariance(self, values: Any) -> Any:
        """Return ``Gamma values`` of a (rows, size) array."""
        return self._root(self._root_adjoint(values))


@dataclass(frozen=True, eq=False)
class WhitePrior(Prior):
    """Independent sources of one deviation: ``Gamma = deviation^2 I``.

    Parameters
    ----------
    size : int
        Number of sources Nm.
    deviation : float
        The standard deviation of every source.
    mean, time
        As for `Prior`.

    Raises
    ------
    ShapeError, NotPositiveDefiniteError, NonFiniteError, ArgumentTypeError
        An argument is outside its domain.

    Examples
    --------
    >>> import numba_fftmatvec as fft
    >>> from numba_fftmatvec.inversion import WhitePrior
    >>> prior = WhitePrior(3, deviation=2.0)
    >>> prior.bind(fft.Comm(backend="cpu").backend).covariance(np.array([1.0, 2.0, 3.0]))
    array([ 4.,  8., 12.])
    >>> prior.scaled(0.5).deviation
    1.0
    """

    size: int
    deviation: float

    def __post_init__(self) -> None:
        """Check the arguments."""
        object.__setattr__(self, "size", positive_int(self.size, "prior: size"))
        object.__setattr__(self, "deviation", float(positive(self.deviation, "prior: deviation", [0])))
        super().__post_init__()

    def bind(self, backend: Backend) -> BoundPrior:
        """Return the spatial covariance on a backend."""
        return DiagonalCovariance(backend, np.full(self.size, self.deviation))

    def scaled(self, factor: float) -> Self:
        """Return the prior with another deviation."""
        return replace(self, deviation=self.deviation * positive_factor(factor, "prior: factor"))


@dataclass(frozen=True, eq=False)
class DiagonalPrior(Prior):
    """Independent sources, each with its deviation: ``Gamma = diag(deviations^2)``.

    Parameters
    ----------
    deviations : array_like
        The standard deviations of the sources, of shape (Nm,).
    mean, time
        As for `Prior`.

    Raises
    ------
    ShapeError, NotPositiveDefiniteError, NonFiniteError, ArgumentTypeError
        An argument is outside its domain; the message has the index of the first such deviation.

    Examples
    --------
    >>> from numba_fftmatvec.inversion import DiagonalPrior
    >>> DiagonalPrior([1.0, 0.0])
    Traceback (most recent call last):
    ...
    numba_fftmatvec.errors.NotPositiveDefiniteError: prior: deviations: expected positive numbers, found 0.0 at index 1
    """

    deviations: npt.ArrayLike

    def __post_init__(self) -> None:
        """Check the arguments."""
        deviations = positive(self.deviations, "prior: deviations", [1])
        object.__setattr__(self, "deviations", deviations)
        object.__setattr__(self, "size", len(deviations))
        super().__post_init__()

    def bind(self, backend: Backend) -> BoundPrior:
        """Return the spatial covariance on a backend."""
        return DiagonalCovariance(backend, np.asarray(self.deviations))

    def scaled(self, factor: float) -> Self:
        """Return the prior with other deviations."""
        return replace(self, deviations=np.asarray(self.deviations) * positive_factor(factor, "prior: factor"))


class DiagonalCovariance(BoundPrior):
    """A diagonal covariance on a backend: ``C = diag(deviations)``."""

    def __init__(self, backend: Backend, deviations: Host) -> None:
        super().__init__(backend, len(deviations))
        self._host = deviations
        with backend.calling_thread, backend.active():
            self._deviations = backend.arrays.numpy.asarray(deviations)

    def operator(self, comm: Comm, layout: VectorLayout, *, inverse: bool) -> LinearOperator:
        """Return Gamma or its inverse as a diagonal operator, which needs no messages."""
        variances = self.variances()[:, None]
        return diagonal_operator(comm, layout, 1 / variances if inverse else variances)

    def variances(self) -> Host:
        """Return the squares of the deviations."""
        return np.square(self._host)

    def log_determinant(self) -> float:
        """Return the sum of the logarithms of the variances."""
        return 2 * math.fsum(np.log(self._host))

    def _root(self, values: Any) -> Any:
        return values * self._deviations

    _root_adjoint = _root

    def _covariance(self, values: Any) -> Any:
        return values * self._deviations**2

    def _solve(self, values: Any) -> Any:
        return values / self._deviations**2
