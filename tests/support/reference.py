"""Dense references that share nothing with the package: direct sums in time, no transform, extended precision.

Arrays are global: a matrix is its first block column ``(Nd, Nm, Nt)``, a vector in parameter space ``(Nm, Nt)`` and one
in data space ``(Nd, Nt)``, all of them space outer, time inner.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Flags(NamedTuple):
    """The method of a matrix for a product, and the spaces of its operand and result."""

    method: str
    use_aux_mat: bool
    full: bool
    source: str
    target: str


PRODUCTS = {
    "F": Flags("matvec", False, False, "col", "row"),
    "F*": Flags("transpose_matvec", False, False, "row", "col"),
    "G": Flags("matvec", True, False, "col", "row"),
    "G*": Flags("transpose_matvec", True, False, "row", "col"),
    "F*F": Flags("matvec", False, True, "col", "col"),
    "FF*": Flags("transpose_matvec", False, True, "row", "row"),
    "G*F": Flags("matvec", True, True, "col", "col"),
    "FG*": Flags("transpose_matvec", True, True, "row", "row"),
}

# The factors of each product in the order in which they are applied: right to left in its name.
FACTORS = {
    "F": ("F",),
    "F*": ("F*",),
    "G": ("G",),
    "G*": ("G*",),
    "F*F": ("F", "F*"),
    "FF*": ("F*", "F"),
    "G*F": ("F", "G*"),
    "FG*": ("G*", "F"),
}


def apply(matrix: Array, x: Array) -> Array:
    """Return ``y[d, t] = sum_m sum_(s <= t) F[d, m, t - s] x[m, s]`` as float64, summed in long double."""
    Nd, _, Nt = matrix.shape
    blocks, operand = matrix.astype(np.longdouble), x.astype(np.longdouble)
    y = np.zeros((Nd, Nt), dtype=np.longdouble)
    for lag in range(Nt):
        y[:, lag:] += np.einsum("dm,mt->dt", blocks[:, :, lag], operand[:, : Nt - lag])
    return y.astype(np.float64)


def apply_adjoint(matrix: Array, y: Array) -> Array:
    """Return ``x[m, t] = sum_d sum_(s >= t) F[d, m, s - t] y[d, s]`` as float64, summed in long double."""
    _, Nm, Nt = matrix.shape
    blocks, operand = matrix.astype(np.longdouble), y.astype(np.longdouble)
    x = np.zeros((Nm, Nt), dtype=np.longdouble)
    for lag in range(Nt):
        x[:, : Nt - lag] += np.einsum("dm,dt->mt", blocks[:, :, lag], operand[:, lag:])
    return x.astype(np.float64)


def product(name: str, F: Array, G: Array, operand: Array) -> Array:
    """Return the product `name` (a key of PRODUCTS) of the matrices F and G applied to `operand`."""
    for factor in FACTORS[name]:
        matrix = {"F": F, "G": G}[factor[0]]
        operand = (apply_adjoint if factor.endswith("*") else apply)(matrix, operand)
    return operand


def gains(matrix: Array) -> Array:
    """Return ``||F_hat_rc||_inf`` of every block, (Nd, Nm): the largest magnitude of its transform of length 2 Nt."""
    Nt = matrix.shape[2]
    return np.asarray(np.abs(np.fft.rfft(matrix, 2 * Nt, axis=2)).max(axis=2))


def error_bound(name: str, F: Array, G: Array, operand: Array, unit_roundoff: float) -> float:
    """Return a bound of the 2-norm of the error of a computed product.

    With L = 2 Nt, block row r of one pass is ``y_r = IFFT(sum_c F_hat_rc X_c)``, where F_hat is unnormalised,
    X_c = FFT(x_c) and the inverse carries 1/L. By Parseval ``||X_c|| = sqrt(L) ||x_c||`` and ``||IFFT(Z)|| =
    ||Z|| / sqrt(L)``, so each term contributes at most ``||F_hat_rc||_inf ||x_c||`` to y_r, and

        S = || sum_c ||F_hat_rc||_inf ||x_c||_2 ||_2        (the outer norm over r)

    bounds the result without cancellation. A transform of length L has a relative error of at most about u log2 L in
    the 2-norm (Higham, Accuracy and Stability of Numerical Algorithms, theorem 24.2, with accurate twiddles). The
    transforms of x and of Z give 2 u log2 L; the spectrum, itself transformed and rounded once, the complex
    products and their sum, and the roundings at the stages' edges are taken as one u for each transform: in all

        ||err||_2 <= 2 u (1 + log2 L) S

    to first order in u, where u is that of the least precise stage: every stage's error then is below it. Sums over
    c grow like their square root on average, which offsets the cancellation that S ignores.

    A second pass amplifies the first one's error by at most the 2-norm of the matrix of its gains, and adds its own.

    Parameters
    ----------
    name : str
        A key of PRODUCTS.
    F, G : array
        Matrix and auxiliary matrix, (Nd, Nm, Nt).
    operand : array
        The exact operand.
    unit_roundoff : float
        2^-53, or 2^-24 if any stage is single.
    """
    growth = 2 * unit_roundoff * (1 + math.log2(2 * F.shape[2]))
    error = 0.0
    for factor in FACTORS[name]:
        gain = gains({"F": F, "G": G}[factor[0]])
        gain = gain.T if factor.endswith("*") else gain
        own = growth * np.linalg.norm(gain @ np.linalg.norm(operand, axis=1))
        error = float(np.linalg.norm(gain, 2) * error + own)
        operand = product(factor, F, G, operand)
    return error


# Of a fixed-point spectrum: half a step of each part, relative to the largest value that shares its scale.
ROUNDOFFS = {"d": 2.0**-53, "s": 2.0**-24, "i": 2.0**-31, "h": 2.0**-15}


def roundoff(code: str) -> float:
    """Return the unit roundoff of the least precise stage of a precision code."""
    return max(ROUNDOFFS[letter] for letter in code)


def hashed_doubles(shape: tuple[int, ...]) -> Array:
    """Return the deterministic doubles in [1, 2) of the elements 0, 1, 2, ... of an array of that shape.

    The finaliser of splitmix64 (Steele, Lea and Flood 2014; the constants are Stafford's mix 13) gives the mantissa.
    """
    return _hashed(np.arange(math.prod(shape), dtype=np.uint64)).reshape(shape)


def padded_doubles(shape: tuple[int, ...]) -> Array:
    """Return the doubles of the elements' indices in an array with a last axis of twice the length."""
    return hashed_doubles((*shape[:-1], 2 * shape[-1]))[..., : shape[-1]]


def _hashed(z: Array) -> Array:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    bits = np.uint64(0x3FF << 52 | 1 << 24) | (z & np.uint64((1 << 52) - 1))
    return bits.view(np.float64)
