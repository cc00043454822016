"""The information that sensors give: gains of sets of sensors, and a greedy choice of the best ones.

The information gain of the data of a set A of sensors about the source is ``(log det K_A - log det N_A) / 2`` in nats,
with the set's parts of the data-space Hessian K and of the noise N. About a forecast q it is
``(log det K_A - log det K_A|q) / 2`` with the Hessian given q (Cover & Thomas, Elements of Information Theory, 9.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

from ..arguments import integer, positive_int
from ..errors import ArgumentError, NotPositiveDefiniteError
from .hessian import RootBlocks, block_covariance
from .noise import Noise

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SensorSelection:
    """Sensors in the order of their choice, and what they give.

    Parameters
    ----------
    sensors : tuple of int
        The chosen block rows of F, the best one first.
    gains : (k,) array
        The information gain in nats of the first 1, 2, ... sensors.
    evaluations : int
        Number of gains that were computed.
    """

    sensors: tuple[int, ...]
    gains: Floats
    evaluations: int


class SensorBlocks:
    """The data-space Hessian, sensor by sensor, each with all its time steps. Every rank has the blocks of the map.

    Parameters
    ----------
    blocks : RootBlocks
        The blocks of F.
    noise : Noise
        The noise.
    forecast : RootBlocks, optional
        The blocks of a map to quantities; the Hessian is then also given those quantities.
    """

    def __init__(self, blocks: RootBlocks, noise: Noise, forecast: RootBlocks | None = None) -> None:
        index, comm, backend = blocks.index, blocks.comm, blocks.comm.backend
        self.comm = comm
        self.sensors = index.blocks
        self._active = blocks.active
        self._backend = backend
        rows = []
        for panel, steps in enumerate(index.panels):
            found = blocks.panel(panel)
            rows.append(found.reshape(len(steps), index.blocks, -1))
        with comm.agreement("computing the blocks of the sensors"), backend.active():
            numpy = backend.arrays.numpy
            self._rows = numpy.ascontiguousarray(numpy.concatenate(rows).swapaxes(0, 1))  # (Nd, Nt, k)
            variances = noise.variances(index.blocks, index.steps)
            self._constant = noise.covariance(index.blocks) if variances is None else None
            self._variances = None if variances is None else np.ascontiguousarray(variances.T)
        #: `_explained_by` the quantities, or None without quantities.
        self.explained = None if forecast is None else self._explained_by(blocks, forecast)

    @property
    def independent_noise(self) -> bool:
        """Whether the noise of different sensors is independent."""
        return self._constant is None

    def _explained_by(self, blocks: RootBlocks, forecast: RootBlocks) -> Floats:
        """Return ``P^(-1/2) R`` by sensor, (Nd, rank, Nt), with the quantities' covariance P and that with the data, R.

        P may be singular: directions of its smallest eigenvalues, which are zero to rounding, are left out.
        """
        index = blocks.index
        covariance, cross = block_covariance(forecast).gather(), block_covariance(forecast, blocks).gather()
        values, vectors = scipy.linalg.eigh(covariance)
        kept = values > len(values) * np.finfo(np.float64).eps * values[-1]
        found = (vectors[:, kept] / np.sqrt(values[kept])).T @ cross
        by_sensor = found.reshape(-1, index.steps, index.blocks).transpose(2, 0, 1)
        return np.ascontiguousarray(by_sensor)

    def noise(self, first: int, second: int) -> Floats:
        """Return the noise covariance of two sensors, (Nt, Nt)."""
        steps = self._rows.shape[1]
        if self._variances is not None:
            return np.diag(self._variances[first]) if first == second else np.zeros((steps, steps))
        assert self._constant is not None
        return float(self._constant[first, second]) * np.eye(steps)

    def block(self, first: int, second: int) -> Floats:
        """Return the block of the data-space Hessian of two sensors, (Nt, Nt)."""
        with self._backend.active():
            products: Floats = self._backend.download(self._rows[first] @ self._rows[second].T)
        for step in range(1, len(products)):
            products[step, 1:] += products[step - 1, :-1]
        for step in reversed(range(self._active, len(products))):  # as `_end_sums` in hessian.py
            products[step, self._active :] -= products[step - self._active, : -self._active]
        return products + self.noise(first, second)

    def given_forecast(self, first: int, second: int) -> Floats:
        """Return the block of the data-space Hessian given the quantities."""
        assert self.explained is not None
        explained: Floats = self.explained[first].T @ self.explained[second]
        return self.block(first, second) - explained


@dataclass
class _Conditioned:
    """The covariance blocks of sensors given those that are chosen, updated when they are needed.

    Parameters
    ----------
    block : callable
        ``block(first, second)`` is the covariance of two sensors' data.
    """

    block: Any
    chosen: list[int] = field(default_factory=list)
    _factors: list[Floats] = field(default_factory=list)  # of each choice, given those before
    _columns: dict[int, list[Floats]] = field(default_factory=dict)  # by sensor: its covariance with each choice
    _remaining: dict[int, Floats] = field(default_factory=dict)

    def log_determinant(self, sensor: int) -> float:
        """Return the log determinant of a sensor's covariance given the chosen ones."""
        return 2.0 * float(np.log(np.diagonal(self._factor(sensor))).sum())

    def choose(self, sensor: int) -> None:
        """Add a sensor to the chosen ones."""
        self._factors.append(self._factor(sensor))
        self.chosen.append(sensor)

    def _factor(self, sensor: int) -> Floats:
        columns = self._columns.setdefault(sensor, [])
        remaining = self._remaining.setdefault(sensor, self.block(sensor, sensor))
        for j in range(len(columns), len(self.chosen)):
            other = self.chosen[j]
            cross = self.block(sensor, other)
            for mine, its in zip(columns, self._columns[other], strict=False):
                cross = cross - mine @ its.T
            columns.append(scipy.linalg.solve_triangular(self._factors[j], cross.T, lower=True).T)
            remaining = remaining - columns[j] @ columns[j].T
        self._remaining[sensor] = remaining
        factor, info = scipy.linalg.lapack.dpotrf(remaining, lower=1)
        if info:
            raise NotPositiveDefiniteError(
                f"sensor {sensor}: expected data with noise of their own, found data that the sensors {self.chosen} fix"
            )
        return np.asarray(factor)


