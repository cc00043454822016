"""SBGEMV's CUDA kernels for every format, one right-hand side and several, against NumPy at awkward sizes."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from numba_fftmatvec.kernels import formats
from numba_fftmatvec.kernels.jit import clear
from numba_fftmatvec.kernels.memory import copy_async, load, load_shared, wait_for
from numba_fftmatvec.kernels.sbgemv import cuda, gemm, gemv, sbgemv_launcher
from numba_fftmatvec.kernels.sbgemv.problem import Problem
from numba_fftmatvec.kernels.sbgemv.tiles import SMALL_BYTES, TensorTile, Tile, choose_chunks, choose_tile
from support.machines import CUDA_TARGETS, SIMULATED
from support.stored import decode

DOUBLE, SINGLE = np.complex128, np.complex64
# Of vector, result and sums.
DTYPES = [(DOUBLE, DOUBLE, DOUBLE), (SINGLE, SINGLE, DOUBLE), (SINGLE, DOUBLE, DOUBLE), (DOUBLE, SINGLE, DOUBLE)]
SIZES = [(1, 1, 2), (3, 5, 7), (5, 3, 64), (4, 17, 2), (1, 9, 34), (9, 13, 16), (2, 3, 200)]


def stored_spectrum(problem: Problem) -> tuple[formats.StoredArrays, np.ndarray]:
    """Return a random spectrum in its stored format, with runs longer than used, and the values that it represents."""
    format, frequencies = problem.format, problem.frequencies
    random = np.random.default_rng(problem.nd)
    shape = problem.nd, problem.nm, format.pitch(frequencies)
    transforms = random.standard_normal((*shape, 2)) @ np.array([1, 1j])
    transforms[..., frequencies:] = 9
    # A transform of real values is real at both ends.
    transforms[..., 0] = transforms[..., 0].real
    if problem.length % 2 == 0:
        transforms[..., frequencies - 1] = transforms[..., frequencies - 1].real
    parts = transforms.view(np.float64)
    if not format.is_fixed:
        values, scales = parts.astype(format.part), np.zeros((1, 1, 1))
    else:
        scales = np.full((*shape[:2], format.scales(frequencies)), 16.0 / format.largest)
        scales *= random.uniform(0.75, 1.0, scales.shape)
        wide = np.repeat(scales, 2 * formats.RUN, axis=-1)
        wide = np.pad(wide, [(0, 0), (0, 0), (0, max(0, parts.shape[-1] - wide.shape[-1]))], mode="edge")
        values = np.rint(parts / wide[..., : parts.shape[-1]]).astype(format.part)
    meant = decode(format, values, scales)[..., :frequencies]
    return formats.StoredArrays(values, scales), meant


def paired(rows: np.ndarray, length: int, num_vecs: int) -> np.ndarray:
    """Return the complex transforms of pairs of real rows, (num_vecs, blocks, length) in time."""
    blocks = rows.shape[1]
    if num_vecs == 1:
        rows = np.concatenate([rows[0], np.zeros((blocks % 2, length))])
        return np.fft.fft(rows[::2] + 1j * rows[1::2])
    rows = np.concatenate([rows, np.zeros((num_vecs % 2, blocks, length))])
    return np.fft.fft(rows[::2] + 1j * rows[1::2]).reshape(-1, length)


def unpaired(transforms: np.ndarray, blocks: int, num_vecs: int) -> np.ndarray:
    """Return the real rows of pairs' transforms, (num_vecs, blocks, length)."""
    time = np.fft.ifft(transforms)
    length = time.shape[-1]
    if num_vecs == 1:
        return np.stack([time.real, time.imag], axis=1).reshape(-1, length)[None, :blocks]
    time = time.reshape(-1, blocks, length)
    return np.stack([time.real, time.imag], axis=1).reshape(-1, blocks, length)[:num_vecs]


