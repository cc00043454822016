"""From a precision config to a tuple of stages: the plan of a product, built once and run many times."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from .backends import Backend, Buffer
from .comm import Comm
from .kernels.problem import Problem
from .layout import Layout
from .precision import MatvecConfig, MatvecPrecisionConfig
from .spectrum import Spectrum
from .stages import DOUBLE, Broadcast, CopyRows, Reduce, SpectrumProduct, Stage
from .timing import NullTimer, Timer
from .transforms import TRANSFORMS, Transforms
from .workspace import Workspace


class Leg(NamedTuple):
    """The stages of F or F*: as they are fastest, and one after another so that a timer can tell them apart."""

    untimed: tuple[Stage, ...]
    timed: tuple[Stage, ...]


class LegBuilder:
    """Builds the stages of F or F*, the legs that every product is made of.

    Parameters
    ----------
    comm : Comm
        The process grid.
    layout : Layout
        Sizes of the matrix.
    config : MatvecPrecisionConfig
        Precision of each stage.
    workspace : Workspace
        Where the buffers between the stages are.
    num_vecs : int
        Right-hand sides.
    """

    def __init__(
        self, comm: Comm, layout: Layout, config: MatvecPrecisionConfig, workspace: Workspace, num_vecs: int = 1
    ) -> None:
        self._comm = comm
        self._backend = comm.backend
        self._layout = layout
        self._config = config
        self._workspace = workspace
        self._num_vecs = num_vecs
        self._transforms: Transforms = TRANSFORMS[comm.backend.name](workspace, layout, num_vecs)

    def build(self, spectrum: Spectrum, adjoint: bool) -> Leg:
        """Return the stages of F (from ``"col"`` to ``"row"``) or of its adjoint, for one spectrum."""
        source, target = ("row", "col") if adjoint else ("col", "row")
        multiply = self._multiply(spectrum, adjoint, source, target)
        untimed, timed = (
            (
                *self._broadcast_and_transform(source, timed),
                multiply,
                *self._transform_and_reduce(target, timed),
            )
            for timed in (False, True)
        )
        return Leg(untimed, timed)

    def middle(self, space: str) -> Buffer | None:
        """Return what holds the result of the first leg of a full product, None where this rank does not own it."""
        if self._comm.collectives(space)[0].rank > 0:
            return None
        return self._buffer("middle", space, DOUBLE)

    def _buffer(self, name: str, space: str, dtype: Any) -> Buffer:
        shape = self._num_vecs * self._layout.local_blocks(space), self._layout.block_size
        return self._workspace.get(f"{name}.{space}", shape, dtype)

    def _broadcast_and_transform(self, space: str, timed: bool) -> tuple[Stage, ...]:
        precision = self._config.broadcast_and_pad.real
        ranks, collectives = self._comm.collectives(space)
        arriving = DOUBLE if ranks.size == 1 else precision
        transform = self._transforms.forward(space, arriving, precision, self._config.fft, timed=timed)
        if ranks.size == 1:
            return transform
        if ranks.rank == 0 and precision == DOUBLE:
            return Broadcast(collectives, None), *transform
        wire = self._buffer("wire", space, precision)
        if ranks.rank > 0:
            return Broadcast(collectives, wire), *transform
        return CopyRows("broadcast", self._backend, DOUBLE, precision, wire), Broadcast(collectives, None), *transform

    def _multiply(self, spectrum: Spectrum, adjoint: bool, source: str, target: str) -> Stage:
        layout, stored, vector = self._layout, spectrum.stored, self._config.fft.complex
        problem = Problem(
            num_rows=len(layout.rows),
            num_cols=len(layout.cols),
            length=layout.padded_size,
            adjoint=adjoint,
            stored=stored,
            vector=vector,
            result=self._config.ifft.complex,
            accumulator=self._backend.accumulator(stored, vector),
            num_vecs=self._num_vecs,
        )
        result = self._transforms.spectrum(target, self._config.ifft)
        return SpectrumProduct(self._workspace, problem, spectrum.views, result)

    def _transform_and_reduce(self, space: str, timed: bool) -> tuple[Stage, ...]:
        precision = self._config.unpad_and_reduce.real
        ranks, collectives = self._comm.collectives(space)
        wire = None if ranks.size == 1 else self._buffer("wire", space, precision)
        transform = self._transforms.inverse(space, self._config.ifft, precision, wire, timed=timed)
        if ranks.size == 1:
            return transform
        if ranks.rank > 0 or precision == DOUBLE:
            return *transform, Reduce(collectives, None)
        total = self._buffer("total", space, precision)
        return *transform, Reduce(collectives, total), CopyRows("reduce", self._backend, precision, DOUBLE, None)


class Pipeline:
    """One product, ready to run: one leg, or two with a buffer between them.

    Parameters
    ----------
    backend : Backend
        Where the stages run.
    legs : sequence of Leg
        What to run, in order.
    middle : Buffer or None
        Destination of the first of two legs, on the ranks that own it.
    queued : bool
        Whether all stages only queue work on the stream.
    """

    def __init__(self, backend: Backend, legs: Sequence[Leg], middle: Buffer | None, *, queued: bool) -> None:
        self._timed = partial(_run, backend, [leg.timed for leg in legs], middle)
        untimed = partial(_run, backend, [leg.untimed for leg in legs], middle, NullTimer())
        self._untimed = backend.replayed(untimed) if queued else untimed

    def run(self, source: Buffer | None, destination: Buffer | None, timer: Timer | None = None) -> None:
        """Queue the product.

        Parameters
        ----------
        source, destination : Buffer or None
            The operand's and the result's local blocks, None on ranks that own none.
        timer : Timer, optional
            Told of every phase; the product then runs stage by stage instead of as one graph.
        """
        if timer is None:
            self._untimed(source, destination)
        else:
            self._timed(timer, source, destination)


def _run(
    backend: Backend,
    legs: Sequence[tuple[Stage, ...]],
    middle: Buffer | None,
    timer: Timer,
    source: Buffer | None,
    destination: Buffer | None,
) -> None:
    with backend.active(), timer.phase("total"):
        for leg in legs[:-1]:
            source = _run_leg(leg, source, middle, timer)
        _run_leg(legs[-1], source, destination, timer)


def _run_leg(leg: tuple[Stage, ...], value: Buffer | None, destination: Buffer | None, timer: Timer) -> Buffer | None:
    for stage in leg:
        with timer.phase(stage.phase):
            value = stage.run(value, destination)
    return value


def build_pipelines(builder: LegBuilder, comm: Comm, spectra: Sequence[Spectrum]) -> dict[str, Pipeline]:
    """Return, by name, every product that a primary spectrum, and an auxiliary one if it is there, allow.

    Parameters
    ----------
    builder : LegBuilder
        Builds the legs.
    comm : Comm
        The process grid.
    spectra : sequence of Spectrum
        F, or F and G.
    """
    along = [comm.collectives(space) for space in ("col", "row")]
    queued = all(ranks.size == 1 or collectives.queued for ranks, collectives in along)
    pipelines = {}
    for aux, second in enumerate(spectra):
        forward, adjoint = (builder.build(second, transpose) for transpose in (False, True))
        first = forward if aux == 0 else builder.build(spectra[0], False)
        products = {
            (False, False): ([forward], None),
            (True, False): ([adjoint], None),
            (False, True): ([first, adjoint], builder.middle("row")),
            (True, True): ([adjoint, first], builder.middle("col")),
        }
        for (transpose, full), (legs, middle) in products.items():
            name = MatvecConfig(transpose, full, bool(aux)).name
            pipelines[name] = Pipeline(comm.backend, legs, middle, queued=queued)
    return pipelines
