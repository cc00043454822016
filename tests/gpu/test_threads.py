"""Threads that share a Comm on a GPU: the products of one thread, while graphs are recorded and replayed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec.products import PRODUCTS

pytestmark = pytest.mark.gpu

SIZES = (500, 20, 200)  # Nm, Nd, Nt
PRODUCTS_OF_A_THREAD = 1000


def one_thread(F: fm.Matrix, thread: int, count: int, beside: Any) -> list[bytes]:
    """Return the results of products with this thread's vectors, of which there are more pairs as time goes on."""
    results = []
    for i in range(count):
        product = PRODUCTS[("F", "F*", "F*F")[i % 3]]
        if i % 30 < 3:  # new vectors: first runs, recorded graphs and replays alternate
            ends = {}
        if product.name not in ends:
            spaces = product.input_space, product.output_space
            pair = [fm.Vector.from_layout(F.comm, F.layout.vector(space)) for space in spaces]
            pair[0].scatter(np.random.default_rng([thread, i]).standard_normal(pair[0].shape))
            ends[product.name] = pair
        x, y = ends[product.name]
        F.apply_product(product, x, y)
        beside()
        results.append(y.gather().tobytes())
    return results


def on_its_own_stream() -> None:
    import cupy

    with cupy.cuda.Stream(non_blocking=True) as stream:
        assert float(cupy.arange(1000.0).sum()) == 499500.0
    stream.synchronize()


def on_the_default_stream() -> None:
    """CUDA refuses this while a blocking stream records."""
    import cupy

    assert float(cupy.arange(1000.0).sum()) == 499500.0


@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize("beside", [on_its_own_stream, on_the_default_stream])
def test_threads_get_the_results_of_one_thread(threads: int, beside: Callable[[], None]) -> None:
    with fm.Comm(MPI.COMM_SELF, backend="cuda") as comm:
        F = fm.Matrix(comm, *SIZES, global_sizes=True)
        F.init_mat_doubles()
        work = [(thread, PRODUCTS_OF_A_THREAD, beside) for thread in range(threads)]
        expected = [one_thread(F, *arguments) for arguments in work]
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(lambda arguments: one_thread(F, *arguments), work))
        wrong = sum(a != b for one, two in zip(expected, found, strict=True) for a, b in zip(one, two, strict=True))
        assert wrong == 0


def test_two_comms_in_two_threads() -> None:
    def run(seed: int) -> Any:
        with fm.Comm(MPI.COMM_SELF, backend="cuda") as comm, fm.Matrix(comm, *SIZES, global_sizes=True) as F:
            F.init_mat_doubles()
            return one_thread(F, seed, 200, lambda: None)

    expected = [run(seed) for seed in range(2)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, range(2))) == expected


def test_an_error_while_a_product_is_recorded() -> None:
    """The stream records no longer, and the next product is right."""
    with fm.Comm(MPI.COMM_SELF, backend="cuda") as comm, fm.Matrix(comm, *SIZES, global_sizes=True) as F:
        F.init_mat_doubles()
        x, y = F.get_vec("input"), F.get_vec("output")
        x.init_vec_doubles()
        F.matvec(x, y)
        expected, used = y.gather(), [y]
        for stage in F.plan("F")._bound.stages:
            y = F.get_vec("output")
            used.append(y)  # a new vector at its address would have its graph
            F.matvec(x, y)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(stage, "run", partial(run_and_interrupt, stage.run))
                with pytest.raises(KeyboardInterrupt):
                    F.matvec(x, y)
            assert not y.is_initialized()
            for _ in range(3):
                F.matvec(x, y)
                assert np.array_equal(y.gather(), expected)


def run_and_interrupt(run: Callable[[], None]) -> None:
    run()
    raise KeyboardInterrupt
