"""The CPU's SBGEMV at the ends of its loops: blocks of frequencies, terms and rows, tiles, and SIMD vectors."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest

from numba_fftmatvec.kernels import Target, elementwise, encoding, formats, padding, reductions
from numba_fftmatvec.kernels.jit import CpuNest, clear
from numba_fftmatvec.kernels.sbgemv import cpu
from numba_fftmatvec.kernels.sbgemv.problem import Problem
from support.machines import INTERPRETED, interpret
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
    values_shape, scales_shape = format.shapes(problem.nd, problem.nm, frequencies)
    values, scales = np.zeros(values_shape, format.part), np.zeros(scales_shape)
    blocks = random((problem.nd, problem.nm, frequencies), frequencies)
    blocks *= 10.0 ** (np.arange(problem.nd * problem.nm) % 10).reshape(*blocks.shape[:2], 1)
    encode = encoding.encode_launcher(Target("cpu"), format, 1.0)
    for row in range(problem.nd):
        encode(values[row], scales[row % len(scales)], blocks[row].view(np.float64))
    meant = decode(format, values, scales)[..., :frequencies]
    if not format.is_fixed:
        values[..., 2 * frequencies :] = np.nan
    return formats.StoredArrays(values, scales), meant


def check(problem: Problem) -> None:
    """Compare with einsum in complex128.

    Sums of n complex products: gamma_(2n + 2) in each part (Higham, Accuracy and Stability, section 3.6), relative to
    the sum of magnitudes.
    """
    spectrum, meant = stored_spectrum(problem)
    frequencies = problem.frequencies
    vectors = random((problem.num_vecs, problem.reduced, frequencies), 1)
    operand = np.full((problem.num_vecs * problem.reduced, frequencies + 2), np.nan, DOUBLE)
    operand[:, :frequencies] = vectors.reshape(-1, frequencies)
    found = np.full((problem.num_vecs * problem.results, frequencies + 3), 9, DOUBLE)
    cpu.launcher(Target("cpu"), problem)(found, spectrum, operand)
    assert (found[:, frequencies:] == 9).all()
    factor, letters = (meant.conj(), "dmk,rdk->rmk") if problem.adjoint else (meant, "dmk,rmk->rdk")
    expected = np.einsum(letters, factor, vectors)
    magnitude = np.einsum(letters, abs(meant), abs(vectors))
    error = abs(found[:, :frequencies].reshape(expected.shape) - expected)
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
@pytest.mark.parametrize("num_vecs", [1, 3])
def test_several_tiles(monkeypatch, num_vecs, adjoint) -> None:
    """The tiles do not divide the rows, and there are several blocks of frequencies."""
    monkeypatch.setattr(cpu, "TILE_SUMS", 3 * cpu.BLOCK_FREQUENCIES)
    check(problem((11, 23, 700), adjoint, formats.COMPLEX128, num_vecs))


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("format", formats.FORMATS, ids=lambda format: format.name)
@pytest.mark.parametrize("tile", [(2, 8), (4, 40), (6, 72), (2, 128), (12, 208)])
def test_tiles_that_cut_runs_of_a_scale(monkeypatch, tile, format, adjoint) -> None:
    monkeypatch.setattr(cpu, "tile_for_several", lambda *sizes: cpu.Tile(*tile))
    check(problem((5, 11, 201), adjoint, format, 3))


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("num_vecs", [1, 2])
def test_a_value_that_is_not_finite_stays_in_its_row_and_frequency(num_vecs, adjoint) -> None:
    """Values read beyond the last term or row are multiplied by zero or dropped, and must not come from another row."""
    where = problem((5, 7, 9), adjoint, formats.COMPLEX128, num_vecs)
    spectrum, _ = stored_spectrum(where)
    spectrum.values[-1, -1, 2 * 4] = np.nan
    found = np.zeros((num_vecs * where.results, 9), DOUBLE)
    cpu.launcher(Target("cpu"), where)(found, spectrum, random((num_vecs * where.reduced, 9), 1))
    expected = np.zeros((num_vecs, where.results, 9), bool)
    expected[:, -1, 4] = True
    np.testing.assert_array_equal(np.isnan(found).reshape(expected.shape), expected)


def test_results_are_the_same_for_each_number_of_threads() -> None:
    """The tiling of rows must not change the order of additions."""
    for adjoint, num_vecs in product((False, True), (1, 4)):
        wanted = problem((9, 13, 70), adjoint, formats.FIXED32, num_vecs)
        spectrum, _ = stored_spectrum(wanted)
        operand = random((num_vecs * wanted.reduced, 70), 1)
        found = [np.zeros((num_vecs * wanted.results, 70), DOUBLE) for _ in range(2)]
        for result, threads in zip(found, (1, 7), strict=True):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(cpu, "get_num_threads", lambda count=threads: count)
                cpu.launcher(Target("cpu"), wanted)(result, spectrum, operand)
        np.testing.assert_array_equal(*found)


def test_tiles_for_several_fit_the_cache_and_share_the_work_fairly() -> None:
    for results, frequencies, num_vecs, threads in product((1, 3, 500, 100_000), (1, 201, 4097), (2, 16), (1, 2, 64)):
        rows, width = cpu.tile_for_several(results, frequencies, num_vecs, threads)
        assert rows >= 1 and rows % 2 == 0  # two rows at a time
        assert width % 8 == 0  # whole vectors of the processor
        assert rows == 2 or (rows - 2) * width * num_vecs <= cpu.SEVERAL_SUMS
        tasks = -(-results // rows) * -(-frequencies // width)
        if results * frequencies >= 1000 * threads:  # no thread waits long for another's last tile
            slowest = -(-tasks // threads) * rows * min(width, frequencies)
            assert slowest * threads <= 1.3 * (results + results % 2) * frequencies


@pytest.fixture
def prefetched() -> Iterator[list[int]]:
    """Return the list of the addresses that loop nests prefetch, which are Python functions meanwhile."""
    addresses: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        interpret(patch)
        patch.setattr(cpu, "_prefetch", addresses.append)
        yield addresses
    clear()


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("num_vecs", [1, 2])
def test_the_next_blocks_of_the_spectrum_are_prefetched(prefetched, num_vecs, adjoint) -> None:
    """For one vector the blocks to the right, or the next four; for several the next two rows, or the next terms."""
    frequencies = 75
    where = problem((9, 10, frequencies), adjoint, formats.COMPLEX128, num_vecs)
    spectrum, _ = stored_spectrum(where)
    pitch = spectrum.values.shape[2] * 8
    found = np.zeros((num_vecs * where.results, frequencies), DOUBLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "tile_for_several", lambda *sizes: cpu.Tile(10, 80))
        cpu.launcher(Target("cpu"), where)(found, spectrum, random((num_vecs * where.reduced, frequencies), 1))
    first = spectrum.values.ctypes.data
    of_spectrum = [address - first for address in prefetched if 0 <= address - first < spectrum.values.nbytes]
    lines = {(at // pitch // 10, at // pitch % 10, at % pitch) for at in of_spectrum}
    runs = [*range(0, 64 * 16, cpu.LINE), *range(64 * 16, frequencies * 16, cpu.LINE)]
    if num_vecs > 1:
        row_terms = {(row, term) for row in range(10) for term in range(16)} - {
            (r, t) for r in (0, 1) for t in range(4)
        }
        expected = {((t, r) if adjoint else (r, t)) for r, t in row_terms if t < 12 or r < 2}
    elif adjoint:
        expected = {(d, m + 1) for d in range(8) for m in range(10)}
    else:
        expected = {(d, m + 4) for d in range(9) for m in range(8)}
    # A block past the end of a row of blocks is the first of the next.
    beyond = {((d * 10 + m) // 10, (d * 10 + m) % 10) for d, m in expected}
    assert lines == {(d, m, at) for d, m in beyond for at in runs if d < 9}


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
    encoding.decode_launcher(target, formats.FIXED16)(np.zeros((3, 8)), spectrum.values[0], spectrum.scales[0])
    vectors = random((num_vecs * 3, 4), 1)
    cpu.launcher(target, where)(np.zeros((num_vecs * 2, 4), DOUBLE), spectrum, vectors)
    assert len(compiled) == 8  # a reduction has two stages
    assert all(len(each.signatures) == 1 for each in compiled)
