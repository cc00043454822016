"""Conversions of stored parts, against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from numba_fftmatvec.kernels.conversions import widening
from numba_fftmatvec.kernels.jit import CudaNest, Free, Kernel, configure, cuda, pointer, pointer_type
from support.machines import CUDA_TARGETS

widen = Free("widen")
COUNT = 256


def _widen(out, values):
    i = np.int64(cuda.blockIdx.x) * cuda.blockDim.x + cuda.threadIdx.x
    out[i] = widen(values[i])


@pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)
@pytest.mark.parametrize("part", [np.int16, np.int32])
def test_integers_are_converted_exactly(machine, part) -> None:
    """Both ends of the range, the numbers about zero, and random ones."""
    limits = np.iinfo(part)
    edges = [limits.min, limits.min + 1, -1, 0, 1, limits.max - 1, limits.max]
    random = np.random.default_rng(4).integers(limits.min, limits.max, COUNT - len(edges), endpoint=True)
    values = np.array([*edges, *random], part)
    nest = CudaNest(_widen, (pointer_type(np.float64), pointer_type(part)))
    kernel = Kernel("widen", {"cuda": nest}, {"widen": widening(values.dtype)})
    launch = configure(kernel.compile("cuda"), machine.target.stream, (COUNT // 64,), 64)
    found = machine.run(lambda *arrays: launch(tuple(map(pointer, arrays))), np.zeros(COUNT), values)
    np.testing.assert_array_equal(found, values.astype(np.float64))