def check(
    machine,
    problem: Problem,
    tile: Tile | TensorTile | None = None,
    chunks: int | None = None,
    *,
    tight: bool = False,
) -> None:
    """Run one problem and compare it, in time, with NumPy's in complex128.

    In the simulator an index beyond an array is an error, so arrays that are `tight` have no padding at their ends.

    Sums of n complex products: gamma_(2n + 2) in each part (Higham, Accuracy and Stability, section 3.6), relative to
    the sum of magnitudes, and the rounding of operand and result. In pairs a row's rounding is relative to both rows.
    """
    spectrum, meant = stored_spectrum(problem)
    if tight:
        used = 2 * (problem.frequencies + problem.frequencies % 2)
        spectrum = formats.StoredArrays(np.ascontiguousarray(spectrum.values[..., :used]), spectrum.scales)
    operand = np.random.default_rng(7).standard_normal((problem.num_vecs, problem.reduced, problem.length))
    transforms = np.fft.rfft(operand)
    rows = paired(operand, problem.length, problem.num_vecs)
    launch = sbgemv_launcher(machine.target, problem, machine.allocate, tile, chunks)
    width = rows.shape[1]
    out = np.full((problem.rows(problem.results), width + 3 * (not tight)), 9, problem.result)
    found = machine.run(
        lambda r, v, s, x: launch(r, formats.StoredArrays(v, s), x), out, *spectrum, rows.astype(problem.vector)
    )
    assert (found[:, width:] == 9).all()
    found = found[:, :width].astype(np.complex128)
    if problem.num_vecs == 1 and problem.results % 2:  # the last row's partner is zero
        np.testing.assert_array_equal(found[-1, 1:], found[-1, :0:-1].conj())
    factor, letters = (meant.conj(), "dmk,rdk->rmk") if problem.adjoint else (meant, "dmk,rmk->rdk")
    expected = np.einsum(letters, factor, transforms)
    magnitude = np.einsum(letters, abs(meant), abs(transforms)).max()
    own = np.fft.rfft(unpaired(found, problem.results, problem.num_vecs))
    kinds = [np.dtype(dtype) for dtype in (problem.vector, problem.result, problem.accumulator)]
    unit = 2.0**-24 if np.dtype(SINGLE) in kinds else 2.0**-53
    assert (abs(own.reshape(expected.shape) - expected) <= 2 * (2 * problem.reduced + 8) * unit * magnitude).all()


# The simulator is slow with large blocks.
SMALL = (8,) if SIMULATED else (32, 64)
ONE = [(Tile(2, n), 1) for n in SMALL] + [
    (Tile(2, SMALL[0], layers=4), 1),
    (Tile(4, SMALL[0], width=2), 3),
    (Tile(4, SMALL[0], width=2, layers=2), 2),
    (Tile(10, SMALL[0]), 2),
]
SEVERAL = [
    (1, Tile(4, SMALL[0], layers=4, pairs=1, stages=3), 1),
    (2, Tile(4, SMALL[0], layers=4, pairs=2, groups=2, stages=4), 3),
    (3, Tile(2, SMALL[0], layers=2, pairs=3, stages=2), 2),
]


@pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)
@pytest.mark.parametrize(("tile", "chunks"), ONE, ids=str)
@pytest.mark.parametrize("format", formats.FORMATS, ids=lambda format: format.name)
@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("sizes", SIZES if not SIMULATED else [(3, 5, 7), (5, 9, 34)])
def test_tiles(machine, sizes, adjoint, format, tile, chunks) -> None:
    check(machine, Problem(*sizes, adjoint, format, *DTYPES[0]), tile, chunks)


@pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)
@pytest.mark.parametrize(("pairs", "tile", "chunks"), SEVERAL, ids=str)
@pytest.mark.parametrize("format", formats.FORMATS, ids=lambda format: format.name)
@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("sizes", SIZES if not SIMULATED else [(5, 6, 10)])
def test_tiles_of_several(machine, sizes, adjoint, format, pairs, tile, chunks) -> None:
    """The sizes are one block of pairs, an odd number of vectors, and more vectors than a block holds."""
    for num_vecs in (2 * pairs, 2 * pairs * tile.groups + 3):
        check(machine, Problem(*sizes, adjoint, format, *DTYPES[0], num_vecs), tile, chunks)


