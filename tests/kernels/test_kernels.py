"""Every kernel against NumPy at awkward sizes: 1, primes, 2^k +- 1, more rows or columns than a block of threads."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from numba_fftmatvec.kernels import elementwise, padding, reductions
from numba_fftmatvec.kernels import pairs as pairs_kernels
from numba_fftmatvec.testing import generate_double
from support.machines import CUDA_TARGETS, SIMULATED

# The simulator's grid holds eight rows at a time.
SIZES = [(1, 1), (3, 7), (2, 31), (5, 33), (8, 3), (13, 3), (3, 257)]
REALS = [np.float32, np.float64]
COPIES = list(product(REALS, REALS, REALS))


def random(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    rng = np.random.default_rng(sum(shape))
    values = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(dtype)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("source", "rounding", "destination"), COPIES)
def test_pad_writes_the_head_and_keeps_the_tail(machine, size, source, rounding, destination) -> None:
    rows, columns = size
    values = random(size, source)
    launch = padding.copy_launcher(machine.target, source, rounding, destination)
    padded = machine.run(launch, np.full((rows, 2 * columns), 9, destination), values)
    expected = values.astype(source).astype(rounding).astype(destination)
    np.testing.assert_array_equal(padded[:, :columns], expected)
    assert (padded[:, columns:] == 9).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("source", "rounding", "destination"), COPIES)
def test_unpad_takes_the_head(machine, size, source, rounding, destination) -> None:
    rows, columns = size
    values = random((rows, 2 * columns), source)
    launch = padding.copy_launcher(machine.target, source, rounding, destination)
    head = machine.run(launch, np.full(size, np.nan, destination), values)
    np.testing.assert_array_equal(head, values[:, :columns].astype(rounding).astype(destination))


@pytest.mark.parametrize("size", [1, 17, 255, 257, 1031])
def test_fills(machine, size) -> None:
    start = 2**40 + 7
    index = np.arange(start, start + size)
    for name, value, expected in [
        ("constant", 2.5, np.full(size, 2.5)),
        ("consecutive", 0.0, index.astype(float)),
        ("doubles", 0.0, generate_double(index)),
        ("doubles", 7.0, generate_double(14 * (index // 7) + index % 7)),
    ]:
        launch = elementwise.fill_launcher(machine.target, name)
        filled = machine.run(lambda out, run=launch, v=value: run(out, start, v), np.full(size, np.nan))
        np.testing.assert_array_equal(filled, expected)


NUMPY_MAPS = {
    "scale": lambda x, a, b: a * x,
    "add_scalar": lambda x, a, b: x + a,
    "subtract_from_scalar": lambda x, a, b: a - x,
    "divide_by_scalar": lambda x, a, b: x / a,
    "divide_scalar": lambda x, a, b: a / x,
    "power": lambda x, a, b: x**a,
    "magnitude": lambda x, a, b: abs(x),
    "add": lambda x, y, a, b: x + y,
    "subtract": lambda x, y, a, b: x - y,
    "multiply": lambda x, y, a, b: x * y,
    "divide": lambda x, y, a, b: x / y,
    "axpy": lambda x, y, a, b: x + a * y,
    "axpby": lambda x, y, a, b: a * x + b * y,
    "multiply_add": lambda x, y, z, a, b: x * y + z,
}
# Units in the last place: 0 where one operation rounds once; 2 of the terms where the compiler may fuse a product into
# a sum; 2 of the result for the power function, whose libraries differ.
UNITS = {"axpy": 2, "axpby": 2, "multiply_add": 2, "power": 2}


@pytest.mark.parametrize("size", [1, 31, 257, 1025])
@pytest.mark.parametrize("name", elementwise.MAPS)
def test_maps(machine, name, size) -> None:
    arity, _ = elementwise.MAPS[name]
    operands = [abs(random((size + i,), np.float64)[i:]) for i in range(arity)]
    a, b = 1.7, 0.3
    launch = elementwise.map_launcher(machine.target, name)
    found = machine.run(lambda out, *xs: launch(out, *xs, a=a, b=b), np.full(size, np.nan), *operands)
    expected = NUMPY_MAPS[name](*operands, a, b)
    # All terms are positive: none is larger than the result.
    assert (abs(found - expected) <= UNITS.get(name, 0) * 2.0**-52 * abs(expected)).all()


class Forwards:
    """An array without the negative indices of Python, which are addresses before an array on a device."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __getitem__(self, i: int) -> np.float64:
        assert i >= 0
        return self.array[i]

    def __setitem__(self, i: int, value: np.float64) -> None:
        assert i >= 0
        self.array[i] = value


