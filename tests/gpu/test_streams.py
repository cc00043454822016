"""Device arrays that are still being computed on a stream of the caller when the library takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm

pytestmark = pytest.mark.gpu

SIZES = ND, NM, NT = 6, 10, 256
ROUNDS = 20


@pytest.fixture(scope="module")
def comm() -> Iterator[fm.Comm]:
    with fm.Comm(MPI.COMM_SELF, backend="cuda") as made:
        yield made


def computed(values: np.ndarray) -> Any:
    """Queue several milliseconds of work on CuPy's current stream, and then the computation of an array."""
    import cupy

    busy = cupy.ones(1 << 24)
    result = cupy.full(values.shape, np.nan)
    source = cupy.asarray(values)
    for _ in range(100):
        busy *= 1.0
    result[...] = source
    return result


def expected(values: np.ndarray) -> Any:
    with fm.Comm(MPI.COMM_SELF, backend="cpu") as comm, fm.Matrix.from_array(comm, values) as F:
        x = F.get_vec("input")
        x.init_vec_doubles()
        return (F @ x).gather()


def test_vectors(comm: fm.Comm) -> None:
    import cupy

    x = fm.Vector(comm, NM, NT, "col", global_sizes=True)
    stream = cupy.cuda.Stream(non_blocking=True)
    for i in range(ROUNDS):
        values = np.full((NM, NT), float(i))
        with stream:
            x.from_dlpack(computed(values))
        assert np.array_equal(x.gather(), values)


def take_array(F: fm.Matrix, values: np.ndarray) -> None:
    F.init_mat_from_array(computed(values))


def take_rows(F: fm.Matrix, values: np.ndarray) -> None:
    F.init_mat_from_array(lambda row: computed(values[row]))


def take_rows_computed_before(F: fm.Matrix, values: np.ndarray) -> None:
    F.init_mat_from_array(computed(values).__getitem__)


@pytest.mark.parametrize("take", [take_array, take_rows, take_rows_computed_before])
def test_matrices(comm: fm.Comm, take: Callable[[fm.Matrix, np.ndarray], None]) -> None:
    import cupy

    stream = cupy.cuda.Stream(non_blocking=True)
    rng = np.random.default_rng(0)
    F = fm.Matrix(comm, NM, ND, NT, global_sizes=True)
    x = F.get_vec("input")
    x.init_vec_doubles()
    for _ in range(3):
        values = rng.standard_normal(SIZES)
        with stream:
            take(F, values)
        wanted = expected(values)
        assert np.allclose((F @ x).gather(), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


def test_a_matrix_of_another_dtype(comm: fm.Comm) -> None:
    import cupy

    values = np.random.default_rng(1).integers(-9, 9, SIZES)
    with fm.Matrix.from_array(comm, cupy.asarray(values, np.int16)) as F:
        assert np.allclose(F.spectra["F"].block_row(2), values[2])


def test_tensors(comm: fm.Comm) -> None:
    torch = pytest.importorskip("torch")
    stream = torch.cuda.Stream()
    x = fm.Vector(comm, NM, NT, "col", global_sizes=True)
    for take in (x.from_torch, x.from_dlpack):
        for i in range(ROUNDS):
            with torch.cuda.stream(stream):
                busy = torch.ones(1 << 24, device="cuda", dtype=torch.float64)
                tensor = torch.full((NM, NT), float("nan"), device="cuda", dtype=torch.float64)
                for _ in range(100):
                    busy *= 1.0
                tensor.fill_(float(i))
                take(tensor)
            assert (x.gather() == i).all()


@pytest.mark.parametrize("call", ["scatter", "from_numpy"])
def test_calls_for_host_values(comm: fm.Comm, call: str) -> None:
    import cupy

    x = fm.Vector(comm, NM, NT, "col", global_sizes=True)
    with pytest.raises(fm.ArgumentTypeError, match="expected values on the host, found ndarray on a device"):
        getattr(x, call)(cupy.ones((NM, NT)))
    assert not x.is_initialized()


def test_a_matrix_on_the_host() -> None:
    import cupy

    with (
        fm.Comm(MPI.COMM_SELF, backend="cpu") as comm,
        pytest.raises(fm.ArgumentError, match="expected memory of the host, found DLPack device"),
    ):
        fm.Matrix.from_array(comm, cupy.ones(SIZES))
