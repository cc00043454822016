"""Matern fields on regular grids, by a squared elliptic operator that cosine transforms diagonalise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..arguments import positive_int
from ..backends import Backend
from ..errors import ArgumentError, ShapeError
from .checks import per_axis, positive, positive_factor
from .prior import BoundPrior, Host, Prior

MOST_AXES = 3
# Of a longer correlation, the square of the largest eigenvalue is far beyond the reach of double precision.
MOST_CELLS = 1e12


@dataclass(frozen=True, eq=False)
class MaternPrior(Prior):
    """A Matern field on a regular grid of 1, 2 or 3 axes, with reflecting (Neumann) edges.

    The field u solves ``(delta - sum_i gamma_i d^2/dx_i^2) u = W`` with white noise W: ``Gamma = A^-2``, where A is
    that operator by second differences between cell centres. On d axes, without edges, u is a Matern field [1]_ [2]_
    of smoothness ``nu = 2 - d/2`` (1.5, 1 and 0.5), which this class keeps. With ``kappa_i = sqrt(8 nu) /
    correlation_length_i`` and no unit of the field,

    - ``gamma_i = delta / kappa_i^2``;
    - ``delta = sqrt(Gamma(nu) (4 pi)^(-d/2) prod_i kappa_i) / deviation``, with the gamma function at nu.

    The correlation of two points at distance r along axis i is ``2^(1 - nu) / Gamma(nu) (kappa_i r)^nu K_nu(kappa_i
    r)``, which is 0.14 at the correlation length for d = 2. `coefficients` returns gamma and delta.

    Parameters
    ----------
    shape : tuple of int
        Number of cells along each axis. Source m of the prior is the cell ``numpy.unravel_index(m, shape)``.
    deviation : float or array_like
        The standard deviation of the field: one number, or one for each cell, of `shape` or flat.
    correlation_length : float or tuple of float
        The correlation length, in the unit of `spacing`: one number, or one for each axis.
    spacing : float or tuple of float
        Distance between neighbouring cell centres: one number, or one for each axis.
    uniform_variance : bool
        Reflecting edges raise the variance of u within about a correlation length, by a factor of up to 2 for each
        edge, and a coarse grid changes it everywhere. With True, the default, u is divided by its exact deviation at
        each cell, so `deviation` holds everywhere; correlations stay those of u. With False `deviation` is that of u
        without edges on a fine grid. `BoundPrior.variances` is exact in both cases.
    mean, time
        As for `Prior`.

    Raises
    ------
    ShapeError, NotPositiveDefiniteError, NonFiniteError, ArgumentError, ArgumentTypeError
        An argument is outside its domain.

    References
    ----------
    .. [1] F. Lindgren, H. Rue, J. Lindstrom, "An explicit link between Gaussian fields and Gaussian Markov random
       fields: the stochastic partial differential equation approach", J. R. Stat. Soc. B 73, 423-498 (2011).
    .. [2] T. Bui-Thanh, O. Ghattas, J. Martin, G. Stadler, "A computational framework for infinite-dimensional
       Bayesian inverse problems, part I", SIAM J. Sci. Comput. 35, A2494-A2523 (2013); A. M. Stuart, "Inverse
       problems: a Bayesian perspective", Acta Numerica 19, 451-559 (2010).

    Examples
    --------
    >>> import numba_fftmatvec as fft
    >>> from numba_fftmatvec.inversion import MaternPrior
    >>> prior = MaternPrior((8, 5), deviation=0.3, correlation_length=20.0, spacing=(10.0, 5.0))
    >>> prior.size, prior.smoothness
    (40, 1.0)
    >>> prior.bind(fft.Comm(backend="cpu").backend).variances()[:3].round(12)
    array([0.09, 0.09, 0.09])
    """

    shape: tuple[int, ...]
    deviation: float | npt.ArrayLike
    correlation_length: float | tuple[float, ...]
    spacing: float | tuple[float, ...] = 1.0
    uniform_variance: bool = True

    def __post_init__(self) -> None:
        """Check the arguments."""
        shape = (self.shape,) if np.ndim(self.shape) == 0 else tuple(self.shape)
        shape = tuple(positive_int(cells, "Matern prior: shape") for cells in shape)
        if not 1 <= (axes := len(shape)) <= MOST_AXES:
            raise ShapeError(f"Matern prior: shape: expected 1 to {MOST_AXES} axes, found {axes}")
        deviation = positive(self.deviation, "Matern prior: deviation", [0, 1, axes])
        if deviation.shape not in ((), (math.prod(shape),), shape):
            raise ShapeError(f"Matern prior: deviation: expected one number or shape {shape}, found {deviation.shape}")
        lengths = per_axis(self.correlation_length, axes, "Matern prior: correlation_length")
        checked = {
            "size": math.prod(shape),
            "shape": shape,
            "deviation": deviation.reshape(shape) if deviation.ndim else float(deviation),
            "correlation_length": lengths,
            "spacing": per_axis(self.spacing, axes, "Matern prior: spacing"),
            "uniform_variance": bool(self.uniform_variance),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        for length, spacing in zip(lengths, self.cells, strict=True):
            if not MOST_CELLS**-1 <= length / spacing <= MOST_CELLS:
                raise ArgumentError(
                    f"Matern prior: correlation_length: expected {1 / MOST_CELLS:g} to {MOST_CELLS:g} times the "
                    f"spacing, found {length:g} at spacing {spacing:g}"
                )
        super().__post_init__()

    @property
    def smoothness(self) -> float:
        """The smoothness nu of the Matern field, ``2 - d/2``."""
        return 2 - len(self.shape) / 2

    @property
    def kappa(self) -> tuple[float, ...]:
        """The inverse range of each axis, ``sqrt(8 nu) / correlation_length``."""
        lengths = per_axis(self.correlation_length, len(self.shape), "correlation_length")
        return tuple(math.sqrt(8 * self.smoothness) / length for length in lengths)

    @property
    def cells(self) -> tuple[float, ...]:
        """The spacing of each axis."""
        return per_axis(self.spacing, len(self.shape), "spacing")

    @property
    def coefficients(self) -> tuple[tuple[float, ...], float | Host]:
        """The coefficients gamma of each axis and delta of the elliptic operator, for one deviation.

        With a deviation for each cell, delta has one value for each cell, which divides the field of delta = 1.
        """
        constant = math.gamma(self.smoothness) * (4 * math.pi) ** (-len(self.shape) / 2) * math.prod(self.kappa)
        delta = math.sqrt(constant) / np.asarray(self.deviation)
        gamma = tuple(1 / k**2 for k in self.kappa)
        return (gamma, delta) if delta.ndim else (tuple(float(delta) * g for g in gamma), float(delta))

    def bind(self, backend: Backend) -> BoundPrior:
        """Return the spatial covariance on a backend, with the eigenvalues of the elliptic operator."""
        return MaternCovariance(backend, self)

    def scaled(self, factor: float) -> Self:
        """Return the prior with another deviation."""
        factor = positive_factor(factor, "prior: factor")
        deviation = np.asarray(self.deviation) * factor
        return replace(self, deviation=deviation if deviation.ndim else float(deviation))


class MaternCovariance(BoundPrior):
    """The covariance ``D A^-2 D`` of a Matern field on a backend, with a diagonal D and ``A = V diag(a) V^T``.

    V is the orthonormal cosine transform, and A is the elliptic operator of delta = 1. The root is ``C = D V
    diag(1/a)``, which needs one transform; the symmetric root ``D A^-1`` would need two.
    """

    def __init__(self, backend: Backend, prior: MaternPrior) -> None:
        super().__init__(backend, prior.size)
        self._shape = prior.shape
        self._axes = tuple(range(1, len(prior.shape) + 1))
        eigenvalues = _eigenvalues(prior)
        with backend.calling_thread, backend.active():
            self._inverse = backend.arrays.numpy.asarray(1 / eigenvalues)
            if prior.uniform_variance:
                deviation = np.sqrt(backend.download(_variances(backend.arrays, self._inverse)))
            else:
                cells = math.prod(k * h for k, h in zip(prior.kappa, prior.cells, strict=True))
                constant = math.gamma(prior.smoothness) * (4 * math.pi) ** (-len(prior.shape) / 2)
                deviation = np.full(prior.shape, math.sqrt(constant * cells))
            self._host: Host = np.asarray(prior.deviation) / deviation
            self._scale = backend.arrays.numpy.asarray(self._host)
        self._log_determinant = 2 * (math.fsum(np.log(self._host.ravel())) - math.fsum(np.log(eigenvalues.ravel())))

    def variances(self) -> Host:
        """Return the variances, from the squares of the cosines."""
        with self.backend.calling_thread, self.backend.active():
            field = self.backend.download(_variances(self.backend.arrays, self._inverse))
        variances: Host = (self._host**2 * field).ravel()
        return variances

    def log_determinant(self) -> float:
        """Return the logarithm of the determinant, from the eigenvalues."""
        return self._log_determinant

    def _root(self, values: Any) -> Any:
        field = self._inverse_transform(self._inverse * self._field(values))
        field *= self._scale
        return self._flat(field)

    def _root_adjoint(self, values: Any) -> Any:
        spectrum = self._transform(self._scale * self._field(values))
        spectrum *= self._inverse
        return self._flat(spectrum)

    def _solve(self, values: Any) -> Any:
        spectrum = self._transform(self._field(values) / self._scale)
        spectrum /= self._inverse**2
        field = self._inverse_transform(spectrum)
        field /= self._scale
        return self._flat(field)

    def _field(self, values: Any) -> Any:
        return values.reshape(-1, *self._shape)

    def _flat(self, field: Any) -> Any:
        return field.reshape(-1, self.size)

    def _transform(self, field: Any) -> Any:
        """Return the cosine transform of a temporary array, of which the memory may be reused."""
        return self.backend.arrays.fft.dctn(field, type=2, axes=self._axes, norm="ortho", overwrite_x=True)

    def _inverse_transform(self, field: Any) -> Any:
        """Return the inverse transform of a temporary array, of which the memory may be reused."""
        return self.backend.arrays.fft.idctn(field, type=2, axes=self._axes, norm="ortho", overwrite_x=True)


def _eigenvalues(prior: MaternPrior) -> Host:
    """Return the eigenvalues of the elliptic operator with delta = 1, in the order of the cosine transform."""
    total = np.ones(prior.shape)
    for axis, (cells, kappa, spacing) in enumerate(zip(prior.shape, prior.kappa, prior.cells, strict=True)):
        differences = 2 * np.sin(np.pi * np.arange(cells) / (2 * cells)) / (kappa * spacing)
        total += np.expand_dims(differences**2, [i for i in range(len(prior.shape)) if i != axis])
    return total


def _variances(arrays: Any, inverse: Any) -> Any:
    """Return the diagonal of ``V diag(inverse^2) V^T``, axis by axis.

    The squares of the cosines are ``(1 + cos(pi 2k (2x + 1) / 2n)) / 2``. The doubled frequencies above n are folded
    back with the opposite sign, since ``cos(pi (2n - j) (2x + 1) / 2n) = -cos(pi j (2x + 1) / 2n)``.
    """
    xp, found = arrays.numpy, inverse**2
    for axis, n in enumerate(inverse.shape):
        weighted = xp.moveaxis(found, axis, -1) * (2 / n)
        weighted[..., 0] /= 2
        half = (n + 1) // 2
        folded = xp.zeros_like(weighted)
        folded[..., 0 : 2 * half : 2] += weighted[..., :half]
        above = n // 2 + 1
        folded[..., 2 * (n - above) :: -2][..., : n - above] -= weighted[..., above:]
        folded[..., 1:] /= 2
        total = weighted.sum(axis=-1, keepdims=True)
        found = xp.moveaxis((total + arrays.fft.dct(folded, type=3, axis=-1)) / 2, -1, axis)
    return found
