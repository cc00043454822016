"""From a precision config to a tuple of stages: the plan of a product, built once and run many times."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from .backends import Backend, Buffer
from .comm import Comm
from .kernels.problem import Problem
from .layout import MatrixLayout, Space
from .precision import MatvecPrecisionConfig
from .products import PRODUCTS, Factor
from .spectra import Spectra
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
        self, comm: Comm, layout: MatrixLayout, config: MatvecPrecisionConfig, workspace: Workspace, num_vecs: int = 1
    ) -> None:
        self._comm = comm
        self._backend = comm.backend
        self._layout = layout
        self._config = config
        self._workspace = workspace
        self._num_vecs = num_vecs
        self._transforms: Transforms = TRANSFORMS[comm.backend.name](workspace, layout, num_vecs)

    def build(self, spectrum: Spectrum, factor: Factor) -> Leg:
        """Return the stages of one factor of a product."""
        source, target = factor.input_space, factor.output_space
        multiply = self._multiply(spectrum, factor)
        untimed, timed = (
            (
                *self._broadcast_and_transform(source, timed),
                multiply,
                *self._transform_and_reduce(target, timed),
            )
            for timed in (False, True)
        )
        return Leg(untimed, timed)

    def middle(self, space: Space) -> Buffer | None:
        """Return what holds the result of the first leg of a full product, None where this rank does not own it."""
        return self._buffer("intermediate", space, DOUBLE) if self._comm.axis(space).owns else None

    def _buffer(self, name: str, space: Space, dtype: Any) -> Buffer:
        vectors = self._layout.vector(space, self._num_vecs)
        shape = vectors.rows, vectors.block_size
        return self._workspace.get(f"{name}.{space}", shape, dtype)

    def _broadcast_and_transform(self, space: Space, timed: bool) -> tuple[Stage, ...]:
        precision = self._config.broadcast_and_pad.real
        axis = self._comm.axis(space)
        arriving = DOUBLE if axis.size == 1 else precision
        transform = self._transforms.forward(space, arriving, precision, self._config.fft, timed=timed)
        if axis.size == 1:
            return transform
        if axis.owns and precision == DOUBLE:
            return Broadcast(axis, None), *transform
        wire = self._buffer("wire", space, precision)
        if not axis.owns:
            return Broadcast(axis, wire), *transform
        return CopyRows("broadcast", self._backend, DOUBLE, precision, wire), Broadcast(axis, None), *transform

    def _multiply(self, spectrum: Spectrum, factor: Factor) -> Stage:
        layout, format, vector = self._layout, spectrum.format, self._config.fft.complex
        problem = Problem(
            num_rows=layout.nd,
            num_cols=layout.nm,
            length=layout.padded_size,
            adjoint=factor.is_adjoint,
            stored=format,
            vector=vector,
            result=self._config.ifft.complex,
            accumulator=self._backend.accumulator(format, vector),
            num_vecs=self._num_vecs,
        )
        result = self._transforms.spectrum(factor.output_space, self._config.ifft)
        return SpectrumProduct(self._workspace, problem, spectrum.views, result)

    def _transform_and_reduce(self, space: Space, timed: bool) -> tuple[Stage, ...]:
        precision = self._config.unpad_and_reduce.real
        axis = self._comm.axis(space)
        wire = None if axis.size == 1 else self._buffer("wire", space, precision)
        transform = self._transforms.inverse(space, self._config.ifft, precision, wire, timed=timed)
        if axis.size == 1:
            return transform
        if not axis.owns or precision == DOUBLE:
            return *transform, Reduce(axis, None)
        total = self._buffer("total", space, precision)
        return *transform, Reduce(axis, total), CopyRows("reduce", self._backend, precision, DOUBLE, None)


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


def build_pipelines(builder: LegBuilder, comm: Comm, spectra: Spectra) -> dict[str, Pipeline]:
    """Return, by name, every product that the spectra allow."""
    queued = all(comm.axis(space).queued for space in Space)
    factors = (Factor(name, is_adjoint) for name in spectra for is_adjoint in (False, True))
    legs = {factor: builder.build(spectra[factor.matrix], factor) for factor in factors}
    pipelines = {}
    for product in PRODUCTS.values():
        if not spectra.missing(product):
            first, *others = product.factors
            middle = builder.middle(first.output_space) if others else None
            stages = [legs[factor] for factor in product.factors]
            pipelines[product.name] = Pipeline(comm.backend, stages, middle, queued=queued)
    return pipelines
