"""F and F* as other libraries write them on a CPU, and the alternation of programs on one machine.

NumPy and SciPy transform with scipy.fft on all cores and multiply all frequencies by one np.matmul. They store the
spectrum in matmul's best layout, ``[k][d][m]``, and a second, transposed one for F*. Their vectors are in our order,
``[block, t]``, or in their best one, ``[t, block]``. PyLops' multi-dimensional convolution does the same within
operators, with vectors ``[t, block]``.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.fft

TOLERANCE = 1e-13
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

Array = np.ndarray
Product = Callable[[Array], Array]


class Peer(NamedTuple):
    """A program: its name, the order of its vectors, and the function that makes its product."""

    name: str
    order: str
    make: Callable[[], Product]


class Effort(NamedTuple):
    """The rounds of alternating programs, and the seconds of a program in each round, first unmeasured."""

    rounds: int
    warm_up: float
    seconds: float


def spectrum_of(blocks: Array) -> Array:
    """Return the spectrum ``[k][d][m]`` of a first block column ``[d][m][t]``."""
    transformed = scipy.fft.rfft(blocks, 2 * blocks.shape[2], axis=2, workers=CORES)
    return np.ascontiguousarray(transformed.transpose(2, 0, 1))


def time_first(spectrum: Array, x: Array) -> Array:
    """Return the product with vectors (t, block, num_vecs)."""
    nt = x.shape[0]
    x_hat = scipy.fft.rfft(x, 2 * nt, axis=0, workers=CORES)
    return scipy.fft.irfft(np.matmul(spectrum, x_hat), 2 * nt, axis=0, workers=CORES)[:nt]


def block_first(spectrum: Array, x: Array) -> Array:
    """Return the product with vectors (num_vecs, block, t)."""
    nt = x.shape[2]
    x_hat = np.ascontiguousarray(scipy.fft.rfft(x, 2 * nt, axis=2, workers=CORES).transpose(2, 1, 0))
    y_hat = np.ascontiguousarray(np.matmul(spectrum, x_hat).transpose(2, 1, 0))
    return scipy.fft.irfft(y_hat, 2 * nt, axis=2, workers=CORES)[:, :, :nt]


def pylops_product(spectrum: Array, op: str, nt: int, num_vecs: int) -> Product:
    """Return PyLops' product with vectors (t, block, num_vecs): F, or F* as the adjoint of F.

    The convolution has twice the time steps, so that it is causal. `spectrum` is that of F in both cases.
    """
    from pylops.waveeqprocessing import MDC

    options = {"twosided": False, "usematmul": True, "saveGt": op == "F*", "prescaled": True}
    operator = MDC(spectrum, 2 * nt, num_vecs, fftengine="scipy", workers=CORES, **options)
    apply = operator.matvec if op == "F" else operator.rmatvec

    def product(x: Array) -> Array:
        padded = np.zeros((2 * nt, *x.shape[1:]))
        padded[:nt] = x
        return apply(padded.ravel()).reshape(2 * nt, -1, num_vecs)[:nt]

    return product


def peers(forward: Array, op: str, num_vecs: int) -> Iterator[Peer]:
    """Yield the peers of a product; `forward` is the spectrum ``[k][d][m]``."""
    own = forward if op == "F" else np.ascontiguousarray(forward.conj().transpose(0, 2, 1))
    yield Peer("NumPy and SciPy, [t, block]", "[t, block]", lambda: partial(time_first, own))
    yield Peer("NumPy and SciPy, [block, t]", "[block, t]", lambda: partial(block_first, own))
    nt = len(forward) - 1
    yield Peer("PyLops, [t, block]", "[t, block]", lambda: pylops_product(forward, op, nt, num_vecs))


def checked_run(peer: Peer, operand: Array, expected: Array) -> Callable[[], object]:
    """Return the function that runs a peer's product on vectors (num_vecs, block, t), after one comparison with ours.

    Raises
    ------
    ArithmeticError
        The result differs from `expected`.
    """
    product, time_is_first = peer.make(), peer.order == "[t, block]"
    values = np.ascontiguousarray(operand.transpose(2, 1, 0)) if time_is_first else operand
    found = product(values).transpose(2, 1, 0) if time_is_first else product(values)
    error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    if not error <= TOLERANCE:
        raise ArithmeticError(f"expected a result within {TOLERANCE} of ours, found {error:.2e}")
    return partial(product, values)


def alternate(programs: Mapping[str, Callable[[], object]], effort: Effort) -> dict[str, list[float]]:
    """Return each program's seconds, in alternating rounds, so that a disturbance affects all programs.

    A program first runs unmeasured, until the previous program's idle threads sleep. It runs at least once.
    """
    found: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(effort.rounds):
        for name, run in programs.items():
            end = time.perf_counter() + effort.warm_up
            while time.perf_counter() < end:
                run()
            end = time.perf_counter() + effort.seconds
            while True:
                start = time.perf_counter()
                run()
                now = time.perf_counter()
                found[name].append(now - start)
                if now >= end:
                    break
    return found


def milliseconds(seconds: list[float]) -> dict[str, float]:
    """Return the median and the minimum in milliseconds."""
    return {"median_ms": 1e3 * statistics.median(seconds), "min_ms": 1e3 * min(seconds)}


def failure(error: Exception) -> dict[str, Any]:
    """Return the record of a program that could not be measured."""
    if isinstance(error, ImportError):
        return {"error": f"not installed ({error})"}
    return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
