"""Expressions of operators: their structure, errors of wrong use, aliasing, temporaries and interrupts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec.comm.comm import CHECK_VARIABLE
from numba_fftmatvec.operators import ProductOperator, SumOperator
from numba_fftmatvec.operators.accuracy import Accuracy
from support.harness import run_ranks
from support.operators import Nd, Nm, Nt, built_leaves
from unit.operators.test_operators import A as VALUES
from unit.operators.test_operators import Dense


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def comm(request: pytest.FixtureRequest) -> Iterator[fm.Comm]:
    with fm.Comm(MPI.COMM_SELF, backend=request.param) as made:
        yield made


@pytest.fixture(scope="module")
def other_comm(comm: fm.Comm) -> Iterator[fm.Comm]:
    with fm.Comm(MPI.COMM_SELF, backend=comm.backend.name) as made:
        yield made


@pytest.fixture(scope="module")
def o(comm: fm.Comm) -> dict[str, Any]:
    return dict(built_leaves(comm))


@pytest.fixture(scope="module")
def elsewhere(other_comm: fm.Comm) -> dict[str, Any]:
    return dict(built_leaves(other_comm))


def drawn(operator: fm.LinearOperator, num_vecs: int = 1) -> fm.Vector:
    x = fm.Vector.from_layout(operator.comm, replace(operator.domain, num_vecs=num_vecs))
    x.scatter(np.random.default_rng(7).standard_normal(x.shape))
    return x


def test_expressions_are_flat(o: dict[str, Any]) -> None:
    F, G, C, D = o["F"], o["G"], o["C"], o["D"]
    found = 2 * (F - G / 4) + -F
    assert isinstance(found, SumOperator)
    assert [(factor, operator) for factor, operator in found.terms] == [(2.0, F), (-0.5, G), (-1.0, F)]
    product = (F @ C) @ (D @ C)
    assert isinstance(product, ProductOperator)
    assert product.factors == (F, C, D, C)
    assert [type(factor) for factor in product.T.factors] == [type(part.T) for part in (C, D, C, F)]
    assert (found.num_products, product.num_products, fm.VerticalStack([found, product]).num_products) == (3, 4, 7)
    assert repr(F.T @ F - 0.5 * o["I"]).startswith("((Matrix(")


def test_the_adjoint_of_a_product_is_applied_in_the_reverse_order(comm: fm.Comm) -> None:
    calls: list[str] = []

    class Spy(fm.operators.CheckedOperator):
        def __init__(self, name: str) -> None:
            self.comm, self.name = comm, name

        domain = range = property(lambda self: comm.axis("col").layout(2, 3))  # type: ignore[assignment]

        def compute(self, x: fm.Vector, y: fm.Vector) -> None:
            calls.append(self.name)
            x.copy_to(y)

        def compute_adjoint(self, y: fm.Vector, x: fm.Vector) -> None:
            calls.append(f"{self.name}*")
            y.copy_to(x)

    A, B, C = map(Spy, "ABC")
    x = drawn(A)
    (A @ B @ C) @ x
    (A @ B @ C).T @ x
    (A @ (B + C)).T @ x
    assert calls == ["C", "B", "A", "A*", "B*", "C*", "A*", "B*", "C*"]


@pytest.mark.parametrize("name", ["product", "sum", "stack"])
def test_temporaries_are_allocated_once(o: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    F, C = o["F"], o["C"]
    operator = {"product": F @ C @ C @ C, "sum": F + F @ C, "stack": fm.VerticalStack([F, C])}[name]
    pairs = [(drawn(operator, count), drawn(operator.T, count)) for count in (1, 3)]
    for x, y in pairs:
        operator.apply(x, y)
        operator.apply_adjoint(y, x)
    made: list[Any] = []
    monkeypatch.setattr(fm.Vector, "from_layout", lambda *args: made.append(args))
    for x, y in pairs:
        operator.apply(x, y)
        operator.apply_adjoint(y, x)
        operator.T.apply(y, x)
        operator.T.apply_adjoint(x, y)
    assert made == []


def test_threads_share_an_operator(o: dict[str, Any]) -> None:
    """Their calls take turns, so that the temporary vectors of one call are not those of another."""
    A = o["F"].T @ o["W"] @ o["F"] + o["C"] @ o["C"]
    operands = [drawn(A, 1 + i % 3) * (i + 1.0) for i in range(24)]
    expected = [(A @ x).gather() for x in operands]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: (A @ x).gather(), operands))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


WRONG: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], Any], type[Exception], str]] = {
    "A @ 3": (lambda o, e: o["F"] @ 3, fm.ArgumentTypeError, "operator @: expected a Vector or a Lin.*, found int"),
    "3 @ A": (lambda o, e: 3 @ o["F"], fm.ArgumentTypeError, "expected a LinearOperator on the left, found int"),
    "A @ array": (lambda o, e: o["F"] @ np.ones(Nm * Nt), fm.ArgumentTypeError, "found ndarray; A.as_linear_operator"),
    "array @ A": (lambda o, e: np.ones((2, 2)) @ o["F"], fm.ArgumentTypeError, "found ndarray; A.as_linear_operator"),
    "x @ A": (lambda o, e: drawn(o["F"]) @ o["F"], fm.ArgumentTypeError, "expected a Lin.* on the left, found Vector"),
    "A + 1": (lambda o, e: o["F"] + 1, fm.ArgumentTypeError, r"operator \+: expected a LinearOperator, found int"),
    "1 + A": (lambda o, e: 1 + o["F"], fm.ArgumentTypeError, r"operator \+: expected a LinearOperator, found int"),
    "A - x": (lambda o, e: o["F"] - drawn(o["F"]), fm.ArgumentTypeError, "expected a LinearOperator, found Vector"),
    "1 - A": (lambda o, e: 1 - o["F"], fm.ArgumentTypeError, "operator -: expected a LinearOperator, found int"),
    "A * x": (lambda o, e: o["F"] * drawn(o["F"]), fm.ArgumentTypeError, "expected a real number, found Vector"),
    "x * A": (lambda o, e: drawn(o["F"]) * o["F"], fm.ArgumentTypeError, "expected a real number, found Vector"),
    "array * A": (lambda o, e: np.ones(3) * o["F"], fm.ArgumentTypeError, "expected a real number, found ndarray"),
    "A * 1j": (lambda o, e: o["F"] * 1j, fm.ArgumentTypeError, "expected a real number, found complex"),
    "A * True": (lambda o, e: o["F"] * True, fm.ArgumentTypeError, "expected a real number, found bool"),
    "NaN": (lambda o, e: float("nan") * o["F"], fm.NonFiniteError, "expected a finite number, found nan"),
    "infinity": (lambda o, e: o["F"] * np.inf, fm.NonFiniteError, "expected a finite number, found inf"),
    "10 ** 400": (lambda o, e: o["F"] * 10**400, fm.NonFiniteError, "expected a finite number, found inf"),
    "overflow": (lambda o, e: 1e200 * (1e200 * o["F"]), fm.NonFiniteError, "product of the factors: .* found inf"),
    "A / 0": (lambda o, e: o["F"] / 0, fm.ArgumentError, "divisor of an operator: expected a number that is not 0"),
    "A / tiny": (lambda o, e: o["F"] / 5e-324, fm.NonFiniteError, "reciprocal of the divisor: .* found inf"),
    "space": (lambda o, e: o["F"] + o["F"].T, fm.SpaceError, "domain of a summand: expected .*'col', found .*'row'"),
    "range": (lambda o, e: o["F"] @ o["G"], fm.SpaceError, "range of the right factor of @: expected the space 'col'"),
    "comm": (lambda o, e: o["F"] + e["F"], fm.ArgumentError, "expected operators on one Comm, .* found one on another"),
    "comm of a factor": (lambda o, e: o["F"] @ e["I"], fm.ArgumentError, "expected operators on one Comm"),
    "comm of a part": (lambda o, e: fm.VerticalStack([o["F"], e["F"]]), fm.ArgumentError, "on one Comm"),
    "comm of x": (lambda o, e: (o["F"] + o["G"]) @ drawn(e["F"]), fm.ArgumentError, "found one on another Comm"),
    "no part": (lambda o, e: fm.VerticalStack([]), fm.ArgumentTypeError, "expected a sequence of operators, found lis"),
    "one part": (lambda o, e: fm.VerticalStack(o["F"]), fm.ArgumentTypeError, "sequence of operators, found Matrix"),
    "part": (lambda o, e: fm.VerticalStack([o["F"], 3]), fm.ArgumentTypeError, "expected a LinearOperator, found int"),
    "domain": (lambda o, e: fm.VerticalStack([o["F"], o["R"]]), fm.SpaceError, "domain of a part of the stack"),
    "comm of I": (lambda o, e: fm.Identity(3, o["F"].domain), fm.ArgumentTypeError, "comm: expected a Comm, found int"),
    "layout": (lambda o, e: fm.Identity(o["F"].comm, 3), fm.ArgumentTypeError, "expected a VectorLayout, found int"),
    "weights": (lambda o, e: fm.Diagonal([1.0]), fm.ArgumentTypeError, "weights: expected a Vector, found list"),
    "many weights": (lambda o, e: fm.Diagonal(drawn(o["F"], 2)), fm.ShapeError, "expected one vector, found 2"),
    "no weights": (lambda o, e: fm.Diagonal(o["F"].get_vec("input")), fm.UninitializedError, "weights: expected an in"),
    "bad weights": (lambda o, e: fm.Diagonal(drawn(o["F"]) * np.nan), fm.NonFiniteError, "expected finite numbers"),
    "response": (lambda o, e: fm.CausalFilter(o["F"].comm, o["F"].domain, [1.0]), fm.ShapeError, r"shape \(6,\) or"),
    "complex response": (
        lambda o, e: fm.CausalFilter(o["F"].comm, o["F"].domain, np.ones(Nt) * 1j),
        fm.ArgumentTypeError,
        "expected real numbers, found dtype complex128",
    ),
    "NaN response": (
        lambda o, e: fm.CausalFilter(o["F"].comm, o["F"].domain, np.full(Nt, np.nan)),
        fm.NonFiniteError,
        "impulse response: expected finite numbers",
    ),
    "limit": (lambda o, e: o["F"].todense(limit=100), fm.CapacityError, "at most limit = 100 values, found 30 x 42"),
    "no limit": (lambda o, e: o["F"].todense(limit=0), fm.ShapeError, "todense: limit: expected a positive integer"),
    "dot test": (lambda o, e: fm.dot_test(3), fm.ArgumentTypeError, "expected a LinearOperator, found int"),
    "operand": (lambda o, e: o["D"] @ drawn(o["R"]), fm.SpaceError, "operand of Diagonal: expected a 'col' vector"),
    "no values": (lambda o, e: o["D"] @ o["F"].get_vec("input"), fm.UninitializedError, "operand of Diagonal: exp"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use(o: dict[str, Any], elsewhere: dict[str, Any], name: str) -> None:
    call, kind, message = WRONG[name]
    with pytest.raises(kind, match=message) as found:
        call(o, elsewhere)
    assert type(found.value) is kind


@pytest.mark.parametrize("name", ["D", "I", "C", "D @ D", "D + D", "stack"])
def test_operand_and_result_in_the_same_memory_are_refused(o: dict[str, Any], name: str) -> None:
    D = o["D"]
    operator = {"D @ D": D @ D, "D + D": D + D, "stack": fm.VerticalStack([D]).T @ fm.VerticalStack([D])}.get(
        name, o.get(name)
    )
    x = drawn(operator, 2)
    with pytest.raises(fm.ArgumentError, match="found operand and result in the same memory"):
        operator.apply(x, x)
    one, same = x.get_vector(0), x.get_vector(0)
    with pytest.raises(fm.ArgumentError, match="found operand and result in the same memory"):
        operator.apply(one, same)
    expected = (operator @ one).gather()
    operator.apply(one, x.get_vector(1))  # the other vector of the same object
    np.testing.assert_array_equal(x.gather()[1], expected)


def test_a_result_of_another_number_of_vectors_is_refused(o: dict[str, Any]) -> None:
    A = o["F"] + o["G"]
    with pytest.raises(fm.ShapeError, match="result of SumOperator: expected 3 vectors of 5 blocks of 6, found 5 blo"):
        A.apply(drawn(A, 3), drawn(A.T))


class Failing(fm.operators.CheckedOperator):
    """An operator that fails as the second part of an expression, when the result has the first part's values."""

    def __init__(self, like: fm.LinearOperator, error: BaseException) -> None:
        self.comm, self._like, self._error = like.comm, like, error

    domain = property(lambda self: self._like.domain)  # type: ignore[assignment]
    range = property(lambda self: self._like.range)  # type: ignore[assignment]

    def compute(self, x: fm.Vector, y: fm.Vector) -> None:
        raise self._error

    compute_adjoint = compute


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError()], ids=["interrupt", "error"])
def test_a_result_has_no_values_after_an_error(o: dict[str, Any], error: BaseException) -> None:
    failing = Failing(o["F"], error)
    for operator in (o["F"] + failing, o["W"] @ failing, fm.VerticalStack([o["F"], failing])):
        x, y = drawn(operator), drawn(operator.T)
        with pytest.raises(type(error)):
            operator.apply(x, y)
        assert not y.is_initialized()
        x, y = drawn(operator), drawn(operator.T)
        with pytest.raises(type(error)):
            operator.apply_adjoint(y, x)
        assert not x.is_initialized()


