"""Vectors between the parts of an operator, allocated once for each number of right-hand sides."""

from __future__ import annotations

from dataclasses import replace

from ..comm import Comm
from ..layout import VectorLayout
from ..vector import Vector


def several(layout: VectorLayout, num_vecs: int) -> VectorLayout:
    """Return the layout of a number of vectors."""
    return layout if layout.num_vecs == num_vecs else replace(layout, num_vecs=num_vecs)


class Temporaries:
    """The temporary vectors of one operator, which its adjoint shares.

    An operator has its turn on the Comm while it uses them, and none of its parts contains the operator itself. So no
    other call writes to them meanwhile.

    Parameters
    ----------
    comm : Comm
        The process grid.
    """

    def __init__(self, comm: Comm) -> None:
        self._comm = comm
        self._vectors: dict[tuple[int, VectorLayout], Vector] = {}

    def get(self, index: int, layout: VectorLayout, num_vecs: int) -> Vector:
        """Return the vector of an index, a layout and a number of vectors; the first call allocates it."""
        key = index, several(layout, num_vecs)
        if key not in self._vectors:
            self._vectors[key] = Vector.from_layout(self._comm, key[1])
        return self._vectors[key]