@pytest.mark.skipif(not SIMULATED, reason="other targets take addresses, or whole arrays")
@pytest.mark.parametrize("name", ["scale", "axpy", "multiply_add"])
def test_maps_have_no_index_before_an_array(machine, monkeypatch, name) -> None:
    arrays = [np.zeros(100)] * (elementwise.MAPS[name][0] + 1)
    monkeypatch.setattr(elementwise, "pointer", Forwards)
    elementwise.map_launcher(machine.target, name)(*arrays)


def test_maps_work_in_place_and_refuse_other_operands(machine) -> None:
    launch = elementwise.map_launcher(machine.target, "axpy")
    values = random((33,), np.float64)
    x = machine.put(values.copy())
    launch(x, x, x, a=2.0)
    np.testing.assert_allclose(machine.get(x), 3 * values, rtol=4e-16)
    with pytest.raises(ValueError, match="operands of axpy: expected 2, found 1"):
        launch(x, x)
    with pytest.raises(ValueError, match="operand: expected shape"):
        launch(x, x, machine.put(values[1:].copy()))


def test_the_generated_doubles_are_the_documented_ones(machine) -> None:
    filled = machine.run(elementwise.fill_launcher(machine.target, "doubles"), np.zeros(2))
    np.testing.assert_array_equal(filled, [1.0000000037252903, 1.130398813795517])


@pytest.fixture
def reduce_on(machine) -> Callable[..., float]:
    def reduce(name: str, x: np.ndarray, y: np.ndarray, scale: float = 1.0) -> float:
        launch = reductions.reduce_launcher(machine.target, name)
        return float(machine.run(launch, np.full(reductions.PARTIALS + 1, np.nan), x, y, scale)[-1])

    return reduce


@pytest.mark.parametrize("size", [1, 31, 257, 1025])
def test_reductions(reduce_on, size) -> None:
    x, y = random((size,), np.float64), random((size + 1,), np.float64)[1:]
    bound = 4e-16 * size  # n u sum |x y|, for sums in any order
    assert abs(reduce_on("dot", x, y) - x @ y) <= bound * (abs(x) @ abs(y))
    assert abs(reduce_on("sum_magnitude", x, x) - abs(x).sum()) <= bound * abs(x).sum()
    assert abs(reduce_on("sum_square", x, x, 0.5) - (x / 2) @ (x / 2)) <= bound * (x @ x)
    assert reduce_on("max_magnitude", x, x) == abs(x).max()


# A pass of the unrolled loop takes four elements of a chunk (CPU), or of a thread of each block (CUDA).
STEP = 3 * 8 if SIMULATED else reductions.PARTIALS
LENGTHS = [3, 4, 7] if SIMULATED else [*range(1, 10), 11, 15]


