"""Set-up and memory of a matrix: pieces, sources, refused values, shared spectra, and counted bytes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec.backends.cpu.memory import available_bytes
from numba_fftmatvec.layout import MatrixLayout
from numba_fftmatvec.spectrum import capacity
from numba_fftmatvec.spectrum.sources import ParallelCopy
from support import reference
from support.files import write_matrix
from support.harness import run_ranks
from support.tasks import operands, vector

SHAPE = (4, 11, 37)
F, G, X = operands(SHAPE)
ND, NM, NT = SHAPE
# The largest error of a value, relative to the largest one: of a format's rounding, and of the transforms.
ERRORS = {"ddddd": 1e-14, "ddsdd": 1e-6, "ddidd": 1e-8, "ddhdd": 1e-3}
CODES = list(ERRORS)
PRECISIONS = {code: fm.MatvecPrecisionConfig.from_code(code).sbgemv for code in CODES}
STORED = {code: precision.format for code, precision in PRECISIONS.items()}
COARSER = [precision for precision in fm.Precision if precision is not fm.Precision.DOUBLE]
BACKENDS = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(scope="module", params=BACKENDS)
def comm(request: pytest.FixtureRequest) -> Iterator[Any]:
    with fm.Comm(MPI.COMM_SELF, backend=request.param) as made:
        yield made


@pytest.fixture(params=[1, 4, 5, 11])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the columns set up at a time: one, numbers that divide all columns or do not, and all."""
    layout = MatrixLayout.of(SHAPE, (1, 1), (0, 0))
    monkeypatch.setattr(capacity, "SETUP_BYTES", request.param * capacity.column_bytes(layout))
    return int(request.param)


def matrix_of(comm: Any, values: Any = F, code: str = "ddddd") -> Any:
    return fm.Matrix.from_array(comm, values, fm.MatvecPrecisionConfig.from_code(code))


def values_of(matrix: Any) -> np.ndarray:
    """Return the values that a matrix represents."""
    return stored_values(matrix.spectra["F"])


def stored_values(spectrum: Any) -> np.ndarray:
    return np.stack([spectrum.block_row(row) for row in range(ND)])


def check_values(found: np.ndarray, expected: np.ndarray, code: str) -> None:
    assert abs(found - expected).max() <= ERRORS[code] * abs(expected).max()


def check_product(matrix: Any, values: np.ndarray) -> None:
    """Assert that F x is right."""
    y = matrix @ vector(matrix, "col", X["col"])
    error = np.linalg.norm(y.gather() - reference.product("F", values, G, X["col"]))
    assert error <= reference.error_bound("F", values, G, X["col"], reference.roundoff("ddddd"))


# Pieces


@pytest.mark.parametrize("code", CODES)
def test_pieces_make_no_difference(comm: Any, columns: int, code: str) -> None:
    found = values_of(matrix_of(comm, F, code))
    check_values(found, F, code)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capacity, "SETUP_BYTES", 1 << 30)
        np.testing.assert_array_equal(values_of(matrix_of(comm, F, code)), found)


def test_pieces_of_fills_know_their_indices(comm: Any, columns: int) -> None:
    matrix = fm.Matrix(comm, NM, ND, NT, global_sizes=True)
    matrix.init_mat_doubles()
    check_values(values_of(matrix), fm.generate_double(np.arange(F.size)).reshape(SHAPE), "ddddd")
    matrix.init_mat_ones()
    check_values(values_of(matrix), np.ones(SHAPE), "ddddd")


def test_pieces_of_files(comm: Any, columns: int, tmp_path: Path) -> None:
    write_matrix(tmp_path, F)
    check_values(values_of(fm.Matrix(comm, str(tmp_path))), F, "ddddd")


def test_a_function_is_called_once_for_each_row(comm: Any, columns: int) -> None:
    calls: list[int] = []

    def rows(d: int) -> Any:
        calls.append(d)
        return F[d]

    matrix = fm.Matrix(comm, NM, ND, NT, global_sizes=True)
    matrix.init_mat_from_array(rows)
    assert calls == list(range(ND))
    check_product(matrix, F)
    matrix.init_mat_from_array(lambda d: 2 * rows(d))
    check_product(matrix, 2 * F)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint64, np.bool_, np.longdouble])
