"""The CPU's transforms in pieces: every row is transformed for any pieces and threads, and values are rounded."""

from __future__ import annotations

import threading
import time
from itertools import product

import numpy as np
import pytest

from numba_fftmatvec.backends import workers
from numba_fftmatvec.backends.cpu import transforms
from numba_fftmatvec.backends.cpu.transforms import Pieces, irfft_and_unpad, pad_and_rfft

REALS = (np.float32, np.float64)
ROWS = (0, 1, 2, 7, 8, 9, 100)


@pytest.fixture(params=[1, 2, 3, 8, 64])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Pieces:
    """Return `Pieces` of several threads, with pieces of one or two rows."""
    monkeypatch.setattr(transforms, "PIECE_BYTES", 200)
    return Pieces(request.param)


def error_bound(length: int, real: type, rows: np.ndarray) -> np.ndarray:
    """Return a bound of the error in the 2-norm of unnormalised transforms of rows.

    The bound is of order log2 n u relative to the transform's norm (Higham, Accuracy and Stability, theorem 24.2). The
    constant 8 includes the rounding of the rows.
    """
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return 8 * (np.log2(length) + 1) * np.finfo(real).eps * np.sqrt(length) * norms


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("rows", ROWS)
def test_every_row_is_transformed_and_padded(pieces, rows, real) -> None:
    blocks = np.random.default_rng(rows).standard_normal((rows, 5))
    spectrum = np.full((rows, 6), np.nan, np.result_type(real, np.complex64))
    pieces.run(pad_and_rfft(10, real, real), 10 * np.dtype(real).itemsize, blocks, spectrum)
    error = np.linalg.norm(spectrum - np.fft.rfft(blocks, 10), axis=-1, keepdims=True)
    assert (error <= error_bound(10, real, blocks)).all()


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("rows", ROWS)
def test_every_row_is_transformed_back_and_unpadded(pieces, rows, real) -> None:
    expected = np.random.default_rng(rows).standard_normal((rows, 10))
    spectrum = np.fft.rfft(expected).astype(np.result_type(real, np.complex64))
    blocks = np.full((rows, 5), np.nan)
    pieces.run(irfft_and_unpad(10, real), 10 * np.dtype(real).itemsize, spectrum, blocks)
    error = np.linalg.norm(blocks - 10 * expected[:, :5], axis=-1, keepdims=True)
    assert (error <= error_bound(10, real, 10 * expected)).all()


def test_rounding() -> None:
    """Values are rounded on the way in and out, whatever the precisions of the transform and of the vector."""
    blocks = np.random.default_rng(1).standard_normal((4, 5))
    for rounding, real in product(REALS, repeat=2):
        spectrum, exact = (np.empty((4, 6), np.result_type(real, np.complex64)) for _ in range(2))
        pad_and_rfft(10, rounding, real)(blocks, spectrum, 1)
        pad_and_rfft(10, np.float64, real)(blocks.astype(rounding).astype(np.float64), exact, 1)
        np.testing.assert_array_equal(spectrum, exact)
        found, unrounded = np.empty((4, 5)), np.empty((4, 5))
        irfft_and_unpad(10, rounding)(spectrum, found, 1)
        irfft_and_unpad(10, np.float64)(spectrum, unrounded, 1)
        np.testing.assert_array_equal(found, unrounded.astype(rounding))


def test_an_error_on_another_thread_is_raised(pieces) -> None:
    spectrum = np.zeros((100, 7), np.complex128)  # of another length
    with pytest.raises(ValueError, match="broadcast"):
        pieces.run(pad_and_rfft(10, np.float64, np.float64), 80, np.zeros((100, 5)), spectrum)


@pytest.mark.parametrize("interrupts", [0, 2])
def test_no_thread_writes_after_an_error(monkeypatch: pytest.MonkeyPatch, interrupts: int) -> None:
    """The caller waits for all threads, in spite of interrupts meanwhile, before it raises."""
    monkeypatch.setattr(transforms, "PIECE_BYTES", 200)
    pending = [KeyboardInterrupt() for _ in range(interrupts)]
    wait = workers._Job.wait

    def interrupted(job: workers._Job) -> None:
        if pending:
            raise pending.pop()
        wait(job)

    monkeypatch.setattr(workers._Job, "wait", interrupted)
    finished = threading.Event()

    def transform(source: np.ndarray, destination: np.ndarray, workers: int) -> None:
        if threading.current_thread() is threading.main_thread():
            raise ZeroDivisionError
        time.sleep(0.2)
        destination[...] = 1
        finished.set()

    rows = np.zeros((10, 5))
    with pytest.raises(KeyboardInterrupt if interrupts else ZeroDivisionError):
        Pieces(2).run(transform, 80, rows, rows)
    assert finished.is_set()
