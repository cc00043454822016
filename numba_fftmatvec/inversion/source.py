"""A map of the source: a matrix, or the auxiliary matrix of one."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UninitializedError
from ..layout import Space
from ..matrix import Matrix
from ..vector import Vector


@dataclass(frozen=True)
class SourceMap:
    """A map of the source, and the name of its spectrum.

    Parameters
    ----------
    matrix : Matrix
        The matrix.
    name : {"F", "G"}
        The matrix itself, or its auxiliary matrix.
    """

    matrix: Matrix
    name: str = "F"

    def check(self) -> None:
        """Raise an error unless the matrix is open and has values."""
        self.matrix.check_open()
        if self.name not in self.matrix.spectra:
            raise UninitializedError(f"{self.name}: expected a matrix with values, found one without")

    @property
    def version(self) -> int:
        """A number that no other values have."""
        self.check()
        return self.matrix.spectra[self.name].version

    def apply(self, source: Vector) -> Vector:
        """Return the product with a source. Collective."""
        with source.comm.agreement("allocating a vector"):
            result = Vector.from_layout(source.comm, self.matrix.layout.vector(Space.ROW))
        self.matrix.matvec(source, result, use_aux_mat=self.name == "G")
        return result
