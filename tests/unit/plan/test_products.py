"""Products on one rank, in this process: awkward sizes, and a matrix's state between products."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec.plan.timing import PHASES, PhaseTimer
from support import reference
from support.reference import PRODUCTS
from support.tasks import CODES, build, multiply, operands, vector

SHAPE = (4, 6, 9)
F, G, X = operands(SHAPE)


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def comm(request: pytest.FixtureRequest) -> Iterator[Any]:
    with fm.Comm(MPI.COMM_SELF, backend=request.param) as made:
        yield made


def check(found: Any, name: str, F: Any, G: Any, operand: Any, code: str = "ddddd") -> None:
    """Assert that a product's error is within its bound."""
    error = np.linalg.norm(found.gather() - reference.product(name, F, G, operand))
    assert error <= reference.error_bound(name, F, G, operand, reference.roundoff(code))


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("code", ["ddddd", "sssss"])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 1, 2), (6, 6, 8), (1, 67, 1), (31, 1, 3), (3, 129, 17), (65, 2, 33), (2, 3, 257)], ids=str
)
def test_awkward_sizes(comm: Any, shape: tuple[int, int, int], code: str, name: str) -> None:
    F, G, x = operands(shape)
    operand = x[PRODUCTS[name].source]
    check(multiply(build(comm, F, G, code), name, operand), name, F, G, operand, code)


@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 24)),
    code=st.sampled_from(CODES),
    name=st.sampled_from(list(PRODUCTS)),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_size(comm: Any, shape: tuple[int, int, int], code: str, name: str) -> None:
    F, G, x = operands(shape)
    operand = x[PRODUCTS[name].source]
    check(multiply(build(comm, F, G, code), name, operand), name, F, G, operand, code)


@pytest.mark.parametrize("scale", [2.0**-200, 2.0**200])
def test_extreme_magnitudes(comm: Any, scale: float) -> None:
    check(multiply(build(comm, F * scale, G), "F", X["col"]), "F", F * scale, G, X["col"])


def test_impulses_give_the_blocks(comm: Any) -> None:
    """F of an impulse in source m at step s is the block column m, s steps later."""
    matrix = build(comm, F, G)
    for m, s in ((0, 0), (3, 4), (5, 8)):
        impulse = np.zeros_like(X["col"])
        impulse[m, s] = 1
        expected = np.zeros_like(X["row"])
        expected[:, s:] = F[:, m, : SHAPE[2] - s]
        np.testing.assert_allclose(multiply(matrix, "F", impulse).gather(), expected, rtol=0, atol=1e-14)


def test_operand_is_kept_and_result_is_overwritten(comm: Any) -> None:
    matrix = build(comm, F, G)
    x, y = vector(matrix, "col", X["col"]), matrix.get_vec("output")
    assert not y.is_initialized()
    for name, use_aux_mat in (("F", False), ("G", True), ("F", False)):
        matrix.matvec(x, y, use_aux_mat=use_aux_mat)
        assert y.is_initialized()
        check(y, name, F, G, X["col"])
    np.testing.assert_array_equal(x.gather(), X["col"])


def test_padding_is_clean_after_larger_values(comm: Any) -> None:
    """A product does not affect the next one: results have the same bits, whatever ran between."""
    matrix = build(comm, F, G)
    first = {name: multiply(matrix, name, X[flags.source]).gather() for name, flags in PRODUCTS.items()}
    for name, flags in reversed(PRODUCTS.items()):
        multiply(matrix, name, 1e200 * X[flags.source])
        np.testing.assert_array_equal(multiply(matrix, name, X[flags.source]).gather(), first[name])


def test_matrices_of_one_comm_are_independent(comm: Any) -> None:
    one, other = build(comm, F, G), build(comm, G, F, "sssss")
    larger_F, larger_G, larger_x = operands((7, 8, 21))
    larger = build(comm, larger_F, larger_G)
    for _ in range(2):
        check(multiply(one, "F", X["col"]), "F", F, G, X["col"])
        check(multiply(other, "F", X["col"]), "F", G, F, X["col"], "sssss")
        check(multiply(larger, "FG*", larger_x["row"]), "FG*", larger_F, larger_G, larger_x["row"])


