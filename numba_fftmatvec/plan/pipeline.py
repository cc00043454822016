"""Pipelines of products: a planner turns a precision config into stages, which are built once and run many times."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from itertools import pairwise

from ..backends import Backend, Buffer
from ..backends.base import DOUBLE, End, Queue, Slot, Stage
from ..backends.rows import CopyRows
from ..backends.workspace import Workspace
from ..comm import Comm
from ..kernels.sbgemv.problem import Problem
from ..layout import MatrixLayout, Space
from ..precision import MatvecPrecisionConfig, Precision
from ..products import PRODUCTS, Factor, Product
from ..spectrum import Spectra
from .stages import Broadcast, Reduce, SpectrumProduct
from .timing import Timer

Stages = tuple[Stage, ...]


class BoundStages:
    """Stages between two slots, for a product's operand and result, which each run binds to two vectors.

    Parameters
    ----------
    queue : Queue
        The queue of the stages.
    build : callable
        ``build(operand, result)`` returns the stages between two ends.
    """

    def __init__(self, queue: Queue, build: Callable[[End, End], Stages]) -> None:
        self._queue = queue
        self._operand, self._result = Slot("operand"), Slot("result")
        self.stages = build(self._operand, self._result)

    def run(self, operand: Buffer | None, result: Buffer | None, timer: Timer | None = None) -> None:
        """Queue the stages, each as a phase of the timer if there is one."""
        self._operand.bind(operand)
        self._result.bind(result)
        try:
            with self._queue.active():
                if timer is None:
                    for stage in self.stages:
                        stage.run()
                else:
                    self._run_phases(timer)
        finally:
            self._operand.bind(None)  # do not keep the vectors alive
            self._result.bind(None)

    def _run_phases(self, timer: Timer) -> None:
        with timer.phase("total"):
            for stage in self.stages:
                with timer.phase(stage.phase):
                    stage.run()


class Pipeline:
    """A product that is ready to run.

    Parameters
    ----------
    backend : Backend
        The backend that runs the stages.
    build : callable
        ``build(timed)`` returns the bound stages. The untimed stages are as fast as possible; the timed ones run one
        after another, so that a timer can measure each. The first run with a timer builds the timed ones.
    queued : bool
        Whether all stages only queue work.
    """

    def __init__(self, backend: Backend, build: Callable[[bool], BoundStages], *, queued: bool) -> None:
        self._bound = build(False)
        self._untimed = backend.replayed(self._bound.run) if queued else self._bound.run
        self._build_timed = partial(build, True)

    @cached_property
    def _for_timer(self) -> BoundStages:
        return self._build_timed()

    @property
    def timed_stages(self) -> Stages:
        """The stages that a run with a timer measures, each a phase."""
        return self._for_timer.stages

    def run(self, operand: Buffer | None, result: Buffer | None, timer: Timer | None = None) -> None:
        """Queue the product.

        Parameters
        ----------
        operand, result : Buffer or None
            The vectors' local blocks; None on ranks that own no blocks.
        timer : Timer, optional
            A timer that measures every phase. With it the product runs stage by stage instead of as one graph.
        """
        if timer is None:
            self._untimed(operand, result)
        else:
            self._for_timer.run(operand, result, timer)

    def __str__(self) -> str:
        """Return one line for each stage, with the ends of the stage."""
        return "\n".join(map(str, self._bound.stages))


def pipelines(
    comm: Comm,
    layout: MatrixLayout,
    config: MatvecPrecisionConfig,
    workspace: Workspace,
    spectra: Spectra,
    num_vecs: int,
) -> dict[str, Pipeline]:
    """Return, by name, the pipeline of every product that the spectra allow; see `Planner` for the parameters."""
    queued = all(comm.axis(space).queued for space in Space)
    about = comm, layout, config, workspace, spectra, num_vecs
    planners = {timed: Planner(*about, comm.backend.queue(recorded=queued and not timed)) for timed in (False, True)}

    def build(product: Product, timed: bool) -> BoundStages:
        planner = planners[timed]
        return BoundStages(planner.queue, partial(planner.product, product, timed=timed))

    return {
        name: Pipeline(comm.backend, partial(build, product), queued=queued)
        for name, product in PRODUCTS.items()
        if not spectra.missing(product)
    }


class Planner:
    """Builds the stages of a matrix's products.

    Parameters
    ----------
    comm : Comm
        The process grid.
    layout : MatrixLayout
        Sizes of the matrix.
    config : MatvecPrecisionConfig
        Precision of each stage.
    workspace : Workspace
        The workspace of the buffers between the stages.
    spectra : Spectra
        The stored spectra of F and, with an auxiliary matrix, of G.
    num_vecs : int
        Number of right-hand sides.
    queue : Queue
        The queue of the stages.
    """

    def __init__(
        self,
        comm: Comm,
        layout: MatrixLayout,
        config: MatvecPrecisionConfig,
        workspace: Workspace,
        spectra: Spectra,
        num_vecs: int,
        queue: Queue,
    ) -> None:
        self.queue = queue
        self._comm = comm
        self._layout = layout
        self._config = config
        self._workspace = workspace
        self._spectra = spectra
        self._num_vecs = num_vecs
        self._transforms = queue.transforms(workspace, layout, num_vecs)

    def product(self, product: Product, operand: End, result: End, *, timed: bool) -> Stages:
        """Return the stages of a product: those of each factor, with a buffer between two factors."""
        between = [self._intermediate(factor.output_space) for factor in product.factors[:-1]]
        ends = pairwise([operand, *between, result])
        factors = zip(product.factors, ends, strict=True)
        return tuple(stage for factor, pair in factors for stage in self._factor(factor, *pair, timed))

    def _factor(self, factor: Factor, operand: End, result: End, timed: bool) -> Stages:
        return (
            *self._to_spectrum(factor.input_space, operand, timed),
            self._multiply(factor),
            *self._from_spectrum(factor.output_space, result, timed),
        )

    def _intermediate(self, space: Space) -> End:
        """Return the buffer between two factors, or on ranks that own no part of it a slot that stays unbound."""
        owns = self._comm.axis(space).owns
        return self._blocks("intermediate", space, Precision.DOUBLE) if owns else Slot("intermediate")

    def _blocks(self, name: str, space: Space, precision: Precision) -> Buffer:
        vector = self._layout.vector(space, self._num_vecs)
        return self._workspace.get(f"{name}.{space}", (vector.rows, vector.block_size), precision.real)

    def _to_spectrum(self, space: Space, operand: End, timed: bool) -> Stages:
        arrived, travel = self._travel(space, operand)
        rounding = self._config.broadcast_and_pad.real
        return *travel, *self._transforms.forward(space, arrived, rounding, self._config.fft, timed=timed)

    def _travel(self, space: Space, operand: End) -> tuple[End, Stages]:
        """Return the end that holds the owner's blocks on this rank, and the stages that broadcast the blocks to it."""
        axis, precision = self._comm.axis(space), self._config.broadcast_and_pad
        if axis.size == 1:
            return operand, ()
        if axis.owns and precision is Precision.DOUBLE:
            return operand, (Broadcast(axis, operand),)
        wire = self._blocks("wire", space, precision)
        if not axis.owns:
            return wire, (Broadcast(axis, wire),)
        copy = CopyRows("broadcast", self.queue.target, operand, precision.real, wire)
        return wire, (copy, Broadcast(axis, wire))

    def _multiply(self, factor: Factor) -> Stage:
        layout, spectrum, config = self._layout, self._spectra[factor.matrix], self._config
        problem = Problem(
            nd=layout.nd,
            nm=layout.nm,
            length=layout.padded_size,
            adjoint=factor.is_adjoint,
            format=spectrum.format,
            vector=config.fft.complex,
            result=config.ifft.complex,
            accumulator=self._comm.backend.accumulator(spectrum.format),
            num_vecs=self._num_vecs,
        )
        source = self._transforms.spectrum(factor.input_space, config.fft)
        destination = self._transforms.spectrum(factor.output_space, config.ifft)
        target = self.queue.target
        return SpectrumProduct(target, self._workspace, problem, spectrum.views, source, destination)

    def _from_spectrum(self, space: Space, result: End, timed: bool) -> Stages:
        axis, precision = self._comm.axis(space), self._config.unpad_and_reduce
        sent = result if axis.size == 1 else self._blocks("wire", space, precision)
        transform = self._transforms.inverse(space, self._config.ifft, precision.real, sent, timed=timed)
        if axis.size == 1:
            return transform
        if not axis.owns or precision is Precision.DOUBLE:
            return *transform, Reduce(axis, sent, result)
        total = self._blocks("total", space, precision)
        copy = CopyRows("reduce", self.queue.target, total, DOUBLE, result)
        return *transform, Reduce(axis, sent, total), copy
