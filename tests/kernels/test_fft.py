"""Transforms of pairs of rows on CUDA: their plans, their butterflies, and the kernels against NumPy's transforms."""

from __future__ import annotations

import math
from itertools import chain

import numpy as np
import pytest

from numba_fftmatvec.kernels import butterflies, fft, radices
from numba_fftmatvec.kernels.fft import Plan
from support.machines import CUDA_TARGETS

SHARED = 99 * 1024
LENGTHS = (2, 6, 26, 40, 62, 200)  # of one to three passes
FOUR_PASSES = Plan((2, 3, 2, 5), 20, 2)

# The simulator's scalars warn where threads without a place transform uninitialised numbers.
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning")
on_cuda = pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)


def prime_factors(number: int) -> list[int]:
    """Return the prime factors of a number, in their order."""
    factor = next((p for p in range(2, math.isqrt(number) + 1) if number % p == 0), number)
    return [factor, *prime_factors(number // factor)] if number > 1 else []


def rounding_errors(length: int, eps: float) -> float:
    """Bound a transform's rounding errors, relative to its result in the 2-norm.

    For each prime factor p of the length a number becomes a sum of p products, after a product with a root: p + 4
    errors of eps / 2 at most. The sum of magnitudes is up to sqrt(p) times the result.
    """
    return sum((p + 4) * math.sqrt(p) for p in prime_factors(length)) * eps / 2


def joined(rows: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs of rows as complex rows, the first row of each pair, and the pairs with a partner."""
    pair = np.arange(-(-len(rows) // (2 * stride)) * stride)
    first = pair + pair // stride * stride
    paired = first + stride < len(rows)
    result = rows[first].astype(np.complex128)
    result[paired] += 1j * rows[first[paired] + stride]
    return result, first, paired


def with_canaries(machine, shape: tuple[int, ...], dtype: str):
    """Return an array between two rows of 7, and the middle to be written."""
    whole = machine.put(np.full((shape[0] + 2, shape[1]), 7, dtype))
    return whole, whole[1:-1]


def middle(machine, whole) -> np.ndarray:
    """Return what was written between two rows of 7, which are unchanged."""
    result = machine.get(whole)
    assert (result[[0, -1]] == 7).all()
    return result[1:-1]


def forward(machine, plan: Plan, rows: np.ndarray, rounding: str, packed: str, stride: int = 1) -> np.ndarray:
    """Return the spectra of pairs of rows."""
    whole, out = with_canaries(machine, (-(-len(rows) // (2 * stride)) * stride, plan.length), packed)
    launch = fft.forward_launcher(machine.target, plan, rows.dtype, rounding, packed)
    launch(out, machine.put(rows), machine.put(plan.roots(False).astype(packed)), stride)
    return middle(machine, whole)


def inverse(machine, plan: Plan, spectra: np.ndarray, rows: int, real: str, rounding: str, stride: int = 1):
    """Return as many rows of pairs' spectra."""
    whole, out = with_canaries(machine, (rows, plan.length // 2), real)
    launch = fft.inverse_launcher(machine.target, plan, real, rounding, spectra.dtype)
    launch(machine.put(spectra), out, machine.put(plan.roots(True).astype(spectra.dtype)), stride)
    return middle(machine, whole)


def random(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    rng = np.random.default_rng(7)
    parts = rng.standard_normal(shape)
    return (parts + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else parts).astype(dtype)


def check_forward(machine, plan: Plan, rows: int, stride: int, real: str, rounding: str, packed: str) -> None:
    values = random((rows, plan.length // 2), real)
    expected = np.fft.fft(joined(values.astype(rounding), stride)[0], plan.length)
    found = forward(machine, plan, values, rounding, packed, stride)
    errors = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert errors.max() < rounding_errors(plan.length, np.finfo(packed).eps)


def check_inverse(machine, plan: Plan, rows: int, stride: int, real: str, rounding: str, packed: str) -> None:
    zeros = np.zeros((rows, plan.length // 2))
    complex_rows, first, paired = joined(zeros, stride)
    spectra = random((len(complex_rows), plan.length), packed)
    full = np.fft.ifft(spectra.astype(np.complex128)) * plan.length
    expected = zeros.copy()
    expected[first] = full.real[:, : plan.length // 2]
    expected[first[paired] + stride] = full.imag[paired, : plan.length // 2]
    found = inverse(machine, plan, spectra, rows, real, rounding, stride)
    bound = rounding_errors(plan.length, np.finfo(packed).eps) * np.linalg.norm(full, axis=1).max()
    bound += np.finfo(rounding).eps * np.linalg.norm(expected, axis=1).max()
    assert np.linalg.norm(found - expected, axis=1).max() < bound
    assert (found == found.astype(rounding)).all()


@on_cuda
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("rows", "stride"), [(1, 1), (5, 1), (6, 2), (9, 3)])
def test_transforms_of_pairs(machine, length, rows, stride) -> None:
    check_forward(machine, fft.plan(length, "D", False, SHARED), rows, stride, "d", "d", "D")
    check_inverse(machine, fft.plan(length, "D", True, SHARED), rows, stride, "d", "d", "D")


@on_cuda
@pytest.mark.parametrize("plan", [FOUR_PASSES, Plan((2, 3, 2, 5), 7, 1), Plan((6, 10), 4, 3)], ids=str)
def test_any_plan_transforms(machine, plan) -> None:
    """Threads that do not divide the passes' numbers of transforms have some idle places."""
    check_forward(machine, plan, 7, 1, "d", "d", "D")
    check_inverse(machine, plan.turned(), 7, 1, "d", "d", "D")


@on_cuda
@pytest.mark.parametrize(
    ("real", "rounding", "packed"),
    [("d", "f", "D"), ("d", "f", "F"), ("d", "d", "F"), ("f", "f", "F"), ("f", "f", "D"), ("f", "d", "D")],
)
def test_precisions(machine, real, rounding, packed) -> None:
    check_forward(machine, fft.plan(40, packed, False, SHARED), 5, 1, real, rounding, packed)
    stored = "f" if real == "f" or packed == "F" else rounding
    check_inverse(machine, fft.plan(40, packed, True, SHARED), 5, 1, real, stored, packed)


@on_cuda
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_other_pairs_stay_finite(machine, bad) -> None:
    values = random((6, 20), "d")
    values[3, 4] = bad
    spectra = forward(machine, fft.plan(40, "D", False, SHARED), values, "d", "D")
    assert (np.isfinite(spectra).all(axis=1) == [True, False, True]).all()
    assert not np.isfinite(spectra[1]).any()
    rows = inverse(machine, fft.plan(40, "D", True, SHARED), spectra, 6, "d", "d")
    assert (np.isfinite(rows).all(axis=1) == [True, True, False, False, True, True]).all()


@on_cuda
def test_a_row_without_a_partner_ignores_its_neighbours(machine) -> None:
    spectra = forward(machine, fft.plan(6, "D", False, SHARED), np.ones((3, 3)), "d", "D")
    assert spectra[0, 0] == 3 + 3j
    assert spectra[1, 0] == 3


@on_cuda
def test_expected_arguments(machine) -> None:
    plan = fft.plan(6, "D", False, SHARED)
    launch = fft.forward_launcher(machine.target, plan, "d", "d", "D")
    rows, pairs, table = (machine.put(each) for each in (np.zeros((4, 3)), np.zeros((2, 6), "D"), np.zeros(1, "D")))
    launch(pairs, rows, table)
    with pytest.raises(ValueError, match=r"rows: expected shape \('any', 3\), found \(4, 4\)"):
        launch(pairs, machine.put(np.zeros((4, 4))), table)
    with pytest.raises(ValueError, match=r"pairs of rows: expected shape \(2, 6\), found \(3, 6\)"):
        launch(machine.put(np.zeros((3, 6), "D")), rows, table)
    with pytest.raises(ValueError, match=r"roots of unity: expected shape \(1,\), found \(2,\)"):
        launch(pairs, rows, machine.put(np.zeros(2, "D")))
    with pytest.raises(TypeError, match="roots of unity: expected dtype complex128, found complex64"):
        launch(pairs, rows, machine.put(np.zeros(1, "F")))
    with pytest.raises(ValueError, match="rows: expected a multiple of the stride 3, found 4"):
        launch(pairs, rows, table, 3)
    with pytest.raises(ValueError, match=r"radices: expected an even last one, found \(2, 3\)"):
        fft.inverse_launcher(machine.target, Plan((2, 3), 3), "d", "d", "D")


def numbers(values: np.ndarray) -> list[tuple[float, float]]:
    return [(float(value.real), float(value.imag)) for value in values]


@pytest.mark.parametrize("radix", range(1, radices.RADIX_MAX + 1))
def test_butterflies(radix) -> None:
    """All numbers, or the first half of them with zeros after them."""
    values = random((radix,), "D")
    for sign, inputs in ((-1, radix), (1, radix), (-1, max(1, radix // 2))):
        first = values * (np.arange(radix) < inputs)
        found = butterflies.transform([*numbers(values[:inputs]), *[None] * (radix - inputs)], sign)
        expected = np.fft.fft(first) if sign < 0 else np.fft.ifft(first) * radix
        error = np.linalg.norm([complex(*pair) for pair in found] - expected)
        assert error < rounding_errors(max(radix, 2), 2.0**-52) * np.linalg.norm(expected)


def test_roots_of_unity() -> None:
    """The roots are exact on the axes, and elsewhere to the last bits."""
    k, n = np.arange(-48, 48), 48
    found = butterflies.roots(k, n)
    angles = 2 * np.pi * (k.astype(np.longdouble) / n)
    np.testing.assert_allclose(found, np.cos(angles) + 1j * np.sin(angles), rtol=0, atol=2.0**-51)
    assert (found[k % 12 == 0] == np.tile([1, 1j, -1, -1j], 2)).all()


@pytest.mark.parametrize("dtype", ["F", "D"])
def test_plans_of_all_lengths(dtype) -> None:
    """Lengths without a plan have a prime factor above the largest radix."""
    itemsize = np.dtype(dtype).itemsize
    for length, inverse in chain.from_iterable(((n, False), (n, True)) for n in range(2, 2050, 2)):
        plan = fft.plan(length, dtype, inverse, SHARED)
        if max(prime_factors(length)) > radices.RADIX_MAX:
            assert plan is None, length
            continue
        assert plan.length == length
        assert plan.radices[-1 if inverse else 0] % 2 == 0
        assert plan.shared(itemsize) <= SHARED and plan.threads * plan.slots <= 1024
        assert plan.resident * plan.threads * plan.slots * plan.values * itemsize // 4 <= radices.REGISTERS
        assert len(plan.roots(inverse)) == plan.entries
        for radix, count in zip(plan.radices, plan.counts, strict=True):
            assert (count - 1) * plan.threads < length // radix <= count * plan.threads


@pytest.mark.parametrize("dtype", ["F", "D"])
def test_gaps_in_shared_memory_keep_places_apart(dtype) -> None:
    """Each place of the first two passes is in the pair's slot, and no two numbers have the same one."""
    for length in (6, 40, 60, 200, 400, 1000, 2000, 2002, 4802):
        for inverse in (False, True):
            plan = fft.plan(length, dtype, inverse, SHARED)
            period = plan.period(np.dtype(dtype).itemsize)
            places = np.arange(length) + (np.arange(length) // period if period else 0)
            assert places[-1] < plan.slot(np.dtype(dtype).itemsize)
            if period:
                assert period % plan.radices[0] == 0 and length // plan.radices[1] % period == 0


@pytest.mark.parametrize("length", [-2, 0, 1, 3, 15, 2 * 37, 2 * 31**3, 2**20])
def test_lengths_without_a_plan(length) -> None:
    assert fft.plan(length, "D", False, SHARED) is None


def test_plans_depend_on_shared_memory() -> None:
    assert fft.plan(8192, "D", False, SHARED) is None
    assert fft.plan(8192, "D", False, 163 * 1024) == Plan((16, 16, 32), 256, 1, 1)


@pytest.mark.parametrize(
    ("length", "dtype", "plan"),
    [
        (200, "D", Plan((8, 5, 5), 40, 1, 8)),
        (400, "D", Plan((8, 5, 10), 80, 1, 5)),
        (1000, "D", Plan((10, 10, 10), 100, 1, 4)),
        (2000, "D", Plan((10, 10, 20), 100, 1, 4)),
        (2000, "F", Plan((10, 10, 20), 100, 1, 5)),
    ],
)
def test_plans_are_those_measured_fastest(length, dtype, plan) -> None:
    assert fft.plan(length, dtype, False, SHARED) == plan
    assert fft.plan(length, dtype, True, SHARED) == plan.turned()
