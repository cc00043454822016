"""A map of the source: a matrix, or the auxiliary matrix of one."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ArgumentError, ArgumentTypeError, ShapeError, UninitializedError
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


def forecast_map(F: Matrix, forecast: object) -> SourceMap | None:
    """Return the map to quantities, checked against F."""
    if forecast is None:
        return None
    if isinstance(forecast, str):
        if forecast != "G":
            raise ArgumentError(f"forecast: expected a Matrix or 'G', found {forecast!r}")
        if not F.has_aux_mat():
            raise UninitializedError("forecast: expected an auxiliary matrix with values, found none")
        return SourceMap(F, "G")
    if not isinstance(forecast, Matrix):
        raise ArgumentTypeError(f"forecast: expected a Matrix or 'G', found {type(forecast).__name__}")
    forecast.check_open()
    if forecast.comm is not F.comm:
        raise ArgumentError("forecast: expected a matrix on the Comm of F, found one on another")
    if not forecast.is_initialized():
        raise UninitializedError("forecast: expected an initialised matrix, found one without values")
    found, expected = forecast.layout, F.layout
    if (found.Nm, found.Nt) != (expected.Nm, expected.Nt):
        raise ShapeError(
            f"forecast: expected {expected.Nm} block columns of {expected.Nt} time steps, "
            f"found {found.Nm} of {found.Nt}"
        )
    return SourceMap(forecast)