@pytest.mark.parametrize("short", [0, 1, 3, 19], ids=lambda n: f"{n} fewer")
@pytest.mark.parametrize("length", LENGTHS)
def test_reductions_take_every_element_once(reduce_on, length, short) -> None:
    """Chunks have every length modulo four, and the last one is shorter. The sums of integers are exact."""
    size = length * STEP - short
    x, y = np.arange(1.0, size + 1), np.random.default_rng(size).integers(-99, 99, size).astype(float)
    assert reduce_on("dot", x, y) == x @ y
    assert reduce_on("sum_magnitude", y, y) == abs(y).sum()
    assert reduce_on("sum_square", y, y, 2.0) == (2 * y) @ (2 * y)
    for place in {0, size // 2, size - 1}:
        y[place] = -100
        assert reduce_on("max_magnitude", y, y) == 100
        y[place] = 0


def four_totals(values: np.ndarray) -> float:
    """Return the sum by four running totals, the first of which takes the rest."""
    whole = len(values) // 4 * 4
    totals = [0.0] * 4
    for i, value in enumerate(values):
        totals[i % 4 if i < whole else 0] += value
    return (totals[0] + totals[1]) + (totals[2] + totals[3])


@pytest.mark.parametrize("size", [1, STEP, 3 * STEP + 1, 4 * STEP, 7 * STEP - 1, 8 * STEP])
def test_the_order_of_additions(machine, size) -> None:
    """Each partial sum has the bits of the documented order: a chunk's on the CPU, a block's on CUDA."""
    values = random((size,), np.float64) * 10.0 ** random((size,), np.float32)
    launch = reductions.reduce_launcher(machine.target, "sum_magnitude")
    partials = machine.run(launch, np.full(reductions.PARTIALS + 1, np.nan), values, values)[:-1]
    chunk, count = -(-size // reductions.PARTIALS), reductions.PARTIALS
    for p, found in enumerate(partials):
        if machine.name == "cpu":
            expected = four_totals(abs(values[p * chunk : (p + 1) * chunk]))
        else:
            threads = reductions.THREADS
            sums = [four_totals(abs(values[p * threads + t :: count * threads])) for t in range(threads)]
            while len(sums) > 1:
                sums = [a + b for a, b in zip(sums[: len(sums) // 2], sums[len(sums) // 2 :], strict=True)]
            (expected,) = sums
        assert found == expected, p


@pytest.mark.parametrize("runs", [0, 1, 2, 5])
@pytest.mark.parametrize("length", [0, 1, STEP + 1, 8 * STEP + 3])
def test_runs_are_reduced_as_if_alone(machine, runs, length) -> None:
    """Each run has the bits of a reduction of its own, and results go to their places; the others stay."""
    x, y = random((2, runs, length), np.float64)
    heads = runs * reductions.PARTIALS
    for name in reductions.TERMS:
        launch = reductions.reduce_launcher(machine.target, name)
        empty = np.full(heads + runs + 3, 7.0)
        found = machine.run(
            lambda out, x, y, launch=launch: launch(out, x, y, 0.5, runs, 2), empty, x.ravel(), y.ravel()
        )
        assert (found[heads : heads + 2] == 7).all() and found[-1] == 7
        single = np.zeros(reductions.PARTIALS + 1)
        alone = [machine.run(launch, single, a, b, 0.5)[-1] for a, b in zip(x.copy(), y.copy(), strict=True)]
        np.testing.assert_array_equal(found[heads + 2 : -1], alone)


def test_reductions_refuse_unequal_runs_and_small_workspaces(machine) -> None:
    launch = reductions.reduce_launcher(machine.target, "dot")
    x, workspace = machine.put(np.ones(5)), machine.put(np.zeros(2 * reductions.PARTIALS + 2))
    with pytest.raises(ValueError, match="reduced vector: expected 2 equal runs, found 5 elements"):
        launch(workspace, x, x, runs=2)
    needed = reductions.PARTIALS * 5 + 5
    with pytest.raises(ValueError, match=f"expected at least {needed} elements for place 0, found {len(workspace)}"):
        launch(workspace, x, x, runs=5)
    with pytest.raises(ValueError, match="place of a reduction's results: expected 0 or more, found -1"):
        launch(workspace, x, x, place=-1)


def test_reductions_do_not_scale_unless_told(machine) -> None:
    launch = reductions.reduce_launcher(machine.target, "sum_square")
    x = np.array([3.0, 4.0])
    assert machine.run(launch, np.zeros(reductions.PARTIALS + 1), x, x)[-1] == 25


def test_reductions_of_nothing_are_zero(reduce_on) -> None:
    for name in reductions.TERMS:
        assert reduce_on(name, np.zeros(0), np.zeros(0)) == 0


@pytest.mark.parametrize("place", [0, 20, 39])
def test_reductions_never_lose_a_nan(reduce_on, place) -> None:
    x = np.arange(40.0)
    x[place] = np.nan
    for name in reductions.TERMS:
        assert np.isnan(reduce_on(name, x, x)), name


@pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)  # the CPU transforms rows as they are
@pytest.mark.parametrize("rows", [1, 2, 5, 13])
@pytest.mark.parametrize("columns", [1, 7, 33])
@pytest.mark.parametrize(
    ("real", "rounding", "packed"), [("d", "d", "D"), ("d", "f", "D"), ("d", "f", "F"), ("f", "f", "D")]
)
def test_pairs(machine, rows, columns, real, rounding, packed) -> None:
    values = random((rows, columns), real)
    rounded = values.astype(rounding)
    pairs, length = -(-rows // 2), 2 * columns
    launch = pairs_kernels.pack_launcher(machine.target, real, rounding, packed)
    joined = machine.run(lambda out, v: launch(out, v, 0), np.full((pairs, length), 9, packed), values)
    assert (joined[:, columns:] == 9).all()
    np.testing.assert_array_equal(joined.real[:, :columns], rounded[::2].astype(packed).real)
    np.testing.assert_array_equal(joined.imag[: rows // 2, :columns], rounded[1::2].astype(packed).real)
    assert rows % 2 == 0 or (joined.imag[-1, :columns] == 0).all()
    launch = pairs_kernels.unpack_launcher(machine.target, real, rounding, packed)
    first = pairs - 1  # the last pair alone: the rows before it stay
    back = machine.run(
        lambda out, v: launch(v, out, first), np.full((rows, columns), 9, real), np.ascontiguousarray(joined[first:])
    )
    assert (back[: 2 * first] == 9).all()
    np.testing.assert_array_equal(back[2 * first :], rounded[2 * first :].astype(packed).real.astype(real))
    with pytest.raises(ValueError, match="pairs of rows: expected room"):
        launch(machine.put(joined), machine.put(values), 1)
    with pytest.raises(ValueError, match="pairs of rows: expected room"):
        launch(machine.put(joined), machine.put(values), -1)
    with pytest.raises(ValueError, match="pairs of rows: expected room"):
        launch(machine.put(np.ascontiguousarray(joined[:, : columns - 1])), machine.put(values), 0)


@pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)
def test_some_pairs_without_a_tail(machine) -> None:
    """Pairs between the first and the last, in rows of just their length."""
    values = random((9, 5), "d")
    launch = pairs_kernels.pack_launcher(machine.target, "d", "d", "D")
    joined = machine.run(lambda out, v: launch(out, v, 1), np.full((3, 5), 9, "D"), values)
    np.testing.assert_array_equal(joined, values[2:8:2] + 1j * values[3:8:2])
    launch = pairs_kernels.unpack_launcher(machine.target, "d", "d", "D")
    back = machine.run(lambda out, v: launch(v, out, 1), np.full((9, 5), 9.0), joined)
    np.testing.assert_array_equal(back[2:8], values[2:8])
    assert (back[:2] == 9).all() and (back[8:] == 9).all()


@pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)
@pytest.mark.parametrize(("vectors", "blocks"), [(2, 1), (3, 2), (3, 3), (4, 3), (5, 1)])
def test_pairs_of_vectors(machine, vectors, blocks) -> None:
    """A pair is the same block of two vectors; the last of an odd number is paired with zeros."""
    values = random((vectors * blocks, 6), np.float64)
    pairs = -(-vectors // 2) * blocks
    launch = pairs_kernels.pack_launcher(machine.target, "d", "d", "D")
    joined = machine.run(lambda out, v: launch(out, v, 0, blocks), np.full((pairs, 8), 9, "D"), values)
    by_vector = np.concatenate([values.reshape(vectors, blocks, 6), np.zeros((vectors % 2, blocks, 6))])
    expected = (by_vector[::2] + 1j * by_vector[1::2]).reshape(pairs, 6)
    np.testing.assert_array_equal(joined[:, :6], expected)
    launch = pairs_kernels.unpack_launcher(machine.target, "d", "d", "D")
    for first in (0, pairs - 1):
        part = np.ascontiguousarray(joined[first:])
        back = machine.run(lambda out, v, at=first: launch(v, out, at, blocks), np.full(values.shape, 9.0), part)
        written = [row for row in range(len(values)) if row // (2 * blocks) * blocks + row % blocks >= first]
        np.testing.assert_array_equal(back[written], values[written])
        assert (np.delete(back, written, axis=0) == 9).all()


def test_launchers_refuse_other_dtypes(machine) -> None:
    wrong = machine.put(np.zeros((2, 4), np.float32))
    right = machine.put(np.zeros((2, 4), np.float64))
    with pytest.raises(TypeError, match="source rows: expected dtype float64, found float32"):
        padding.copy_launcher(machine.target, np.float64, np.float64, np.float64)(right, wrong)
    with pytest.raises(ValueError, match="destination rows: expected shape"):
        padding.copy_launcher(machine.target, np.float64, np.float64, np.float64)(right, machine.put(np.zeros((3, 4))))
    with pytest.raises(TypeError, match="filled array: expected dtype float64"):
        elementwise.fill_launcher(machine.target, "constant")(machine.put(np.zeros(3, np.float32)))
