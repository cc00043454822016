"""Exchange of a vector's data with NumPy, CuPy and DLPack: values, shared memory, its lifetime, and errors."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec import errors
from support.harness import run_ranks

BLOCKS, SIZE = 6, 4
VALUES = np.random.default_rng(7).standard_normal((BLOCKS, SIZE))
BACKENDS = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
PROTOCOLS: dict[str, Callable[[Any], Any]] = {
    "__dlpack__": lambda x: x.__dlpack__(),
    "__array__": lambda x: np.asarray(x),
}


@pytest.fixture(scope="module", params=BACKENDS)
def comm(request: pytest.FixtureRequest) -> Iterator[Any]:
    with fm.Comm(MPI.COMM_SELF, backend=request.param) as made:
        yield made


@pytest.fixture
def x(comm: Any) -> Any:
    made = blank(comm)
    made.scatter(VALUES)
    return made


def blank(comm: Any) -> Any:
    return fm.Vector(comm, BLOCKS, SIZE, "col", global_sizes=True)


def library(comm: Any) -> Any:
    """Return the library of the backend's arrays."""
    return importlib.import_module({"cpu": "numpy", "cuda": "cupy"}[comm.backend.name])


class Foreign:
    """An object with DLPack's methods on a device of the given kind, which cannot be exported."""

    def __init__(self, kind: int) -> None:
        self.kind = kind

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 0

    def __dlpack__(self, **asked: Any) -> Any:
        raise BufferError("not for sale")


class TestDlpack:
    def test_shares_memory(self, comm: Any, x: Any) -> None:
        view = library(comm).from_dlpack(x)
        assert view.shape == (BLOCKS, SIZE) and view.dtype == np.float64
        x.array[2, 3] = 42.0
        assert float(view[2, 3]) == 42.0
        x.init_vec_consecutive()
        assert np.array_equal(view.tolist(), np.arange(BLOCKS * SIZE).reshape(BLOCKS, SIZE))

    def test_keeps_memory(self, comm: Any) -> None:
        made = blank(comm)
        made.scatter(VALUES)
        view = library(comm).from_dlpack(made)
        made.close()
        del made
        gc.collect()
        others = [blank(comm) for _ in range(8)]
        for other in others:
            other.init_vec_zeros()
        assert np.array_equal(view.tolist(), VALUES)

    def test_device(self, comm: Any, x: Any) -> None:
        assert x.__dlpack_device__() == {"cpu": (1, 0), "cuda": (2, comm.device)}[comm.backend.name]

    @pytest.mark.parametrize("comm", ["cpu"], indirect=True)  # CuPy copies to the host only
    def test_copy_asked_for(self, comm: Any, x: Any) -> None:
        copied = np.from_dlpack(x, copy=True)
        x.init_vec_zeros()
        assert np.array_equal(copied, VALUES)

    @pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i8", "u1"])
    def test_import(self, comm: Any, dtype: str) -> None:
        values = np.arange(BLOCKS * SIZE).astype(dtype)
        source = library(comm).array(values)
        made = blank(comm)
        made.from_dlpack(source)
        source[...] = 0  # it was copied
        assert np.array_equal(made.to_numpy(), values.reshape(BLOCKS, SIZE))

    def test_import_of_strided_values(self, comm: Any) -> None:
        wide = np.random.default_rng(8).standard_normal((2 * SIZE, BLOCKS))
        made = blank(comm)
        made.from_dlpack(library(comm).asarray(wide)[::2])
        assert np.array_equal(made.to_numpy(), wide[::2].reshape(BLOCKS, SIZE))
        made.from_dlpack(library(comm).asarray(wide)[1::2].T)
        assert np.array_equal(made.to_numpy(), wide[1::2].T)

    def test_import_of_a_vector(self, comm: Any, x: Any) -> None:
        made = blank(comm)
        made.from_dlpack(x)
        x.init_vec_zeros()
        assert np.array_equal(made.to_numpy(), VALUES)

    @pytest.mark.parametrize(
        ("source", "error", "says"),
        [
            (lambda comm: [1.0], errors.ArgumentTypeError, "list"),
            (lambda comm: library(comm).ones(BLOCKS * SIZE, complex), errors.ArgumentTypeError, "complex128"),
            (lambda comm: library(comm).ones(BLOCKS * SIZE + 1), errors.ShapeError, "25"),
            (lambda comm: Foreign({"cpu": 2, "cuda": 1}[comm.backend.name]), errors.ArgumentError, "device"),
            (lambda comm: Foreign({"cpu": 1, "cuda": 2}[comm.backend.name]), errors.ArgumentTypeError, "not for sale"),
        ],
        ids=["no DLPack", "complex", "count", "device", "refusal"],
    )
    def test_bad_import(self, comm: Any, source: Any, error: type[Exception], says: str) -> None:
        made = blank(comm)
        with pytest.raises(error, match=says):
            made.from_dlpack(source(comm))
        assert not made.is_initialized()


