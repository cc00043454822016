"""Interrupts at any moment: afterwards each vector is right or has no values, and the next product is right."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numba_fftmatvec as fm
from numba_fftmatvec.products import PRODUCTS
from support.interrupts import alarm

# An interrupt inside a destructor or a weak reference's callback is lost; Python reports it as unraisable.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

INTERRUPTS = 150
# (Nm, Nd, Nt), long enough for several threads on the CPU and for chunks on two streams on a GPU.
SIZES = {"cpu": (400, 30, 500), "cuda": (3000, 8, 1000)}


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

    def is_right(self, name: str) -> bool:
        """Return whether the vectors that have values are right, and the next products."""
        y, right = self.results[PRODUCTS[name].output_space], []
        if y.is_initialized():
            right.append(any(np.array_equal(y.gather(), found) for found in self.expected.values()))
        if self.x.is_initialized():  # scaled by 1 or -1, all of it
            right.append(any(np.array_equal(self.x.gather(), sign * self.values) for sign in (1.0, -1.0)))
        self.rebuild()
        right += [np.array_equal(self.product(product), expected) for product, expected in self.expected.items()]
        return all(right)


def interrupted(bench: Bench, call: Callable[[], object], name: str, count: int) -> Counter[str]:
    """Interrupt a call at evenly spread moments; return the number of interrupts that came, and of wrong values."""
    start = time.perf_counter()
    call()
    duration = time.perf_counter() - start
    found = Counter(interrupts=0, wrong=0)
    for i, moment in enumerate(np.linspace(0.02, 1.1, count)):
        if i % 3 == 0:
            bench.comm.backend.forget_programs()  # on a GPU runs are then eager, recorded and replayed in turn
        try:
            with alarm(max(1e-6, moment * duration)):
                call()
        except KeyboardInterrupt:
            found["interrupts"] += 1
        found["wrong"] += not bench.is_right(name)
    return found


def all_interrupts(backend: str, count: int) -> Counter[str]:
    """Interrupt products, arithmetic and loads; return the number of interrupts that came, and of wrong values."""
    bench, found = Bench(backend), Counter(interrupts=0, wrong=0)
    calls = {
        "F": (lambda: bench.multiply("F"), count // 3),
        "F*F": (lambda: bench.multiply("F*F"), count // 3),
        "scale": (bench.scale, count // 6),
        "load": (bench.load, count // 6),
    }
    for name, (call, moments) in calls.items():
        found.update(interrupted(bench, call, name if name in PRODUCTS else "F", moments))
    return found


def test_interrupts_on_the_cpu() -> None:
    found = all_interrupts("cpu", INTERRUPTS)
    assert found["interrupts"] > INTERRUPTS // 2
    assert found["wrong"] == 0


@pytest.mark.gpu
def test_interrupts_on_a_gpu() -> None:
    found = all_interrupts("cuda", 1000)
    assert found["interrupts"] > 100
    assert found["wrong"] == 0
