"""Products of small matrices on tensor cores, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from numba_fftmatvec.kernels.jit import CudaNest, Free, Kernel, configure, cuda, pointer, pointer_type
from numba_fftmatvec.kernels.tensor import HEIGHTS, multiply_add
from support.machines import CUDA_TARGETS

multiply = Free("multiply")


def _eight(out, a, b):
    lane = np.int64(cuda.threadIdx.x)
    g, t = lane // 4, lane % 4
    c = multiply(a[g * 4 + t], b[t * 8 + g], out[g * 8 + 2 * t], out[g * 8 + 2 * t + 1])
    out[g * 8 + 2 * t], out[g * 8 + 2 * t + 1] = c[0], c[1]


def _sixteen(out, a, b):
    lane = np.int64(cuda.threadIdx.x)
    g, t = lane // 4, lane % 4
    upper, lower = g * 8 + 2 * t, (g + 8) * 8 + 2 * t
    c = multiply(
        a[g * 8 + t], a[(g + 8) * 8 + t], a[g * 8 + t + 4], a[(g + 8) * 8 + t + 4], b[t * 8 + g], b[(t + 4) * 8 + g],
        out[upper], out[upper + 1], out[lower], out[lower + 1],
    )  # fmt: skip
    out[upper], out[upper + 1], out[lower], out[lower + 1] = c


@pytest.mark.parametrize("machine", CUDA_TARGETS, indirect=True)
@pytest.mark.parametrize(("nest", "height", "terms"), [(_eight, 8, 4), (_sixteen, 16, 8)])
def test_a_warp_multiplies_two_matrices(machine, nest, height, terms) -> None:
    """Small integers, so that the result is exact."""
    if machine.name == "cuda" and HEIGHTS.get(cuda.get_current_device().compute_capability, 0) < height:
        pytest.skip("the device lacks the instruction")
    random = np.random.default_rng(3)
    a, b, c = (random.integers(-9, 9, shape).astype(float) for shape in ((height, terms), (terms, 8), (height, 8)))
    signature = (pointer_type(np.float64),) * 3
    kernel = Kernel("product", {"cuda": CudaNest(nest, signature)}, {"multiply": multiply_add(height)})
    launch = configure(kernel.compile("cuda"), machine.target.stream, (1,), 32)
    found = machine.run(lambda *arrays: launch(tuple(map(pointer, arrays))), c.ravel(), a.ravel(), b.ravel())
    np.testing.assert_array_equal(found.reshape(height, 8), c + a @ b)
