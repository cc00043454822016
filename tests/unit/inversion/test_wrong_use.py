"""Bad input of an inversion: a named error that says what was expected and what was found, on every rank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numba_fftmatvec as fm
from numba_fftmatvec import inversion
from support.harness import run_ranks
from support.inversion import ND, NM, NT, inverse, problem

COMM = fm.Comm(backend="cpu")
GIVEN = problem("diagonal")


@pytest.fixture(scope="module")
def model() -> inversion.RealTimeInversion:
    found = inverse(COMM, GIVEN)
    found.factorise()
    return found


def matrix(Nd: int = ND, Nm: int = NM, Nt: int = NT, comm: fm.Comm = COMM, *, filled: bool = True) -> fm.Matrix:
    found = fm.Matrix(comm, Nm, Nd, Nt, global_sizes=True)
    if filled:
        found.init_mat_doubles()
    return found


def changed(values: Any, place: Any, value: float) -> Any:
    found = np.array(values)
    found[place] = value
    return found


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((matrix(), inversion.WhitePrior(NM + 1, 1.0), GIVEN.noise), fm.ShapeError, f"prior: expected {NM}"),
        ((matrix(), GIVEN.noise, GIVEN.noise), fm.ArgumentTypeError, "prior: expected a Prior, found WhiteNoise"),
        ((matrix(), GIVEN.prior, 0.3), fm.ArgumentTypeError, "noise: expected a Noise, found float"),
        ((matrix(), GIVEN.prior, inversion.SensorNoise(np.ones(3))), fm.ShapeError, "noise"),
        ((np.ones((2, 3)), GIVEN.prior, GIVEN.noise), fm.ArgumentTypeError, "F: expected a Matrix, found ndarray"),
        ((matrix(filled=False), GIVEN.prior, GIVEN.noise), fm.UninitializedError, "expected an initialised matrix"),
        ((matrix(), GIVEN.prior, GIVEN.noise, "H"), fm.ArgumentError, "expected a Matrix or 'G', found 'H'"),
        ((matrix(), GIVEN.prior, GIVEN.noise, "G"), fm.UninitializedError, "expected an auxiliary matrix with values"),
        ((matrix(), GIVEN.prior, GIVEN.noise, 3), fm.ArgumentTypeError, "expected a Matrix or 'G', found int"),
        ((matrix(), GIVEN.prior, GIVEN.noise, matrix(2, NM, NT + 1)), fm.ShapeError, f"{NT} time steps"),
        ((matrix(), GIVEN.prior, GIVEN.noise, matrix(2, NM - 1)), fm.ShapeError, f"{NM} block columns"),
        ((matrix(), GIVEN.prior, GIVEN.noise, matrix(filled=False)), fm.UninitializedError, "forecast: expected"),
        (
            (matrix(), GIVEN.prior, GIVEN.noise, matrix(comm=fm.Comm(backend="cpu"))),
            fm.ArgumentError,
            "expected a matrix on the Comm of F",
        ),
    ],
)
def test_a_model_that_does_not_fit(arguments: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        inversion.RealTimeInversion(*arguments)


DATA = GIVEN.data


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (DATA.T, fm.ShapeError, r"expected shape \(4, 7\), found \(7, 4\); transpose it"),
        (DATA[0], fm.ShapeError, r"found \(7,\)"),
        (changed(DATA, (2, 5), np.nan), fm.NonFiniteError, "found nan of sensor 2 at step 5; a stream accepts"),
        (changed(DATA, (1, 0), -np.inf), fm.NonFiniteError, "found -inf of sensor 1 at step 0"),
        (np.ma.masked_array(DATA, DATA > 0), fm.ArgumentTypeError, "expected values without a mask"),
        (1j * DATA, fm.ArgumentTypeError, "expected real numbers, found dtype complex128"),
        (fm.Vector(COMM, NM, NT, "col", global_sizes=True), fm.SpaceError, "data: expected a 'row' vector"),
        (fm.Vector(COMM, ND, NT, "row", global_sizes=True), fm.UninitializedError, "without values"),
        (fm.Vector(COMM, ND + 1, NT, "row", global_sizes=True), fm.ShapeError, "expected 4 blocks of 7"),
    ],
)
@pytest.mark.parametrize("method", ["infer", "forecast", "log_evidence", "chi2", "sample", "evidence", "fit"])
def test_data_that_do_not_fit(model, method: str, data: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        getattr(model, method)(data)


@pytest.mark.parametrize("method", ["infer", "forecast", "log_evidence", "chi2", "sample", "evidence"])
def test_before_the_factorisation(method: str) -> None:
    with pytest.raises(fm.UninitializedError, match=r"expected a call of factorise\(\) or load\(\) before"):
        getattr(inverse(COMM, GIVEN), method)(DATA)


def without_forecast() -> inversion.RealTimeInversion:
    found = inversion.RealTimeInversion(matrix(), GIVEN.prior, GIVEN.noise)
    found.factorise()
    return found


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.forecast(DATA),
        lambda model: model.stream().forecast,
        lambda model: model.select_sensors(1, "forecast"),
    ],
)
def test_without_a_map_to_quantities(call: Callable[[Any], Any]) -> None:
    with pytest.raises(fm.ArgumentError, match="map to quantities"):
        call(without_forecast())


@pytest.mark.parametrize(
    ("step", "error", "says"),
    [
        (DATA[:, 0][:3], fm.ShapeError, r"expected shape \(4,\), the sensors of one time step, found \(3,\)"),
        (DATA, fm.ShapeError, r"found \(4, 7\)"),
        ([1.0, np.nan, 2.0, 3.0], fm.NonFiniteError, "found nan of sensor 1; a masked array"),
        ([1.0, 0.0, 2.0, np.inf], fm.NonFiniteError, "found inf of sensor 3"),
        (["a", "b", "c", "d"], fm.ArgumentTypeError, "expected real numbers"),
    ],
)
def test_a_step_that_does_not_fit_leaves_the_stream_as_it_was(model, step: Any, error: Any, says: str) -> None:
    stream = model.stream()
    stream.assimilate(DATA[:, 0])
    before = stream.log_evidence, stream.forecast.mean
    with pytest.raises(error, match=says):
        stream.assimilate(step)
    assert stream.step == 1
    assert stream.log_evidence == before[0]
    assert np.array_equal(stream.forecast.mean, before[1])


def test_a_step_twice_and_one_too_many(model) -> None:
    stream = model.stream()
    stream.assimilate(DATA[:, 0], step=0)
    with pytest.raises(fm.ArgumentError, match="expected time step 1, the next one, found step 0"):
        stream.assimilate(DATA[:, 0], step=0)
    for t in range(1, NT):
        stream.assimilate(DATA[:, t], step=t)
    with pytest.raises(fm.ArgumentError, match=f"expected at most {NT} time steps, found one more"):
        stream.assimilate(DATA[:, 0])


def test_a_masked_value_may_be_anything(model) -> None:
    first, second = model.stream(), model.stream()
    for stream, hidden in ((first, 7.0), (second, np.nan)):
        stream.assimilate(np.ma.masked_array([1.0, hidden, 2.0, 3.0], [False, True, False, False]))
    assert first.log_evidence == second.log_evidence


def twice_the_same_sensor(comm: fm.Comm) -> fm.Matrix:
    """Return a map with two equal block rows: without noise its data-space Hessian is singular."""
    return fm.Matrix.from_array(comm, np.concatenate([GIVEN.F, GIVEN.F[1:2]]))


def test_a_singular_hessian() -> None:
    model = inversion.RealTimeInversion(twice_the_same_sensor(COMM), GIVEN.prior, inversion.WhiteNoise(1e-9))
    with pytest.raises(
        fm.NotPositiveDefiniteError, match=r"singular to rounding at time step \d+, sensor \d+; more noise"
    ):
        model.factorise()
    assert not model.is_factorised


def test_no_fit_of_a_singular_hessian() -> None:
    model = inversion.RealTimeInversion(twice_the_same_sensor(COMM), GIVEN.prior, inversion.WhiteNoise(1e-9))
    with pytest.raises(fm.NotPositiveDefiniteError, match="fit: expected scales with a regular data-space Hessian"):
        model.fit(np.vstack([DATA, DATA[1:2]]))


def test_a_hessian_that_cannot_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = inverse(COMM, GIVEN)
    monkeypatch.setattr(type(COMM.backend), "free_bytes", lambda self: 12_000)
    with pytest.raises(
        fm.CapacityError, match=r"4 sensors x 7 time steps: expected \d+ bytes .* found 12000 free; \d sensors"
    ):
        model.factorise()


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda m: m.sample(DATA, 0), fm.ArgumentError, "sample: count"),
        (lambda m: m.sample(DATA, 1.5), fm.ArgumentTypeError, "sample: count"),
        (lambda m: m.sample(DATA, 1, seed="x"), fm.ArgumentError, "seed: expected an integer"),
        (lambda m: m.information_gain([0, 4]), fm.ArgumentError, r"expected indices of 0 .. 3, found 4"),
        (lambda m: m.information_gain([1, 1]), fm.ArgumentError, "expected different sensors"),
        (lambda m: m.select_sensors(5), fm.ArgumentError, "expected at most 4 sensors, found 5"),
        (lambda m: m.select_sensors(0), fm.ArgumentError, "select_sensors: count"),
        (lambda m: m.select_sensors(1, "data"), fm.ArgumentError, "expected 'source' or 'forecast', found 'data'"),
        (lambda m: m.fit(DATA, bounds=(2.0, 3.0)), fm.ArgumentError, "bounds: expected"),
        (lambda m: m.fit(DATA, tolerance=0.0), fm.ArgumentError, "tolerance: expected"),
    ],
)
def test_other_arguments(model, call: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call(model)


@pytest.mark.parametrize(
    ("prior", "noise", "forecast"),
    [
        (GIVEN.prior.scaled(1.001), GIVEN.noise, True),
        (GIVEN.prior, GIVEN.noise.scaled(1.001), True),
        (GIVEN.prior, GIVEN.noise, False),
    ],
)
def test_a_factor_of_another_model(model, tmp_path: Path, prior: Any, noise: Any, forecast: bool) -> None:
    model.save(tmp_path / "factor.h5")
    other = GIVEN._replace(prior=prior, noise=noise)
    F, G = (fm.Matrix.from_array(COMM, blocks) for blocks in (other.F, other.G))
    found = inversion.RealTimeInversion(F, prior, noise, G if forecast else None)
    with pytest.raises(fm.ChecksumError, match="expected"):
        found.load(tmp_path / "factor.h5")
    assert not found.is_factorised


def test_a_factor_of_another_matrix(model, tmp_path: Path) -> None:
    model.save(tmp_path / "factor.h5")
    other = inverse(COMM, GIVEN._replace(F=GIVEN.F * 1.0001))
    with pytest.raises(fm.ChecksumError, match=r"probe.data: expected the factor of this model"):
        other.load(tmp_path / "factor.h5")


def test_a_stream_of_another_factor(model, tmp_path: Path) -> None:
    stream = model.stream()
    stream.assimilate(DATA[:, 0])
    stream.save(tmp_path / "stream.h5")
    other = inverse(COMM, GIVEN._replace(noise=GIVEN.noise.scaled(1.01)))
    other.factorise()
    with pytest.raises(fm.ChecksumError, match="state of a stream of this factor"):
        other.resume(tmp_path / "stream.h5")
    with pytest.raises(fm.FileFormatError, match="expected a factor of an inversion"):
        other.load(tmp_path / "stream.h5")


@pytest.mark.parametrize("site", ["solve_triangular", "numpy.pad"])
def test_an_interrupted_step_leaves_the_stream_as_it_was(model, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, undisturbed = model.stream(), model.stream()
    for each in (stream, undisturbed):
        each.assimilate(np.ma.masked_array(DATA[:, 0], [True, False, False, False]))
    second = np.ma.masked_array(DATA[:, 1], [False, True, False, False])

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        owner = {"solve_triangular": type(COMM.backend.arrays), "numpy.pad": np}[site]
        patch.setattr(owner, site.rpartition(".")[2], interrupt)
        with pytest.raises(KeyboardInterrupt):
            stream.assimilate(second)
    assert stream.step == 1
    for each in (stream, undisturbed):
        each.assimilate(second)
    assert stream.log_evidence == undisturbed.log_evidence
    assert np.array_equal(stream.forecast.variance, undisturbed.forecast.variance)


@pytest.mark.parametrize("backend", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("interrupted", [0, 1, 2])  # on a GPU the step runs, is recorded, or is replayed
def test_an_interrupt_after_a_substitution(backend: str, interrupted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The solutions of the interrupted step are there, but the stream has not taken it: other data can follow."""
    with fm.Comm(backend=backend) as comm:
        model = inverse(comm, GIVEN)
        model.factorise()
        undisturbed, interrupts = model.stream(), []
        kind, build = type(comm.backend), type(comm.backend).substitution

        def substitution(self: Any, *arguments: Any) -> Callable[[int, Any], None]:
            solve = build(self, *arguments)

            def solve_and_stop(step: int, given: Any) -> None:
                solve(step, given)
                if step in interrupts:
                    interrupts.remove(step)
                    raise KeyboardInterrupt

            return solve_and_stop

        monkeypatch.setattr(kind, "substitution", substitution)
        stream = model.stream()
        interrupts.append(interrupted)
        for step in range(4):
            if step == interrupted:
                with pytest.raises(KeyboardInterrupt):
                    stream.assimilate(DATA[:, step] + 100.0)
            for each in (stream, undisturbed):
                each.assimilate(DATA[:, step])
        assert not interrupts
        assert (stream.step, stream.misfit) == (4, undisturbed.misfit)
        assert stream.log_evidence == undisturbed.log_evidence