def test_pieces_of_any_dtype_and_strides(comm: Any, columns: int, dtype: Any) -> None:
    values = np.abs(np.round(4 * F)).astype(dtype)
    strided = np.asfortranarray(np.repeat(values, 2, axis=2))[:, ::-1, ::2]
    check_values(values_of(matrix_of(comm, strided)), values[:, ::-1].astype(float), "ddddd")


@pytest.mark.parametrize("shape", [(10, 20000, 1000), (100, 5000, 1000), (1, 1, 1), (3, 7, 10**8)], ids=str)
@pytest.mark.parametrize("grid", [(1, 1), (1, 3)])
def test_pieces_cover_a_row_in_bounded_memory(shape: tuple[int, int, int], grid: tuple[int, int]) -> None:
    if shape[1] < grid[1]:
        grid = (1, 1)
    layout = MatrixLayout.of(shape, grid, (0, grid[1] - 1))
    pieces = capacity.column_pieces(layout)
    assert [col for piece in pieces for col in piece] == list(layout.block_cols)
    largest = max(map(len, pieces))
    assert len(pieces[0]) == largest
    assert largest == 1 or largest * capacity.column_bytes(layout) <= capacity.SETUP_BYTES


def test_copies_of_several_threads() -> None:
    values = np.random.default_rng(0).integers(-99, 99, (1001, 2000)).astype(np.int32)
    copy = ParallelCopy(4)
    for source in (values, values.astype(float)[::-1], values.T.copy().T, values[:1], values[:, :3]):
        target = np.full(source.shape, np.nan)
        copy(target, source)
        np.testing.assert_array_equal(target, source)
    with pytest.raises(TypeError, match="same_kind"):  # of a thread
        copy(np.empty(values.shape, np.int32), values.astype(float))


# Refused values


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("code", CODES)
def test_values_that_are_not_finite(comm: Any, columns: int, code: str, bad: float) -> None:
    """Fixed point has no such numbers; the floating-point formats store them."""
    values = F.copy()
    values[2, 7, 5] = bad
    matrix = matrix_of(comm, F, code)
    if not STORED[code].is_fixed:
        matrix.init_mat_from_array(values)
        with np.errstate(invalid="ignore"):
            found = np.isfinite(values_of(matrix)).all(axis=2)
        assert np.argwhere(~found).tolist() == [[2, 7]]
        return
    says = rf"block \(row 2, column 7\).*{PRECISIONS[code].name}.*NaN or infinity"
    with pytest.raises(fm.NonFiniteError, match=says):
        matrix.init_mat_from_array(values)
    assert not matrix.is_initialized()
    matrix.init_mat_from_array(F)  # the failure leaves no state behind
    check_values(values_of(matrix), F, code)


def free_bytes_for(matrix: Any, code: str, fraction: float = 1.0) -> int:
    """Return what the set-up needs, and a part of the spectrum in a format."""
    layout = matrix.layout
    setup = len(capacity.column_pieces(layout)[0]) * capacity.column_bytes(layout)
    return setup + int(fraction * STORED[code].nbytes(layout.nd, layout.nm, layout.frequencies))


