"""pyFFTMatvec's interface on process grids of CPU ranks, every call compared with NumPy."""

from __future__ import annotations

import itertools
import math
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from support import api, reference
from support.api_errors import CASES
from support.operations import (
    BLOCKS,
    CALLS,
    CHECKSUM,
    GROUPS,
    ND,
    NM,
    NT,
    SPECIAL_CALLS,
    operands,
    special_operands,
)
from support.suites import agreed, section, share
from support.tasks import FILLS, NORM_ORDERS

pytestmark = pytest.mark.mpi

Array = NDArray[Any]
Results = list[dict[str, Any]]
GRIDS = [(1, 1), (1, 3), (2, 2)]
UNIT = 2.0**-53


@pytest.fixture(scope="module", params=GRIDS, ids=lambda grid: f"{grid[0]}x{grid[1]}")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return api.run(request.param, "cpu", tmp_path_factory.mktemp("api"))


def check_values(found: Array, expected: Array, slack: Array | None) -> None:
    """Assert that values and signs of zeros are equal or, with a slack, that finite values differ by at most it."""
    if slack is None:
        np.testing.assert_array_equal(found, expected)
        numbers = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(found[numbers]), np.signbit(expected[numbers]))
        return
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[~finite], expected[~finite])
    difference = np.abs(found[finite] - expected[finite])
    assert np.all(difference <= slack[finite]), f"off by {difference.max():.3g}"


def check_operation(ranks: list[dict[str, Any]], group: str, name: str, given: tuple[Array, ...]) -> None:
    """Assert the values, the returned object, the written memory, and that the other operands are unchanged."""
    described = GROUPS[group][name]
    with np.errstate(all="ignore"):
        expected = (described.expected or described.call)(*(v.copy() for v in given))
        slack = None if described.slack is None else described.slack(*given)
    check_values(agreed([rank["values"] for rank in ranks]), expected, slack)
    assert all(rank["returned"] for rank in ranks), "not the object that it should return"
    assert all(rank["memory kept"] for rank in ranks), "not the memory that it should write"
    for rank in ranks:
        for found, kept in zip(rank["operands"], given if group == "new" else given[1:], strict=True):
            np.testing.assert_array_equal(found, kept)


def product_bound(name: str, unit: float) -> float:
    return reference.error_bound(name, api.blocks("F"), api.blocks("G"), product_operand(name), unit)


def product_operand(name: str) -> Array:
    return operands(reference.PRODUCTS[name].source)[1]


def check_product(results: Results, key: str, name: str, unit: float = UNIT, F: Array | None = None) -> None:
    """Assert that a product of the topic `matrices` is as far from the dense one as the bound allows."""
    F = api.blocks("F") if F is None else F
    x = product_operand(name)
    found = agreed([rank[key, name] for rank in section(results, "matrices")])
    error = np.linalg.norm(found - reference.product(name, F, api.blocks("G"), x))
    assert error <= reference.error_bound(name, F, api.blocks("G"), x, unit)


def exact_norm(values: Array, order: float | str) -> float:
    """Return the norm, summed in extended precision, in which no square overflows or underflows."""
    wide = np.abs(values.astype(np.longdouble))
    if order in (2, "default"):
        if np.isinf(wide).any() and not np.isnan(wide).any():
            return math.inf
        return float(np.sqrt(np.sum(wide**2)))
    return float(np.sum(wide) if order == 1 else np.max(wide))


