"""The data-space Hessian F Gamma F* + noise, and its siblings with G, from the blocks of the maps: without a product.

With the blocks F_t of the first block column and a prior covariance Gamma = C C* that is constant in time, the (i, j)
block of K = F Gamma F* is ``K_ij = K_(i-1)(j-1) + (F_i C) (F_j C)*``: one matrix product, and a running sum down the
block diagonals. If the source's innovations end after some steps, so do the sums.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from ..backends.base import DOUBLE
from ..errors import ArgumentTypeError, UninitializedError
from ..layout import block_range
from ..matrix import Matrix
from .noise import Noise
from .panels import PanelMatrix, TimeMajor
from .prior import Prior
from .source import SourceMap


class RootBlocks:
    """The blocks of a map after the prior's filter and root, F_t C, for the rows of panels. Its calls are collective.

    Parameters
    ----------
    source : SourceMap
        The map F.
    prior : Prior
        The prior of the source.
    """

    def __init__(self, source: SourceMap, prior: Prior) -> None:
        matrix = source.matrix
        comm, layout = matrix.comm, matrix.layout
        backend = comm.backend
        self.comm = comm
        self._layout = layout
        self.prior = prior.bind(backend)
        self.active = prior.active(layout.Nt)
        self.index = TimeMajor.of(layout.Nd, layout.Nt, backend.arrays.panel_rows)
        with comm.agreement("computing the blocks of a map"):
            source.check()
            response = _response(matrix, prior)
            self._local = backend.empty((layout.Nt, layout.nd, layout.nm), DOUBLE).array
            with backend.active():
                for rows, cols, values in matrix.spectra[source.name].blocks(layout.block_rows, response):
                    self._local[:, rows, cols] = values.transpose(2, 0, 1)

    def panel(self, panel: int) -> Any:
        """Return F_t C for the steps t of a panel, as a (rows, k) array of the backend on every rank."""
        steps = self.index.panels[panel]
        comm, layout, backend = self.comm, self._layout, self.comm.backend
        mine = self._local[steps.start : steps.stop]
        with comm.agreement("gathering the blocks of a map"), backend.active():
            if comm.world_size > 1:
                mine = self._gathered(mine, "gathering the blocks of a map")
            rooted = self.prior.root_adjoint(mine)
        return rooted.reshape(len(steps) * layout.Nd, -1)

    def _gathered(self, mine: Any, phase: str) -> Any:
        """Return the (steps, Nd, Nm) values of the parts of all ranks."""
        comm, layout, backend = self.comm, self._layout, self.comm.backend
        numpy = backend.arrays.numpy
        places = [
            (
                block_range(layout.Nd, comm.proc_rows, rank % comm.proc_rows),
                block_range(layout.Nm, comm.proc_cols, rank // comm.proc_rows),
            )
            for rank in range(comm.world_size)
        ]
        shapes = [(len(mine), len(rows), len(cols)) for rows, cols in places]
        if (device := comm.device_collectives()) is not None:
            with comm.agreement(phase):
                whole = backend.empty((len(mine), layout.Nd, layout.Nm), DOUBLE).array
                parts = [mine if rank == comm.world_rank else numpy.empty(shape) for rank, shape in enumerate(shapes)]
            for rank, part in enumerate(parts):
                device.broadcast(part, rank)
        else:
            joined = comm.concatenate(backend.download(mine).reshape(1, -1), phase)[0]
            ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
            whole = backend.empty((len(mine), layout.Nd, layout.Nm), DOUBLE).array
            parts = [
                numpy.asarray(part.reshape(shape)) for part, shape in zip(np.split(joined, ends), shapes, strict=True)
            ]
        for (rows, cols), part in zip(places, parts, strict=True):
            whole[:, rows.start : rows.stop, cols.start : cols.stop] = part
        return whole


def block_covariance(first: RootBlocks, second: RootBlocks | None = None) -> PanelMatrix:
    """Return A Gamma B* of two maps, or the lower triangle of A Gamma A* of one. Collective.

    Parameters
    ----------
    first, second : RootBlocks
        The blocks of A and of B.
    """
    other = first if second is None else second
    lower = second is None
    result = PanelMatrix(first.comm, first.index, other.index, lower=lower)
    with first.comm.agreement("allocating a covariance"):
        result.allocate()
    kept: dict[int, Any] = {}
    if not lower:
        for panel in range(len(first.index.panels)):
            blocks = first.panel(panel)
            if result.owns(panel):
                kept[panel] = blocks
    # From the last panel on, so that a rank has the blocks of its later panels when an earlier one passes.
    for panel in reversed(range(len(other.index.panels))):
        blocks = other.panel(panel)
        if lower and result.owns(panel):
            kept[panel] = blocks
        cols = other.index.rows(other.index.panels[panel])
        with first.comm.agreement("multiplying the blocks of maps"), first.comm.backend.active():
            for mine, rows in kept.items():
                first.comm.backend.arrays.set_product(result.panels[mine][:, cols], rows, blocks.T)
    _sum_diagonals(result)
    if first.active < first.index.steps:
        _end_sums(result, first.active)
    return result


def _sum_diagonals(matrix: PanelMatrix) -> None:
    """Replace each block by the sum of it and those above it on its block diagonal. Collective."""
    backend = matrix.comm.backend
    rows, width = matrix.rows.blocks, matrix.cols.blocks
    phase = "summing block diagonals"

    def summed(above: Any, panel: int) -> Any:
        values = matrix.panels[panel]
        with backend.active():
            for i, step in enumerate(matrix.rows.panels[panel]):
                row = values[i * rows : (i + 1) * rows]
                if above is not None:
                    stop = (step if matrix.lower else matrix.cols.steps - 1) * width
                    row[:, width : stop + width] += above[:, :stop]
                above = row
        return above

    above = None
    for panel in range(len(matrix.rows.panels)):
        above = matrix.broadcast(panel, partial(summed, above), phase)


def _end_sums(matrix: PanelMatrix, count: int) -> None:
    """Take from each sum down a block diagonal the terms after the first `count`, which start at an earlier block.

    ``sum_{s < count} G_(i-s)(j-s) = U_ij - U_(i-count)(j-count)`` with the whole sums U. Panels are taken from the last
    one on, so that each still has its whole sums when it is subtracted from later rows. Collective.
    """
    comm, index, shift = matrix.comm, matrix.rows, count * matrix.cols.blocks
    for panel in reversed(range(len(index.panels))):
        steps = index.panels[panel]
        sums = matrix.broadcast(panel, matrix.panels.__getitem__, "ending the sums of a covariance")
        with comm.agreement("ending the sums of a covariance"), comm.backend.active():
            sums = sums.copy()  # rows of the panel itself may follow
            for mine, values in matrix.panels.items():
                first = index.panels[mine].start
                later = range(max(first, steps.start + count), min(index.panels[mine].stop, steps.stop + count))
                if not later:
                    continue
                width = min(values.shape[1], sums.shape[1] + shift)
                rows = slice((later.start - first) * index.blocks, (later.stop - first) * index.blocks)
                start = (later.start - count - steps.start) * index.blocks
                source = sums[start : start + len(later) * index.blocks, : width - shift]
                values[rows, shift:width] -= source


def data_space_hessian(F: Matrix, prior: Prior, noise: Noise | None = None) -> PanelMatrix:
    """Return ``K = F Gamma F* + N`` in time-major order, or F Gamma F* without noise. Collective.

    Parameters
    ----------
    F : Matrix
        An initialised matrix.
    prior : Prior
        The prior of the source, whose covariance is constant in time, or that after a causal filter in time.
    noise : Noise, optional
        The noise of the data.

    Returns
    -------
    PanelMatrix
        The lower triangle, in panels of rows that are dealt over the ranks.

    Raises
    ------
    ArgumentTypeError, UninitializedError, ShapeError
        An argument has another type, F has no values, or the sizes differ.
    CapacityError
        The Hessian does not fit in memory.

    Examples
    --------
    >>> import numba_fftmatvec as fft
    >>> from numba_fftmatvec.inversion import WhiteNoise, WhitePrior, data_space_hessian
    >>> comm = fft.Comm(backend="cpu")
    >>> F = fft.Matrix(comm, cols=3, rows=1, block_size=2, global_sizes=True)
    >>> F.init_mat_ones()
    >>> data_space_hessian(F, WhitePrior(3, deviation=1.0), WhiteNoise(0.5)).gather().round(12)
    array([[3.25, 3.  ],
           [3.  , 6.25]])
    """
    with F.comm.lock, F.comm.agreement("computing the data-space Hessian"):
        check_model(F, prior, noise)
        result = block_covariance(RootBlocks(SourceMap(F), prior))
        if noise is not None:
            add_noise(result, noise)
    return result


def check_model(F: Matrix, prior: Prior, noise: Noise | None) -> None:
    """Raise an error unless the matrix has values and prior and noise have its sizes."""
    expected: dict[str, tuple[object, type]] = {"F": (F, Matrix), "prior": (prior, Prior)}
    if noise is not None:
        expected["noise"] = noise, Noise
    for what, (value, kind) in expected.items():
        if not isinstance(value, kind):
            raise ArgumentTypeError(f"{what}: expected a {kind.__name__}, found {type(value).__name__}")
    F.check_open()
    if not F.is_initialized():
        raise UninitializedError("F: expected an initialised matrix, found one without values")
    prior.check(F.layout.Nm, F.layout.Nt)
    if noise is not None:
        noise.check(F.layout.Nd, F.layout.Nt)


def add_noise(matrix: PanelMatrix, noise: Noise) -> None:
    """Add the noise covariance to the diagonal blocks. Local."""
    index, backend = matrix.rows, matrix.comm.backend
    numpy = backend.arrays.numpy
    variances = noise.variances(index.blocks, index.steps)
    with backend.active():
        constant = numpy.asarray(noise.covariance(index.blocks)) if variances is None else None
        for panel, values in matrix.panels.items():
            for i, step in enumerate(index.panels[panel]):
                rows = slice(i * index.blocks, (i + 1) * index.blocks)
                cols = slice(step * index.blocks, (step + 1) * index.blocks)
                block = values[rows, cols]
                if variances is None:
                    block += constant
                else:
                    diagonal = numpy.arange(index.blocks)
                    block[diagonal, diagonal] += numpy.asarray(variances[step])


def _response(matrix: Matrix, prior: Prior) -> Any:
    """Return the transform of the prior's filter for this rank's block columns, or None without a filter."""
    if prior.time is None:
        return None
    layout, backend = matrix.layout, matrix.comm.backend
    impulse = prior.time.impulse_response(layout.Nt)
    mine = impulse if impulse.ndim == 1 else impulse[layout.block_cols.start : layout.block_cols.stop]
    with backend.active():
        return backend.arrays.fft.rfft(backend.arrays.numpy.asarray(mine), layout.padded_size, axis=-1)
