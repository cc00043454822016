"""Failures injected at every allocation and message of collective calls, on every rank of a grid.

A call runs once to count its calls of each site: the backend's methods that allocate or copy, NumPy's allocations from
this package's modules, and the Comm's messages. Then it runs again for each rank and each of those calls, which raises
on that rank. Every rank must raise the same error.
"""

from __future__ import annotations

import functools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec import inversion
from numba_fftmatvec.backends.cpu import CpuBackend
from numba_fftmatvec.comm.agreement import Meeting
from numba_fftmatvec.comm.exchange import bcast_array, sum_array
from support.tasks import operands
from support.workbench import ND, NM, NT, OPERANDS, SHAPE, Workbench

F = operands(SHAPE)[0]
LONGEST_SECONDS = 5.0
PACKAGE = fm.__name__

# Where failures are injected. NumPy's functions count when a module of this package calls them.
SITES: dict[str, tuple[Any, str]] = {
    f"{getattr(owner, '__name__', owner)}.{name}": (owner, name)
    for owner, names in (
        (CpuBackend, ("empty", "zeros", "upload", "download", "host_view", "wrap", "staging")),
        (np, ("empty", "zeros", "ascontiguousarray")),
        (fm.Comm, ("barrier", "bcast", "allgather", "stack", "concatenate", "collect")),
        (Meeting, ("gather_bytes",)),
    )
    for name in names
}
ERRORS: dict[str, tuple[type[BaseException], str]] = {
    "memory": (MemoryError, "CapacityError"),
    "interrupt": (KeyboardInterrupt, "KeyboardInterrupt"),
}


@dataclass(frozen=True)
class Call:
    """A collective call, and what it acts on, which is prepared without failures."""

    act: Callable[[Workbench, Any], Any]
    prepare: Callable[[Workbench], Any] = lambda s: None


def small(s: Workbench) -> fm.Vector:
    """Return a vector with a norm that is computed from scaled values."""
    x = fm.Vector(s.comm, NM, NT, "col", global_sizes=True)
    x.scatter(OPERANDS["col"] * 1e-200)
    return x


def several(s: Workbench) -> fm.Vector:
    """Return more vectors than a record has values."""
    x = fm.Vector(s.comm, NM, NT, "col", global_sizes=True, num_vecs=9)
    x.init_vec_ones()
    return x


def message(send: Callable[[fm.Comm], Any]) -> Callable[[Workbench, Any], Any]:
    """Return a call that sends a message of the Comm in a block, which a rank may leave before the message."""

    def act(s: Workbench, _: Any) -> Any:
        with s.comm.agreement("a phase"):
            return send(s.comm)

    return act


def model_of(s: Workbench) -> inversion.RealTimeInversion:
    """Return an inversion, not factorised."""
    return inversion.RealTimeInversion(s.matrix, inversion.WhitePrior(NM, 1.0), inversion.WhiteNoise(0.5), "G")


def missing_one() -> Any:
    """Return the data of a time step with a missing sensor."""
    return np.ma.masked_array(np.arange(float(ND)), np.arange(ND) == 1)


