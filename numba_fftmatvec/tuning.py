"""The precision tuner: it measures precision configs on a matrix and returns the fastest within a tolerance."""

from __future__ import annotations

import itertools
import math
import numbers
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from .arguments import natural_int, positive_int
from .comm import Comm
from .errors import ArgumentError, ArgumentTypeError, NonFiniteError, PrecisionError, UninitializedError
from .layout import Space
from .matrix import Matrix
from .plan import time_runs
from .precision import MatvecPrecisionConfig, Precision
from .products import PRODUCTS, Product
from .vector import Vector

# The warm-up lasts until the device's clocks have risen. The runs before each measurement let a GPU record its graph.
_WARM_UP_SECONDS = 0.2
_WARM_UP_RUNS = 3


@dataclass(frozen=True)
class Candidate:
    """One precision config with its measured time, error and memory.

    Parameters
    ----------
    code : str
        The config's five letters.
    seconds : float
        Time of all products together: the sum of their median times, where each run's time is that of the slowest rank.
    error : float
        Largest error of any product, relative to the finest config's result, in the 2-norm.
    spectrum_bytes : int
        Largest number of bytes that any rank stores: the spectrum, plus that of an auxiliary matrix if present.
    """

    code: str
    seconds: float
    error: float
    spectrum_bytes: int

    @property
    def config(self) -> MatvecPrecisionConfig:
        """The config, for `Matrix.with_precision`."""
        return MatvecPrecisionConfig.from_code(self.code)


@dataclass(frozen=True)
class TuningResult:
    """The measurements of `tune`, the same on every rank.

    Parameters
    ----------
    candidates : tuple of Candidate
        All measured candidates, in the order of the codes.
    front : tuple of Candidate
        The Pareto front, the fastest first: no other candidate is both faster and more accurate.
    best : Candidate
        The fastest candidate within the tolerance.
    skipped : mapping
        Codes that could not be measured, with the reasons.
    """

    candidates: tuple[Candidate, ...]
    front: tuple[Candidate, ...]
    best: Candidate
    skipped: Mapping[str, str]


def tune(
    F: Matrix,
    tol: float,
    *,
    products: Sequence[str] = ("F", "F*"),
    codes: Iterable[str] | None = None,
    repetitions: int = 20,
    seed: int = 0,
    num_vecs: int = 1,
) -> TuningResult:
    """Measure the time and error of a matrix's products in many precision configs. Collective.

    Each product is applied to standard normal random values, which are the same on every process grid. An error is the
    distance from the result of the finest config: double in every stage, with the spectrum in the format of `F`. One
    additional spectrum exists at a time, in each format in turn; `F` does not change. All ranks return the same result,
    so a program may branch on it.

    Parameters
    ----------
    F : Matrix
        The initialised matrix.
    tol : float
        The largest relative error that `best` may have, a positive number.
    products : sequence of str
        The products to time: F, F*, F*F and FF*; with an auxiliary matrix also G, G*, G*F and FG*.
    codes : iterable of str, optional
        The candidates' codes. The default is every mixture of double and single precision in the other stages, with
        each format of the spectrum that is no finer than that of `F`. A finer format would add no digits.
    repetitions : int
        Number of timed runs of each product.
    seed : int
        Non-negative seed of the random values.
    num_vecs : int
        Number of right-hand sides of each product.

    Returns
    -------
    TuningResult
        All candidates, the Pareto front and the fastest within the tolerance. A code is skipped if its spectrum or
        buffers do not fit in memory, or if a result overflows.

    Raises
    ------
    ArgumentError
        An argument is outside its domain, or no candidate is within the tolerance. The message then has the smallest
        error. With the default codes the finest config is always within the tolerance.
    PrecisionError
        A code is invalid, or asks for a finer storage format than F has.
    ArgumentTypeError
        `F` is not a Matrix.
    UninitializedError
        `F` has no values, or a product needs an auxiliary matrix that `F` does not have.

    Examples
    --------
    >>> import numba_fftmatvec as fft
    >>> comm = fft.Comm()
    >>> F = fft.Matrix(comm, cols=4, rows=2, block_size=8, global_sizes=True)
    >>> F.init_mat_doubles()
    >>> result = fft.tune(F, tol=1e-5, codes=("ddddd", "dssdd"), repetitions=3)
    >>> [candidate.error <= 1e-5 for candidate in result.candidates]
    [True, True]
    >>> result.best == min(result.candidates, key=lambda candidate: candidate.seconds)
    True
    """
    if not isinstance(F, Matrix):
        raise ArgumentTypeError(f"tune: expected a Matrix, found {type(F).__name__}")
    stored = F.precision_config.sbgemv
    arguments = {"tol": tol, "repetitions": repetitions, "seed": seed, "num_vecs": num_vecs}
    with F.comm.agreement("tuning", arguments):
        F.check_open()
        tol = _positive_number(tol, "tol")
        chosen = _check_products(F, products)
        wanted = _check_codes(stored, candidate_codes(stored) if codes is None else codes)
        repetitions, num_vecs = positive_int(repetitions, "repetitions"), positive_int(num_vecs, "num_vecs")
        seed = natural_int(seed, "seed")
    with F.with_precision(_finest(stored)) as exact:
        trials = [_Trial(exact, product, seed, num_vecs) for product in chosen]
        _warm_up(exact, trials[0])
    outcomes: dict[str, Candidate | str] = {}
    for letter in _no_finer(stored):
        group = [code for code in wanted if code[2] == letter.value]
        outcomes |= _measure_group(F, letter, group, trials, repetitions)
    return _result({code: outcomes[code] for code in wanted}, tol)


