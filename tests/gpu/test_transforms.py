"""Products on one GPU: small ones, whose kernels overlap, and lengths that cuFFT transforms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec.kernels import jit
from support import reference
from support.tasks import build, operands

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("code", ["ddddd", "dssdd"])
@pytest.mark.parametrize("num_vecs", [1, 3])
def test_lengths_without_a_plan_go_through_cufft_in_chunks(monkeypatch: Any, num_vecs: int, code: str) -> None:
    """41 steps have a large prime factor. Two pairs make a chunk, and runs are eager, recorded and replayed."""
    from numba_fftmatvec.backends.cuda import transforms

    F, _, x = operands(shape := (9, 7, 41))
    monkeypatch.setattr(transforms, "CHUNK_BYTES", 2 * 2 * shape[2] * 16)
    with fm.Comm(MPI.COMM_SELF, backend="cuda") as comm:
        matrix = build(comm, F, F, code)
        assert "chunk 1" in str(matrix.plan("F", num_vecs=num_vecs))
        X, Y = (matrix.get_vec(space, num_vecs=num_vecs) for space in ("input", "output"))
        for turn in range(1, 5):
            scales = turn * np.arange(1.0, num_vecs + 1)[:, None, None]
            X.scatter((scales * x["col"]).squeeze())
            matrix.apply_product("F", X, Y)
            found = Y.gather().reshape(num_vecs, *x["row"].shape) / scales
            exact = reference.product("F", F, F, x["col"])
            error = max(np.linalg.norm(each - exact) for each in found)
            assert error <= reference.error_bound("F", F, F, x["col"], reference.roundoff(code))


@pytest.mark.parametrize("shape", [(10, 100, 100), (3, 40, 1000), (33, 70, 37)], ids=str)
@pytest.mark.parametrize("name", ["F", "F*F", "FF*"])
def test_overlapping_kernels_give_the_same_bits(monkeypatch: Any, shape: tuple[int, int, int], name: str) -> None:
    """Kernels of small products start early; each product reads the results of the one before."""
    F, _, x = operands(shape)

    def results() -> list[Any]:
        with fm.Comm(MPI.COMM_SELF, backend="cuda") as comm:
            matrix, product = build(comm, F / 1e3, F), fm.products.PRODUCTS[name]
            x_, y = (
                fm.Vector.from_layout(comm, matrix.layout.vector(space))
                for space in (product.input_space, product.output_space)
            )
            found = []
            for turn in range(60):
                x_.scatter((1 + turn) * x[product.input_space])
                matrix.apply_product(product, x_, y)
                if product.input_space == product.output_space:
                    matrix.apply_product(product, y, x_)
                    matrix.apply_product(product, x_, y)
                found.append(y.gather())
        return found

    overlapping = results()
    monkeypatch.setattr(jit, "LEAST_CAPABILITY", (99, 0))
    jit.configure.cache_clear()
    for found, expected in zip(overlapping, results(), strict=True):
        np.testing.assert_array_equal(found, expected)
    jit.configure.cache_clear()
