"""Several right-hand sides in one Vector: on process grids against NumPy, and the errors on every rank."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np
import pytest
from mpi4py import MPI
from numpy.typing import NDArray

import numba_fftmatvec as fm
from grids.test_api import UNIT, check_operation, exact_norm
from numba_fftmatvec import errors
from support import reference
from support.api import RESIZES
from support.files import read_vector, write_vector
from support.harness import run_ranks
from support.hdf5 import attributes_of
from support.num_vecs import CASES, CHECKSUM, R, blank, norm_arrays, operands
from support.operations import BLOCKS, CALLS, NT, vectors
from support.suites import agreed, share
from support.tasks import FILLS, NORM_ORDERS

Array = NDArray[Any]
Results = list[dict[str, Any]]

BACKENDS = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
GRIDS = [(backend, grid) for backend in ("cpu", "cuda") for grid in ((1, 1), (2, 2), (1, 3))]


@pytest.fixture(
    scope="module",
    params=[pytest.param(grid, marks=[pytest.mark.gpu] if grid[0] == "cuda" else []) for grid in GRIDS],
    ids=lambda grid: f"{grid[0]}-{grid[1][0]}x{grid[1][1]}",
)
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The results of each rank, and the path of the files as "folder"."""
    (backend, grid), folder = request.param, tmp_path_factory.mktemp("several")
    for space in BLOCKS:
        values = operands(space)[0]
        write_vector(folder / f"one {space}.h5", values[0], space)
        write_vector(folder / f"foreign {space}.h5", values[0], space, edit=several(values))
    found = run_ranks(grid[0] * grid[1], "support.num_vecs:everything", (grid, backend, folder))
    return [rank | {"folder": folder} for rank in found]


def several(values: Array) -> Callable[[h5py.File], None]:
    """Return an edit that replaces a file's vector by several, with the attribute in another type."""

    def edit(file: h5py.File) -> None:
        attributes = dict(file["vec"].attrs)
        del file["vec"]
        file.create_dataset("vec", data=values.ravel(), chunks=(5,)).attrs.update(attributes | {"num_vecs": 3.0})

    return edit


def topic(results: Results, space: str, name: str) -> list[Any]:
    return [rank[space][name] for rank in results]