class ApiSuite:
    """Every test of the interface on a grid; `results` holds each rank's topics."""

    def test_comm(self, results: Results) -> None:
        found = section(results, "comms")
        rows, cols = found[0]["proc_rows"], found[0]["proc_cols"]
        for rank, told in enumerate(found):
            assert (told["world_rank"], told["world_size"], rows * cols) == (rank, len(found), len(found))
            assert (told["row_color"], told["col_color"]) == (rank % rows, rank // rows)
            assert told["sizes"] == [len(found), cols, rows]
            assert told["stream"]

    # Vectors

    @pytest.mark.parametrize("space", BLOCKS)
    @pytest.mark.parametrize(("group", "name"), CALLS)
    def test_operation(self, results: Results, space: str, group: str, name: str) -> None:
        found = [rank[space, group, name] for rank in section(results, "operations")]
        check_operation(found, group, name, operands(space))

    @pytest.mark.parametrize("space", BLOCKS)
    @pytest.mark.parametrize(("group", "name"), SPECIAL_CALLS)
    def test_special_values(self, results: Results, space: str, group: str, name: str) -> None:
        """IEEE's answers for infinities, NaN, zeros and subnormals: NumPy's."""
        found = [rank[space, group, name] for rank in section(results, "special_operations")]
        check_operation(found, group, name, special_operands(space))

    @pytest.mark.parametrize("order", [*NORM_ORDERS, "default"])
    @pytest.mark.parametrize("name", api.norm_operands("col"))
    @pytest.mark.parametrize("space", BLOCKS)
    def test_norm(self, results: Results, space: str, name: str, order: float | str) -> None:
        """The error of a sum of n terms is at most n roundings of the sum; a maximum is exact."""
        values = api.norm_operands(space)[name]
        found = agreed([rank[space, name][order] for rank in section(results, "reductions")])
        if order != "default":
            assert found[0] == found[1] or math.isnan(found[0]), "not the same bits twice"
            found = found[0]
        expected = exact_norm(values, order)
        if order in (0, -1, math.inf) or not math.isfinite(expected):
            np.testing.assert_array_equal(found, expected)
        else:
            assert abs(found - expected) <= (values.size + 2) * UNIT * expected + 5e-324

    @pytest.mark.parametrize("space", BLOCKS)
    def test_dot(self, results: Results, space: str) -> None:
        x, y, _ = operands(space)
        found = agreed([rank[space, "dot"] for rank in section(results, "reductions")])
        for value, (a, b) in zip(found, ((x, y), (y, x), (x, x)), strict=True):
            terms = (a * b).ravel()
            assert abs(value - math.fsum(terms)) <= (terms.size + 1) * UNIT * math.fsum(abs(terms))
        assert agreed([rank[space, "dot that overflows"] for rank in section(results, "reductions")]) == math.inf
        assert np.isnan(agreed([rank[space, "dot of nan"] for rank in section(results, "reductions")])).all()

    @pytest.mark.parametrize("space", BLOCKS)
    @pytest.mark.parametrize(("method", "size"), api.RESIZES)
    def test_size(self, results: Results, space: str, method: str, size: int) -> None:
        """A copy to another block size appends zeros or cuts the values."""

        def resized(values: Array) -> Array:
            return np.pad(values, ((0, 0), (0, max(0, size - NT))))[:, :size]

        found = section(results, "sizes")
        x = operands(space)[0]
        key = space, method, size
        for rank, place in zip(found, section(results, "comms"), strict=True):
            parts, index = self.split(place, space)
            values, share_, total, block_size = rank[*key, "new"]
            np.testing.assert_array_equal(values, resized(x))
            mine = len(range(BLOCKS[space])[share(BLOCKS[space], parts, index)])
            assert (share_, total, block_size) == (mine, BLOCKS[space], size)
            written, is_target, same_memory, source = rank[*key, "into"]
            np.testing.assert_array_equal(written, resized(x))
            np.testing.assert_array_equal(source, x)
            assert is_target and same_memory
            np.testing.assert_array_equal(rank[*key, "into blank"], resized(x))
            values, share_, total, block_size = rank[*key, "local"]
            total_blocks = api.LOCAL_BLOCKS * parts
            np.testing.assert_array_equal(values, resized(np.arange(total_blocks * NT, dtype=float).reshape(-1, NT)))
            assert (share_, total, block_size) == (api.LOCAL_BLOCKS, total_blocks, size)

    @staticmethod
    def split(place: dict[str, Any], space: str) -> tuple[int, int]:
        """Return the number of parts of a space, and the part of a rank."""
        return {"col": (place["proc_cols"], place["col_color"]), "row": (place["proc_rows"], place["row_color"])}[space]

    @pytest.mark.parametrize("space", BLOCKS)
    @pytest.mark.parametrize("fill", FILLS)
    def test_fill(self, results: Results, space: str, fill: str) -> None:
        shape = BLOCKS[space], NT
        expected = {
            "ones": np.ones(shape),
            "zeros": np.zeros(shape),
            "doubles": reference.hashed_doubles(shape),
            "consecutive": np.arange(math.prod(shape), dtype=float).reshape(shape),
        }[fill]
        np.testing.assert_array_equal(agreed([rank[space, fill] for rank in section(results, "values")]), expected)

    @pytest.mark.parametrize("space", BLOCKS)
    def test_vector(self, results: Results, space: str) -> None:
        """Sizes, ownership and the copies; every vector was made of 0, 1, 2, ..."""
        shape = BLOCKS[space], NT
        consecutive = np.arange(math.prod(shape), dtype=float).reshape(shape)
        for rank, place in zip(section(results, "values"), section(results, "comms"), strict=True):
            parts, index = self.split(place, space)
            owns = place["row_color" if space == "col" else "col_color"] == 0
            mine = len(range(shape[0])[share(shape[0], parts, index)])
            assert rank[space, "sizes"] == (mine, *shape, math.prod(shape), owns)
            assert rank[space, "local sizes"] == (api.LOCAL_BLOCKS, api.LOCAL_BLOCKS * parts)
            assert rank[space, "blank"] is False
            assert rank[space, "init_vec"][0] is True
            np.testing.assert_array_equal(rank[space, "init_vec"][1], consecutive + 1.0)
            returned, copied, shared = rank[space, "copy_to"]
            assert returned is None and not shared
            np.testing.assert_array_equal(copied, consecutive)
            for name in ("Vector(x)", "deep"):
                doubled, original = rank[space, name]
                np.testing.assert_array_equal(doubled, 2.0 * consecutive)
                np.testing.assert_array_equal(original, consecutive)
            assert rank[space, "shallow"] == (False, shape, space, owns)
            for part in (repr(space), str(shape[0]), str(NT), f"{place['proc_rows']}x{place['proc_cols']}"):
                assert part in rank[space, "repr"]
            assert ("off the grid" in rank[space, "repr"]) is not owns

    # Matrices

    @pytest.mark.parametrize("name", api.PRODUCT_CALLS)
    def test_product(self, results: Results, name: str) -> None:
        check_product(results, "both paths", name)

    @pytest.mark.parametrize(
        ("key", "name"), [("path", "F"), ("from file", "G*F"), ("operators", "F"), ("operators", "F*")]
    )
    def test_matrix(self, results: Results, key: str, name: str) -> None:
        check_product(results, key, name)

    def test_matrix_of_doubles(self, results: Results) -> None:
        check_product(results, "doubles", "F", F=reference.padded_doubles((ND, NM, NT)))

    @pytest.mark.parametrize("name", ["F", "F*"])
    def test_mixed_precision(self, results: Results, name: str) -> None:
        """The error is above double's and within single's bound. The matrix keeps the config of its construction."""
        check_product(results, "mixed", name, 2.0**-24)
        found = section(results, "matrices")[0]
        assert not np.array_equal(found["mixed", name], found["both paths", name])
        assert agreed([rank["mixed code"] for rank in section(results, "matrices")]) == api.CODE

    def test_matrix_properties(self, results: Results) -> None:
        for rank, place in zip(section(results, "matrices"), section(results, "comms"), strict=True):
            assert rank["blank"] == (False, False)
            sizes, state, described = rank["told"]
            assert sizes == (NM, ND, NT, 2 * NT)
            assert state == (CHECKSUM, False, True, True)
            assert described == ((ND * NT, NM * NT), "float64", True)
            cols, rows = (self.split(place, space) for space in ("col", "row"))
            assert rank["shares"] == (len(range(NM)[share(NM, *cols)]), len(range(ND)[share(ND, *rows)]))

    def test_tester(self, results: Results) -> None:
        found = section(results, "tester")
        for product in itertools.product((False, True), repeat=2):
            assert 0.0 <= agreed([rank[product] for rank in found]) < 1e-14
            assert all((*product, "wrong") in rank for rank in found)

    # Files

    @pytest.mark.parametrize("space", BLOCKS)
    def test_files(self, results: Results, space: str) -> None:
        found = section(results, "files")
        for key in ("plain", "checksum"):
            np.testing.assert_array_equal(agreed([rank[space, key] for rank in found]), operands(space)[0])
        names = {"col": ("n_param", "param_steps"), "row": ("n_obs", "obs_steps")}[space]
        sizes = dict(zip(names, (BLOCKS[space], NT), strict=True))
        saved = {"saved": {}, "with checksum": {"checksum": CHECKSUM}}
        for file, attributes in saved.items():
            self.check_file(results[0]["folder"] / f"{space} {file}.h5", operands(space)[1], sizes | attributes)

    def test_qoi_files(self, results: Results) -> None:
        found = section(results, "files")
        values = operands("row")[2]
        for key in ("qoi", "qoi again"):
            np.testing.assert_array_equal(agreed([rank[key] for rank in found]), values)
        attributes = {"n_obs": ND, "obs_steps": NT, "qoi": 1}
        self.check_file(results[0]["folder"] / "qoi saved.h5", values, attributes)

    @staticmethod
    def check_file(path: Any, values: Array, attributes: dict[str, int]) -> None:
        """Assert the content of a file, read with h5py alone."""
        with h5py.File(path) as file:
            np.testing.assert_array_equal(file["vec"][:], values.ravel())
            assert file["vec"].dtype == np.float64
            found = dict(file["vec"].attrs)
            assert {name for name in found if name.startswith("sha256")} == {"sha256", "sha256_spans", "sha256_span"}
            described = {name: int(value) for name, value in found.items() if not name.startswith("sha256")}
            assert described == {"reindex": 1} | attributes

    def test_complete_example(self, results: Results) -> None:
        """The sum of squares of F x, as in the document's example."""
        found = section(results, "example")
        exact = reference.product("F", api.blocks("F"), api.blocks("G"), product_operand("F"))
        loss = agreed([rank["loss"] for rank in found])
        error = product_bound("F", UNIT)
        assert abs(loss - np.sum(exact**2)) <= 3 * np.linalg.norm(exact) * error + exact.size * UNIT * np.sum(exact**2)
        for rank, place in zip(found, section(results, "comms"), strict=True):
            assert rank["owns"] is rank["array"] is (place["col_color"] == 0)

    # Bad input

    @pytest.mark.parametrize("name", CASES)
    def test_bad_input(self, results: Results, name: str) -> None:
        error, says, _ = CASES[name]
        found = [rank[name] for rank in section(results, "bad_input")]
        assert None not in found, f"no error on ranks {[rank for rank, raised in enumerate(found) if raised is None]}"
        for kind, bases, message in found:
            assert error in bases, f"expected {error}, found {kind}: {message}"
            assert all(text in message for text in says), f"{message!r} does not say all of {says}"

    def test_after_bad_input(self, results: Results) -> None:
        """An operation that raises leaves its operands unchanged."""
        found = agreed([rank["afterwards"] for rank in section(results, "bad_input")])
        np.testing.assert_array_equal(found, operands("col")[0])


class TestApi(ApiSuite):
    """The suite, with ranks that share the CPU."""
