"""Every kernel against NumPy at awkward sizes: 1, primes, 2^k +- 1, more rows or columns than a block of threads."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from machines import CUDA_TARGETS, SIMULATED

from numba_fftmatvec.kernels import elementwise, padding, reductions, sbgemv, storage
from numba_fftmatvec.kernels import pairs as pairs_kernels
from numba_fftmatvec.testing import generate_double

SIZES = [(1, 1), (3, 7), (2, 31), (5, 33), (3, 257)]
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
    launch = padding.copy_rows(machine.target, source, rounding, destination)
    padded = machine.run(launch, np.full((rows, 2 * columns), 9, destination), values)
    expected = values.astype(source).astype(rounding).astype(destination)
    np.testing.assert_array_equal(padded[:, :columns], expected)
    assert (padded[:, columns:] == 9).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("source", "rounding", "destination"), COPIES)
def test_unpad_takes_the_head(machine, size, source, rounding, destination) -> None:
    rows, columns = size
    values = random((rows, 2 * columns), source)
    launch = padding.copy_rows(machine.target, source, rounding, destination)
    head = machine.run(launch, np.full(size, np.nan, destination), values)
    np.testing.assert_array_equal(head, values[:, :columns].astype(rounding).astype(destination))


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_encode_scales_and_stores(machine, dtype) -> None:
    stored = {np.complex64: storage.COMPLEX64, np.complex128: storage.COMPLEX128}[dtype]
    values = random((3, 33), np.complex128)
    pitch = stored.pitch(33)
    launch = storage.encoder(machine.target, stored, 1 / 64)
    real = np.dtype(dtype).type(0).real.dtype
    row = machine.run(launch, np.zeros((3, pitch), dtype).view(real), values.view(np.float64)).view(dtype)
    np.testing.assert_array_equal(row[:, :33], (values / 64).astype(dtype))


def test_pitch_is_a_multiple_of_128_bytes() -> None:
    for stored, frequencies in product((storage.COMPLEX64, storage.COMPLEX128), (1, 8, 9, 16, 17, 1001)):
        pitch = stored.pitch(frequencies)
        assert pitch * stored.dtype.itemsize % 128 == 0
        assert 0 <= pitch - frequencies < 128 // stored.dtype.itemsize


@pytest.mark.parametrize("size", [1, 17, 255, 257, 1031])
def test_fills(machine, size) -> None:
    start = 2**40 + 7
    index = np.arange(start, start + size)
    for name, value, expected in [
        ("constant", 2.5, np.full(size, 2.5)),
        ("consecutive", 0.0, index.astype(float)),
        ("doubles", 0.0, generate_double(index)),
    ]:
        launch = elementwise.fill(machine.target, name)
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
    launch = elementwise.mapping(machine.target, name)
    found = machine.run(lambda out, *xs: launch(out, *xs, a=a, b=b), np.full(size, np.nan), *operands)
    expected = NUMPY_MAPS[name](*operands, a, b)
    # All terms are positive: none is larger than the result.
    assert (abs(found - expected) <= UNITS.get(name, 0) * 2.0**-52 * abs(expected)).all()


def test_maps_work_in_place_and_refuse_other_operands(machine) -> None:
    launch = elementwise.mapping(machine.target, "axpy")
    values = random((33,), np.float64)
    x = machine.put(values.copy())
    launch(x, x, x, a=2.0)
    np.testing.assert_allclose(machine.get(x), 3 * values, rtol=4e-16)
    with pytest.raises(ValueError, match="operands of axpy: expected 2, found 1"):
        launch(x, x)
    with pytest.raises(ValueError, match="operand: expected shape"):
        launch(x, x, machine.put(values[1:].copy()))


def test_the_generated_doubles_are_the_documented_ones(machine) -> None:
    filled = machine.run(elementwise.fill(machine.target, "doubles"), np.zeros(2))
    np.testing.assert_array_equal(filled, [1.0000000037252903, 1.130398813795517])


def reduce(machine, name: str, x: np.ndarray, y: np.ndarray, scale: float = 1.0) -> float:
    launch = reductions.reduction(machine.target, name)
    return float(machine.run(launch, np.full(reductions.PARTIALS + 1, np.nan), x, y, scale)[-1])


@pytest.fixture
def reduce_on(machine) -> Callable[..., float]:
    def reduce(name: str, x: np.ndarray, y: np.ndarray, scale: float = 1.0) -> float:
        launch = reductions.reduction(machine.target, name)
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


@pytest.mark.parametrize("place", [0, 20, 39])
def test_reductions_never_lose_a_nan(reduce_on, place) -> None:
    x = np.arange(40.0)
    x[place] = np.nan
    for name in reductions.TERMS:
        assert np.isnan(reduce_on(name, x, x)), name


def to_vector(machine, rows: np.ndarray, length: int) -> np.ndarray:
    """Return rows of real transforms as the target's SBGEMV takes them: as they are, or in pairs on CUDA."""
    if machine.name == "cpu":
        return rows
    time = np.fft.irfft(rows.astype(np.complex128), length)
    if len(time) % 2:
        time = np.vstack([time, np.zeros(length)])
    return np.fft.fft(time[::2] + 1j * time[1::2]).astype(rows.dtype)


