"""The CPU's SBGEMV at the ends of its loops: tiles of frequencies, blocks of products, tasks, and SIMD vectors."""

from __future__ import annotations

import os
import platform
import re
from itertools import product

import numpy as np
import pytest
from numba import njit

from numba_fftmatvec.kernels import Target, elementwise, encoding, formats, padding, reductions
from numba_fftmatvec.kernels.formats import TILE
from numba_fftmatvec.kernels.jit import CpuNest, clear
from numba_fftmatvec.kernels.lanes import vector_width
from numba_fftmatvec.kernels.sbgemv import blocks, cpu
from numba_fftmatvec.kernels.sbgemv.problem import Problem
from numba_fftmatvec.kernels.tiling import tile_launcher
from numba_fftmatvec.kernels.transforms import transform_launcher
from support.machines import INTERPRETED, run_kernel_tests
from support.stored import decode

DOUBLE = np.complex128
# Block rows, block columns and frequencies: one of each; runs of a scale, blocks of frequencies and whole vectors of
# the processor, one more and one less; numbers of terms and rows that four and two divide or do not.
SIZES = [
    *[(1, 1, n) for n in (1, 2, 7, 8, 9)],
    *[(5, 7, n) for n in (63, 64, 65)],
    *[(2, 3, n) for n in (127, 128, 129, 511, 512, 513)],
    *[(rows, cols, 11) for rows in (1, 4, 13) for cols in (1, 8, 17)],
]