CALLS: dict[str, Call] = {
    "Vector": Call(lambda s, _: fm.Vector(s.comm, NM, NT, "col", global_sizes=True)),
    "Vector in data space": Call(lambda s, _: fm.Vector(s.comm, ND, NT, "row", global_sizes=True)),
    "get_vec": Call(lambda s, _: s.matrix.get_vec("input", num_vecs=2)),
    "scatter": Call(lambda s, x: x.scatter(OPERANDS["col"]), small),
    "gather": Call(lambda s, _: s.x.gather()),
    "gather of several": Call(lambda s, x: x.gather(), several),
    "norm": Call(lambda s, _: s.x.norm()),
    "norm of small values": Call(lambda s, x: x.norm(), small),
    "largest magnitude": Call(lambda s, _: s.y.norm(float("inf"))),
    "norms": Call(lambda s, x: x.norms(1), several),
    "dot": Call(lambda s, _: s.y.dot(s.y)),
    "dots": Call(lambda s, x: x.dots(x), several),
    "save a vector": Call(lambda s, _: s.x.save(str(s.folder / "never.h5"))),
    "read a vector": Call(lambda s, x: x.init_vec_from_file(str(s.folder / "x.h5")), small),
    "Matrix": Call(lambda s, _: fm.Matrix(s.comm, NM, ND, NT, global_sizes=True)),
    "Matrix of a directory": Call(lambda s, _: fm.Matrix(s.comm, str(s.folder / "F"), aux_path=str(s.folder / "F"))),
    "from_array": Call(lambda s, _: fm.Matrix.from_array(s.comm, F)),
    "init_mat_ones": Call(lambda s, A: A.init_mat_ones(), Workbench.blank),
    "init_mat_from_array": Call(lambda s, A: A.init_mat_from_array(F), Workbench.blank),
    "init_mat_from_array of a callable": Call(lambda s, A: A.init_mat_from_array(F.__getitem__), Workbench.blank),
    "init_mat_from_file": Call(lambda s, A: A.init_mat_from_file(str(s.folder / "F")), Workbench.blank),
    "with_precision": Call(lambda s, _: s.matrix.with_precision(fm.MatvecPrecisionConfig.from_code("ddsdd"))),
    "save a matrix": Call(lambda s, _: s.matrix.save(str(s.folder / "again"))),
    "plan of two vectors": Call(
        lambda s, A: A._pipelines(2), lambda s: s.matrix.with_precision(s.matrix.precision_config)
    ),
    "check_ones_matvec": Call(lambda s, _: fm.Tester.check_ones_matvec(s.comm, s.ones, s.ones_result)),
    "barrier": Call(message(lambda comm: comm.barrier())),
    "bcast": Call(message(lambda comm: comm.bcast({"a": 1}))),
    "allgather": Call(message(lambda comm: comm.allgather([1] * (1 + comm.world_rank)))),
    "stack": Call(message(lambda comm: comm.stack(np.ones(9)))),
    "concatenate": Call(message(lambda comm: comm.concatenate(np.ones((2, 1 + comm.world_rank))))),
    "bcast_array": Call(message(lambda comm: bcast_array(comm, np.ones(3), comm.world_size - 1, "sending"))),
    "sum_array": Call(message(lambda comm: sum_array(comm, np.ones(3), "summing"))),
    # Calls of an inversion without products of F, whose messages have no time limit.
    "factorise": Call(lambda s, model: model.factorise(), lambda s: model_of(s)),
    "forecast": Call(lambda s, _: s.model.forecast(OPERANDS["row"])),
    "covariance of a forecast": Call(
        lambda s, forecast: forecast.covariance, lambda s: s.model.forecast(OPERANDS["row"])
    ),
    "evidence": Call(lambda s, _: s.model.evidence(OPERANDS["row"])),
    "posterior variance": Call(lambda s, _: s.model.posterior_variance()),
    "select sensors": Call(lambda s, _: s.model.select_sensors(2, "forecast")),
    "assimilate": Call(lambda s, stream: stream.assimilate(missing_one()), lambda s: s.model.stream()),
    "forecast of a stream": Call(lambda s, _: s.stream.forecast),
    "save a stream": Call(lambda s, _: s.stream.save(s.folder / "never.h5")),
    "resume a stream": Call(lambda s, _: s.model.resume(s.folder / "stream.h5")),
    "Comm": Call(lambda s, _: s.new_comm(*s.grid)),
    "Comm.close": Call(lambda s, comm: comm.close(), lambda s: s.new_comm(*s.grid)),
}