def test_matrix_can_be_initialised_again(comm: Any) -> None:
    matrix = build(comm, F, G)
    check(multiply(matrix, "F*F", X["col"]), "F*F", F, G, X["col"])
    matrix.init_mat_from_array(2 * G)
    check(multiply(matrix, "F*F", X["col"]), "F*F", 2 * G, G, X["col"])
    matrix.init_mat_from_array(F, aux_mat=True)
    check(multiply(matrix, "G*F", X["col"]), "G*F", 2 * G, F, X["col"])


def test_failed_initialisation_leaves_no_mixture(comm: Any) -> None:
    """A mixture of new and old values must not count as a matrix."""
    matrix = build(comm, F, G)

    def rows(d: int) -> Any:
        if d == 2:
            raise ValueError("no third row")
        return G[d]

    with pytest.raises(ValueError, match="no third row"):
        matrix.init_mat_from_array(rows)
    try:
        found = multiply(matrix, "F", X["col"])
    except fm.UninitializedError:
        return
    check(found, "F", F, G, X["col"])


def test_auxiliary_matrix_may_come_after_a_product(comm: Any) -> None:
    Nd, Nm, Nt = SHAPE
    matrix = fm.Matrix(comm, Nm, Nd, Nt, global_sizes=True)
    matrix.init_mat_from_array(F)
    check(multiply(matrix, "F", X["col"]), "F", F, G, X["col"])
    matrix.init_mat_from_array(G, aux_mat=True)
    check(multiply(matrix, "FG*", X["row"]), "FG*", F, G, X["row"])


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.float64])
def test_arrays_of_real_numbers_are_taken(comm: Any, dtype: Any) -> None:
    """Every type represents the integers exactly. The array is not contiguous and stays unchanged."""
    values = np.round(10 * F).astype(dtype)[::-1]
    kept = values.copy()
    check(multiply(build(comm, values, G), "F", X["col"]), "F", values.astype(float), G, X["col"])
    np.testing.assert_array_equal(values, kept)


def test_precision_config_is_copied(comm: Any) -> None:
    config = fm.MatvecPrecisionConfig()
    matrix = fm.Matrix(comm, *SHAPE, p_config=config)
    config.fft = fm.Precision.SINGLE
    assert matrix.get_precision_config().code == "ddddd"
    matrix.get_precision_config().fft = fm.Precision.SINGLE
    assert matrix.get_precision_config().code == "ddddd"


@pytest.mark.parametrize("name", ["F", "F*", "F*F"])
def test_timer(comm: Any, name: str) -> None:
    """Each product and phase has one time, and the phases do not exceed the total."""
    matrix, flags = build(comm, F, G), PRODUCTS[name]
    source, target = vector(matrix, flags.source, X[flags.source]), vector(matrix, flags.target)
    timer = PhaseTimer(comm)
    for _ in range(3):
        getattr(matrix, flags.method)(source, target, full=flags.full, timer=timer)
    check(target, name, F, G, X[flags.source])
    seconds = timer.seconds()
    assert tuple(seconds) == PHASES
    fused = {"pad", "unpad"} if comm.backend.name == "cuda" else set()
    assert {phase for phase in PHASES if not seconds[phase]} <= {"broadcast", "reduce"} | fused
    assert all(len(figures) in (0, 3) for figures in seconds.values())
    assert min(min(figures) for figures in seconds.values() if figures) >= 0
    parts = np.sum([seconds[phase] for phase in PHASES[:-1] if seconds[phase]], axis=0)
    assert (parts <= np.array(seconds["total"]) * (1 + 1e-6)).all()
    timer.reset()
    assert timer.seconds() == {phase: [] for phase in PHASES}


