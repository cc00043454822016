"""The precision tuner: it measures precision configs on a matrix and finds the best within a tolerance."""

from __future__ import annotations

import itertools
import math
import numbers
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from .progress import show_steps
from .vector import Vector

# The warm-up lasts until the device's clocks have risen. The runs before each measurement let a GPU record its graph.
_WARM_UP_SECONDS = 0.2
_WARM_UP_RUNS = 3

# Candidates that may be the fastest are timed in further rounds, one after another in each, until their times separate.
# A difference is real if it exceeds three standard errors of the rounds' differences. Below one hundredth it is a tie.
_LEAST_ROUNDS, _MOST_ROUNDS, _ROUNDS_SECONDS = 4, 20, 10.0
_STANDARD_ERRORS, _NEGLIGIBLE = 3.0, 0.01

# A config is not measured if a finer one exceeds the tolerance by this factor. Random vectors vary errors by less.
_HOPELESS = 2.0


@dataclass(frozen=True)
class Candidate:
    """One precision config with its measured time, error and memory.

    Parameters
    ----------
    code : str
        The config's five letters.
    seconds : float
        Time of all products together: the sum of their median times, where each run's time is that of the slowest rank.
        Of several rounds it is the median.
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
        The most accurate of `ties`.
    skipped : mapping
        Codes that were not measured, with the reasons.
    ties : tuple of Candidate
        The fastest candidate within the tolerance, and those whose times cannot be told from its time; the fastest
        first.
    """

    candidates: tuple[Candidate, ...]
    front: tuple[Candidate, ...]
    best: Candidate
    skipped: Mapping[str, str]
    ties: tuple[Candidate, ...]


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

    Noise can be larger than the differences between times. Candidates that may be the fastest are therefore timed again
    in rounds, until their times separate or tie, for ten seconds at most. `best` is the most accurate of a tie.

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
        each format of the spectrum that is no finer than that of `F`. A finer format would add no digits. A default
        candidate is skipped, and its kernels are not compiled, if a finer one is far above the tolerance.
    repetitions : int
        Number of timed runs of each product.
    seed : int
        Non-negative seed of the random values.
    num_vecs : int
        Number of right-hand sides of each product.

    Returns
    -------
    TuningResult
        All candidates, the Pareto front and the best within the tolerance. A code is skipped if its spectrum or
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
    >>> result.best == min(result.ties, key=lambda candidate: candidate.error)
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
    bench = _Bench(F, trials, repetitions, limit=math.inf if codes is not None else _HOPELESS * tol)
    with show_steps(len(wanted) + _MOST_ROUNDS, enabled=F.comm.world_rank == 0) as show:
        bench.measure(wanted, show)
        fastest = bench.settle(tol, show)
    return _result(bench, wanted, tol, fastest)


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


@dataclass
class _Measured:
    """A measured config: its error, its bytes, and the time and the spread of all products in each round."""

    error: float
    nbytes: int
    seconds: list[float]
    spread: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def _slowest(comm: Comm, seconds: list[float]) -> list[float]:
    """Return each repetition's time on the rank that took the longest, the same on every rank."""
    return [max(ranks) for ranks in zip(*comm.allgather(seconds), strict=True)]


def _warm_up(matrix: Matrix, trial: _Trial) -> None:
    spent = 0.0
    while spent < _WARM_UP_SECONDS:  # `spent` is the same on every rank
        spent += sum(_slowest(matrix.comm, time_runs(matrix.comm, partial(trial.apply, matrix), _WARM_UP_RUNS)))


