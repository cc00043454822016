"""Test bodies shared by the backends: subclass, and give a fixture `results` that runs `tasks.everything` on grids."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support import reference
from support.files import read_matrix, read_vector
from support.reference import PRODUCTS
from support.tasks import (
    CHECKSUM,
    CODES,
    FILLS,
    FIXED_CODES,
    NORM_ORDERS,
    SEVERAL,
    SEVERAL_CODES,
    SHAPES,
    SINGLE_STAGE_CODES,
    Failure,
    many,
    operands,
)

Array = NDArray[Any]
Results = list[dict[str, Any]]
SPACES = ("col", "row")
# The first value, the last one and the 2-norm of pyFFTMatvec's results on one rank, for Nm 31, Nd 6, Nt 20.
ORIGINAL = {
    "F": (77.30324967068324, 1377.7965647552128, 9129.046598875515),
    "F*": (272.06066936715456, 13.38132760647673, 4193.489929004276),
}


def section(results: Results, name: str) -> list[Any]:
    """Return each rank's results of a section; the test fails with the section's own traceback if it raised."""
    found = [rank[name] for rank in results]
    for rank, result in enumerate(found):
        if isinstance(result, Failure):
            pytest.fail(f"section {name} raised on rank {rank}:\n{result.trace}", pytrace=False)
    return found


def agreed(found: list[Any]) -> Any:
    """Return the value that all ranks have; fail if it differs between ranks."""
    for value in found[1:]:
        np.testing.assert_array_equal(value, found[0])
    return found[0]


@functools.cache
def exact(shape: tuple[int, int, int], name: str) -> Array:
    F, G, x = operands(shape)
    return reference.product(name, F, G, x[PRODUCTS[name].source])


@functools.cache
def bound(shape: tuple[int, int, int], name: str, unit_roundoff: float) -> float:
    F, G, x = operands(shape)
    return reference.error_bound(name, F, G, x[PRODUCTS[name].source], unit_roundoff)


def relative_error(found: Array, expected: Array) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def share(total: int, parts: int, index: int) -> slice:
    """Return the blocks of part `index`: the first ``total % parts`` parts have one more."""
    edges = np.concatenate([[0], np.cumsum([total // parts + (i < total % parts) for i in range(parts)])])
    return slice(int(edges[index]), int(edges[index + 1]))


class GridSuite:
    """Every test of a process grid; `results` holds each rank's sections."""

    def test_grid(self, results: Results) -> None:
        grids = section(results, "grid")
        rows, cols = grids[0]["proc_rows"], grids[0]["proc_cols"]
        assert rows * cols == len(grids)
        for rank, found in enumerate(grids):
            assert (found["world_rank"], found["world_size"]) == (rank, len(grids))
            assert (found["proc_rows"], found["proc_cols"]) == (rows, cols)
            assert (found["row_color"], found["col_color"]) == (rank % rows, rank // rows)
            assert found["sizes"] == (len(grids), cols, rows)
            assert found["getters"] == {name: found[name] for name in found["getters"]}

    @pytest.mark.parametrize("name", PRODUCTS)
    @pytest.mark.parametrize("code", CODES + FIXED_CODES)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_product(self, results: Results, shape: tuple[int, int, int], code: str, name: str) -> None:
        found = agreed([rank[shape, code, name] for rank in section(results, "products")])
        error = np.linalg.norm(found - exact(shape, name))
        assert error <= bound(shape, name, reference.roundoff(code))

    @pytest.mark.parametrize("count", SEVERAL)
    @pytest.mark.parametrize("name", PRODUCTS)
    @pytest.mark.parametrize("code", SEVERAL_CODES)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_product_of_several(
        self, results: Results, shape: tuple[int, int, int], code: str, name: str, count: int
    ) -> None:
        """Each vector's result has its own bound, except that two vectors share a transform and its rounding."""
        found = [rank[shape, code, name, count] for rank in section(results, "several")]
        assert all(repeats for _, repeats in found)
        y = agreed([values for values, _ in found])
        F, G, _ = operands(shape)
        x = many(shape, PRODUCTS[name].source, count)
        for i in range(count):
            partner = x[i ^ 1] if (i ^ 1) < count else x[i]
            u = reference.roundoff(code)
            allowed = sum(reference.error_bound(name, F, G, operand, u) for operand in (x[i], partner))
            assert np.linalg.norm(y[i] - reference.product(name, F, G, x[i])) <= allowed

    @pytest.mark.parametrize("name", PRODUCTS)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_double_is_double(self, results: Results, shape: tuple[int, int, int], name: str) -> None:
        found = section(results, "products")[0][shape, "ddddd", name]
        assert relative_error(found, exact(shape, name)) < 1e-13

    @pytest.mark.parametrize("name", PRODUCTS)
    @pytest.mark.parametrize("code", SINGLE_STAGE_CODES)
    def test_each_single_stage_is_taken(self, results: Results, code: str, name: str) -> None:
        found = section(results, "products")[0][SHAPES[0], code, name]
        assert relative_error(found, exact(SHAPES[0], name)) > 1e-9

    @pytest.mark.parametrize("name", "FG")
    @pytest.mark.parametrize("code", CODES)
    def test_dot(self, results: Results, code: str, name: str) -> None:
        """<F x, y> = <x, F* y>, up to the errors of the two products and of the two sums."""
        forward, backward = agreed([rank[code, name] for rank in section(results, "dots")])
        x = operands(SHAPES[0])[2]
        norms = {space: np.linalg.norm(x[space]) for space in SPACES}
        u = reference.roundoff(code)
        tolerance = bound(SHAPES[0], name, u) * norms["row"] + bound(SHAPES[0], f"{name}*", u) * norms["col"]
        sums = x["row"].size * np.linalg.norm(exact(SHAPES[0], name)) * norms["row"]
        sums += x["col"].size * np.linalg.norm(exact(SHAPES[0], f"{name}*")) * norms["col"]
        assert abs(forward - backward) <= tolerance + sums * 2.0**-53
        assert abs(forward - np.vdot(exact(SHAPES[0], name), x["row"])) <= tolerance + sums * 2.0**-53

    @pytest.mark.parametrize("space", SPACES)
    def test_layout(self, results: Results, space: str) -> None:
        Nd, Nm, Nt = SHAPES[0]
        total = {"col": Nm, "row": Nd}[space]
        for grid, rank in zip(section(results, "grid"), section(results, "vectors"), strict=True):
            parts, index, owner = {
                "col": (grid["proc_cols"], grid["col_color"], grid["row_color"] == 0),
                "row": (grid["proc_rows"], grid["row_color"], grid["col_color"] == 0),
            }[space]
            mine = operands(SHAPES[0])[2][space][share(total, parts, index)]
            found = rank[space]["layout"]
            assert found["on_grid"] == owner
            assert (found["blocks"], found["global blocks"], found["block size"]) == (len(mine), total, Nt)
            assert found["array"] == (mine.shape if owner else None)
            np.testing.assert_array_equal(found["numpy"], mine if owner else None)
            assert rank[space]["local sizes"] == 3 * parts

    @pytest.mark.parametrize("space", SPACES)
    @pytest.mark.parametrize("fill", FILLS)
    def test_vector_fill(self, results: Results, fill: str, space: str) -> None:
        Nd, Nm, Nt = SHAPES[0]
        shape = ({"col": Nm, "row": Nd}[space], Nt)
        expected = {
            "ones": np.ones(shape),
            "zeros": np.zeros(shape),
            "doubles": reference.hashed_doubles(shape),
            "consecutive": np.arange(np.prod(shape), dtype=float).reshape(shape),
        }[fill]
        np.testing.assert_array_equal(agreed([rank[space][fill] for rank in section(results, "vectors")]), expected)

    @pytest.mark.parametrize("space", SPACES)
    def test_vector_values(self, results: Results, space: str) -> None:
        """Values that are scattered, gathered, written by hand, saved or read have the same bits on every rank."""
        found = [rank[space] for rank in section(results, "vectors")]
        values = operands(SHAPES[0])[2][space]
        for key in ("gathered", ("read", False), ("read", True)):
            np.testing.assert_array_equal(agreed([rank[key] for rank in found]), values)
        np.testing.assert_array_equal(agreed([rank["marked"] for rank in found]), np.full(values.shape, 2.5))
        assert [rank["initialized at first"] for rank in found] == [False] * len(found)
        assert [rank["initialized"] for rank in found] == [True] * len(found)

    @pytest.mark.parametrize("space", SPACES)
    def test_norm_and_dot(self, results: Results, space: str) -> None:
        found = [rank[space] for rank in section(results, "vectors")]
        values = operands(SHAPES[0])[2][space]
        largest = np.abs(values).max()
        expected = [np.linalg.norm(values), np.abs(values).sum(), largest, largest, largest]
        assert len(expected) == len(NORM_ORDERS)
        np.testing.assert_allclose(agreed([rank["norms"] for rank in found]), expected, rtol=1e-14)
        np.testing.assert_allclose(agreed([rank["default norm"] for rank in found]), expected[0], rtol=1e-14)
        ramp = np.arange(values.size, dtype=float)
        terms = np.abs(values.ravel() * ramp).sum()
        dot = agreed([rank["dot"] for rank in found])
        assert abs(dot - values.ravel() @ ramp) <= values.size * 2.0**-53 * terms

    @pytest.mark.parametrize("name", PRODUCTS)
    @pytest.mark.parametrize("fill", ["ones", "doubles"])
    def test_matrix_fill(self, results: Results, fill: str, name: str) -> None:
        """The fills do not depend on the grid; the auxiliary matrix is filled as the primary one is."""
        found = agreed([rank[fill, name] for rank in section(results, "matrices")])
        blocks = {"ones": np.ones(SHAPES[0]), "doubles": reference.padded_doubles(SHAPES[0])}[fill]
        x = operands(SHAPES[0])[2][PRODUCTS[name].source]
        error = np.linalg.norm(found - reference.product(name, blocks, blocks, x))
        assert error <= reference.error_bound(name, blocks, blocks, x, 2.0**-53)

    @pytest.mark.parametrize("name", ORIGINAL)
    def test_original(self, results: Results, name: str) -> None:
        """Products of doubles are those that pyFFTMatvec computed: the first value, the last one and the 2-norm."""
        y = agreed([rank["original"][name] for rank in section(results, "matrices")])
        np.testing.assert_allclose([y.flat[0], y.flat[-1], np.linalg.norm(y)], ORIGINAL[name], rtol=1e-13)

    @pytest.mark.parametrize("name", PRODUCTS)
    def test_tester(self, results: Results, name: str) -> None:
        found = section(results, "matrices")
        assert 0 <= agreed([rank["errors"][name] for rank in found]) < 1e-14
        assert agreed([rank["rejections"][name] for rank in found])

    def test_matrix_sizes(self, results: Results) -> None:
        Nd, Nm, Nt = SHAPES[0]
        for grid, found in zip(section(results, "grid"), section(results, "matrices"), strict=True):
            rows, cols = grid["proc_rows"], grid["proc_cols"]
            mine = [
                len(range(Nm)[share(Nm, cols, grid["col_color"])]),
                len(range(Nd)[share(Nd, rows, grid["row_color"])]),
            ]
            assert list(found["shares"]) == mine
            assert found["local sizes"] == (3, 2, 3 * cols, 2 * rows)
            assert found["padded size"] == (Nt, 2 * Nt)
            assert found["shape"] == (Nd * Nt, Nm * Nt)
            assert found["nbytes"]["ddddd"] >= 2 * mine[0] * mine[1] * (Nt + 1) * 16
            assert found["nbytes"]["ssdss"] == found["nbytes"]["ddddd"] > found["nbytes"]["ddsdd"]

    @pytest.mark.parametrize("name", ["F", "F*"])
    def test_phases(self, results: Results, name: str) -> None:
        """F broadcasts down the grid's columns and reduces along its rows, F* the reverse, among several ranks only."""
        for grid, found in zip(section(results, "grid"), section(results, "matrices"), strict=True):
            lengths = (grid["proc_rows"], grid["proc_cols"])
            broadcast, reduce = lengths if name == "F" else lengths[::-1]
            phases = found["phases"][name]
            assert phases.pop("broadcast") == (2 if broadcast > 1 else 0)
            assert phases.pop("reduce") == (2 if reduce > 1 else 0)
            copies = 2 if grid["backend"] == "cpu" else 0  # one kernel of a GPU pads and transforms
            assert phases == dict.fromkeys(("fft", "sbgemv", "ifft", "total"), 2) | {"pad": copies, "unpad": copies}

    def test_other_ways_to_a_product(self, results: Results) -> None:
        """A matrix from a callable, and the operators ``F @ x`` and ``F.T @ y``."""
        for key, name in (("from callable", "F"), ("operator", "F"), ("operator*", "F*")):
            found = agreed([rank[key] for rank in section(results, "matrices")])
            assert np.linalg.norm(found - exact(SHAPES[0], name)) <= bound(SHAPES[0], name, 2.0**-53), key

    @pytest.mark.parametrize("key", [("read", "F"), ("read", "G"), ("sized", "G*"), ("saved", "F")], ids=str)
    def test_files(self, results: Results, key: tuple[str, str]) -> None:
        """A saved spectrum has been transformed back and forth again, so the bound is doubled."""
        found = section(results, "files")
        error = np.linalg.norm(agreed([rank[key] for rank in found]) - exact(SHAPES[0], key[1]))
        assert error <= 2 * bound(SHAPES[0], key[1], 2.0**-53)
        assert agreed([rank["checksum"] for rank in found]) == CHECKSUM

    def test_saved_files(self, results: Results) -> None:
        """Saved files are read without the package."""
        section(results, "files")
        folder = results[0]["folder"]
        assert relative_error(read_matrix(folder / "saved"), operands(SHAPES[0])[0]) < 1e-14
        for space in SPACES:
            values = operands(SHAPES[0])[2][space]
            np.testing.assert_array_equal(read_vector(folder / f"{space}False.h5"), values.ravel())

    def test_reference_data(self, results: Results, reference_data: Path) -> None:
        """F of a PDE solver's matrix: NumPy's product to 1e-14, and the solver's own observations to 1e-6."""
        blocks = read_matrix(reference_data / "test_mat")
        parameters = read_vector(reference_data / "test_param_vec_SOTI.h5").reshape(blocks.shape[1:])
        observed = read_vector(reference_data / "test_obs_vec_SOTI.h5").reshape(blocks.shape[0], -1)
        found = section(results, "reference")
        np.testing.assert_array_equal(agreed([rank["parameters"] for rank in found]), parameters)
        np.testing.assert_array_equal(agreed([rank["observed"] for rank in found]), observed)
        double, mixed = (agreed([rank[code] for rank in found]) for code in ("ddddd", "dssdd"))
        assert relative_error(double, reference.apply(blocks, parameters)) <= 1e-14
        assert relative_error(double, observed) <= 1e-6
        assert relative_error(mixed, observed) <= 1e-6