class TestCudaArrayInterface:
    def test_on_the_host(self, comm: Any, x: Any) -> None:
        assert hasattr(x, "__cuda_array_interface__") == (comm.backend.name == "cuda")

    @pytest.mark.gpu
    @pytest.mark.parametrize("comm", ["cuda"], indirect=True)
    def test_on_a_device(self, comm: Any, x: Any) -> None:
        found = x.__cuda_array_interface__
        assert found["version"] == 3
        assert found["stream"] == comm.stream.ptr
        assert (found["shape"], found["typestr"], found["strides"]) == ((BLOCKS, SIZE), "<f8", None)
        assert found["data"] == (x.array.data.ptr, False)
        view = library(comm).asarray(x)
        view[1, 2] = 42.0
        assert x.to_numpy()[1, 2] == 42.0

    @pytest.mark.gpu
    @pytest.mark.parametrize("comm", ["cuda"], indirect=True)
    def test_without_values(self, comm: Any) -> None:
        with pytest.raises(errors.UninitializedError, match="__cuda_array_interface__"):
            _ = blank(comm).__cuda_array_interface__


class TestNumpy:
    def test_values(self, x: Any) -> None:
        found = np.asarray(x)
        assert found.dtype == np.float64
        assert np.array_equal(found, VALUES)

    def test_shares_memory_on_the_host(self, comm: Any, x: Any) -> None:
        found = np.asarray(x)
        x.array[0, 1] = 42.0
        assert (found[0, 1] == 42.0) == (comm.backend.name == "cpu")

    def test_copies_where_asked(self, x: Any) -> None:
        found = np.array(x)
        x.init_vec_zeros()
        assert np.array_equal(found, VALUES)

    @pytest.mark.parametrize("copy", [None, True])
    def test_converts(self, x: Any, copy: bool | None) -> None:
        found = np.array(x, dtype=np.float32, copy=copy)
        assert found.dtype == np.float32
        assert np.array_equal(found, VALUES.astype(np.float32))

    def test_never_copies(self, comm: Any, x: Any) -> None:
        with pytest.raises(ValueError, match="float32"):
            np.array(x, dtype=np.float32, copy=False)
        if comm.backend.name == "cpu":
            assert np.shares_memory(np.array(x, copy=False), x.array)
            return
        with pytest.raises(errors.ArgumentError, match="GPU"):
            np.array(x, copy=False)

    def test_operators_are_left_to_the_vector(self, x: Any) -> None:
        product = np.float64(2) * x
        assert isinstance(product, fm.Vector)
        assert np.array_equal(product.to_numpy(), 2 * VALUES)
        with pytest.raises(TypeError):
            np.add(VALUES, x)

    @pytest.mark.parametrize("dtype", ["f8", "f4", "i4", "?"])
    @pytest.mark.parametrize("shape", [(BLOCKS, SIZE), (BLOCKS * SIZE,)], ids=["blocks", "flat"])
    def test_import(self, comm: Any, dtype: str, shape: tuple[int, ...]) -> None:
        values = np.arange(BLOCKS * SIZE).astype(dtype).reshape(shape)
        made = blank(comm)
        made.from_numpy(values)
        expected = values.reshape(BLOCKS, SIZE).astype(float)
        values[...] = 0  # it was copied
        assert np.array_equal(made.to_numpy(), expected)

    def test_import_of_strided_values(self, comm: Any) -> None:
        made = blank(comm)
        made.from_numpy(np.asfortranarray(VALUES)[::-1])
        assert np.array_equal(made.to_numpy(), VALUES[::-1])

    @pytest.mark.parametrize(
        ("values", "error", "says"),
        [
            (VALUES.T, errors.ShapeError, r"\(4, 6\)"),
            (np.ones(BLOCKS * SIZE - 1), errors.ShapeError, "23"),
            (VALUES.astype(complex), errors.ArgumentTypeError, "complex128"),
            (["a"] * (BLOCKS * SIZE), errors.ArgumentTypeError, "<U1"),
        ],
        ids=["transposed", "count", "complex", "text"],
    )
    def test_bad_import(self, comm: Any, values: Any, error: type[Exception], says: str) -> None:
        made = blank(comm)
        with pytest.raises(error, match=says):
            made.from_numpy(values)
        assert not made.is_initialized()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_without_values(comm: Any, name: str) -> None:
    with pytest.raises(errors.UninitializedError, match=name):
        PROTOCOLS[name](blank(comm))