# Tiles on tensor cores, chunks and right-hand sides. The simulator is slow, so its blocks have one or two warps.
TENSOR = [
    (TensorTile(8, rows=2, columns=1, warps=2, stages=2), 1, 8),
    (TensorTile(16, rows=1, columns=1, width=2, warps=1, stages=3), 2, 3),
    (TensorTile(16, rows=1, columns=2, warps=1, layers=2, terms=8, stages=2), 1, 12),
]
if not SIMULATED:
    TENSOR = [
        (TensorTile(8, rows=2, columns=2, stages=2, resident=2), 3, 3),
        (TensorTile(16, rows=4, columns=1, width=2, stages=3), 2, 8),
        (TensorTile(16, rows=2, columns=2, layers=2, terms=8, stages=2), 1, 33),
        (TensorTile(16, rows=2, columns=2, warps=16, stages=3), 1, 16),
        (TensorTile(16, rows=3, columns=2, stages=6), 2, 13),
    ]


def runs(tile: TensorTile) -> bool:
    """Return whether the simulator runs, or the device has a tile's instruction."""
    return SIMULATED or cuda.tensor_height() >= tile.height


@pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)
@pytest.mark.parametrize(("tile", "chunks", "num_vecs"), TENSOR, ids=str)
@pytest.mark.parametrize("format", formats.FORMATS, ids=lambda format: format.name)
@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("sizes", [*SIZES, (70, 9, 34), (9, 130, 16)] if not SIMULATED else [(5, 9, 4)])
def test_tiles_on_tensor_cores(machine, sizes, adjoint, format, tile, chunks, num_vecs) -> None:
    if not runs(tile):
        pytest.skip("the device lacks the instruction")
    check(machine, Problem(*sizes, adjoint, format, *DTYPES[0], num_vecs), tile, chunks)


@pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)
@pytest.mark.parametrize(("together", "adjoint"), [(1, True), (2, False), (100, True)])
def test_the_order_of_blocks_for_several_leaves_none_out(machine, monkeypatch, together, adjoint) -> None:
    """The sizes have more rows than a block, more tiles of frequencies than a group, and remainders of both or none."""
    monkeypatch.setattr(gemm, "TOGETHER", together)
    clear()  # kernels of another constant
    lanes, tiles = (4, 4) if SIMULATED else (32, 10)
    tile = Tile(2, lanes, layers=2, pairs=1, stages=2)
    for more in (0, 1):
        frequencies = tiles * lanes + more
        sizes = (4, 9, 2 * frequencies - 1) if more else (9, 4, 2 * frequencies - 1)
        check(machine, Problem(*sizes, adjoint, formats.COMPLEX128, *DTYPES[0], num_vecs=2), tile, 2)


LANES = 4 if SIMULATED else 32
TIGHT = [
    (Tile(2, LANES), 1),
    (Tile(4, LANES, width=2), 1),
    (Tile(4, LANES, width=2, layers=3), 1),
    (Tile(3, LANES, layers=4, pairs=1, groups=2, stages=3), 5),
    (Tile(1, LANES, layers=4, pairs=3, stages=2), 5),
    (Tile(2, LANES, layers=2, pairs=1, stages=5), 2),  # more stages than terms
]
if SIMULATED:  # a device's blocks on tensor cores copy 16 bytes at a time
    TIGHT += [(TensorTile(16, rows=1, columns=1, width=2, warps=1, stages=4), 5)]


@pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)
@pytest.mark.parametrize(("tile", "num_vecs"), TIGHT, ids=str)
@pytest.mark.parametrize("adjoint", [False, True])
def test_indices_stay_inside_arrays(machine, adjoint, tile, num_vecs) -> None:
    """Blocks of threads exceed the rows, pairs and frequencies or divide them; copies at a time exceed the block."""
    for length in (11, 7) if num_vecs > 1 else (1, 7, 9, 15):
        for format in (formats.COMPLEX128, formats.FIXED16)[num_vecs > 1 :]:
            check(machine, Problem(5, 6, length, adjoint, format, *DTYPES[0], num_vecs), tile, 2, tight=True)


@pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)
def test_shared_memory_holds_just_the_layers_or_the_stages(machine) -> None:
    """Of more memory a multiprocessor would hold fewer blocks; the simulator takes any size that suffices."""
    float64 = np.dtype(np.float64)
    one = gemv.gemv_nest(Tile(4, 32, width=2, layers=8), float64, ()).bindings
    assert (one["SUMS"], one["TERMS"], one["SHARED"]) == (8, (4, 2), (7, 16, 32))
    assert one["load_two"] is load(2, constant=False) and one["load_run"] is load(4)
    without_layers = gemv.gemv_nest(Tile(2, 64), float64, ()).bindings
    assert without_layers["SHARED"] == (1, 4, 64) and without_layers["load_run"] is load(2)
    tile = Tile(
        5, 32, layers=8, pairs=4, groups=2, stages=5
    )  # 20 rows and 8 pairs at 32 frequencies, 5 terms at a time
    several = gemm.gemm_nest(tile, np.dtype(np.int16), float64, ()).bindings
    sizes = {
        "BLOCK_ROWS": 20,
        "BLOCK_PAIRS": 8,
        "LANE_SLOT": 64,
        "LAYER_SLOT": 512,
        "PART_COPIES": 3,
        "VALUE_COPIES": 2,
    }
    sizes |= {"PART_SLOT": 64 * 20, "VALUE_SLOT": 64 * 16, "SPECTRA": 5 * 64 * 20, "VECTORS": 5 * 64 * 16}
    sizes |= {"SUMS": (5, 4, 4), "FACTORS": (5, 2)}
    assert {name: several[name] for name in sizes} == sizes
    assert gemm.gemm_nest(Tile(5, 32, layers=2, pairs=4), float64, float64, ()).bindings["VALUE_COPIES"] == 4
    assert several["load_part"] is several["load_value"] is load_shared(2)
    assert several["copy_part"] is several["copy_value"] is copy_async(2)
    assert several["wait_for_copies"] is wait_for(3)  # of the five terms one is used and three are on their way


@pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)
@pytest.mark.parametrize("chunks", [1, 2])
def test_chunks_are_stored_as_sums_and_a_whole_sum_as_a_result(machine, monkeypatch, chunks) -> None:
    """The simulator would convert the values of another kernel, which a device would store as they are."""
    configured = []
    monkeypatch.setattr(cuda, "configure", lambda kernel, *shape: configured.append(kernel))
    tile, kinds = Tile(2, SMALL[0]), (np.dtype(DOUBLE), np.dtype(SINGLE), np.dtype(DOUBLE))
    sbgemv_launcher(machine.target, Problem(2, 8, 5, False, formats.COMPLEX128, *kinds), machine.allocate, tile, chunks)
    stored = kinds[1] if chunks == 1 else kinds[2]
    kernel = cuda.sbgemv_kernel(formats.COMPLEX128, kinds[0], stored, kinds[2], False, tile)
    assert configured[0] is kernel.compile("cuda")


HUGE = 2.0**53
# The sums of both are 1 if they are split as a test says, and not 1 in most other orders. The first is split into parts
# of one value, or not at all, and the second in its middle.
SINGLES, HALVES = (1, HUGE, -HUGE, 1), (HUGE, 1, 1, -HUGE)


@pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)
@pytest.mark.parametrize(
    ("values", "layers", "pairs", "chunks"),
    [
        (SINGLES, 4, 0, 1),
        (SINGLES, 1, 0, 4),
        (SINGLES, 1, 0, 1),
        (HALVES, 2, 0, 1),
        (HALVES, 1, 0, 2),
        ((0, 0, 0, 0, *HALVES), 2, 0, 2),
        (SINGLES, 1, 1, 4),
        (SINGLES, 1, 1, 1),
        (HALVES, 1, 1, 2),
    ],
)
def test_the_order_of_additions(machine, values, layers, pairs, chunks) -> None:
    """A pair of the operand's rows, or of its vectors, has one of the values; F has 1 at frequency 1 and i at 2."""
    terms, num_vecs = (len(values), 2) if pairs else (2 * len(values), 1)
    problem = Problem(2, terms, 5, False, formats.COMPLEX128, *DTYPES[0], num_vecs)
    spectrum = np.zeros((2, problem.reduced, 16))
    spectrum[0, :, 2] = spectrum[0, :, 5] = 1
    operand = np.repeat(np.array(values, DOUBLE)[:, None], 5, axis=1)
    tile = Tile(2, SMALL[0], layers=layers, pairs=pairs, stages=2)
    launch = sbgemv_launcher(machine.target, problem, machine.allocate, tile, chunks)
    out = np.zeros((problem.rows(2), 5), DOUBLE)
    found = machine.run(
        lambda r, v, s, x: launch(r, formats.StoredArrays(v, s), x), out, spectrum, np.zeros((1, 1, 1)), operand
    )
    assert (found[0, 1], found[0, 2]) == (1, 1j)


@pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)
@pytest.mark.parametrize("dtypes", [*DTYPES, (SINGLE, SINGLE, SINGLE)])
@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("format", formats.FORMATS, ids=lambda format: format.name)
def test_dtypes(machine, format, adjoint, dtypes) -> None:
    check(machine, Problem(3, 5, 16, adjoint, format, *dtypes), Tile(2, SMALL[0]))
    check(machine, Problem(3, 5, 16, adjoint, format, *dtypes, num_vecs=3), SEVERAL[0][1])
    if dtypes[2] == DOUBLE and runs(TENSOR[1][0]):
        check(machine, Problem(3, 5, 16, adjoint, format, *dtypes, num_vecs=3), TENSOR[1][0])


@pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)
@pytest.mark.parametrize("adjoint", [False, True])
def test_a_block_has_several_scales(machine, adjoint) -> None:
    sizes = 3, 2, 4 * formats.RUN + 8
    check(machine, Problem(*sizes, adjoint, formats.FIXED16, *DTYPES[0]), Tile(4, SMALL[0], width=2))
    check(machine, Problem(*sizes, adjoint, formats.FIXED16, *DTYPES[0], num_vecs=2), SEVERAL[0][1])
    tile = TensorTile(16, rows=1, columns=1, width=4, warps=1 if SIMULATED else 4)
    if runs(tile):
        sizes = 3, 2, 2 * formats.RUN + 8
        check(machine, Problem(*sizes, adjoint, formats.FIXED16, *DTYPES[0], num_vecs=2), tile)


@pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)
@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("format", formats.FORMATS, ids=lambda format: format.name)
@pytest.mark.parametrize("num_vecs", [1, 2, 5] if SIMULATED else [1, 2, 3, 5, 16, 17])
def test_the_chosen_tile(machine, num_vecs, format, adjoint) -> None:
    sizes = (3, 9, 16) if SIMULATED else (13, 40, 130)
    problem = Problem(*sizes, adjoint, format, *DTYPES[0], num_vecs)
    check(machine, problem)


def test_tiles_and_chunks_cover_every_row_and_term() -> None:
    for rows, cols, frequencies, num_vecs in product((1, 2, 3, 11, 1000), (1, 7, 5000), (1, 501, 4097), (1, 2, 16, 33)):
        for format, adjoint in product(formats.FORMATS, (False, True)):
            problem = Problem(rows, cols, 2 * frequencies - 2 or 1, adjoint, format, *DTYPES[0], num_vecs)
            tile = choose_tile(problem)
            assert tile.pairs or tile.rows % 2 == 0
            assert 32 <= tile.threads * tile.layers <= 1024
            assert tile.layers % tile.groups == 0
            chunks = choose_chunks(problem, tile, 264)
            assert 1 <= chunks <= max(1, problem.reduced)
            if num_vecs == 1 and problem.spectrum_bytes <= SMALL_BYTES:
                assert chunks == 1


