"""The posterior of the source beyond its mean: pointwise variances, and samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..backends.base import DOUBLE
from ..errors import ArgumentError
from ..layout import Space, block_ranges
from ..matrix import Matrix
from ..vector import Vector
from .cholesky import solve_lower
from .factor import Factor
from .hessian import RootBlocks
from .prior import Prior
from .source import SourceMap

Floats = npt.NDArray[np.float64]


def posterior_variance(F: Matrix, prior: Prior, factor: Factor) -> Vector:
    """Return the posterior variances of the source given data of all time steps, in parameter space. Collective.

    The variance of m[m, t] is the prior's less ``|L^-1 C|^2`` with the covariance C of the data and m[m, t]. C follows
    from the blocks, as the data-space Hessian does: ``C_ij = C_(i-1)(j-1) + F_i Gamma h_j`` with the prior's filter h.
    Sources are taken some at a time, each with all its time steps.
    """
    comm, layout, backend = F.comm, F.layout, F.comm.backend
    numpy, phase = backend.arrays.numpy, "computing posterior variances"
    blocks = RootBlocks(SourceMap(F), prior)
    index = blocks.index
    with comm.agreement(phase):
        spatial = backend.empty((index.size, layout.Nm), DOUBLE).array  # F_i Gamma
    for panel, steps in enumerate(index.panels):
        rooted = blocks.panel(panel)
        with comm.agreement(phase), backend.active():
            spatial[index.rows(steps)] = blocks.prior.root(rooted)
    responses = _responses(prior, layout.Nm, layout.Nt)
    found = _prior_variance(blocks, responses, layout.Nt)
    count = -(-layout.Nm * layout.Nt // backend.arrays.panel_rows)
    for sources in block_ranges(layout.Nm, min(layout.Nm, count)):
        some = slice(sources.start, sources.stop)
        with comm.agreement(phase), backend.active():
            cross = _cross(spatial[:, some], numpy.asarray(responses[some]), index.blocks, blocks.active)
        whitened = solve_lower(factor.lower, cross.reshape(index.size, -1))
        with comm.agreement(phase), backend.active():
            found[some] -= backend.download((whitened * whitened).sum(axis=0)).reshape(len(sources), layout.Nt)
    result = Vector.from_layout(comm, layout.vector(Space.COL))
    result.scatter(np.maximum(found, 0.0))
    return result


def _responses(prior: Prior, sources: int, steps: int) -> Floats:
    """Return the impulse response of each source, (Nm, Nt); a unit impulse without a filter."""
    if prior.time is None:
        return np.broadcast_to(np.eye(1, steps), (sources, steps))
    return np.broadcast_to(prior.time.impulse_response(steps), (sources, steps))


def _prior_variance(blocks: RootBlocks, responses: Floats, steps: int) -> Floats:
    """Return the prior variances of the source, (Nm, Nt): those of independent innovations after the filter."""
    with blocks.comm.agreement("computing prior variances"):
        variances = blocks.prior.variances()
    sums = np.cumsum(responses**2, axis=1)
    sums[:, blocks.active :] -= sums[:, : steps - blocks.active].copy()
    return variances[:, None] * sums


def _cross(spatial: Any, responses: Any, sensors: int, active: int) -> Any:
    """Return the covariance of data and some sources, (Nt, Nd, sources, Nt), of (Nt Nd, sources) and (sources, Nt)."""
    products = spatial[:, :, None] * responses[None]
    by_step = products.reshape(-1, sensors, *responses.shape)
    for step in range(1, len(by_step)):
        by_step[step, :, :, 1:] += by_step[step - 1, :, :, :-1]
    for step in reversed(range(active, len(by_step))):  # as `_end_sums` in hessian.py
        by_step[step, :, :, active:] -= by_step[step - active, :, :, :-active]
    return by_step


def prior_samples(F: Matrix, prior: Prior, rng: np.random.Generator, count: int) -> Vector:
    """Return samples of the prior, mean included, as `count` vectors in one. Collective.

    Every rank draws all random numbers, from generators in the same state, so samples do not depend on the grid.
    """
    comm, layout = F.comm, F.layout
    with comm.agreement("sampling the prior"):
        drawn = comm.backend.download(prior.bind(comm.backend).sample(rng, count * layout.Nt))
        innovations = np.ascontiguousarray(drawn.reshape(count, layout.Nt, layout.Nm).swapaxes(1, 2))
        innovations[..., prior.active(layout.Nt) :] = 0.0
        if prior.time is not None:
            response = np.fft.rfft(prior.time.impulse_response(layout.Nt), 2 * layout.Nt)
            transforms = np.fft.rfft(innovations, 2 * layout.Nt) * response
            innovations = np.fft.irfft(transforms, 2 * layout.Nt)[..., : layout.Nt]
        values = innovations + prior.source_mean(layout.Nt)
    samples = Vector.from_layout(comm, layout.vector(Space.COL, count))
    samples.scatter(values.reshape(samples.shape))
    return samples


def generator(seed: int | np.random.Generator) -> np.random.Generator:
    """Return the generator of random numbers of a seed."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError):
        raise ArgumentError(f"seed: expected an integer >= 0 or a numpy.random.Generator, found {seed!r}") from None