@pytest.mark.parametrize("use", [lambda x: x.from_numpy(VALUES), lambda x: x.from_dlpack(VALUES), np.asarray])
def test_after_close(comm: Any, x: Any, use: Callable[[Any], Any]) -> None:
    x.close()
    with pytest.raises(errors.ClosedError):
        use(x)


def test_without_torch(x: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "numba_fftmatvec.vector.tensors", raising=False)
    for use in (x.to_torch, lambda: x.from_torch(None)):
        with pytest.raises(errors.BackendError, match=r"numba-fftmatvec\[torch\]"):
            use()


def exchange(setting: tuple[tuple[int, int], str]) -> dict[str, Any]:
    """Return, for each space, the data that a rank of a grid exchanges, and the errors."""
    grid, backend = setting
    with fm.Comm(MPI.COMM_WORLD, *grid, backend=backend, collectives="mpi") as comm:
        return {space: exchange_vector(comm, space) for space in ("col", "row")}


def exchange_vector(comm: Any, space: str) -> dict[str, Any]:
    made = fm.Vector(comm, BLOCKS, SIZE, space, global_sizes=True)
    mine = VALUES[made.blocks.start : made.blocks.stop] if made.on_grid() else None
    made.from_numpy(mine)
    found: dict[str, Any] = {"on grid": made.on_grid(), "gathered": made.gather()}
    other = fm.Vector(comm, BLOCKS, SIZE, space, global_sizes=True)
    other.from_dlpack(made.array)
    found["gathered from DLPack"] = other.gather()
    protocols = PROTOCOLS | {"__dlpack_device__": lambda x: x.__dlpack_device__()}
    if comm.backend.name == "cuda":
        protocols["__cuda_array_interface__"] = lambda x: x.__cuda_array_interface__
    for name, use in protocols.items():
        try:
            use(made)
        except errors.ArgumentError as error:
            found[name] = str(error)
        else:
            found[name] = "exported"
    return found


@pytest.mark.mpi
@pytest.mark.parametrize("grid", [(1, 3), (2, 2)], ids=["1x3", "2x2"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_on_grids(grid: tuple[int, int], backend: str) -> None:
    results = run_ranks(grid[0] * grid[1], "unit.vector.test_interop:exchange", (grid, backend))
    for space, owners in {"col": grid[1], "row": grid[0]}.items():
        found = [result[space] for result in results]
        assert sum(rank["on grid"] for rank in found) == owners
        for rank in found:
            assert np.array_equal(rank.pop("gathered"), VALUES)
            assert np.array_equal(rank.pop("gathered from DLPack"), VALUES)
            on_grid = rank.pop("on grid")
            assert len(rank) >= 3
            if owners > 1 and on_grid:  # NumPy's functions would take a part for the whole
                says = f"__array__: expected a vector on one rank, found one that is spread over {owners}"
                assert rank.pop("__array__") == f"{says}; gather() returns the global values, to_numpy() this rank's"
            for name, outcome in rank.items():
                assert outcome == "exported" if on_grid else outcome.startswith(f"{name}: ") and "off" in outcome
