"""The communicators of a process grid: their creation, and their end when no rank needs them any more.

MPI has a limited number of communicators, and only all ranks together can free one. A Comm that was never closed leaves
its communicators behind; the next constructor or `close` on the same ranks frees those that all ranks have left behind.
"""

from __future__ import annotations

import gc
import json
import weakref
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from ..backends.cores import Place, from_mask, to_mask, usable_cores
from ..errors import CapacityError
from .agreement import Meeting
from .library import MPI
from .watchdog import DEFAULT_SECONDS


class Communicators(NamedTuple):
    """The communicators of one Comm: all ranks, this rank's row and this rank's column.

    `node` has the ranks of this rank's node, in their order.
    """

    everyone: MPI.Intracomm
    row: MPI.Intracomm
    col: MPI.Intracomm
    node: list[int]

    def free(self) -> None:
        """Free them. Collective over their ranks."""
        for communicator in self[:3]:
            communicator.Free()


@dataclass
class Family:
    """The communicators of all Comms on the same ranks. The ranks number their Comms in the same order.

    Attributes
    ----------
    created : int
        Number of Comms so far, including those that failed.
    present : dict
        The communicators that are not freed, by number.
    abandoned : set of int
        The numbers of those whose Comm is gone on this rank.
    """

    created: int = 0
    present: dict[int, Communicators] = field(default_factory=dict)
    abandoned: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, parent: MPI.Intracomm) -> Family:
        """Return the family of a communicator's ranks."""
        group, world = parent.Get_group(), MPI.COMM_WORLD.Get_group()
        key = tuple(MPI.Group.Translate_ranks(group, list(range(group.size)), world))
        group.Free()
        world.Free()
        return _FAMILIES.setdefault(key, cls())

    def create(
        self, parent: MPI.Intracomm, meeting: Meeting, grid: tuple[int, int], number: int, owner: Any
    ) -> Communicators:
        """Return new communicators for a Comm. Collective over `meeting`.

        Parameters
        ----------
        parent : mpi4py.MPI.Intracomm
            The communicator of all ranks.
        meeting : Meeting
            The agreements of its ranks.
        grid : tuple of int
            Rows and columns of the grid.
        number : int
            The number of the Comm.
        owner : object
            The Comm. When it is deleted, its communicators count as abandoned.

        Raises
        ------
        CapacityError
            MPI cannot create as many communicators.
        """
        self.reclaim(meeting)
        try:
            made = _create(parent, meeting, grid)
        except CapacityError:  # on every rank
            gc.collect()  # a deleted Comm may be in a reference cycle
            if not self.reclaim(meeting):
                raise
            made = _create(parent, meeting, grid)
        self.present[number] = made
        weakref.finalize(owner, self.abandoned.add, number).atexit = False
        return made

    def reclaim(self, meeting: Meeting) -> int:
        """Free the communicators that every rank has abandoned, and return their number. Collective over `meeting`."""
        phase = "freeing communicators"
        with meeting.agreement(phase) as agreed:
            mine = self.abandoned & self.present.keys()
            agreed.share([len(mine)])
        if not agreed.stacked.all():
            return 0
        lists = meeting.gather_bytes(phase, json.dumps(sorted(mine)).encode())
        common = set.intersection(*(set(json.loads(numbers)) for numbers in lists))
        for number in sorted(common):
            self.free(number)
        return len(common)

    def free(self, number: int) -> None:
        """Free the communicators of a number. Collective over their ranks."""
        self.abandoned.discard(number)
        self.present.pop(number).free()

    def forget(self, number: int) -> None:
        """Keep the communicators of a number allocated for ever, because a message on them was given up. Local."""
        self.present.pop(number, None)


_FAMILIES: dict[tuple[int, ...], Family] = {}


def _create(parent: MPI.Intracomm, meeting: Meeting, grid: tuple[int, int]) -> Communicators:
    """Duplicate and split the parent; on an error free what was created."""
    made: list[MPI.Intracomm] = []
    try:
        # The calls are collective, and MPI has a free communicator for all ranks or for none.
        with meeting.agreement("creating communicators"):
            try:
                made.append(parent.Dup())
                colors = parent.rank % grid[0], parent.rank // grid[0]
                made.append(cast(MPI.Intracomm, made[0].Split(colors[0], colors[1])))
                made.append(cast(MPI.Intracomm, made[0].Split(colors[1], colors[0])))
                node = made[0].Split_type(MPI.COMM_TYPE_SHARED, parent.rank)
                neighbours = meeting.ranks_of(cast(MPI.Intracomm, node))
                node.Free()
            except MPI.Exception as error:
                raise CapacityError(
                    "comm: expected a free communicator in MPI, found none "
                    f"({sum(len(family.present) for family in _FAMILIES.values())} Comms are open): close() Comms that "
                    f"are no longer used ({error})"
                ) from error
    except CapacityError:
        for communicator in made:
            communicator.Free()
        raise
    everyone, row, col = made
    return Communicators(everyone, row, col, neighbours)


def first_meeting(comm: MPI.Intracomm) -> tuple[Family, Meeting, BaseException | None]:
    """Return the family and the agreements of the ranks, and an error or interrupt that the first agreement raises.

    Until then a rank cannot report an error to the others, so it tries again.
    """
    error: BaseException | None = None
    try:
        return Family.of(comm), Meeting(comm, DEFAULT_SECONDS), None
    except BaseException as caught:
        error = caught
    return Family.of(comm), Meeting(comm, DEFAULT_SECONDS), error


def find_place(meeting: Meeting, neighbours: list[int]) -> Place:
    """Return this rank's place in its node, by the cores that each rank of the node may use. Collective.

    Parameters
    ----------
    meeting : Meeting
        The agreements of all ranks. From now on its messages wait as suits the place.
    neighbours : list of int
        The ranks of this rank's node.
    """
    phase = "sharing the cores"
    with meeting.agreement(phase):  # a rank may fail before its message
        masks = meeting.gather_bytes(phase, to_mask(usable_cores()))
        place = Place.of([from_mask(masks[rank]) for rank in neighbours], neighbours.index(meeting.rank))
    meeting.watch.has_core = place.has_core
    return place