def candidate_codes(stored: Precision) -> list[str]:
    """Return the codes of every candidate for a matrix that stores its spectrum in the given precision.

    >>> len(candidate_codes(Precision.DOUBLE)), len(candidate_codes(Precision.FIXED16))
    (64, 16)
    """
    others = ["".join(letters) for letters in itertools.product("ds", repeat=4)]
    return [f"{rest[:2]}{letter.value}{rest[2:]}" for letter in _no_finer(stored) for rest in others]


def pareto_front(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Return the candidates that no other one beats in both time and error, the fastest first."""
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda candidate: (candidate.seconds, candidate.error)):
        if not front or candidate.error < front[-1].error:
            front.append(candidate)
    return tuple(front)


def _no_finer(stored: Precision) -> list[Precision]:
    """Return the formats of the spectrum that are no finer than the given one, the finest first."""
    coarser = [precision for precision in Precision if precision.unit_roundoff >= stored.unit_roundoff]
    return sorted(coarser, key=lambda precision: precision.unit_roundoff)


def _finest(stored: Precision) -> MatvecPrecisionConfig:
    return MatvecPrecisionConfig(sbgemv=stored)


class _Trial:
    """One product with its operand, its result, and the result of the finest config."""

    def __init__(self, exact: Matrix, product: Product, seed: int, num_vecs: int) -> None:
        self._product = product
        self.operand, self.result = (
            Vector.from_layout(exact.comm, exact.layout.vector(space, num_vecs))
            for space in (product.input_space, product.output_space)
        )
        random = np.random.default_rng([seed, product.input_space is Space.ROW])
        self.operand.scatter(random.standard_normal(self.operand.shape))
        self.apply(exact)
        self._exact = self.result.copy()
        self._size = self._exact.norm()
        if not math.isfinite(self._size):
            raise ArgumentError(
                f"tune: expected a matrix with finite products, found {product.name} x of norm {self._size}"
            )

    def apply(self, matrix: Matrix) -> None:
        """Queue the product."""
        matrix.apply_product(self._product, self.operand, self.result)

    def error(self) -> float:
        """Return the relative error of the last result; infinity if that result is not finite."""
        error = self.result.waxpy(-1.0, self._exact).norm() / (self._size or 1.0)
        return error if math.isfinite(error) else math.inf


def _slowest(comm: Comm, seconds: list[float]) -> list[float]:
    """Return each repetition's time on the rank that took the longest, the same on every rank."""
    return [max(ranks) for ranks in zip(*comm.allgather(seconds), strict=True)]


def _warm_up(matrix: Matrix, trial: _Trial) -> None:
    spent = 0.0
    while spent < _WARM_UP_SECONDS:  # `spent` is the same on every rank
        spent += sum(_slowest(matrix.comm, time_runs(matrix.comm, partial(trial.apply, matrix), _WARM_UP_RUNS)))


def _measure_group(
    F: Matrix, stored: Precision, codes: Sequence[str], trials: Sequence[_Trial], repetitions: int
) -> dict[str, Candidate | str]:
    """Return the candidate of each code of one format, or the reason why the code is skipped."""
    if not codes:
        return {}
    try:
        base = F.with_precision(_finest(stored))
    except (MemoryError, NonFiniteError) as error:
        return dict.fromkeys(codes, str(error))
    with base:
        return {code: _measure(base, code, trials, repetitions) for code in codes}


def _measure(base: Matrix, code: str, trials: Sequence[_Trial], repetitions: int) -> Candidate | str:
    comm, seconds, errors = base.comm, 0.0, []
    try:
        with (
            comm.agreement(f"measuring {code}"),
            base.with_precision(MatvecPrecisionConfig.from_code(code)) as matrix,
        ):
            for trial in trials:
                run = partial(trial.apply, matrix)
                time_runs(comm, run, _WARM_UP_RUNS)
                seconds += statistics.median(_slowest(comm, time_runs(comm, run, repetitions)))
                errors.append(trial.error())
            nbytes = max(comm.allgather(matrix.nbytes))
    except MemoryError as error:
        return str(error)
    if not math.isfinite(max(errors)):
        return "a result is not finite"
    return Candidate(code, seconds, max(errors), nbytes)


def _result(outcomes: Mapping[str, Candidate | str], tol: float) -> TuningResult:
    candidates = tuple(found for found in outcomes.values() if isinstance(found, Candidate))
    skipped = {code: reason for code, reason in outcomes.items() if isinstance(reason, str)}
    if not candidates:
        raise ArgumentError(f"codes: expected one that can be measured, found {skipped}")
    front = pareto_front(candidates)
    best = next((candidate for candidate in front if candidate.error <= tol), None)
    if best is None:
        least = f"{front[-1].error:.3e}, the smallest error of a candidate ({front[-1].code})"
        raise ArgumentError(f"tol: expected at least {least}, found {tol}")
    return TuningResult(candidates, front, best, skipped)


def _positive_number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < float(value) < math.inf:
        raise ArgumentError(f"{what}: expected a positive finite number, found {value!r}")
    return float(value)


def _check_products(F: Matrix, names: Sequence[str]) -> list[Product]:
    unknown = [name for name in names if name not in PRODUCTS]
    if unknown or not names:
        found = repr(unknown[0]) if unknown else "none"
        raise ArgumentError(f"products: expected names of {', '.join(PRODUCTS)}, found {found}")
    if not F.is_initialized():
        raise UninitializedError("tune: expected an initialised matrix, found one without values")
    chosen = [PRODUCTS[name] for name in dict.fromkeys(names)]
    if any("G" in product.matrices for product in chosen) and not F.has_aux_mat():
        without = ", ".join(name for name, product in PRODUCTS.items() if "G" not in product.matrices)
        raise UninitializedError(
            f"products: expected some of {without}, since the matrix has no auxiliary matrix; found {names}"
        )
    return chosen


def _check_codes(stored: Precision, codes: Iterable[str]) -> list[str]:
    """Return the codes in lower case and without duplicates."""
    configs = [MatvecPrecisionConfig.from_code(code) for code in codes]
    if not configs:
        raise ArgumentError("codes: expected at least one, found none")
    for config in configs:
        if config.sbgemv not in _no_finer(stored):
            raise PrecisionError(
                f"code {config.code!r}: expected a spectrum no finer than the matrix stores, {stored.name}, "
                f"found {config.sbgemv.name}"
            )
    return list(dict.fromkeys(config.code for config in configs))