def test_chunks_fill_the_device() -> None:
    """With few blocks the last wave must not be nearly empty."""
    problem = Problem(10, 20000, 2000, False, formats.COMPLEX128, *DTYPES[0])
    tile = choose_tile(problem)
    for resident in (100, 264, 1000):
        waves = tile.blocks(problem) * choose_chunks(problem, tile, resident) / resident
        assert waves > 1
        assert not 0 < waves % 1 < 0.3


@pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)
@pytest.mark.parametrize(
    ("name", "shape", "error", "message"),
    [
        ("result", (9, 4), ValueError, "result's spectrum: expected shape"),
        ("vector", (9, 4), ValueError, "vector's spectrum: expected shape"),
        ("spectrum", (2, 4, 8), ValueError, "spectrum: expected shape"),
        ("spectrum", (2, 3, 2), ValueError, "spectrum: expected runs of at least 3 frequencies, found 1"),
        ("spectrum", (2, 3, 5), ValueError, "spectrum: expected runs of at least 3 frequencies, found 2"),
        ("scales", (2, 3, 2), ValueError, "spectrum's scales: expected shape"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(machine, name, shape, error, message) -> None:
    problem = Problem(2, 3, 4, False, formats.FIXED32, *DTYPES[0])
    rows = [problem.rows(n) for n in (2, 3)]
    shapes = {
        "result": (rows[0], 4),
        "spectrum": (2, 3, 8),
        "scales": (2, 3, 1),
        "vector": (rows[1], 4),
    }
    dtypes = {"result": DOUBLE, "spectrum": np.int32, "scales": np.float64, "vector": DOUBLE}
    arrays = {k: machine.put(np.zeros(s, dtypes[k])) for k, s in (shapes | {name: shape}).items()}
    launch = sbgemv_launcher(machine.target, problem, machine.allocate)
    with pytest.raises(error, match=message):
        launch(arrays["result"], formats.StoredArrays(arrays["spectrum"], arrays["scales"]), arrays["vector"])


@pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)
def test_runs_that_copies_of_16_bytes_cannot_read_are_refused(machine) -> None:
    """The copies of a tile on tensor cores are as wide as a piece of several frequencies."""
    if not runs(TENSOR[1][0]):
        pytest.skip("the device lacks the instruction")
    problem = Problem(2, 3, 4, False, formats.COMPLEX64, *DTYPES[0], num_vecs=3)
    launch = sbgemv_launcher(machine.target, problem, machine.allocate, TENSOR[1][0])
    arrays = [np.zeros((problem.rows(n), 4), DOUBLE) for n in (2, 3)]
    values, scales = np.zeros((2, 3, 10), np.float32), np.zeros((1, 1, 1))
    with pytest.raises(ValueError, match="spectrum: expected runs of a multiple of 4 parts, found 10"):
        machine.run(lambda r, v, s, x: launch(r, formats.StoredArrays(v, s), x), arrays[0], values, scales, arrays[1])


@pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)
def test_runs_that_are_one_frequency_short_are_refused(machine) -> None:
    problem = Problem(2, 3, 4, False, formats.COMPLEX128, *DTYPES[0])
    least = problem.length
    widths = {"spectrum": problem.frequencies, "vector": least, "result": least}
    launch = sbgemv_launcher(machine.target, problem, machine.allocate)

    def run(spectrum: int, vector: int, result: int) -> None:
        values, scales = machine.put(np.zeros((2, 3, 2 * spectrum))), machine.put(np.zeros((1, 1, 1)))
        arrays = [
            machine.put(np.zeros((problem.rows(rows), width), DOUBLE)) for rows, width in ((2, result), (3, vector))
        ]
        launch(arrays[0], formats.StoredArrays(values, scales), arrays[1])

    run(**widths)
    for name, width in widths.items():
        with pytest.raises(ValueError, match=f"{name}.*: expected runs of at least {width} .*, found {width - 1}"):
            run(**{**widths, name: width - 1})