def test_products_by_name(comm: Any) -> None:
    """Any of the eight, as an object or by its name; no other, even if its factors are those of the matrix."""
    matrix = build(comm, F, G)
    x, y = vector(matrix, "col", X["col"]), matrix.get_vec("input")
    for product in ("G*F", fm.products.PRODUCTS["G*F"]):
        matrix.apply_product(product, x, y)
        check(y, "G*F", F, G, X["col"])
    for other in ("H", None, fm.products.PRODUCTS["G*F"].adjoint):
        with pytest.raises(fm.ArgumentError, match=r"product: expected one of F, F\*, F\*F, FF\*, G, .*, found"):
            matrix.apply_product(other, x, y)


def test_timed_plans_are_built_for_the_first_timer(comm: Any) -> None:
    """A matrix without a timer has no buffers for one, and results have the same bits with and without it."""
    matrix = fm.Matrix.from_array(comm, F)
    x, y = vector(matrix, "col", X["col"]), matrix.get_vec("output")
    matrix.matvec(x, y)
    untimed, before = y.gather(), matrix.memory_usage().workspace
    matrix.matvec(x, y, timer=PhaseTimer(comm))
    after = matrix.memory_usage().workspace
    assert after >= before
    if comm.backend.name == "cpu":  # only the timed one has buffers of timed stages
        assert after - before == 8 * 2 * SHAPE[2] * (SHAPE[0] + SHAPE[1])
    matrix.matvec(x, y, timer=PhaseTimer(comm))
    assert matrix.memory_usage().workspace == after
    np.testing.assert_array_equal(y.gather(), untimed)


@pytest.mark.parametrize("name", ["F", "F*"])
def test_many_rows_have_the_same_bits_with_a_timer(comm: Any, name: str) -> None:
    """The CPU's own kernels transform them, of the padded rows the heads."""
    shape = 129, 130, 65
    F, G, X = operands(shape)
    flags = PRODUCTS[name]
    operand = X[flags.source]
    matrix = build(comm, F, G)
    x, y = vector(matrix, flags.source, operand), matrix.get_vec("output" if name == "F" else "input")
    matrix.apply_product(name, x, y)
    check(y, name, F, G, operand)
    untimed = y.gather()
    matrix.apply_product(name, x, y, timer=PhaseTimer(comm))
    np.testing.assert_array_equal(y.gather(), untimed)


def test_a_plan_can_be_printed(comm: Any) -> None:
    """Each stage is printed with its ends, and starts where the previous one ends."""
    matrix = build(comm, F, G, "dssdd")
    stages = str(matrix.plan("G*F")).splitlines()
    phases = ["fft", "sbgemv", "ifft"]
    assert [stage.partition(":")[0] for stage in stages] == 2 * phases
    ends = [stage.partition(": ")[2].split(" -> ") for stage in stages]
    assert all(before[1] == after[0] for before, after in pairwise(ends))
    assert (ends[0][0], ends[-1][1]) == ("operand float64", "result float64")
    assert ends[len(phases) - 1][1].startswith("intermediate.row float64")
    assert "spectrum.col complex64" in str(matrix.plan("F"))
    with pytest.raises(fm.ArgumentError, match=r"product: expected one of F, F\*, .*, found 'H'"):
        matrix.plan("H")
    with pytest.raises(fm.UninitializedError):
        fm.Matrix(comm, 2, 2, 2).plan("F")


def test_a_stage_of_a_plan_runs_again_by_itself(comm: Any) -> None:
    """A benchmark measures SBGEMV alone, of as many right-hand sides as the plan has."""
    matrix = build(comm, F, G, "ddddd")
    plan = matrix.plan("F", num_vecs=3)
    X, Y = (matrix.get_vec(space, num_vecs=3) for space in ("input", "output"))
    X.init_vec_doubles()
    matrix.matmat(X, Y, timer=PhaseTimer(comm))
    phases = {"cpu": ["pad", "fft", "sbgemv", "ifft", "unpad"], "cuda": ["fft", "sbgemv", "ifft"]}
    assert [stage.phase for stage in plan.timed_stages] == phases[comm.backend.name]
    (sbgemv,) = (stage for stage in plan.timed_stages if stage.phase == "sbgemv")
    before = comm.backend.download(sbgemv.destination.array)
    with comm.backend.active():
        sbgemv.destination.array[...] = 0
        sbgemv.run()
    np.testing.assert_array_equal(comm.backend.download(sbgemv.destination.array), before)
    for count, error in ((0, fm.ShapeError), (17, fm.ArgumentError), (2.5, fm.ArgumentTypeError)):
        with pytest.raises(error, match=f"num_vecs: expected .*, found {count}"):
            matrix.plan("F", num_vecs=count)


