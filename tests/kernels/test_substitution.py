"""A step of a forward substitution by blocks, on CUDA and in the simulator."""

from __future__ import annotations

import numpy as np
import pytest

from numba_fftmatvec.kernels import substitution
from support.machines import CUDA_TARGETS, SIMULATED, Machine

pytestmark = pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)

UNIT = 2.0**-53


def step(machine: Machine, size: int, count: int, *, inverse: np.ndarray | None = None) -> None:
    random = np.random.default_rng(10 * size + count)
    row, known, values = random.standard_normal((size, count)), random.standard_normal(count), random.random(size)
    inverse = np.tril(random.standard_normal((size, size))) if inverse is None else inverse
    upper = np.triu(np.full((size, size), np.nan), 1)  # must not be read
    arrived, residual = machine.put(np.zeros(1, np.int32)), machine.put(np.full(size, np.nan))
    launch = substitution.substitution_launcher(machine.target)
    operands = machine.put(row), machine.put(known), machine.put(inverse + upper), residual, arrived
    found = [machine.run(lambda out: launch(out, *operands), values) for _ in range(2)]
    np.testing.assert_array_equal(*found)  # the counter is zero again, and the order of additions the same
    assert machine.get(arrived)[0] == 0
    size_of_terms = np.abs(inverse) @ (np.abs(values) + np.abs(row) @ np.abs(known))
    error = np.abs(found[0] - inverse @ (values - row @ known))
    assert (error <= 2 * (size + count + 4) * UNIT * size_of_terms).all()


@pytest.mark.parametrize("count", [0, 1, 7, 8, 33, 70] if SIMULATED else [0, 1, 511, 512, 2049, 9900])
@pytest.mark.parametrize("size", [1, 2, 5, 9] if SIMULATED else [1, 31, 33, 100, 256])
def test_a_step(machine, size, count) -> None:
    step(machine, size, count)


def test_other_arrays_are_refused(machine) -> None:
    launch = substitution.substitution_launcher(machine.target)
    arrived = machine.put(np.zeros(1, np.int32))
    for size, error, match in [
        (2, TypeError, "known values: expected dtype float64, found float32"),
        (0, ValueError, "block row: expected 1 to 3 rows, found 0"),
        (4, ValueError, "block row: expected 1 to 3 rows, found 4"),
    ]:
        known = machine.put(np.zeros(3, np.float32 if error is TypeError else np.float64))
        values, row, inverse = (machine.put(np.zeros(shape)) for shape in ((size,), (size, 3), (size, size)))
        with pytest.raises(error, match=match):
            launch(values, row, known, inverse, machine.put(np.zeros(3)), arrived)
