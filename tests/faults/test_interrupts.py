"""Interrupts at any moment: afterwards each vector is right or has no values, and the next product is right."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import numba_fftmatvec as fm
from numba_fftmatvec.products import PRODUCTS

# An interrupt inside a destructor or a weak reference's callback is lost; Python reports it as unraisable.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

INTERRUPTS = 150
# (Nm, Nd, Nt), long enough for several threads on the CPU and for chunks on two streams on a GPU.
SIZES = {"cpu": (400, 30, 500), "cuda": (3000, 8, 1000)}


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise a KeyboardInterrupt in the body after some time, unless it ends before."""

    def interrupt(*frame: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


class Bench:
    """A matrix, its operands, and the calls that are interrupted, each with the vectors that it writes."""

    def __init__(self, backend: str) -> None:
        self.comm = fm.Comm(backend=backend)
        self.F = fm.Matrix(self.comm, *SIZES[backend], global_sizes=True)
        rng = np.random.default_rng(0)
        self.blocks = rng.standard_normal(self.F.layout.sizes)
        self.load()
        self.operands = {space: self.vector(space, rng) for space in ("col", "row")}
        self.x = self.operands["col"].copy()
        self.results = {space: fm.Vector(v, deep_copy=False) for space, v in self.operands.items()}
        self.expected = {name: self.product(name) for name in ("F", "F*", "F*F")}
        self.values = self.x.gather()

    def vector(self, space: Any, rng: np.random.Generator) -> fm.Vector:
        vector = fm.Vector.from_layout(self.comm, self.F.layout.vector(space))
        vector.scatter(rng.standard_normal(vector.shape))
        return vector

    def load(self) -> None:
        self.F.init_mat_from_array(self.blocks)

    def multiply(self, name: str) -> fm.Vector:
        product = PRODUCTS[name]
        y = self.results[product.output_space]
        self.F.apply_product(product, self.operands[product.input_space], y)
        self.comm.synchronize()
        return y

    def product(self, name: str) -> Any:
        return self.multiply(name).gather()

    def scale(self) -> None:
        self.x.scale(-1.0)

    def rebuild(self) -> None:
        """Give the matrix and the scaled vector their values again, if an interrupt took them."""
        if not self.F.is_initialized():
            self.load()
        self.x.scatter(self.values)

    def check(self, name: str) -> None:
        """Check the vectors that have values, and then the next product."""
        y = self.results[PRODUCTS[name].output_space]
        if y.is_initialized():
            assert any(np.array_equal(y.gather(), found) for found in self.expected.values())
        if self.x.is_initialized():
            assert np.array_equal(np.abs(self.x.gather()), np.abs(self.values))
            assert abs(self.x.gather().sum()) == abs(self.values.sum())  # no part has another sign
        self.rebuild()
        for product, expected in self.expected.items():
            assert np.array_equal(self.product(product), expected)


def interrupted(bench: Bench, call: Callable[[], object], name: str, count: int) -> int:
    """Interrupt a call at evenly spread moments, check after each, and return the number of interrupts that came."""
    start = time.perf_counter()
    call()
    duration = time.perf_counter() - start
    came = 0
    for i, moment in enumerate(np.linspace(0.02, 1.1, count)):
        if i % 3 == 0:
            bench.comm.backend.forget_programs()  # on a GPU runs are then eager, recorded and replayed in turn
        try:
            with alarm(max(1e-6, moment * duration)):
                call()
        except KeyboardInterrupt:
            came += 1
        bench.check(name)
    return came


def all_interrupts(backend: str, count: int) -> int:
    """Interrupt products, arithmetic and loads, and return the number of interrupts that came."""
    bench = Bench(backend)
    calls = {"F": lambda: bench.multiply("F"), "F*F": lambda: bench.multiply("F*F")}
    came = sum(interrupted(bench, call, name, count // 3) for name, call in calls.items())
    came += interrupted(bench, bench.scale, "F", count // 6)
    return came + interrupted(bench, bench.load, "F", count // 6)


def test_interrupts_on_the_cpu() -> None:
    assert all_interrupts("cpu", INTERRUPTS) > INTERRUPTS // 2


@pytest.mark.gpu
def test_interrupts_on_a_gpu() -> None:
    assert all_interrupts("cuda", 1000) > 100
