"""Real transforms between the blocks of vectors and tiles of frequencies, on the CPU.

Most are those of `rowfft`. For few values, for lengths with large prime factors and for long ones NumPy transforms.
A thread then takes some rows at a time. It rounds and transforms them in memory of its own, which stays in a core's
cache, and copies the spectra to tiles, or the tiles to spectra before it transforms back. A row that NumPy could not
transform for lack of memory becomes NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import get_num_threads, prange

from .formats import PARTS, vector_tiles
from .jit import Called, CpuNest, Free, Kernel, Target, array_type, cached_kernel, ceil_div, check, scalar_type
from .pocketfft import loop, rows_transform
from .rowfft import PARALLEL_BYTES, group_launcher, row_plan

MOST_ROWS = 64  # the tiles of neighbouring rows are consecutive
PIECE_BYTES = 1 << 17  # of rows in time; their spectra take as many, and a core's second-level cache holds both
# Values of rows' heads from which kernels of our own transform them. For fewer they gain little, and take seconds to
# compile.
LEAST_VALUES = 1 << 13

transform, rounded, piece_of, MISSING = Free("transform"), Free("rounded"), Free("piece_of"), Free("MISSING")


def _convert(value):
    return value


def _round_to_single(value):
    return np.float32(value)


def _forward_piece(tiles, first, rows, blocks, row, values, spectra, address, data, heads, length):
    for i in range(rows):
        for t in range(heads):
            values[i, t] = rounded(blocks[row + i, t])
        spectra[i, 0] = MISSING
    transform(address, data, values, heads, spectra, length // 2 + 1, rows)
    for tile in range(tiles.shape[0]):
        for i in range(rows):
            for k in range(PARTS):
                tiles[tile, first + i, k] = spectra[i, tile * PARTS + k]


def _inverse_piece(tiles, first, rows, blocks, row, values, spectra, address, data, heads, length):
    for tile in range(tiles.shape[0]):
        for i in range(rows):
            for k in range(PARTS):
                spectra[i, tile * PARTS + k] = tiles[tile, first + i, k]
    for i in range(rows):
        values[i, 0] = MISSING
    transform(address, data, spectra, length // 2 + 1, values, length, rows)
    for i in range(rows):
        if np.isnan(values[i, 0]):
            values[i, :heads] = MISSING
        for t in range(heads):
            blocks[row + i, t] = rounded(values[i, t])


PIECES = {"rfft": _forward_piece, "irfft": _inverse_piece}


def _transform_cpu(tiles, blocks, values, spectra, address, data, num_vecs, heads, length):
    count = tiles.shape[2]
    shares, rows = values.shape[0], values.shape[1]
    pieces = (count + rows - 1) // rows
    total = num_vecs * pieces
    for share in prange(shares):
        for piece in range(share * total // shares, (share + 1) * total // shares):
            v, first = piece // pieces, piece % pieces * rows
            piece_of(
                *(tiles[v], first, min(rows, count - first), blocks, v * count + first),
                *(values[share], spectra[share], address, data, heads, length),
            )


@cached_kernel
def transform_kernel(kind: str, blocks: Any, rounding: Any, real: Any) -> Kernel:
    """Return the kernel of a transform, for dtypes of the blocks, of the rounding and of the transform."""
    index = scalar_type(int)
    signature = (
        *(array_type(np.float64, 4), array_type(blocks, 2), array_type(real, 3), array_type(real, 3)),
        *[index] * 5,
    )
    bindings = {
        "piece_of": Called(PIECES[kind]),
        "transform": rows_transform(kind),
        "rounded": Called(_round_to_single if rounding == np.float32 else _convert),
        "MISSING": real.type(np.nan),
    }
    name = f"{kind}_{blocks.char}{rounding.char}{real.char}"
    return Kernel(name, {"cpu": CpuNest(_transform_cpu, signature, parallel_bytes=PARALLEL_BYTES, counted=2)}, bindings)


def rows_together(rows: int, length: int, real: np.dtype[Any], threads: int) -> int:
    """Return the number of rows that a thread transforms at a time."""
    fitting = max(1, PIECE_BYTES // (length * real.itemsize))
    return max(1, min(MOST_ROWS, fitting, ceil_div(rows, threads)))


def piece_launcher(
    target: Target,
    kind: str,
    length: int,
    num_vecs: int,
    blocks: int,
    dtypes: tuple[np.dtype[Any], np.dtype[Any], np.dtype[Any]],
    allocate: Callable[..., Any],
) -> Callable[[Any, Any, int], None]:
    """Compile a transform by NumPy and return ``launch(tiles, rows, heads)`` on checked arrays."""
    real, threads = dtypes[2], get_num_threads()
    run = transform_kernel(kind, *dtypes).launcher(target)
    found, frequencies = loop(kind, real), PARTS * vector_tiles(1, length // 2 + 1, 1)[1]
    together = rows_together(num_vecs * blocks, length, real, threads)
    values = allocate((threads, together, length), real)
    spectra = allocate((threads, together, frequencies), real)

    def launch(tiles: Any, rows: Any, heads: int) -> None:
        run(tiles, rows, values, spectra, *found, num_vecs, heads, length)

    return launch


def transform_launcher(
    target: Target,
    kind: str,
    num_vecs: int,
    blocks: int,
    length: int,
    dtypes: tuple[Any, Any, Any],
    allocate: Callable[..., Any] = np.zeros,
) -> Callable[[Any, Any], None]:
    """Compile a transform and return its launcher.

    Parameters
    ----------
    target : Target
        The CPU.
    kind : {"rfft", "irfft"}
        Whether blocks are padded and transformed to tiles, or tiles are transformed back, unnormalised, to blocks.
    num_vecs, blocks : int
        Numbers of vectors, and of the blocks of each.
    length : int
        The even length of the real transforms.
    dtypes : tuple of dtype
        Of the blocks, of the rounding of their values, and of the transform: float32 or float64 each.
    allocate : callable
        ``allocate(shape, dtype)`` returns workspace of zeros.

    Returns
    -------
    callable
        ``launch(tiles, rows)`` for tiles of the shape `vector_tiles` and (num_vecs blocks, width) rows of at most
        `length` time steps. The first half of the length is read and written; longer rows have tails, which are taken
        as zero and not written.
    """
    of_rows, rounding, real = map(np.dtype, dtypes)
    shape, half = vector_tiles(num_vecs, length // 2 + 1, blocks), length // 2
    plan = row_plan(half, real) if num_vecs * blocks * half >= LEAST_VALUES else None
    about = num_vecs, blocks, (of_rows, rounding, real), allocate
    run = group_launcher(target, kind, plan, *about) if plan else piece_launcher(target, kind, length, *about)

    def launch(tiles: Any, rows: Any) -> None:
        check(tiles, np.float64, shape, "tiles")
        check(rows, of_rows, (num_vecs * blocks, None), "rows")
        if rows.shape[1] > length:
            raise ValueError(f"rows: expected at most {length} time steps, found {rows.shape[1]}")
        run(tiles, rows, min(rows.shape[1], half))

    return launch