def test_a_stream_is_ready_before_its_first_step(model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a GPU the first step would wait for a compiler otherwise."""
    stream = model.stream()
    stream.save(tmp_path / "stream.h5")
    resumed = model.resume(tmp_path / "stream.h5")
    monkeypatch.setattr(type(COMM.backend), "substitution", None)
    for each in (stream, resumed):
        each.assimilate(DATA[:, 0])


CALLS: list[Callable[[Any, Any], Any]] = [
    lambda model, stream: model.infer(DATA),
    lambda model, stream: model.forecast(DATA),
    lambda model, stream: model.stream(),
    lambda model, stream: stream.infer(),
    lambda model, stream: model.posterior_variance(),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("which", ["F", "G"])
def test_new_values_of_a_matrix_make_the_factor_useless(which: str, call: Callable[[Any, Any], Any]) -> None:
    F, G = (fm.Matrix.from_array(COMM, blocks) for blocks in (GIVEN.F, GIVEN.G))
    model = inversion.RealTimeInversion(F, GIVEN.prior, GIVEN.noise, G)
    model.factorise()
    stream = model.stream()
    stream.assimilate(DATA[:, 0])
    {"F": F, "G": G}[which].init_mat_ones()
    with pytest.raises(fm.ArgumentError, match="expected the values of F and G with which factorise"):
        call(model, stream)
    model.factorise()
    call(model, model.stream())


@pytest.mark.parametrize("call", [*CALLS, lambda model, stream: model.select_sensors(1)])
def test_a_closed_matrix(call: Callable[[Any, Any], Any]) -> None:
    model = inverse(COMM, GIVEN)
    model.factorise()
    stream = model.stream()
    model.F.close()
    with pytest.raises(fm.ClosedError, match="found one that was closed"):
        call(model, stream)


def errors_on_ranks(folder: str) -> list[tuple[str, str]]:
    """Return the errors of calls that are wrong on one rank only, or on all."""
    found = []
    with fm.Comm(None, 1, 2, backend="cpu") as comm:
        model = inverse(comm, GIVEN)
        model.factorise()
        stream = model.stream()
        rank = comm.world_rank
        calls: list[Callable[[], Any]] = [
            lambda: model.infer(changed(DATA, (0, 0), np.nan) if rank else DATA),  # other data on one rank
            lambda: model.infer(changed(DATA, (0, 0), 7.0) if rank else DATA),
            lambda: stream.assimilate(DATA[:, 0] + rank),
            lambda: stream.assimilate(DATA[:, 0], step=rank),
            lambda: model.select_sensors(1 + rank),
            lambda: model.sample(DATA, 1, seed=rank),
            lambda: model.save(Path(folder) / "missing" / "factor.h5"),
            lambda: model.load(Path(folder) / "none.h5"),
            lambda: inversion.RealTimeInversion(
                twice_the_same_sensor(comm), GIVEN.prior, inversion.WhiteNoise(1e-9)
            ).factorise(),
        ]
        for call in calls:
            with pytest.raises(fm.FFTMatvecError) as caught:
                call()
            found.append((type(caught.value).__name__, str(caught.value)))
        stream.assimilate(DATA[:, 0])
        found.append(("", str(stream.log_evidence)))
    return found


def test_every_rank_raises_the_same_error(tmp_path: Path) -> None:
    first, second = run_ranks(2, "unit.inversion.test_wrong_use:errors_on_ranks", str(tmp_path), timeout=60)
    assert [kind for kind, _ in first] == [kind for kind, _ in second]
    assert [kind for kind, _ in first] == [
        "AgreementError",
        "AgreementError",
        "AgreementError",
        "ArgumentError",
        "AgreementError",
        "AgreementError",
        "FileError",
        "FileError",
        "NotPositiveDefiniteError",
        "",
    ]
    assert first[-1] == second[-1]
