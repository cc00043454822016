"""A grid with a matrix and vectors, on which the cases of bad input run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numba_fftmatvec as fm
from support.tasks import build, operands

SHAPE = (5, 7, 4)
F, G, OPERANDS = operands(SHAPE)
ND, NM, NT = SHAPE
CHECKSUM = 73


@dataclass
class Workbench:
    """A grid with an initialised matrix and vectors."""

    comm: Any
    grid: tuple[int, int]
    folder: Path
    matrix: Any = field(init=False)
    x: Any = field(init=False)
    y: Any = field(init=False)

    def __post_init__(self) -> None:
        self.matrix = build(self.comm, F, G)
        self.x, self.y = self.matrix.get_vec("input"), self.matrix.get_vec("output")
        self.x.scatter(OPERANDS["col"])
        self.y.scatter(OPERANDS["row"])

    @property
    def last(self) -> bool:
        """Whether this is the last rank."""
        return bool(self.comm.world_rank == self.comm.world_size - 1)

    def new_comm(self, *grid: Any) -> Any:
        """Return another Comm on the same ranks and backend."""
        return fm.Comm(self.comm.global_comm, *grid, backend=self.comm.backend.name, collectives="mpi")

    def blank(self) -> Any:
        """Return a matrix without values."""
        return fm.Matrix(self.comm, NM, ND, NT, global_sizes=True)

    def vector(self, blocks: Any, size: Any, space: str, fill: bool = True) -> Any:
        """Return a vector of global sizes, of ones unless it is to be left without values."""
        made = fm.Vector(self.comm, blocks, size, space, global_sizes=True)
        if fill:
            made.init_vec_ones()
        return made

    def read(self, name: str, aux: str = "") -> Any:
        """Return the matrix of one of the prepared directories."""
        return fm.Matrix(self.comm, str(self.folder / name), aux_path=str(self.folder / aux) if aux else "")

    def read_vector(self, name: str, space: str = "col", **options: Any) -> None:
        """Read one of the prepared vectors."""
        blocks = {"col": NM, "row": ND}[space]
        self.vector(blocks, NT, space, fill=False).init_vec_from_file(str(self.folder / name), **options)