@pytest.mark.mpi
@pytest.mark.parametrize("space", BLOCKS)
class TestGrids:
    """Tests on process grids; every gathered value is the same on all ranks."""

    def test_sizes(self, results: Results, space: str) -> None:
        blocks = BLOCKS[space]
        for rank in topic(results, space, "layout"):
            assert rank["sizes"] == (R, R, (R, blocks, NT), R * blocks * NT, blocks, NT)
            assert rank["Vector(x, False)"] == ((R, blocks, NT), False)
            assert f"3 vectors of {blocks} blocks of {NT}" in rank["repr"]

    def test_shares(self, results: Results, space: str) -> None:
        found = topic(results, space, "layout")
        rows, cols = (max(rank["colors"][axis] for rank in found) + 1 for axis in (0, 1))
        for rank in found:
            row, col = rank["colors"]
            parts, index, owner = (cols, col, row == 0) if space == "col" else (rows, row, col == 0)
            mine = operands(space)[0][:, share(BLOCKS[space], parts, index)]
            assert rank["local"] == ((mine.shape, True) if owner else None)
            np.testing.assert_array_equal(rank["mine"], mine if owner else None)

    @pytest.mark.parametrize("fill", FILLS)
    def test_fill(self, results: Results, space: str, fill: str) -> None:
        """Values are those of one global array, whatever the grid."""
        shape = R, BLOCKS[space], NT
        expected = {
            "ones": np.ones(shape),
            "zeros": np.zeros(shape),
            "doubles": reference.hashed_doubles(shape),
            "consecutive": np.arange(np.prod(shape), dtype=float).reshape(shape),
        }[fill]
        np.testing.assert_array_equal(agreed([rank[fill] for rank in topic(results, space, "layout")]), expected)

    def test_values(self, results: Results, space: str) -> None:
        x = operands(space)[0]
        found = topic(results, space, "layout")
        twice = ("scattered flat", "Vector(x)", "copy", "num_vecs given")
        for name in ("scattered", "from_numpy", "copy_to", *twice):
            expected = 2.0 * x if name in twice else x
            np.testing.assert_array_equal(agreed([rank[name] for rank in found]), expected, err_msg=name)

    @pytest.mark.parametrize(("group", "name"), CALLS)
    def test_operation(self, results: Results, space: str, group: str, name: str) -> None:
        check_operation(
            [rank[group, name] for rank in topic(results, space, "operations")], group, name, operands(space)
        )

    @pytest.mark.parametrize("order", [*NORM_ORDERS, "default"])
    @pytest.mark.parametrize("name", norm_arrays("col"))
    def test_norms(self, results: Results, space: str, name: str, order: float | str) -> None:
        """Each vector's norm has the same bits as alone; these norms and the norm of all are right."""
        ranks = [rank[name, order] for rank in topic(results, space, "reductions")]
        whole, each, alone = (agreed([rank[i] for rank in ranks]) for i in range(3))
        assert each.dtype == np.float64 and each.shape == (R,)
        np.testing.assert_array_equal(each, alone)
        values = norm_arrays(space)[name]
        for found, given in zip((whole, *each), (values, *values), strict=True):
            expected = exact_norm(given, order)
            if order in (0, -1, math.inf) or not math.isfinite(expected):
                np.testing.assert_array_equal(found, expected)
            else:
                assert abs(found - expected) <= (given.size + 2) * UNIT * expected + 5e-324

    def test_dots(self, results: Results, space: str) -> None:
        ranks = [rank["dot"] for rank in topic(results, space, "reductions")]
        whole, each, alone = (agreed([rank[i] for rank in ranks]) for i in range(3))
        assert each.dtype == np.float64 and each.shape == (R,)
        np.testing.assert_array_equal(each, alone)
        x, y, _ = operands(space)
        terms = np.abs(x * y).sum(axis=(1, 2))
        assert (np.abs(each - (x * y).sum(axis=(1, 2))) <= 2 * x[0].size * UNIT * terms).all()
        assert abs(whole - np.vdot(x, y)) <= 2 * x.size * UNIT * terms.sum()

    def test_reductions_of_one_vector(self, results: Results, space: str) -> None:
        """`norms` and `dots` are there for one vector too, and are `norm` and `dot`."""
        norm, norms, dot, dots = zip(*[rank["single"] for rank in topic(results, space, "reductions")], strict=True)
        np.testing.assert_array_equal(agreed(list(norms)), [agreed(list(norm))])
        np.testing.assert_array_equal(agreed(list(dots)), [agreed(list(dot))])

    @pytest.mark.parametrize("kind", ["new", "into"])
    @pytest.mark.parametrize(("method", "size"), RESIZES)
    def test_resize(self, results: Results, space: str, method: str, size: int, kind: str) -> None:
        expected = np.zeros((R, BLOCKS[space], size))
        expected[..., : min(size, NT)] = operands(space)[1][..., :size]
        found = agreed([rank[method, size, kind] for rank in topic(results, space, "resizes")])
        np.testing.assert_array_equal(found, expected)

    def test_views(self, results: Results, space: str) -> None:
        x, y, _ = operands(space)
        found = topic(results, space, "views")
        assert all(rank["shapes"] == [x.shape[1:]] * R for rank in found)
        np.testing.assert_array_equal(agreed([rank["read"] for rank in found]), x)
        counted = np.arange(x[2].size, dtype=float).reshape(x[2].shape)
        np.testing.assert_array_equal(agreed([rank["kept"] for rank in found]), counted)
        written = agreed([rank["written"] for rank in found])
        np.testing.assert_array_equal(written[0], x[0])
        np.testing.assert_array_equal(written[2], counted)
        np.testing.assert_allclose(written[1], x[1] + 2.0 * y[2], rtol=0, atol=4 * UNIT * 10)

    def test_files(self, results: Results, space: str) -> None:
        """Saved files are read on this grid, on others, and without the package."""
        x, y, _ = operands(space)
        found = topic(results, space, "files")
        keys = [key for key in found[0] if key[0] == "read"]
        assert len(keys) == {1: 1, 3: 2, 4: 3}[len(results)]
        for key in keys:
            np.testing.assert_array_equal(agreed([rank[key] for rank in found]), y)
        np.testing.assert_array_equal(agreed([rank["foreign"] for rank in found]), x)
        path = results[0]["folder"] / f"{space}.h5"
        np.testing.assert_array_equal(read_vector(path), y.ravel())
        names = {"col": ("n_param", "param_steps"), "row": ("n_obs", "obs_steps")}[space]
        sizes = {"reindex": 1, names[0]: BLOCKS[space], names[1]: NT, "num_vecs": R, "checksum": CHECKSUM}
        assert attributes_of(path) == sizes | ({"qoi": 1} if space == "row" else {})

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("more", ("expected 2", "found 3")),
            ("many", ("expected 1", "found 3")),
            ("one", ("expected 3", "one vector")),
        ],
    )
    def test_files_of_another_number(self, results: Results, space: str, name: str, says: tuple[str, ...]) -> None:
        """Every rank raises an error with file and field, and the vector is unchanged."""
        found = topic(results, space, "files")
        kinds, message = agreed_error([rank["refused", name] for rank in found])
        assert "FileFormatError" in kinds
        for text in (".h5, attribute num_vecs: ", *says):
            assert text in message
        assert all(rank["left", name] for rank in found)

    @pytest.mark.parametrize("name", CASES)
    def test_bad_input(self, results: Results, space: str, name: str) -> None:
        kind, says, _ = CASES[name]
        kinds, message = agreed_error([rank[name] for rank in topic(results, space, "bad_input")])
        assert kind in kinds and "FFTMatvecError" in kinds
        for text in says:
            assert text in message

    def test_after_bad_input(self, results: Results, space: str) -> None:
        for rank in topic(results, space, "bad_input"):
            np.testing.assert_array_equal(rank["afterwards"][0], operands(space)[0])
            np.testing.assert_array_equal(rank["afterwards"][1], operands(space)[1][0])


