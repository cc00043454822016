"""The tiles and chunks that SBGEMV chooses: results depend on them in the last bits, and measured times in full."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from numba_fftmatvec.kernels import Target
from numba_fftmatvec.kernels.formats import COMPLEX64, COMPLEX128, FIXED16, FIXED32, FORMATS, Format
from numba_fftmatvec.kernels.lanes import Block
from numba_fftmatvec.kernels.sbgemv import cpu, cuda, provider, tiles
from numba_fftmatvec.kernels.sbgemv.problem import Problem
from numba_fftmatvec.kernels.sbgemv.tiles import TensorTile, Tile

DOUBLE = np.complex128
RESIDENT = (132, 264, 1056, 2112)

# Block rows, block columns, frequencies, adjoint, right-hand sides, threads; rows and tiles of a task.
CPU = [
    ((1, 1, 1, False, 1, 1), (1, 1)),
    ((50, 500, 201, False, 1, 2), (50, 26)),
    ((50, 500, 201, True, 1, 2), (500, 26)),
    ((100, 100, 257, False, 1, 2), (100, 33)),
    ((8, 196, 81, False, 1, 2), (4, 21)),
    ((4, 5000, 101, False, 1, 2), (4, 1)),
    ((50, 500, 201, False, 16, 2), (50, 1)),
]
# Block rows, block columns, length, adjoint, format, right-hand sides; tile; blocks; chunks for `RESIDENT` blocks.
CUDA = [
    ((100, 5000, 2000, False, COMPLEX128, 1), Tile(2, 64), 800, (7, 13, 13, 18)),
    ((100, 5000, 2000, True, COMPLEX128, 1), Tile(2, 64), 40000, (1, 1, 1, 1)),
    ((100, 5000, 2000, False, COMPLEX64, 1), Tile(4, 64, 2, 2), 200, (7, 9, 18, 26)),
    ((100, 5000, 2000, True, COMPLEX64, 1), Tile(4, 64, 2), 10000, (1, 1, 1, 1)),
    ((100, 5000, 2000, False, FIXED32, 1), Tile(4, 64, 2), 200, (15, 17, 21, 21)),
    ((100, 5000, 2000, True, FIXED16, 1), Tile(4, 64, 2), 10000, (1, 1, 1, 1)),
    ((10, 20000, 2000, False, COMPLEX128, 1), Tile(10, 32, 1, 8), 32, (45, 64, 129, 182)),
    ((11, 20000, 2000, False, COMPLEX128, 1), Tile(2, 64), 96, (26, 35, 71, 101)),
    ((9, 20000, 2000, False, FIXED16, 1), Tile(10, 32, 2, 8), 16, (33, 33, 66, 132)),
    ((10, 20, 200, False, COMPLEX128, 1), Tile(2, 32, 1, 4), 20, (1, 1, 1, 1)),
    ((10, 20, 200, True, COMPLEX128, 1), Tile(2, 32, 1, 2), 40, (1, 1, 1, 1)),
    ((100, 200, 20, False, COMPLEX64, 1), Tile(2, 16, 1, 32), 50, (1, 1, 1, 1)),
    ((3, 9, 16, False, COMPLEX128, 1), Tile(2, 32, 1, 2), 2, (1, 1, 1, 1)),
    ((2, 2000, 50, False, COMPLEX128, 1), Tile(2, 16, 1, 32), 2, (1, 1, 1, 1)),
    ((100, 5000, 2000, False, COMPLEX128, 2), Tile(5, 32, 1, 4, 1, 1, 3), 160, (7, 11, 19, 26)),
    ((100, 5000, 2000, False, COMPLEX128, 7), Tile(5, 32, 1, 4, 4, 1, 3), 160, (9, 8, 13, 13)),
    ((100, 5000, 2000, True, COMPLEX128, 8), Tile(5, 32, 1, 4, 4, 1, 3), 8000, (1, 1, 1, 1)),
    ((100, 5000, 2000, False, COMPLEX128, 9), Tile(5, 32, 1, 8, 3, 2, 5), 160, (4, 8, 13, 13)),
    ((100, 5000, 2000, False, FIXED16, 16), Tile(5, 32, 1, 8, 4, 2, 5), 160, (4, 3, 6, 13)),
    ((100, 5000, 2000, False, COMPLEX128, 17), Tile(5, 32, 1, 8, 4, 2, 5), 160, (2, 4, 13, 13)),
    ((100, 5000, 2000, False, COMPLEX128, 40), Tile(5, 32, 1, 8, 4, 2, 5), 160, (3, 1, 2, 4)),
    ((9, 50, 290, False, FIXED16, 17), Tile(5, 32, 1, 8, 4, 2, 5), 5, (1, 2, 5, 6)),
    ((10, 5000, 62, False, COMPLEX128, 3), Tile(5, 32, 1, 4, 2, 1, 3), 1, (65, 106, 256, 256)),
    ((1, 16, 62, True, FIXED16, 9), Tile(5, 32, 1, 8, 3, 2, 5), 1, (1, 1, 1, 1)),
    ((230, 200, 66, False, FIXED16, 1), Tile(2, 16, 1, 16), 345, (1, 1, 1, 1)),
    ((2, 6615, 2000, True, FIXED16, 1), Tile(2, 32), 105856, (1, 1, 1, 1)),
    ((7, 1000, 8192, False, FIXED16, 1), Tile(8, 32, 2, 8), 65, (4, 4, 15, 15)),
    ((120, 16, 1998, False, COMPLEX128, 1), Tile(2, 32, 1, 2), 1920, (1, 1, 1, 1)),
]


@pytest.mark.parametrize(("sizes", "task"), CPU)
def test_cpu(sizes: tuple[int, int, int, bool, int, int], task: tuple[int, int]) -> None:
    rows, cols, frequencies, adjoint, num_vecs, threads = sizes
    length = 2 * frequencies - 1
    problem = Problem(rows, cols, length, adjoint, COMPLEX128, DOUBLE, DOUBLE, DOUBLE, num_vecs)
    assert cpu.choose_task(problem, Block(4, 4), threads) == task


@pytest.mark.parametrize(("sizes", "tile", "blocks", "chunks"), CUDA)
def test_cuda(sizes: tuple[int, int, int, bool, Format, int], tile: Tile, blocks: int, chunks: tuple[int, ...]) -> None:
    *shape, num_vecs = sizes
    problem = Problem(*shape, DOUBLE, DOUBLE, DOUBLE, num_vecs)
    assert tiles.choose_tile(problem) == tile
    assert tile.blocks(problem) == blocks
    assert tile.groups_of_pairs(problem) == -(-num_vecs // 16)
    assert tuple(tiles.choose_chunks(problem, tile, resident) for resident in RESIDENT) == chunks


def problem(num_vecs: int, format: Format = COMPLEX128, **fields: object) -> Problem:
    return replace(Problem(100, 5000, 2000, False, format, DOUBLE, DOUBLE, DOUBLE, num_vecs), **fields)


@pytest.mark.parametrize(
    ("format", "adjoint", "least"),
    [
        (COMPLEX128, False, 13),
        (COMPLEX128, True, 13),
        *(
            (format, adjoint, 5 if adjoint else 3)
            for format in (COMPLEX64, FIXED32, FIXED16)
            for adjoint in (False, True)
        ),
    ],
)
def test_tensor_cores_are_chosen_where_they_are_faster(format: Format, adjoint: bool, least: int) -> None:
    """F of 5000 x 100 has long sums, F* short ones."""
    for num_vecs in (1, 2, least - 1, least, 8, 9, 16, 32):
        tile = tiles.choose_tile(problem(num_vecs, format, adjoint=adjoint), 16)
        assert isinstance(tile, TensorTile) == (num_vecs >= least)
        if num_vecs >= least:
            assert tile == tiles.TENSOR_TILES[format, 1 if num_vecs <= 8 else 2]


@pytest.mark.parametrize(
    "declined",
    [
        {"accumulator": np.complex64, "format": COMPLEX64},
        {"nm": 20, "nd": 200},  # a small spectrum
        {"nm": 31, "nd": 5000},  # short sums
        {"nm": 5000, "nd": 31, "adjoint": True},
    ],
)
def test_tensor_cores_decline(declined: dict[str, object]) -> None:
    assert isinstance(tiles.choose_tile(problem(16), 16), TensorTile)
    assert isinstance(tiles.choose_tile(problem(16, **declined), 16), Tile)
    assert isinstance(tiles.choose_tile(problem(16), 0), Tile)


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
@pytest.mark.parametrize("adjoint", [False, True])
def test_instructions_of_eight_rows_cover_as_many_rows(format: Format, adjoint: bool) -> None:
    many = problem(16, format, nd=1000, adjoint=adjoint)
    wide, narrow = (tiles.choose_tile(many, height) for height in (16, 8))
    assert (wide.height, narrow.height) == (16, 8) and wide.block_rows == narrow.block_rows


def test_a_block_on_tensor_cores_has_no_more_rows_than_needed() -> None:
    """A block has whole instructions along the rows, up to four of them."""
    for results, rows in ((1, 16), (16, 16), (17, 32), (32, 32), (33, 48), (49, 64), (1000, 64)):
        assert tiles.choose_tile(problem(16, nd=results, nm=10**5), 16).block_rows == rows


@pytest.mark.parametrize("key", tiles.TENSOR_TILES, ids=str)
@pytest.mark.parametrize("vector", [np.complex128, np.complex64])
@pytest.mark.parametrize(("height", "room"), [(16, 227 << 10), (8, 163 << 10)])
def test_tiles_on_tensor_cores_fit_an_h100_and_an_a100(key, vector, height: int, room: int) -> None:
    """Threads copy whole columns of a pair, and a device has room for the registers and the shared memory."""
    format, columns = key
    tile = tiles.choose_tile(problem(8 * columns, format, vector=vector), height)
    assert (tile.columns, tile.height) == (columns, height)
    assert tile.resident * (tile.shared(format.part, vector(0).real.dtype) + 1024) <= room + 1024
    assert tile.threads % (8 * tile.line) == 0 and tile.terms % 4 == 0 and tile.stages >= 2
    assert 64 % tile.line == 0 and tile.threads * tile.resident <= 512


def test_a_spectrum_of_64_mib_is_small() -> None:
    """A frequency more makes it a large one."""
    small = Problem(64, 64, 2046, False, COMPLEX128, DOUBLE, DOUBLE, DOUBLE)
    assert small.spectrum_bytes == tiles.SMALL_BYTES == 64 * 2**20
    large = Problem(64, 64, 2048, False, COMPLEX128, DOUBLE, DOUBLE, DOUBLE)
    assert (tiles.choose_tile(small), tiles.choose_chunks(small, Tile(2, 32), 10**6)) == (Tile(2, 32, layers=2), 1)
    assert tiles.choose_tile(large) == Tile(2, 64)
    assert tiles.choose_chunks(large, Tile(2, 64), 10**6) > 1


@pytest.mark.parametrize(
    ("num_vecs", "height", "text"),
    [(1, 16, ""), (16, 16, "on tensor cores"), (16, 8, "on tensor cores"), (16, 0, "without tensor cores")],
)
def test_a_plan_names_the_units_that_multiply(monkeypatch, num_vecs: int, height: int, text: str) -> None:
    monkeypatch.setattr(cuda, "tensor_height", lambda: height)
    assert provider(Target("cuda"), problem(num_vecs)) == text
    assert provider(Target("cpu"), problem(num_vecs)) == ""
