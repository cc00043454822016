"""Dense block matrices in time-major order, in panels of rows that are dealt over the ranks.

In time-major order, [t, d], the data of the first k time steps are a leading part of every vector. So the data-space
Hessian of these data is a leading part of the whole one, and its Cholesky factor is a leading part of the whole factor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backends.base import DOUBLE
from ..comm import Comm
from ..comm.exchange import bcast_array, sum_array
from ..layout import block_ranges


@dataclass(frozen=True)
class TimeMajor:
    """The index [t, d] of a side of a block matrix: steps outer, blocks inner, in panels of steps.

    Parameters
    ----------
    blocks : int
        Number of blocks: Nd for data, Nq for forecasts.
    steps : int
        Number of time steps, Nt.
    panels : tuple of range
        Consecutive time steps of each panel.
    """

    blocks: int
    steps: int
    panels: tuple[range, ...]

    @classmethod
    def of(cls, blocks: int, steps: int, rows: int) -> TimeMajor:
        """Return the index with panels of about `rows` rows."""
        count = min(steps, max(1, round(blocks * steps / rows)))
        return cls(blocks, steps, tuple(block_ranges(steps, count)))

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.blocks * self.steps

    def rows(self, steps: range) -> slice:
        """Return the rows of some time steps."""
        return slice(steps.start * self.blocks, steps.stop * self.blocks)

    def panel_of(self, step: int) -> int:
        """Return the index of the panel of a time step."""
        return next(i for i, panel in enumerate(self.panels) if step in panel)


class PanelMatrix:
    """A block matrix in panels of rows; panel i is on rank ``i % ranks``.

    Parameters
    ----------
    comm : Comm
        The ranks.
    rows, cols : TimeMajor
        The index of each side.
    lower : bool
        Whether only the lower triangle is stored: panels then end with their diagonal blocks.

    Attributes
    ----------
    panels : dict
        This rank's panels by their index: float64 arrays of the backend's library, (rows of the panel, width).
    """

    def __init__(self, comm: Comm, rows: TimeMajor, cols: TimeMajor, *, lower: bool) -> None:
        self.comm = comm
        self.rows = rows
        self.cols = cols
        self.lower = lower
        self.panels: dict[int, Any] = {}

    def owner(self, panel: int) -> int:
        """Return the rank that holds a panel."""
        return panel % self.comm.world_size

    def owns(self, panel: int) -> bool:
        """Return whether this rank holds a panel."""
        return self.owner(panel) == self.comm.world_rank

    def shape_of(self, panel: int) -> tuple[int, int]:
        """Return the shape of a panel."""
        steps = self.rows.panels[panel]
        return len(steps) * self.rows.blocks, (steps.stop if self.lower else self.cols.steps) * self.cols.blocks

    def allocate(self) -> None:
        """Allocate this rank's panels, uninitialised."""
        backend = self.comm.backend
        for panel in range(len(self.rows.panels)):
            if self.owns(panel):
                self.panels[panel] = backend.empty(self.shape_of(panel), DOUBLE).array

    @property
    def nbytes(self) -> int:
        """Bytes that this rank stores."""
        return sum(panel.nbytes for panel in self.panels.values())

    def block_row(self, step: int) -> Any:
        """Return the rows of a time step, a view of the panel of this rank that has them, up to the panel's width."""
        panel = self.rows.panel_of(step)
        first = (step - self.rows.panels[panel].start) * self.rows.blocks
        return self.panels[panel][first : first + self.rows.blocks]

    def broadcast(self, panel: int, values: Callable[[int], Any], phase: str) -> Any:
        """Return an array of the owner of a panel on every rank. Collective.

        Parameters
        ----------
        panel : int
            The panel.
        values : callable
            ``values(panel)`` returns the float64 array, on the backend's device. The owner calls it; all ranks raise
            its errors.
        phase : str
            The work, for errors.
        """
        comm, backend = self.comm, self.comm.backend
        if comm.world_size == 1:
            with comm.agreement(phase):
                return values(panel)
        mine, shape = None, np.zeros(2)
        with comm.agreement(phase) as agreed:
            if self.owns(panel):
                mine = values(panel)
                shape = np.array([*mine.shape, 1][:2], np.float64)
            agreed.share(shape)
        rows, cols = (int(n) for n in agreed.stacked[self.owner(panel)])
        if (device := comm.device_collectives()) is not None:
            with comm.agreement(phase), backend.active():
                numpy = backend.arrays.numpy
                sent = numpy.empty((rows, cols)) if mine is None else numpy.ascontiguousarray(mine).reshape(rows, cols)
            with backend.active():
                device.broadcast(sent, self.owner(panel))
            return sent if mine is None else mine
        host = np.empty((rows, cols))
        if mine is not None:
            host[...] = backend.download(mine).reshape(rows, cols)  # in C order, whatever the order of `mine`
        bcast_array(comm, host, self.owner(panel), phase)
        if mine is not None:
            return mine
        received = backend.empty((rows, cols), DOUBLE).array
        backend.upload(received, host)
        return received

    def total(self, panel: int, mine: Any, phase: str) -> Any:
        """Return the sum of the arrays of all ranks on the owner of a panel, None on other ranks. Collective.

        Parameters
        ----------
        panel : int
            The panel.
        mine : array
            This rank's float64 array of the backend, of the same shape on every rank.
        phase : str
            The work, for errors.
        """
        comm, backend = self.comm, self.comm.backend
        numpy = backend.arrays.numpy
        if (device := comm.device_collectives()) is None:
            with comm.agreement(phase):
                host = np.ascontiguousarray(backend.download(mine))
            summed = sum_array(comm, host, phase)
            with comm.agreement(phase), backend.active():
                return numpy.asarray(summed) if self.owns(panel) else None
        with comm.agreement(phase), backend.active():
            sent = numpy.ascontiguousarray(mine)
            received = numpy.empty_like(sent) if self.owns(panel) else None
        with backend.active():
            device.reduce(sent, received, self.owner(panel))
        return received

    def on_host(self, panel: int) -> npt.NDArray[np.float64]:
        """Return a panel on the host of every rank. Collective."""
        return self.comm.backend.download(self.broadcast(panel, self.panels.__getitem__, "gathering a matrix"))

    def gather(self) -> npt.NDArray[np.float64]:
        """Return the whole matrix on the host of every rank, with the upper triangle of a lower one. Collective."""
        found = np.zeros((self.rows.size, self.cols.size))
        for panel, steps in enumerate(self.rows.panels):
            host = self.on_host(panel)
            found[self.rows.rows(steps), : host.shape[1]] = host
        return np.tril(found) + np.tril(found, -1).T if self.lower else found
