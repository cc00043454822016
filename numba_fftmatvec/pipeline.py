"""From a precision config to a tuple of stages: the plan of a product, built once and run many times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .backends import Backend, Buffer
from .comm import Comm
from .kernels.sbgemv import Problem
from .kernels.storage import Format
from .layout import Layout
from .precision import MatvecConfig, MatvecPrecisionConfig, Precision
from .spectrum import Spectrum
from .stages import DOUBLE, Broadcast, CopyRows, Fourier, Reduce, SpectrumProduct, Stage
from .timing import NullTimer, Timer


class Workspace:
    """Buffers that the products of one matrix share: products run one after another on one stream.

    Two requests with the same name, shape and dtype get the same memory.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._buffers: dict[tuple[Any, ...], Buffer] = {}

    def get(self, name: str, shape: tuple[int, int], dtype: Any) -> Buffer:
        """Return a buffer that was zero when it was first asked for."""
        key = (name, shape, np.dtype(dtype))
        if key not in self._buffers:
            self._buffers[key] = self._backend.zeros(shape, dtype)
        return self._buffers[key]


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
    """

    def __init__(self, comm: Comm, layout: Layout, config: MatvecPrecisionConfig) -> None:
        self._comm = comm
        self._backend = comm.backend
        self._layout = layout
        self._config = config
        self._workspace = Workspace(comm.backend)

    def build(self, spectrum: Spectrum, adjoint: bool) -> tuple[Stage, ...]:
        """Return the stages of F (from ``"col"`` to ``"row"``) or of its adjoint, for one spectrum."""
        source, target = ("row", "col") if adjoint else ("col", "row")
        return (
            *self._broadcast_and_pad(source),
            *self._multiply(spectrum, adjoint, source, target),
            *self._unpad_and_reduce(target),
        )

    def middle(self, space: str) -> Buffer | None:
        """Return what holds the result of the first leg of a full product, None where this rank does not own it."""
        if self._comm.collectives(space)[0].rank > 0:
            return None
        return self._buffer("middle", space, self._layout.block_size, DOUBLE)

    def _buffer(self, name: str, space: str, columns: int, dtype: Any) -> Buffer:
        return self._workspace.get(f"{name}.{space}", (self._layout.local_blocks(space), columns), dtype)

    def _padded(self, space: str) -> Buffer:
        return self._buffer("padded", space, self._layout.padded_size, self._config.fft.real)

    def _spectra(self, space: str, precision: Precision) -> Buffer:
        columns = Format(precision.complex).pitch(self._layout.frequencies)
        return self._buffer("spectra", space, columns, precision.complex)

    def _broadcast_and_pad(self, space: str) -> tuple[Stage, ...]:
        precision = self._config.broadcast_and_pad.real
        ranks, collectives = self._comm.collectives(space)
        if ranks.size == 1:
            return (CopyRows("pad", self._backend, DOUBLE, precision, self._padded(space)),)
        pad = CopyRows("pad", self._backend, precision, precision, self._padded(space))
        if ranks.rank == 0 and precision == DOUBLE:
            return Broadcast(collectives, None), pad
        wire = self._buffer("wire", space, self._layout.block_size, precision)
        if ranks.rank > 0:
            return Broadcast(collectives, wire), pad
        return CopyRows("broadcast", self._backend, DOUBLE, precision, wire), Broadcast(collectives, None), pad

    def _multiply(self, spectrum: Spectrum, adjoint: bool, source: str, target: str) -> tuple[Stage, ...]:
        layout, backend = self._layout, self._backend
        before, after = self._config.fft, self._config.ifft
        transformed, product = self._spectra(source, before), self._spectra(target, after)
        result = self._buffer("time", target, layout.padded_size, after.real)
        problem = Problem(
            num_rows=len(layout.rows),
            num_cols=len(layout.cols),
            frequencies=layout.frequencies,
            adjoint=adjoint,
            stored=spectrum.stored.dtype,
            vector=before.complex,
            result=after.complex,
            accumulator=backend.accumulator(spectrum.stored.dtype, before.complex),
        )
        return (
            Fourier("fft", backend.rfft(layout.padded_size, self._padded(source), transformed)),
            SpectrumProduct(backend, problem, spectrum.buffer, product),
            Fourier("ifft", backend.irfft(layout.padded_size, product, result)),
        )

    def _unpad_and_reduce(self, space: str) -> tuple[Stage, ...]:
        precision, source = self._config.unpad_and_reduce.real, self._config.ifft.real
        ranks, collectives = self._comm.collectives(space)
        if ranks.size == 1:
            return (CopyRows("unpad", self._backend, source, precision, None),)
        wire = self._buffer("wire", space, self._layout.block_size, precision)
        unpad = CopyRows("unpad", self._backend, source, precision, wire)
        if ranks.rank > 0 or precision == DOUBLE:
            return unpad, Reduce(collectives, None)
        total = self._buffer("total", space, self._layout.block_size, precision)
        return unpad, Reduce(collectives, total), CopyRows("reduce", self._backend, precision, DOUBLE, None)


class Pipeline:
    """One product, ready to run: one leg, or two with a buffer between them.

    Parameters
    ----------
    backend : Backend
        Where the stages run.
    legs : sequence of tuples of stages
        What to run, in order.
    middle : Buffer or None
        Destination of the first of two legs, on the ranks that own it.
    queued : bool
        Whether all stages only queue work on the stream.
    """

    def __init__(
        self, backend: Backend, legs: Sequence[tuple[Stage, ...]], middle: Buffer | None, *, queued: bool
    ) -> None:
        self._backend = backend
        self._first = legs[:-1]
        self._last = legs[-1]
        self._middle = middle
        self._null = NullTimer()
        self._untimed = backend.replayed(self._run) if queued else self._run

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
            self._run(source, destination, timer)

    def _run(self, source: Buffer | None, destination: Buffer | None, timer: Timer | None = None) -> None:
        timer = timer or self._null
        with self._backend.active(), timer.phase("total"):
            for leg in self._first:
                source = _run_leg(leg, source, self._middle, timer)
            _run_leg(self._last, source, destination, timer)


def _run_leg(leg: tuple[Stage, ...], value: Buffer | None, destination: Buffer | None, timer: Timer) -> Buffer | None:
    for stage in leg:
        with timer.phase(stage.phase):
            value = stage.run(value, destination)
    return value


def build_pipelines(builder: LegBuilder, comm: Comm, spectra: Sequence[Spectrum]) -> dict[MatvecConfig, Pipeline]:
    """Return every product that a primary spectrum, and an auxiliary one if it is there, allow.

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
            product = MatvecConfig(transpose, full, bool(aux))
            pipelines[product] = Pipeline(comm.backend, legs, middle, queued=queued)
    return pipelines
