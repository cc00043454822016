"""A step of a forward substitution by blocks, on CUDA and in the simulator."""

from __future__ import annotations

import numpy as np
import pytest

from numba_fftmatvec.kernels import substitution
from support.machines import CUDA_TARGETS, SIMULATED, Machine

pytestmark = pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)

UNIT = 2.0**-53


def solve(machine: Machine, size: int, before: int) -> None:
    """Solve the second of the two steps of a panel."""
    random, steps = np.random.default_rng(10 * size + before), before + 2
    panel, given = random.standard_normal((2 * size, steps * size + 1)), random.standard_normal(size)
    inverses, solutions = np.tril(random.standard_normal((2, size, size))), random.standard_normal(steps * size)
    upper = np.triu(np.full((size, size), np.nan), 1)  # must not be read
    arrived, residual = machine.put(np.zeros(1, np.int32)), machine.put(np.full(size, np.nan))
    launch = substitution.substitution_launcher(machine.target)
    operands = panel, inverses + upper, np.append(float(before + 1), given)
    on_device = [machine.put(array) for array in operands]
    found = [machine.run(lambda out: launch(out, *on_device, residual, arrived, before), solutions) for _ in range(2)]
    np.testing.assert_array_equal(*found)  # the counter is zero again, and the order of additions the same
    assert machine.get(arrived)[0] == 0
    count = (before + 1) * size
    np.testing.assert_array_equal(found[0][:count], solutions[:count])
    row, known, inverse = panel[size:, :count], solutions[:count], inverses[1]
    terms = np.abs(inverse) @ (np.abs(given) + np.abs(row) @ np.abs(known))
    error = np.abs(found[0][count:] - inverse @ (given - row @ known))
    assert (error <= 2 * (size + count + 4) * UNIT * terms).all()


@pytest.mark.parametrize("before", [0, 1, 6] if SIMULATED else [0, 1, 3, 20])
@pytest.mark.parametrize("size", [1, 2, 5, 9] if SIMULATED else [1, 31, 33, 100, 256])
def test_a_step(machine, size, before) -> None:
    solve(machine, size, before)


def test_other_arrays_are_refused(machine) -> None:
    launch = substitution.substitution_launcher(machine.target)
    arrived = machine.put(np.zeros(1, np.int32))
    for size, columns, dtype, error, match in [
        (2, 4, "f", TypeError, "solutions: expected dtype float64, found float32"),
        (2, 3, "d", ValueError, "expected at least 4 columns for the steps up to 1, found 3 and 4"),
        (0, 9, "d", ValueError, "block rows: expected 1 to 3 rows each, found 0"),
        (4, 9, "d", ValueError, "block rows: expected 1 to 3 rows each, found 4"),
    ]:
        shapes = (size, columns), (1, size, size), (size + 1,), (3,)
        arrays = [machine.put(np.zeros(shape)) for shape in shapes]
        with pytest.raises(error, match=match):
            launch(machine.put(np.zeros(2 * size, dtype)), *arrays, arrived, 1)