def agreed_error(found: list[Any]) -> tuple[list[str], str]:
    """Return the kinds and the message of the error that every rank raised."""
    assert None not in found, "no error"
    assert all(error == found[0] for error in found)
    kinds, message = found[0]
    return kinds, message


# On one rank: memory, and other libraries


@pytest.fixture(scope="module", params=BACKENDS)
def comm(request: pytest.FixtureRequest) -> Iterator[Any]:
    with fm.Comm(MPI.COMM_SELF, backend=request.param) as made:
        yield made


@pytest.fixture
def x(comm: Any) -> Any:
    return vectors(comm, "col", operands("col")[0])[0]


def test_one_vector_has_no_further_axis(comm: Any) -> None:
    for made in (fm.Vector(comm, 7, NT, "col", True), blank(comm, "col", 1)):
        assert made.num_vecs == 1
        assert made.shape == made.array.shape == (7, NT)


def test_num_vecs_of_other_integers(comm: Any) -> None:
    made = blank(comm, "col", np.int64(2))
    assert made.num_vecs == 2 and type(made.num_vecs) is int


def test_rows_are_the_arrays_memory(x: Any) -> None:
    """Products take the vectors as rows."""
    x.buffer.array[7 + 2, 3] = 42.0
    assert x.buffer.array.shape == (R * 7, NT)
    assert float(x.array[1, 2, 3]) == float(x.array.reshape(-1)[(7 + 2) * NT + 3]) == 42.0


def test_views_share_memory_both_ways(x: Any) -> None:
    view = x.get_vector(1)
    view.array[2, 3] = 42.0
    assert float(x.array[1, 2, 3]) == 42.0
    x.array[1, 0, 0] = 43.0
    assert view.to_numpy()[0, 0] == 43.0
    again = view.get_vector(0)
    again.init_vec_zeros()
    assert (x.to_numpy() == 0.0).all(axis=(1, 2)).tolist() == [False, True, False]


def test_a_view_is_initialised_as_its_origin_was(comm: Any, x: Any) -> None:
    made = blank(comm, "col")
    view = made.get_vector(0)
    assert x.get_vector(0).is_initialized() and not view.is_initialized()
    made.init_vec_ones()
    assert not view.is_initialized()
    view.init_vec()
    assert (view.to_numpy() == 1.0).all()


def test_closing_a_view_closes_nothing_else(x: Any) -> None:
    view, other = x.get_vector(0), x.get_vector(0)
    view.close()
    with pytest.raises(errors.ClosedError):
        view.norm()
    np.testing.assert_array_equal(other.to_numpy(), x.to_numpy()[0])


def test_numpy(comm: Any, x: Any) -> None:
    values = operands("col")[0]
    np.testing.assert_array_equal(np.asarray(x), values)
    made = blank(comm, "col")
    for given in (values, values.ravel(), np.asfortranarray(values)):
        made.init_vec_zeros()
        made.from_numpy(given)
        np.testing.assert_array_equal(made.to_numpy(), values)
    for wrong in (values[0], values.transpose(1, 0, 2), values[:2]):
        with pytest.raises(errors.ShapeError, match="from_numpy: expected"):
            made.from_numpy(wrong)


def test_dlpack(comm: Any, x: Any) -> None:
    library = importlib.import_module({"cpu": "numpy", "cuda": "cupy"}[comm.backend.name])
    shared = library.from_dlpack(x)
    assert shared.shape == (R, 7, NT)
    x.get_vector(2).array[0, 1] = 42.0
    assert float(shared[2, 0, 1]) == 42.0
    made = blank(comm, "col")
    made.from_dlpack(shared)
    np.testing.assert_array_equal(made.to_numpy(), x.to_numpy())
    with pytest.raises(errors.ShapeError, match="expected 84 elements, as 3 vectors of 7 blocks of 4 have"):
        made.from_dlpack(shared[:2])


@pytest.mark.torch
def test_torch(comm: Any, x: Any) -> None:
    needed = os.environ.get("FFTMATVEC_REQUIRE_TORCH", "0") not in ("", "0")
    torch = importlib.import_module("torch") if needed else pytest.importorskip("torch")
    tensor = x.to_torch()
    assert tuple(tensor.shape) == (R, 7, NT) and tensor.dtype == torch.float64
    tensor[1, 2, 3] = 42.0
    comm.synchronize()
    assert x.to_numpy()[1, 2, 3] == 42.0
    made = blank(comm, "col")
    made.from_torch(tensor.flip(0).to(torch.float32))
    np.testing.assert_array_equal(made.to_numpy(), x.to_numpy()[::-1].astype(np.float32))
    with pytest.raises(errors.ShapeError):
        made.from_torch(tensor[0])