def test_a_matrix_that_cannot_fit_is_refused(comm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes before any allocation and lists the alternatives that fit."""
    matrix = fm.Matrix(comm, NM, ND, NT, global_sizes=True)
    free = free_bytes_for(matrix, "ddidd")
    monkeypatch.setattr(comm.backend, "free_bytes", lambda: free)
    monkeypatch.setattr("numba_fftmatvec.matrix.values.Spectrum", None)
    with pytest.raises(fm.CapacityError) as caught:
        matrix.init_mat_ones()
    message = str(caught.value)
    assert isinstance(caught.value, MemoryError)
    assert f"at most the {free} bytes" in message
    assert f"a need of {free_bytes_for(matrix, 'ddddd')}" in message
    assert "as DOUBLE" in message
    for name, code in (("SINGLE", "ddsdd"), ("FIXED32", "ddidd"), ("FIXED16", "ddhdd")):
        assert f"{name} ({free_bytes_for(matrix, code)} bytes)" in message
    assert "DOUBLE (" not in message
    assert "at least 2 ranks" in message


@pytest.mark.parametrize(
    ("free", "fits"), [(("ddddd", 1.0), True), (("ddddd", 0.999), False), (("ddhdd", 0.01), False), (None, True)]
)
def test_the_bound_is_what_is_needed(
    comm: Any, monkeypatch: pytest.MonkeyPatch, free: tuple[str, float] | None, fits: bool
) -> None:
    matrix = fm.Matrix(comm, NM, ND, NT, global_sizes=True)
    available = None if free is None else free_bytes_for(matrix, *free)
    monkeypatch.setattr(comm.backend, "free_bytes", lambda: available)
    if fits:
        matrix.init_mat_ones()
    else:
        with pytest.raises(fm.CapacityError, match="alternatives that fit"):
            matrix.init_mat_ones()
    assert matrix.is_initialized() == fits


def test_nothing_may_fit(comm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comm.backend, "free_bytes", lambda: 7)
    with pytest.raises(fm.CapacityError, match="alternatives that fit: none"):
        matrix_of(comm)


def test_present_values_stay_where_new_ones_do_not_fit(comm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = matrix_of(comm)
    monkeypatch.setattr(comm.backend, "free_bytes", lambda: free_bytes_for(matrix, "ddddd", 0.5))
    with pytest.raises(fm.CapacityError):
        matrix.init_mat_from_array(G, aux_mat=True)
    assert not matrix.has_aux_mat()
    check_product(matrix, F)
    matrix.init_mat_from_array(G)  # in place: the set-up alone needs memory
    check_product(matrix, G)
    monkeypatch.setattr(comm.backend, "free_bytes", lambda: 7)
    with pytest.raises(fm.CapacityError):
        matrix.init_mat_from_array(F)
    check_product(matrix, G)


@pytest.mark.parametrize("code", CODES)
def test_a_petabyte_is_refused_at_once(comm: Any, code: str) -> None:
    """This test uses the machine's real memory."""
    matrix = fm.Matrix(comm, 10**6, 10**4, 62_500, global_sizes=True, p_config=fm.MatvecPrecisionConfig.from_code(code))
    for fill in (matrix.init_mat_ones, matrix.init_mat_doubles):
        with pytest.raises(fm.CapacityError, match="ranks with as much memory each"):
            fill()
    assert not matrix.is_initialized()


def refusals(case: tuple[str, tuple[int, int]]) -> list[tuple[str, str, bool]]:
    """Return each error's type and message and whether the matrix has values, on one rank of a grid."""
    backend, grid = case
    with fm.Comm(MPI.COMM_WORLD, *grid, backend=backend, collectives="mpi") as comm:
        matrix = fm.Matrix(comm, NM, ND, NT, global_sizes=True, p_config=fm.MatvecPrecisionConfig.from_code("ddhdd"))
        values = F.copy()
        values[ND - 1, NM - 1, 0] = np.nan  # of the last rank only
        found = []

        def attempt(blocks: Any) -> None:
            try:
                matrix.init_mat_from_array(blocks)
            except fm.FFTMatvecError as error:
                found.append((type(error).__name__, str(error), matrix.is_initialized()))

        matrix.init_mat_ones()
        if comm.world_rank == comm.world_size - 1:
            comm.backend.free_bytes = lambda: 7
        attempt(F)
        comm.backend.free_bytes = lambda: None
        attempt(values)
        matrix.init_mat_from_array(F)
    return found


@pytest.mark.mpi
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_rank_raises_what_one_meets(backend: str) -> None:
    first, *others = run_ranks(4, "unit.spectrum.test_setup:refusals", (backend, (2, 2)), timeout=240)
    assert others == [first] * 3
    (capacity, _, kept), (nonfinite, message, left) = first
    assert (capacity, kept) == ("CapacityError", True)
    assert (nonfinite, left) == ("NonFiniteError", False)
    assert f"block (row {ND - 1}, column {NM - 1})" in message


# Shared spectra


def sharing(comm: Any) -> tuple[Any, Any]:
    """Return two matrices of one spectrum."""
    one = matrix_of(comm)
    return one, one.with_precision(fm.MatvecPrecisionConfig())


def test_a_shared_spectrum_is_not_overwritten(comm: Any) -> None:
    one, other = sharing(comm)
    one.init_mat_from_array(G)
    check_product(one, G)
    check_product(other, F)
    assert one.spectra["F"] is not other.spectra["F"]


@pytest.mark.parametrize("leave", ["close", "delete", "load"])
def test_what_is_shared_no_longer_is_used_again(comm: Any, leave: str) -> None:
    one, other = sharing(comm)
    kept = one.spectra["F"]
    if leave == "close":
        other.close()
    elif leave == "delete":
        del other
    else:
        other.init_mat_ones()
    one.init_mat_from_array(G)
    assert one.spectra["F"] is kept
    check_product(one, G)


def test_a_failed_load_leaves_a_shared_spectrum_alone(comm: Any) -> None:
    one, other = sharing(comm)
    with pytest.raises(ZeroDivisionError):
        one.init_mat_from_array(lambda d: G[d] if d < 2 else 1 // 0)
    assert not one.is_initialized()
    check_product(other, F)


# Conversions


@pytest.mark.parametrize("target", list(fm.Precision), ids=lambda target: target.name)
@pytest.mark.parametrize("code", CODES)
def test_conversions(comm: Any, columns: int, code: str, target: Any) -> None:
    """A conversion rounds the stored values once more, but not for a format that represents them exactly."""
    source = matrix_of(comm, F, code).spectra["F"]
    before = stored_values(source)
    found = source.converted(target)
    assert (found.precision, found.format) == (target, target.format)
    coarser = max(ERRORS[code], *(ERRORS[c] for c in CODES if PRECISIONS[c] == target))
    assert abs(stored_values(found) - before).max() <= coarser * abs(F).max()
    np.testing.assert_array_equal(stored_values(source), before)
    if target in (fm.Precision.DOUBLE, PRECISIONS[code]) and not target.is_fixed:
        np.testing.assert_array_equal(stored_values(found), before)


@pytest.mark.parametrize("target", COARSER, ids=lambda target: target.name)
def test_a_conversion_is_what_loading_makes(comm: Any, target: Any) -> None:
    """A conversion from double is as exact as loading, which applies the transform's factor in the same rounding."""
    (code,) = (code for code in CODES if PRECISIONS[code] == target)
    found = stored_values(matrix_of(comm).spectra["F"].converted(target))
    np.testing.assert_allclose(found, values_of(matrix_of(comm, F, code)), rtol=0, atol=ERRORS[code] * abs(F).max())


def test_conversions_are_refused_as_loads_are(comm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    values = F.copy()
    values[3, 1] = np.nan
    source = matrix_of(comm, values).spectra["F"]
    with pytest.raises(fm.NonFiniteError, match=r"block \(row 3, column 1\)"):
        source.converted(fm.Precision.FIXED32)
    monkeypatch.setattr(comm.backend, "free_bytes", lambda: 7)
    with pytest.raises(fm.CapacityError, match="converting a spectrum"):
        source.converted(fm.Precision.SINGLE)


# Counted bytes


@pytest.mark.parametrize("code", CODES)
def test_memory_usage(comm: Any, code: str) -> None:
    matrix = fm.Matrix(comm, NM, ND, NT, global_sizes=True, p_config=fm.MatvecPrecisionConfig.from_code(code))
    assert (matrix.memory_usage().spectra, matrix.memory_usage().workspace) == (0, 0)
    matrix.init_mat_from_array(F)
    usage = matrix.memory_usage()
    stored = STORED[code]
    run = 2 * stored.pitch(NT + 1) * stored.part.itemsize + (8 if stored.is_fixed else 0)
    assert usage.spectra == matrix.nbytes == ND * NM * run
    # At least the padded columns and rows, as pairs or one by one.
    assert usage.workspace >= 8 * 2 * NT * (NM + ND)
    assert usage.plans == comm.backend.plan_bytes() >= 0
    assert usage.total == usage.spectra + usage.workspace + usage.plans
    matrix.init_mat_from_array(G, aux_mat=True)
    assert matrix.memory_usage().spectra == 2 * usage.spectra
    assert matrix.memory_usage().workspace >= usage.workspace
    matrix.close()
    with pytest.raises(fm.ClosedError):
        matrix.memory_usage()


@pytest.mark.gpu
def test_peak_memory_of_a_gpu() -> None:
    """The memory of set-up and products stays within a tenth of the stored bytes."""
    nd, nm, nt = 60, 2000, 1000
    with fm.Comm(MPI.COMM_SELF, backend="cuda") as comm:
        comm.backend.trim()
        before = comm.backend.peak_bytes()
        blocks = np.random.default_rng(0).standard_normal((nm, nt))
        matrix = fm.Matrix(comm, nm, nd, nt, global_sizes=True)
        matrix.init_mat_from_array(lambda d: blocks)
        x, y = matrix.get_vec("input"), matrix.get_vec("output")
        x.init_vec_ones()
        matrix.matvec(x, y)
        assert np.linalg.norm(y.gather()[:, -1] - blocks.sum()) <= 1e-12 * abs(blocks).sum()
        stored = matrix.nbytes + 8 * nt * (nm + nd)
        assert comm.backend.peak_bytes() - before <= 1.1 * stored
        assert comm.backend.peak_bytes() - before >= matrix.memory_usage().spectra


@pytest.mark.gpu
def test_plans_are_shared() -> None:
    """Matrices of one size and precision share plans, which are freed with the last matrix."""
    with fm.Comm(MPI.COMM_SELF, backend="cuda") as comm:
        one = matrix_of(comm)
        plans = set(map(id, comm.backend.lane(0).plans.values()))
        other = matrix_of(comm, G)
        assert plans and set(map(id, comm.backend.lane(0).plans.values())) == plans
        one.close()
        check_product(other, G)
        other.close()
        gc.collect()
        assert not comm.backend.lane(0).plans


@pytest.mark.gpu
def test_free_bytes_of_a_gpu() -> None:
    with fm.Comm(MPI.COMM_SELF, backend="cuda") as comm:
        comm.backend.trim()
        free = comm.backend.free_bytes()
        held = comm.backend.zeros((1 << 27,), np.uint8)
        assert free - comm.backend.free_bytes() >= 1 << 26  # others may use the GPU too
        del held
        assert comm.backend.free_bytes() >= free - (1 << 26)  # the pool's unused blocks count


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal:  2000 kB\nMemAvailable:   1000 kB\n"}
V2 = {"proc/self/cgroup": "0::/job/step\n"}
V1 = {"proc/self/cgroup": "5:cpu,memory:/job\n2:pids:/\n0::/\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        (MEMINFO, 1024_000),
        (MEMINFO | {"proc/self/cgroup": "0::/\n"}, 1024_000),
        (MEMINFO | V2 | {"sys/fs/cgroup/job/step/memory.max": "max\n"}, 1024_000),
        (
            MEMINFO
            | V2
            | {"sys/fs/cgroup/job/step/memory.max": "5000\n", "sys/fs/cgroup/job/step/memory.current": "4000\n"},
            1000,
        ),
        (  # the group above is the tighter one, and some of its usage is files that the system drops on demand
            MEMINFO
            | V2
            | {
                "sys/fs/cgroup/job/step/memory.max": "5000\n",
                "sys/fs/cgroup/job/step/memory.current": "4000\n",
                "sys/fs/cgroup/job/memory.max": "9000\n",
                "sys/fs/cgroup/job/memory.current": "8900\n",
                "sys/fs/cgroup/job/memory.stat": "anon 8500\ninactive_file 400\n",
            },
            500,
        ),
        (
            V1
            | {
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "700\n",
                "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "900\n",
            },
            0,
        ),
    ],
)
def test_available_bytes(tmp_path: Path, files: dict[str, str], expected: int | None) -> None:
    assert available_bytes(write_tree(tmp_path, files)) == expected


def test_ranks_of_a_node_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba_fftmatvec.backends.cpu import backend as cpu

    for available, expected in ((1001, 250), (None, None)):
        monkeypatch.setattr(cpu, "available_bytes", lambda available=available: available)
        backend = cpu.CpuBackend.__new__(cpu.CpuBackend)
        backend._node_size = 4
        assert backend.free_bytes() == expected
