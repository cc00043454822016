"""Rows, their tiles and the error bound of their transforms, for tests of the CPU's transforms."""

from __future__ import annotations

import numpy as np

from numba_fftmatvec.kernels import Target
from numba_fftmatvec.kernels.formats import TILE, vector_tiles
from numba_fftmatvec.kernels.transforms import transform_launcher

REALS = (np.float32, np.float64)


def error_bound(length: int, real: type, rows: np.ndarray) -> np.ndarray:
    """Return a bound of the error in the 2-norm of unnormalised transforms of rows.

    The bound is of order log2 n u relative to the transform's norm (Higham, Accuracy and Stability, theorem 24.2). The
    constant 8 includes the rounding of the rows.
    """
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return 8 * (np.log2(length) + 1) * np.finfo(real).eps * np.sqrt(length) * norms


def forward(rows: np.ndarray, sizes: tuple[int, int, int], rounding: type, real: type) -> np.ndarray:
    """Return tiles that were NaN before, but for the vectors that no transform fills."""
    num_vecs, blocks, steps = sizes
    tiles = np.full(vector_tiles(num_vecs, steps + 1, blocks), np.nan)
    launch = transform_launcher(Target("cpu"), "rfft", num_vecs, blocks, 2 * steps, (rows.dtype, rounding, real))
    launch(tiles, rows)
    assert np.isnan(tiles[num_vecs:]).all()
    return tiles[:num_vecs]


def inverse(tiles: np.ndarray, sizes: tuple[int, int, int], real: type) -> np.ndarray:
    """Return rows that were NaN before."""
    num_vecs, blocks, steps = sizes
    rows = np.full((num_vecs * blocks, steps), np.nan)
    transform_launcher(Target("cpu"), "irfft", num_vecs, blocks, 2 * steps, (np.float64, real, real))(tiles, rows)
    return rows


def complex_rows(tiles: np.ndarray) -> np.ndarray:
    """Return the complex rows of tiles, with the frequencies beyond the last."""
    num_vecs, count, blocks, _ = tiles.shape
    return tiles.view(np.complex128).transpose(0, 2, 1, 3).reshape(num_vecs * blocks, count * TILE)


def tiles_of(spectra: np.ndarray, sizes: tuple[int, int, int]) -> np.ndarray:
    """Return the tiles of complex rows."""
    num_vecs, blocks, steps = sizes
    shape = vector_tiles(num_vecs, steps + 1, blocks)
    padded = np.full((shape[0], blocks, shape[1] * TILE), np.nan, np.complex128)
    padded[:num_vecs, :, : steps + 1] = spectra.reshape(num_vecs, blocks, steps + 1)
    tiles = padded.reshape(shape[0], blocks, shape[1], TILE).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(tiles).view(np.float64).reshape(shape)


def check_forward(sizes: tuple[int, int, int], real: type) -> None:
    """Compare transforms with NumPy's, and the frequencies beyond the last with zero."""
    num_vecs, blocks, steps = sizes
    rows = np.random.default_rng(blocks).standard_normal((num_vecs * blocks, steps))
    found = complex_rows(forward(rows, sizes, real, real))
    assert (found[:, steps + 1 :] == 0).all()
    error = np.linalg.norm(found[:, : steps + 1] - np.fft.rfft(rows, 2 * steps), axis=-1, keepdims=True)
    assert (error <= error_bound(2 * steps, real, rows)).all(), sizes


def check_inverse(sizes: tuple[int, int, int], real: type) -> None:
    """Compare the heads of transforms with what NumPy transformed."""
    num_vecs, blocks, steps = sizes
    expected = 2 * steps * np.random.default_rng(blocks).standard_normal((num_vecs * blocks, 2 * steps))
    rows = inverse(tiles_of(np.fft.rfft(expected, norm="forward"), sizes), sizes, real)
    error = np.linalg.norm(rows - expected[:, :steps], axis=-1, keepdims=True)
    assert (error <= error_bound(2 * steps, real, expected)).all(), sizes