def from_result(machine, result: np.ndarray, rows: int, length: int) -> np.ndarray:
    """Return the real transforms that the target's SBGEMV left."""
    frequencies = length // 2 + 1
    if machine.name == "cpu":
        return result[:, :frequencies]
    z, mirrored = result[:, :length], np.conj(np.roll(result[:, length - 1 :: -1], 1, axis=1))
    pairs = np.stack([(z + mirrored) / 2, (z - mirrored) / 2j], axis=1)
    return pairs.reshape(-1, length)[:rows, :frequencies]


def sbgemv_case(machine, sizes, dtypes, adjoint, tiling):
    """Return the kernel's result, NumPy's in complex128, and sums of magnitudes that bound the rounding."""
    rows, cols, length = sizes
    stored, vector, result, _ = dtypes
    frequencies = length // 2 + 1
    spectrum = np.fft.rfft(random((rows, cols, length), np.float64))
    operand = np.fft.rfft(random((rows if adjoint else cols, length), np.float64))
    spectrum, operand = spectrum.astype(stored), operand.astype(vector)
    taken = to_vector(machine, operand, length)
    problem = sbgemv.Problem(rows, cols, length, adjoint, *dtypes)
    launch = sbgemv.sbgemv(machine.target, problem, machine.allocate, tiling)
    results = problem.results if machine.name == "cpu" else -(-problem.results // 2)
    out = np.full((results, taken.shape[1] + 3), 9, result)
    pad = [(0, 0), (0, 0), (0, 5)]  # runs of the stored spectrum are longer than what is used
    found = machine.run(lambda r, s, v: launch(r, s, v), out, np.pad(spectrum, pad), taken)
    assert (found[:, taken.shape[1] :] == 9).all()
    wide = spectrum.astype(np.complex128)
    indices, factor = ("dmk,dk->mk", wide.conj()) if adjoint else ("dmk,mk->dk", wide)
    expected = np.einsum(indices, factor, operand.astype(np.complex128))
    magnitude = np.einsum(indices, abs(wide), abs(operand).astype(np.float64))
    # In pairs a row's rounding is relative to both rows of its pair, of the vector and of the result.
    magnitude = np.full((problem.results, frequencies), magnitude.max()) if machine.name != "cpu" else magnitude
    return from_result(machine, found, problem.results, length), expected, magnitude


# The CPU kernel has no tiling; the simulator wants small blocks.
TILINGS = [(8, 1), (8, 3), (16, 2)] if SIMULATED else [(32, 1), (64, 2)]
DTYPES = [
    (np.complex128,) * 4,
    (np.complex64, np.complex128, np.complex128, np.complex128),
    (np.complex64, np.complex64, np.complex64, np.complex128),
    (np.complex64,) * 4,
    (np.complex128, np.complex64, np.complex128, np.complex128),
    (np.complex128, np.complex128, np.complex64, np.complex128),
]


@pytest.mark.parametrize("dtypes", DTYPES)
@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("sizes", [(1, 1, 2), (3, 5, 7), (5, 3, 64), (4, 17, 2), (1, 9, 34), (9, 13, 16)])
@pytest.mark.parametrize("tiling", TILINGS)
def test_sbgemv(machine, sizes, adjoint, dtypes, tiling) -> None:
    found, expected, magnitude = sbgemv_case(machine, sizes, dtypes, adjoint, sbgemv.Tiling(*tiling))
    narrow = np.dtype(np.complex64)
    unit = 2.0**-24 if narrow in [np.dtype(d) for d in dtypes[1:]] else 2.0**-53
    # Sums of n complex products: gamma_(2n + 2) in each part (Higham, section 3.6), and the result's own rounding.
    terms = 2 * max(sizes[:2]) + 6
    assert (abs(found - expected) <= 2 * terms * unit * magnitude).all()


@pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)  # the CPU transforms rows as they are
@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("columns", [1, 7, 33])
@pytest.mark.parametrize(
    ("real", "rounding", "packed"), [("d", "d", "D"), ("d", "f", "D"), ("d", "f", "F"), ("f", "f", "D")]
)
def test_pairs(machine, rows, columns, real, rounding, packed) -> None:
    values = random((rows, columns), real)
    rounded = values.astype(rounding)
    pairs, length = -(-rows // 2), 2 * columns
    launch = pairs_kernels.pack(machine.target, real, rounding, packed)
    joined = machine.run(lambda out, v: launch(out, v, 0), np.full((pairs, length), 9, packed), values)
    assert (joined[:, columns:] == 9).all()
    np.testing.assert_array_equal(joined.real[:, :columns], rounded[::2].astype(packed).real)
    np.testing.assert_array_equal(joined.imag[: rows // 2, :columns], rounded[1::2].astype(packed).real)
    assert rows % 2 == 0 or (joined.imag[-1, :columns] == 0).all()
    launch = pairs_kernels.unpack(machine.target, real, rounding, packed)
    first = pairs - 1  # the last pair alone: the rows before it stay
    back = machine.run(
        lambda out, v: launch(v, out, first), np.full((rows, columns), 9, real), np.ascontiguousarray(joined[first:])
    )
    assert (back[: 2 * first] == 9).all()
    np.testing.assert_array_equal(back[2 * first :], rounded[2 * first :].astype(packed).real.astype(real))
    with pytest.raises(ValueError, match="pairs of rows: expected room"):
        launch(machine.put(joined), machine.put(values), 1)


@pytest.mark.parametrize("adjoint", [False, True])
def test_the_chosen_tiling_runs(machine, adjoint) -> None:
    found, expected, magnitude = sbgemv_case(machine, (3, 40, 16), DTYPES[0], adjoint, None)
    assert (abs(found - expected) <= 100 * 2.0**-53 * magnitude).all()


def test_tilings_cover_every_row_and_term() -> None:
    for results, reduced, frequencies, itemsize in product((1, 2, 3, 1000), (1, 7, 5000), (1, 501, 4097), (8, 16)):
        tiling = sbgemv.choose_tiling(results, reduced, frequencies, itemsize)
        assert tiling.threads % 32 == 0
        assert 1 <= tiling.chunks <= max(1, reduced)


def test_tiles_of_the_cpu_share_the_rows_fairly() -> None:
    for results, frequencies, threads in product((1, 3, 500, 100_000), (1, 201, 4097), (1, 2, 64)):
        rows = sbgemv.adjoint_tile(results, frequencies, threads)
        assert 1 <= rows <= results
        assert (rows - 1) * min(frequencies, sbgemv.BLOCK_FREQUENCIES) <= sbgemv.TILE_SUMS
        assert -(-results // rows) >= min(threads, results) / 2  # no thread waits for another's second tile alone


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"result": (9, 4)}, ValueError, "result's spectrum: expected shape"),
        ({"vector": (9, 4)}, ValueError, "vector's spectrum: expected shape"),
        ({"spectrum": (2, 4, 4)}, ValueError, "spectrum: expected shape"),
        ({"spectrum": (2, 3, 1)}, ValueError, "spectrum: expected runs of at least 3 frequencies, found 1"),
    ],
)
def test_sbgemv_refuses_arrays_that_do_not_fit(machine, arrays, error, message) -> None:
    rows = (2, 3) if machine.name == "cpu" else (1, 2)
    shapes = {"result": (rows[0], 4), "spectrum": (2, 3, 4), "vector": (rows[1], 4)} | arrays
    problem = sbgemv.Problem(2, 3, 4, False, *DTYPES[0])
    launch = sbgemv.sbgemv(machine.target, problem, machine.allocate)
    with pytest.raises(error, match=message):
        launch(*[machine.put(np.zeros(shape, np.complex128)) for shape in shapes.values()])


def test_launchers_refuse_other_dtypes(machine) -> None:
    wrong = machine.put(np.zeros((2, 4), np.float32))
    right = machine.put(np.zeros((2, 4), np.float64))
    with pytest.raises(TypeError, match="source rows: expected dtype float64, found float32"):
        padding.copy_rows(machine.target, np.float64, np.float64, np.float64)(right, wrong)
    with pytest.raises(ValueError, match="destination rows: expected shape"):
        padding.copy_rows(machine.target, np.float64, np.float64, np.float64)(right, machine.put(np.zeros((3, 4))))
    with pytest.raises(TypeError, match="filled array: expected dtype float64"):
        elementwise.fill(machine.target, "constant")(machine.put(np.zeros(3, np.float32)))