def random(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((*shape, 2)) @ np.array([1, 1j])


def stored_spectrum(problem: Problem) -> tuple[formats.StoredArrays, np.ndarray]:
    """Return a spectrum as the encoder writes it, with NaNs beyond its runs, and the values that it represents.

    The blocks' magnitudes differ by up to 1e9, so that a scale from elsewhere would show.
    """
    format, frequencies = problem.format, problem.frequencies
    sizes = problem.nd, problem.nm, frequencies
    (*_, parts), scales_shape = format.shapes(*sizes)
    values, scales = np.zeros(format.tiled(*sizes)[0], format.part), np.zeros(scales_shape)
    runs = np.zeros((problem.nd, problem.nm, parts), format.part)
    blocks = random((problem.nd, problem.nm, frequencies), frequencies)
    blocks *= 10.0 ** (np.arange(problem.nd * problem.nm) % 10).reshape(*blocks.shape[:2], 1)
    encode = encoding.encode_launcher(Target("cpu"), format, 1.0)
    copy = tile_launcher(Target("cpu"), "to", format, format.part)
    for row in range(problem.nd):
        encode(runs[row], scales[row % len(scales)], blocks[row].view(np.float64))
    meant = decode(format, runs, scales)[..., :frequencies]
    if not format.is_fixed:
        runs[..., 2 * frequencies :] = np.nan
    for tiles, row in zip(values, runs, strict=True):
        copy(tiles, 0, row)
    return formats.StoredArrays(values, scales.transpose(0, 2, 1).copy()), meant


def tiles_of(rows: np.ndarray, num_vecs: int, beyond: float = 0.0) -> np.ndarray:
    """Return the tiles of complex rows (num_vecs blocks, frequencies), with a value beyond the last frequency."""
    blocks, frequencies = rows.shape[0] // num_vecs, rows.shape[1]
    vectors, tiles, *_ = shape = formats.vector_tiles(num_vecs, frequencies, blocks)
    padded = np.full((vectors, blocks, tiles * TILE), beyond, DOUBLE)
    padded[:num_vecs, :, :frequencies] = rows.reshape(num_vecs, blocks, frequencies)
    return padded.reshape(vectors, blocks, tiles, TILE).transpose(0, 2, 1, 3).copy().view(np.float64).reshape(shape)


def rows_of(tiles: np.ndarray, num_vecs: int, frequencies: int) -> np.ndarray:
    """Return the complex rows (num_vecs blocks, frequencies) of tiles."""
    vectors, _, blocks, _ = tiles.shape
    rows = tiles.view(DOUBLE).transpose(0, 2, 1, 3).reshape(vectors, blocks, -1)
    return rows[:num_vecs, :, :frequencies].reshape(-1, frequencies)


def multiply(problem: Problem, spectrum: formats.StoredArrays, operand: np.ndarray) -> np.ndarray:
    """Return the rows of the result for rows of the operand. What memory held before has no effect."""
    shape = formats.vector_tiles(problem.num_vecs, problem.frequencies, problem.results)
    result = np.full(shape, np.nan)
    cpu.launcher(Target("cpu"), problem)(result, spectrum, tiles_of(operand, problem.num_vecs, np.nan))
    return rows_of(result, problem.num_vecs, problem.frequencies)


def check(problem: Problem) -> None:
    """Compare with einsum in complex128.

    Sums of n complex products: gamma_(2n + 2) in each part (Higham, Accuracy and Stability, section 3.6), relative to
    the sum of magnitudes.
    """
    spectrum, meant = stored_spectrum(problem)
    vectors = random((problem.num_vecs, problem.reduced, problem.frequencies), 1)
    found = multiply(problem, spectrum, vectors.reshape(-1, problem.frequencies))
    factor, letters = (meant.conj(), "dmk,rdk->rmk") if problem.adjoint else (meant, "dmk,rmk->rdk")
    expected = np.einsum(letters, factor, vectors)
    magnitude = np.einsum(letters, abs(meant), abs(vectors))
    error = abs(found.reshape(expected.shape) - expected)
    assert (error <= 2 * (2 * problem.reduced + 4) * 2.0**-53 * magnitude).all()


def problem(sizes: tuple[int, int, int], adjoint: bool, format: formats.Format, num_vecs: int) -> Problem:
    rows, cols, frequencies = sizes
    return Problem(rows, cols, 2 * frequencies - 1, adjoint, format, DOUBLE, DOUBLE, DOUBLE, num_vecs)


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("format", formats.FORMATS, ids=lambda format: format.name)
@pytest.mark.parametrize("num_vecs", [1, 2, 3, 5, 16, 17])
def test_sizes(num_vecs, format, adjoint) -> None:
    for sizes in SIZES:
        check(problem(sizes, adjoint, format, num_vecs))


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("format", formats.FORMATS, ids=lambda format: format.name)
@pytest.mark.parametrize("task", [(1, 1), (3, 5), (4, 16), (6, 17), (100, 100)])
def test_tasks_that_cut_rows_and_runs_of_a_scale(monkeypatch, task, format, adjoint) -> None:
    monkeypatch.setattr(cpu, "choose_task", lambda *problem: cpu.Task(*task))
    for num_vecs in (1, 3):
        check(problem((6, 70, 201), adjoint, format, num_vecs))


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("num_vecs", [1, 2])
def test_a_value_that_is_not_finite_stays_in_its_row_and_frequency(num_vecs, adjoint) -> None:
    """Values read beyond the last term or row are multiplied by zero or dropped, and must not come from another row."""
    where = problem((5, 7, 9), adjoint, formats.COMPLEX128, num_vecs)
    spectrum, _ = stored_spectrum(where)
    spectrum.values[-1, 1, -1, 0] = np.nan  # frequency 4
    found = multiply(where, spectrum, random((num_vecs * where.reduced, 9), 1))
    expected = np.zeros((num_vecs, where.results, 9), bool)
    expected[:, -1, 4] = True
    np.testing.assert_array_equal(np.isnan(found).reshape(expected.shape), expected)


def test_results_are_the_same_for_each_number_of_threads() -> None:
    """The tiling of rows must not change the order of additions."""
    for adjoint, num_vecs in product((False, True), (1, 4)):
        wanted = problem((9, 13, 70), adjoint, formats.FIXED32, num_vecs)
        spectrum, _ = stored_spectrum(wanted)
        operand = random((num_vecs * wanted.reduced, 70), 1)
        found = []
        for threads in (1, 7):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(cpu, "get_num_threads", lambda count=threads: count)
                found.append(multiply(wanted, spectrum, operand))
        np.testing.assert_array_equal(*found)


def test_tasks_fit_the_cache_and_share_the_work_fairly() -> None:
    sizes = product((1, 3, 500, 100_000), (1, 201, 4097), (1, 2, 16), (1, 2, 64), (False, True))
    for results, frequencies, num_vecs, threads, adjoint in sizes:
        sizes_of = (20, results) if adjoint else (results, 20)
        wanted = problem((*sizes_of, frequencies), adjoint, formats.COMPLEX128, num_vecs)
        rows, width = cpu.choose_task(wanted, blocks.candidates(wanted)[0], threads)
        tiles = -(-frequencies // TILE)
        assert 1 <= rows <= results and 1 <= width <= tiles
        assert width == 1 or 64 * num_vecs * width * (rows + 20) <= cpu.TASK_BYTES
        if results * tiles >= 1000 * threads:  # no thread waits long for another's last task
            tasks = -(-results // rows) * -(-tiles // width)
            assert -(-tasks // threads) * rows * width * threads <= 1.4 * results * tiles


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
@pytest.mark.parametrize("num_vecs", [1, 2])
def test_a_launch_compiles_nothing(monkeypatch, num_vecs) -> None:
    """The arguments have the types of the one signature. For others numba would compile the kernel again."""
    compiled = []
    compile_nest = CpuNest.compile
    monkeypatch.setattr(
        CpuNest, "compile", lambda nest, function: compiled.append(compile_nest(nest, function)) or compiled[-1]
    )
    clear()
    x, rows, target = np.ones(3), np.ones((2, 3)), Target("cpu")
    elementwise.fill_launcher(target, "constant")(x)
    elementwise.map_launcher(target, "axpy")(x, x, x)
    padding.copy_launcher(target, np.float64, np.float64, np.float64)(rows, rows)
    reductions.reduce_launcher(target, "dot")(np.zeros(reductions.PARTIALS + 1), x, x)
    where = problem((2, 3, 4), False, formats.FIXED16, num_vecs)
    spectrum, _ = stored_spectrum(where)  # encoded
    decode = encoding.decode_launcher(target, formats.FIXED16)
    decode(np.zeros((3, 8)), np.zeros((3, 64), np.int16), spectrum.scales[0].T.copy())
    multiply(where, spectrum, random((num_vecs * 3, 4), 1))
    launch = transform_launcher(target, "rfft", num_vecs, 3, 6, (float, float, float))
    launch(np.zeros(formats.vector_tiles(num_vecs, 4, 3)), np.ones((num_vecs * 3, 3)))
    assert len(compiled) == 10  # a reduction has two stages
    assert all(len(each.signatures) == 1 for each in compiled)


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads the assembly of x86-64")
@pytest.mark.parametrize(("format", "adjoint"), [(formats.COMPLEX128, False), (formats.FIXED16, True)])
def test_the_inner_loop_has_packed_multiply_adds_and_no_scalar_ones(format, adjoint) -> None:
    """A block has as many fused multiply-adds as its products need, and fewer permutations."""
    width = vector_width()
    register = "zmm" if width == 8 else "ymm"
    kernel = cpu.sbgemv_kernel(format, adjoint, blocks.ONE[adjoint][0])
    compiled = njit(parallel=True, nogil=True)(kernel.function("cpu"))  # cached code has no assembly
    compiled.compile(tuple(kernel.nests["cpu"].signature))
    assembly = "\n".join(compiled.inspect_asm().values())
    packed = len(re.findall(rf"\tvfn?m(?:add|sub)\d+pd\t.*{register}", assembly))
    if packed == 0 and "vfmadd" not in assembly:
        pytest.skip("the processor has no fused multiply-add")
    assert not re.search(r"\tvfn?m(?:add|sub)\d+sd\t", assembly)
    block = blocks.ONE[adjoint][0]
    assert packed >= 2 * block.down * block.right * cpu.PARTS // width
    assert "prefetch" in assembly
    permuted = len(re.findall(rf"\tv(?:movddup|shufpd|permilpd|permpd|unpck\w+)\t.*{register}", assembly))
    assert permuted <= packed


AVX2 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""}


@pytest.mark.skipif(INTERPRETED or os.environ.get("NUMBA_CPU_NAME") == "haswell", reason="this is the other process")
@pytest.mark.skipif(vector_width() < 8, reason="the processor has no AVX-512 to do without")
def test_kernels_for_avx2() -> None:
    assert run_kernel_tests(["test_sbgemv_cpu.py"], **AVX2, PYTEST_ADDOPTS="-k 'multiply_adds or not_finite'") > 0


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 8), r"spectrum: expected shape \(2, 'any', 3, 8\), found \(2, 3, 8\)"),
        ((2, 2, 4, 8), "spectrum: expected shape"),
        ((2, 1, 3, 8), "spectrum: expected runs of at least 5 frequencies, found 4"),
    ],
)
def test_spectra_in_tiles_that_do_not_fit_are_refused(shape, message) -> None:
    wanted = problem((2, 3, 5), False, formats.COMPLEX128, 1)
    stored = formats.StoredArrays(np.zeros(shape), np.zeros((1, 1, 1)))
    with pytest.raises(ValueError, match=message):
        cpu.launcher(Target("cpu"), wanted)(np.zeros((1, 2, 2, 8)), stored, np.zeros((1, 2, 3, 8)))