class _Gains:
    """The gain of one more sensor, given the chosen ones."""

    def __init__(self, blocks: SensorBlocks) -> None:
        self._data = _Conditioned(blocks.block)
        self._known = _Conditioned(blocks.noise if blocks.explained is None else blocks.given_forecast)
        self.evaluations = 0

    def of(self, sensor: int) -> float:
        """Return the additional gain of a sensor in nats."""
        self.evaluations += 1
        return 0.5 * (self._data.log_determinant(sensor) - self._known.log_determinant(sensor))

    def choose(self, sensor: int) -> None:
        """Add a sensor to the chosen ones."""
        self._data.choose(sensor)
        self._known.choose(sensor)


def information_gain(blocks: SensorBlocks, sensors: Sequence[int]) -> float:
    """Return the information gain of a set of sensors in nats. Collective.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        A sensor is outside 0 .. Nd - 1, or is there twice.
    """
    with blocks.comm.agreement("computing the information gain of sensors"):
        gains, total = _Gains(blocks), 0.0
        for sensor in _checked(sensors, blocks.sensors):
            total += gains.of(sensor)
            gains.choose(sensor)
    return blocks.comm.bcast(total)


def select_sensors(blocks: SensorBlocks, count: int) -> SensorSelection:
    """Choose sensors one by one, each with the largest additional gain. Collective.

    About the source, and with independent noise, the gain is submodular: a sensor's additional gain never grows when
    others are chosen. So a sensor whose last known gain is not the largest is not evaluated again (Minoux, Accelerated
    greedy algorithms, 1978), and the greedy set has at least 1 - 1/e of the best set's gain (Nemhauser et al., 1978).

    Raises
    ------
    ArgumentError, ArgumentTypeError
        `count` is not a number of sensors.
    """
    with blocks.comm.agreement("choosing sensors", {"count": count}):
        count = positive_int(integer(count, "select_sensors: count"), "select_sensors: count")
        if count > blocks.sensors:
            raise ArgumentError(f"select_sensors: expected at most {blocks.sensors} sensors, found {count}")
        lazy = blocks.independent_noise and blocks.explained is None
        found = _greedy(_Gains(blocks), blocks.sensors, count, lazy=lazy)
    return blocks.comm.bcast(found)  # the ranks' rounding may differ


def _greedy(gains: _Gains, sensors: int, count: int, *, lazy: bool) -> SensorSelection:
    chosen: list[int] = []
    total: list[float] = []
    queue = [(-gains.of(sensor), sensor, 0) for sensor in range(sensors)]  # gain, sensor, choices that it knows
    heapify(queue)
    while len(chosen) < count:
        gain, sensor, known = heappop(queue)
        if known < len(chosen):
            heappush(queue, (-gains.of(sensor), sensor, len(chosen)))
            continue
        gains.choose(sensor)
        chosen.append(sensor)
        total.append(-gain)
        if not lazy and len(chosen) < count:
            queue = [(-gains.of(other), other, len(chosen)) for _, other, _ in queue]
            heapify(queue)
    return SensorSelection(tuple(chosen), np.cumsum(total), gains.evaluations)


def _checked(sensors: Sequence[int], count: int) -> list[int]:
    found = [integer(sensor, "sensors") for sensor in sensors]
    for sensor in found:
        if not 0 <= sensor < count:
            raise ArgumentError(f"sensors: expected indices of 0 .. {count - 1}, found {sensor}")
    if len(set(found)) < len(found):
        raise ArgumentError(f"sensors: expected different sensors, found {found}")
    return found