class Injector:
    """Counts calls of the sites, and raises at one of them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.target: tuple[str, int] | None = None
        self.error: type[BaseException] = MemoryError
        self.active = False

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Patch all sites."""
        originals = {site: vars(owner)[name] for site, (owner, name) in SITES.items()}
        for site, (owner, name) in SITES.items():
            setattr(owner, name, self._wrapped(site, originals[site]))
        try:
            yield
        finally:
            for site, (owner, name) in SITES.items():
                setattr(owner, name, originals[site])

    def _wrapped(self, site: str, function: Any) -> Any:
        everywhere = not site.startswith("numpy")

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if self.active and (everywhere or sys._getframe(1).f_globals["__name__"].startswith(PACKAGE)):
                self.counts[site] += 1
                if self.target == (site, self.counts[site]):
                    self.target = None
                    raise self.error(f"injected into {site}")
            return function(*args, **kwargs)

        return wrapper

    def run(self, act: Callable[[], Any], target: tuple[str, int] | None) -> tuple[str, str] | None:
        """Run a call with a failure at a site; return the error's type and message."""
        self.counts.clear()
        self.target, self.active = target, True
        try:
            act()
        except BaseException as error:
            return type(error).__name__, str(error)
        finally:
            self.active = False
        return None


def inject(payload: tuple[tuple[int, int], str, str, int]) -> dict[str, Any]:
    """Inject failures into all calls; return the number of them and what went wrong, on every rank.

    The payload is the grid, a folder, a name of ERRORS, and n, to inject one of n failures.
    """
    grid, folder, kind, step = payload
    error, expected = ERRORS[kind]
    world, injector = MPI.COMM_WORLD, Injector()
    injector.error = error
    wrong: list[str] = []
    total = met = 0
    with fm.Comm(world, *grid, backend="cpu", timeout=LONGEST_SECONDS) as comm, injector.patched():
        s: Any = Workbench(comm, grid, Path(folder))
        prepare(s)
        for name, call in CALLS.items():
            prepared = call.prepare(s)
            first = injector.run(functools.partial(call.act, s, prepared), None)
            sites = world.allgather((dict(injector.counts), first))
            if any(outcome for _, outcome in sites):
                wrong.append(f"{name}: {sites}")
                continue
            for rank, (counts, _) in enumerate(sites):
                for target in ((site, k) for site, count in sorted(counts.items()) for k in range(1, count + 1)):
                    met += 1
                    if met % step:
                        continue
                    print(f"rank {world.rank}: {name}, {target} on rank {rank}", file=sys.stderr, flush=True)
                    total += 1
                    prepared = call.prepare(s)
                    started = time.monotonic()
                    act = functools.partial(call.act, s, prepared)
                    outcome = injector.run(act, target if world.rank == rank else None)
                    seconds = time.monotonic() - started
                    found = world.allgather((outcome, seconds))
                    if not agreed(found, expected):
                        wrong.append(f"{name}, {target} on rank {rank}: {found}")
                        print(wrong[-1], file=sys.stderr, flush=True)
                    if any(world.allgather(comm._meeting.watch.given_up is not None)):
                        return {"total": total, "wrong": wrong}
        norm = s.x.norm()
    return {"total": total, "wrong": wrong, "norm": norm}


def prepare(s: Any) -> None:
    """Write the files that calls read, and make the objects that they use."""
    s.matrix.save(str(s.folder / "F"))
    s.x.save(str(s.folder / "x.h5"))
    s.ones = s.blank()
    s.ones.init_mat_ones()
    x = s.vector(NM, NT, "col")
    s.ones_result = s.ones @ x
    s.comm.backend.arrays.panel_rows = 10  # two panels
    s.model = model_of(s)
    s.model.factorise()
    s.stream = s.model.stream()
    s.stream.assimilate(missing_one())
    s.stream.save(s.folder / "stream.h5")


def agreed(found: list[tuple[tuple[str, str] | None, float]], expected: str) -> bool:
    """Return whether all ranks raised one error, of the expected type, in time."""
    outcomes = {outcome for outcome, _ in found}
    (outcome, *others) = outcomes
    right = outcome is not None and outcome[0] == expected and "injected into" in outcome[1]
    return right and not others and max(seconds for _, seconds in found) < LONGEST_SECONDS