def test_weights_are_copied(o: dict[str, Any]) -> None:
    weights = drawn(o["F"])
    D = fm.Diagonal(weights)
    before = (D @ weights).gather()
    x = weights.copy()
    weights.scale(2.0)
    np.testing.assert_array_equal((D @ x).gather(), before)


@pytest.mark.parametrize("code", ["ddddd", "ddsdd", "ddidd", "ddhdd"])
@pytest.mark.parametrize("setup_bytes", [1000, 1 << 27])
def test_the_gain_of_a_matrix_is_that_of_its_blocks(
    comm: fm.Comm, code: str, setup_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found in pieces of columns, and once for all values that are loaded."""
    monkeypatch.setattr("numba_fftmatvec.spectrum.capacity.SETUP_BYTES", setup_bytes)
    blocks = np.random.default_rng(6).standard_normal((3, 20, 13))
    F = fm.Matrix.from_array(comm, blocks, fm.MatvecPrecisionConfig.from_code(code))
    for scale in (1.0, 100.0):
        F.init_mat_from_array(scale * blocks)
        exact = np.linalg.norm(np.abs(np.fft.rfft(scale * blocks, 26, axis=2)).max(axis=2))
        accuracy = F.accuracy()
        assert accuracy is not None
        assert exact <= accuracy.gain * (1 + F.unit_roundoff) <= 1.5 * exact
        assert accuracy == F.accuracy()


def test_accuracy_is_unknown_if_that_of_a_part_is(comm: fm.Comm) -> None:
    dense = Dense(comm, VALUES, VALUES.T)
    identity = fm.Identity(comm, dense.domain)
    for operator in (dense, dense + dense, dense @ identity, fm.VerticalStack([dense, dense]), dense.T):
        assert operator.accuracy() is None
    with pytest.raises(fm.ShapeError, match="expected blocks of 2, found blocks of 3"):
        fm.VerticalStack([dense, identity])
    assert fm.dot_test(dense.T @ dense + 2 * identity) <= 1e-15
    assert fm.Matrix(comm, 2, 3, 4).accuracy() is None


def test_dot_test_of_a_composite_finds_a_wrong_adjoint(comm: fm.Comm, o: dict[str, Any]) -> None:
    class Wrong(fm.operators.CheckedOperator):
        """The matrix G with an adjoint that is off by 1e-12 of F's."""

        def __init__(self) -> None:
            self.comm = comm

        domain = property(lambda self: o["G"].domain)  # type: ignore[assignment]
        range = property(lambda self: o["G"].range)  # type: ignore[assignment]

        def accuracy(self) -> Accuracy | None:
            return o["G"].accuracy()  # type: ignore[no-any-return]

        def compute(self, x: fm.Vector, y: fm.Vector) -> None:
            o["G"].apply(x, y)

        def compute_adjoint(self, y: fm.Vector, x: fm.Vector) -> None:
            o["G"].apply_adjoint(y, x)
            x.axpy(1e-11, o["F"].T @ y)

    fm.dot_test(o["G"] + o["F"])
    for operator in (Wrong(), Wrong() + o["F"], o["W"] @ Wrong(), fm.VerticalStack([Wrong(), o["F"]])):
        with pytest.raises(fm.VerificationError, match="dot test"):
            fm.dot_test(operator)


def test_a_causal_filter_of_ar1_is_its_recursion(comm: fm.Comm) -> None:
    steps, phi = 200, 0.9
    layout = comm.axis("col").layout(3, steps)
    operator = fm.CausalFilter(comm, layout, phi ** np.arange(steps))
    x = fm.Vector.from_layout(comm, layout)
    x.scatter(np.random.default_rng(3).standard_normal(layout.shape))
    values, expected = x.gather(), np.zeros(layout.shape)
    for t in range(steps):
        expected[:, t] = values[:, t] + (phi * expected[:, t - 1] if t else 0.0)
    assert np.linalg.norm((operator @ x).gather() - expected) <= operator.accuracy().error * np.linalg.norm(values)


def test_a_filter_passes_many_blocks_in_pieces(comm: fm.Comm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fm.operators.causal.PIECE_BYTES, comm.backend.name, 3 * 2 * 5 * 8)  # three blocks at a time
    layout = comm.axis("row").layout(10, 5, 2)
    response = np.random.default_rng(4).standard_normal((10, 5))
    operator = fm.CausalFilter(comm, layout, response)
    x = fm.Vector.from_layout(comm, layout)
    x.scatter(np.random.default_rng(5).standard_normal(layout.shape))
    expected = [[np.convolve(h, block)[:5] for h, block in zip(response, one, strict=True)] for one in x.gather()]
    np.testing.assert_allclose((operator @ x).gather(), expected, rtol=0, atol=1e-14)


def on_ranks(grid: tuple[int, int]) -> dict[str, Any]:
    """Return the errors of calls with other arguments on one rank, and the calls that follow them."""
    found: dict[str, Any] = {}
    with fm.Comm(MPI.COMM_WORLD, *grid, backend="cpu") as comm:
        o = built_leaves(comm)
        last = comm.world_rank == comm.world_size - 1
        calls: dict[str, Callable[[], Any]] = {
            "factor": lambda: (3.0 if last else 2.0) * o["F"],
            "NaN": lambda: (float("nan") if last else 2.0) * o["F"],
            "kind": lambda: o["F"] * 2.0 if last else o["F"] + o["G"],
            "response": lambda: fm.CausalFilter(comm, o["F"].domain, np.full(Nt, float(last))),
            "part": lambda: fm.VerticalStack([o["F"], o["D"] if last else o["G"]]),
            "limit": lambda: o["F"].todense(limit=10 if last else 10000),
            "few blocks": lambda: fm.VerticalStack([fm.Identity(comm, comm.axis("col").layout(1, Nt))]),
        }
        for name, call in calls.items():
            try:
                call()
                found[name] = None
            except fm.FFTMatvecError as error:
                found[name] = type(error).__name__, str(error)
        os.environ[CHECK_VARIABLE] = "1"
        with fm.Comm(MPI.COMM_WORLD, *grid, backend="cpu") as checking:
            identity = fm.Identity(checking, o["F"].domain)
            try:
                identity @ drawn(identity, 2 if last else 1)
            except fm.AgreementError as error:
                found["checked product"] = "AgreementError", str(error)
        found["afterwards"] = (fm.VerticalStack([o["F"], o["D"]]) @ drawn(o["F"])).norm()
    return found


@pytest.mark.mpi
def test_ranks_agree() -> None:
    found = run_ranks(2, "unit.operators.test_algebra:on_ranks", (2, 1))
    assert found[0] == found[1]
    kinds = {name: error[0] for name, error in found[0].items() if isinstance(error, tuple)}
    assert kinds == {
        "factor": "AgreementError",
        "NaN": "NonFiniteError",
        "kind": "AgreementError",
        "response": "AgreementError",
        "part": "AgreementError",
        "limit": "CapacityError",
        "few blocks": "GridError",
        "checked product": "AgreementError",
    }
    assert Nd == 5  # fewer blocks than ranks is an error only in "few blocks"