@pytest.mark.parametrize(
    ("name", "shape", "error", "message"),
    [
        ("result", (1, 2, 4, 8), ValueError, r"result's spectrum: expected shape \(1, 2, 2, 8\), found \(1, 2, 4, 8\)"),
        ("vector", (1, 1, 3, 8), ValueError, "vector's spectrum: expected shape"),
        ("vector", (2, 2, 3, 8), ValueError, "vector's spectrum: expected shape"),
        ("scales", (2, 2, 3), ValueError, "spectrum's scales: expected shape"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name, shape, error, message) -> None:
    shapes = {"result": (1, 2, 2, 8), "vector": (1, 2, 3, 8), "spectrum": (2, 2, 3, 8), "scales": (2, 1, 3)}
    dtypes = {"spectrum": np.int32}
    arrays = {key: np.zeros(size, dtypes.get(key)) for key, size in (shapes | {name: shape}).items()}
    launch = cpu.launcher(Target("cpu"), problem((2, 3, 5), False, formats.FIXED32, 1))
    with pytest.raises(error, match=message):
        launch(arrays["result"], formats.StoredArrays(arrays["spectrum"], arrays["scales"]), arrays["vector"])


@pytest.mark.parametrize("format", formats.FORMATS, ids=lambda format: format.name)
def test_runs_are_cut_into_tiles_and_joined_again(format) -> None:
    runs = np.arange(3 * 64).reshape(3, 64).astype(format.part)
    tiles = np.zeros((8, 5, 2 * TILE), format.part)
    tile_launcher(Target("cpu"), "to", format, format.part)(tiles, 1, runs)
    np.testing.assert_array_equal(tiles[:, 1:4].transpose(1, 0, 2).reshape(3, 64), runs)
    assert (tiles[:, [0, 4]] == 0).all()
    found = np.zeros((3, 64))
    tile_launcher(Target("cpu"), "from", format, np.float64)(tiles, 1, found)
    np.testing.assert_array_equal(found, runs)
    for first in (-1, 3):
        with pytest.raises(ValueError, match=f"tiles: expected 3 columns from {first} on, found 5 columns"):
            tile_launcher(Target("cpu"), "from", format, np.float64)(tiles, first, found)