def test_a_failed_auxiliary_matrix_leaves_the_primary_one(comm: Any) -> None:
    """A failure drops the product's plans, and the next product plans again."""
    matrix = build(comm, F, G)
    with pytest.raises(ZeroDivisionError):
        matrix.init_mat_from_array(lambda d: 1 // 0, aux_mat=True)
    assert (matrix.is_initialized(), matrix.has_aux_mat()) == (True, False)
    check(multiply(matrix, "F", X["col"]), "F", F, G, X["col"])
    with pytest.raises(fm.UninitializedError, match="expected an initialised auxiliary matrix"):
        multiply(matrix, "G", X["col"])


def test_vectors_are_let_go_after_a_product(comm: Any) -> None:
    matrix = build(comm, F, G)
    x, y = vector(matrix, "col", X["col"]), matrix.get_vec("output")
    for timer in (None, PhaseTimer(comm)):
        matrix.matvec(x, y, timer=timer)
    memory = [weakref.ref(vector.array) for vector in (x, y)]
    x.close()
    y.close()
    gc.collect()
    assert [reference() for reference in memory] == [None, None]


@pytest.mark.gpu
def test_a_closed_comm_has_no_graphs() -> None:
    with fm.Comm(MPI.COMM_SELF, backend="cuda") as comm:
        matrix = build(comm, F, G)
        x, y = vector(matrix, "col", X["col"]), matrix.get_vec("output")
        for _ in range(3):
            matrix.matvec(x, y)
        recorded = [replay for replay in comm.backend._replays if any(replay._graphs.values())]
        assert len(recorded) == 1
        check(y, "F", F, G, X["col"])
    assert not any(replay._graphs for replay in comm.backend._replays)


def test_an_error_on_any_rank_keeps_nothing_alive(comm: Any) -> None:
    """The traceback of an agreed error is no part of a cycle, which would keep a matrix's memory."""
    matrix = build(comm, F, G)
    kept = weakref.ref(matrix)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(ZeroDivisionError):
            matrix.init_mat_from_array(lambda d: 1 // 0)
        del matrix
        assert kept() is None
    finally:
        gc.enable()


def test_default_comm() -> None:
    """All ranks are in one row, on the backend that works."""
    with fm.Comm() as comm:
        assert (comm.proc_rows, comm.proc_cols) == (1, comm.world_size)
        assert comm.backend.name in ("cpu", "cuda")


def test_a_save_that_fails_leaves_the_old_matrix(comm: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    old = build(comm, F, G)
    old.save(str(tmp_path))
    files = sorted(path.name for path in (tmp_path / "binary").iterdir())
    write = fm.matrix.files.block_row_writer

    def stop_at_the_third(directory: Any, meta: Any, row: int, like: Any, **options: Any) -> Any:
        if row == 2:
            raise fm.FileError("disk full")
        return write(directory, meta, row, like, **options)

    monkeypatch.setattr(fm.matrix.files, "block_row_writer", stop_at_the_third)
    with pytest.raises(fm.FileError, match="disk full"):
        build(comm, G, F).save(str(tmp_path))
    assert sorted(path.name for path in (tmp_path / "binary").iterdir()) == files
    x = old.get_vec("input")
    x.init_vec_doubles()
    np.testing.assert_allclose((fm.Matrix(comm, str(tmp_path)) @ x).gather(), (old @ x).gather(), rtol=1e-12)


def test_sizes_that_no_file_has_allocate_nothing(comm: Any, tmp_path: Any) -> None:
    matrix = build(comm, F, G)
    matrix.save(str(tmp_path))
    meta = tmp_path / "binary" / "meta_adj"
    lines = meta.read_text().splitlines()
    meta.write_text("\n".join([lines[0], "1000000000", "1000000", *lines[3:]]) + "\n")  # 8 PB a row
    with pytest.raises(fm.FileFormatError, match="expected"):
        fm.Matrix(comm, str(tmp_path))
    small = tmp_path / "small"
    build(comm, F[:, :, :3], G[:, :, :3]).save(str(small))
    next((small / "binary").glob("vec_*_000000.h5")).unlink()
    small_matrix = build(comm, F[:, :, :3], G[:, :, :3])
    with pytest.raises(fm.FileError, match="_000000.h5"):
        small_matrix.init_mat_from_file(str(small))
    assert small_matrix.is_initialized()  # it failed before the present values were dropped


@pytest.mark.parametrize(("code", "digits"), [("ddidd", 1e-9), ("ddhdd", 1e-4)])
@pytest.mark.parametrize("name", ["F", "F*"])
def test_weak_columns_keep_their_digits_in_fixed_point(comm: Any, code: str, digits: float, name: str) -> None:
    """The blocks' magnitudes differ by 1e9, so that one scale for a row would lose the weak blocks."""
    _, Nm, Nt = SHAPE
    weights = 10.0 ** -np.linspace(0, 9, Nm)
    weak = F * weights[None, :, None]
    matrix = build(comm, weak, G, code)
    for m in range(Nm):
        alone = np.zeros((Nm, Nt))
        alone[m] = X["col"][m]
        operand = alone if name == "F" else X["row"]
        found = multiply(matrix, name, operand).gather()
        expected = reference.product(name, weak, G, operand)
        if name == "F*":
            found, expected = found[m], expected[m]
        assert np.linalg.norm(found - expected) <= digits * np.linalg.norm(expected)


@pytest.mark.parametrize("code", ["ddddd", "dssdd", "ddidd", "ddhdd"])
def test_another_precision_of_the_same_values(comm: Any, code: str) -> None:
    matrix = build(comm, F, G)
    other = matrix.with_precision(fm.MatvecPrecisionConfig.from_code(code))
    assert other.get_precision_config().code == code
    assert (other.nbytes == matrix.nbytes) == (code == "ddddd")
    matrix.init_mat_from_array(2 * F)  # the other one keeps its values
    for name, flags in PRODUCTS.items():
        check(multiply(other, name, X[flags.source]), name, F, G, X[flags.source], code)
    check(multiply(matrix, "F", X["col"]), "F", 2 * F, G, X["col"])
    other.close()
    check(multiply(matrix, "F", X["col"]), "F", 2 * F, G, X["col"])


def test_matrix_times_several_vectors(comm: Any) -> None:
    matrix = build(comm, F, G)
    x = matrix.get_vec("input", num_vecs=3)
    x.scatter(np.stack([X["col"], 2 * X["col"], -X["col"]]))
    y = matrix @ x
    for i, factor in enumerate((1, 2, -1)):
        check(y.get_vector(i), "F", F, G, factor * X["col"])
    back = matrix.T @ y
    assert back.shape == (3, SHAPE[1], SHAPE[2])
    check(matrix @ x.get_vector(1), "F", F, G, 2 * X["col"])


def test_a_timer_forgets_the_phases_of_a_product_that_failed() -> None:
    with fm.Comm(backend="cpu") as comm, fm.Matrix(comm, 5, 3, 8, global_sizes=True) as F:
        F.init_mat_ones()
        x, y = F.get_vec("input"), F.get_vec("output")
        x.init_vec_ones()
        timer = PhaseTimer(comm)
        F.matvec(x, y, timer=timer)
        last = F.plan("F").timed_stages[-1]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(last, "run", lambda: 1 // 0)
            with pytest.raises(ZeroDivisionError):
                F.matvec(x, y, timer=timer)
        start = len(timer._spans)
        F.matvec(x, y, timer=timer)
        assert [name for name, _, _ in timer._spans[start]] == [name for name, _, _ in timer._spans[0]]