class _Bench:
    """The measurements of configs, but for those coarser than one with an error above `limit`."""

    def __init__(self, F: Matrix, trials: Sequence[_Trial], repetitions: int, limit: float) -> None:
        self._F, self._comm = F, F.comm
        self._trials, self._repetitions, self._limit = trials, repetitions, limit
        self.measured: dict[str, _Measured] = {}
        self.skipped: dict[str, str] = {}

    def measure(self, codes: Sequence[str], show: Callable[[int, str], None]) -> None:
        """Time each code once and compute its error, one format after another."""
        for group in _by_format(codes):
            left = [code for code in sorted(group, key=lambda code: code.count("s")) if not self._is_hopeless(code)]
            if (base := self._base(left)) is not None:
                with base:
                    for code in left:
                        show(len(self.measured) + len(self.skipped), f"Measuring {code}")
                        if not self._is_hopeless(code):
                            self._time(base, code)

    def settle(self, tol: float, show: Callable[[int, str], None]) -> list[str]:
        """Time those that may be the fastest in further rounds; return the fastest code and those that tie with it."""
        within = {code: found for code, found in self.measured.items() if found.error <= tol}
        if not within:
            return []
        start = min(within, key=lambda code: within[code].median)
        latest = within[start].median + within[start].spread
        left = [code for code in within if within[code].median - within[code].spread <= latest]
        spent, rounds = 0.0, 1
        while self._is_open(left) and rounds < _MOST_ROUNDS and spent + self._cost(left) < _ROUNDS_SECONDS:
            show(len(self.measured) + len(self.skipped) + rounds, f"Comparing {len(left)} configs")
            clock = time.perf_counter()
            for group in _by_format(left):
                if (base := self._base(group)) is not None:
                    with base:
                        for code in group:
                            self._time(base, code)
            spent += max(self._comm.allgather(time.perf_counter() - clock))
            rounds += 1
            complete = [code for code in left if len(self.measured[code].seconds) == rounds]
            if not complete:  # the memory no longer holds another spectrum
                break
            left = self._not_slower(complete)
        return sorted(left, key=lambda code: self.measured[code].median)

    def _cost(self, codes: Sequence[str]) -> float:
        """Return the expected seconds of a round."""
        return (self._repetitions + _WARM_UP_RUNS) * sum(self.measured[code].median for code in codes)

    def _is_open(self, codes: Sequence[str]) -> bool:
        """Return whether a code may be slower than the fastest and may tie with it."""
        fastest = min(codes, key=lambda code: self.measured[code].median)
        return any(self._difference(code, fastest)[1] > _NEGLIGIBLE for code in codes if code != fastest)

    def _not_slower(self, codes: Sequence[str]) -> list[str]:
        """Return the codes that may be as fast as the fastest."""
        fastest = min(codes, key=lambda code: self.measured[code].median)
        return [code for code in codes if code == fastest or self._difference(code, fastest)[0] <= _NEGLIGIBLE]

    def _difference(self, code: str, fastest: str) -> tuple[float, float]:
        """Return bounds of the difference of two times, relative to the second. Few rounds bound nothing."""
        pairs = zip(self.measured[code].seconds, self.measured[fastest].seconds, strict=True)
        differences = [slow / fast - 1.0 for slow, fast in pairs]
        if len(differences) < _LEAST_ROUNDS:
            return -math.inf, math.inf
        error = _STANDARD_ERRORS * statistics.stdev(differences) / math.sqrt(len(differences))
        return statistics.fmean(differences) - error, statistics.fmean(differences) + error

    def _is_hopeless(self, code: str) -> bool:
        """Return whether a code is skipped, since a code that is no coarser has an error above the limit."""
        for finer, found in self.measured.items():
            if found.error > self._limit and _no_coarser(finer, code):
                self.skipped[code] = f"coarser than {finer}, whose error of {found.error:.1e} exceeds the tolerance"
                return True
        return False

    def _base(self, codes: Sequence[str]) -> Matrix | None:
        """Return a matrix in the format of the codes; None, and skip the codes, if that is not possible."""
        try:
            return self._F.with_precision(MatvecPrecisionConfig.from_code(codes[0])) if codes else None
        except (MemoryError, NonFiniteError) as error:
            self.skipped |= {code: str(error) for code in codes if code not in self.measured}
            return None

    def _time(self, base: Matrix, code: str) -> None:
        """Time a code once more; compute its error the first time."""
        comm, seconds, spread, errors = self._comm, 0.0, 0.0, []
        try:
            with (
                comm.agreement(f"measuring {code}"),
                base.with_precision(MatvecPrecisionConfig.from_code(code)) as matrix,
            ):
                for trial in self._trials:
                    run = partial(trial.apply, matrix)
                    time_runs(comm, run, _WARM_UP_RUNS)
                    runs = _slowest(comm, time_runs(comm, run, self._repetitions))
                    seconds += statistics.median(runs)
                    spread += _spread(runs)
                    errors.append(trial.error())
                nbytes = max(comm.allgather(matrix.nbytes))
        except MemoryError as error:
            if code not in self.measured:
                self.skipped[code] = str(error)
            return
        if not math.isfinite(max(errors)):
            self.skipped[code] = "a result is not finite"
            return
        found = self.measured.setdefault(code, _Measured(max(errors), nbytes, [], spread))
        found.seconds.append(seconds)


def _by_format(codes: Iterable[str]) -> list[list[str]]:
    """Return the codes in groups of one format of the spectrum, the finest format first."""
    ordered = sorted(codes, key=lambda code: Precision(code[2]).unit_roundoff)
    return [list(group) for _, group in itertools.groupby(ordered, key=lambda code: code[2])]


def _no_coarser(code: str, other: str) -> bool:
    """Return whether a code is no coarser than another in any stage."""
    pairs = zip(code, other, strict=True)
    return all(Precision(mine).unit_roundoff <= Precision(theirs).unit_roundoff for mine, theirs in pairs)


def _spread(runs: Sequence[float]) -> float:
    """Return the distance between the quartiles; 0 for a single run."""
    if len(runs) < 2:
        return 0.0
    low, _, high = statistics.quantiles(runs, n=4, method="inclusive")
    return high - low


def _result(bench: _Bench, codes: Sequence[str], tol: float, fastest: Sequence[str]) -> TuningResult:
    found = {
        code: Candidate(code, measured.median, measured.error, measured.nbytes)
        for code in codes
        if (measured := bench.measured.get(code)) is not None
    }
    candidates = tuple(found.values())
    if not candidates:
        raise ArgumentError(f"codes: expected one that can be measured, found {bench.skipped}")
    front = pareto_front(candidates)
    if not fastest:
        least = f"{front[-1].error:.3e}, the smallest error of a candidate ({front[-1].code})"
        raise ArgumentError(f"tol: expected at least {least}, found {tol}")
    ties = tuple(found[code] for code in fastest if code in found)
    best = min(ties, key=lambda candidate: (candidate.error, candidate.seconds))
    return TuningResult(candidates, front, best, bench.skipped, ties)


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
