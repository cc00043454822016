"""The state of a stream after some time steps: a value, which the next step leaves as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.linalg

from ..backends.base import DOUBLE
from ..errors import ChecksumError
from ..io import Archive
from .factor import Factor

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


class Unknowns(NamedTuple):
    """The posterior of the unknowns u, N(mean, root root*), and what it makes of the data.

    Parameters
    ----------
    mean : (unknowns,) array
        The mean, ``-(B* B)^-1 B* a``.
    root : (unknowns, unknowns) array
        A root of the covariance ``(B* B)^-1``.
    misfit : float
        ``|a|^2`` less what u explains.
    log_determinant : float
        The log determinant of ``B* B``.
    """

    mean: Floats
    root: Floats
    misfit: float
    log_determinant: float


@dataclass(frozen=True)
class State:
    """The whitened data ``z = a + B u`` of the first steps; see `stream`.

    Parameters
    ----------
    factor : Factor
        The factor of the inversion.
    step : int
        Number of time steps that have arrived.
    observed : int
        Number of observed data.
    log_determinant : float
        The sum of the logarithms of the factor's diagonal at the observed data.
    whitened : array
        (n, 1 + unknowns): a, and the columns of B. The rows of later steps are memory for them.
    terms : int
        Number of time steps whose terms `sums` has.
    sums : dict
        ``W (a, B)`` of the quantities of each of this rank's panels.
    substitutions : dict
        The forward substitutions into `whitened` by panel, built by `prepared` or when they are first used. Later
        states with the same `whitened` share them.
    """

    factor: Factor
    step: int
    observed: int
    log_determinant: float
    whitened: Any
    terms: int
    sums: dict[int, Any]
    substitutions: dict[int, Callable[[int, Floats], None]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def empty(cls, factor: Factor, unknowns: int = 0) -> State:
        """Return the state before the first step, with room for unknowns. Local."""
        backend, width = factor.comm.backend, 1 + unknowns
        forecast = factor.forecast
        panels = {} if forecast is None else forecast.weights.panels
        return cls(
            factor,
            0,
            0,
            0.0,
            backend.zeros((factor.index.size, width), DOUBLE).array,
            0,
            {panel: backend.zeros((len(weights), width), DOUBLE).array for panel, weights in panels.items()},
        )

    def prepared(self) -> State:
        """Return the state after building all that its next steps need; no step then waits for a compiler. Local."""
        for panel in self.factor.lower.panels:
            self._substitution(panel)
        return self

    @property
    def unknowns(self) -> int:
        """Number of missing data."""
        return int(self.whitened.shape[1]) - 1

    @property
    def rows(self) -> int:
        """Number of rows of the whitened data."""
        return self.step * self.factor.index.blocks

    def after(self, values: Floats, lost: Indices) -> State:
        """Return the state after one more step. Collective.

        Parameters
        ----------
        values : (Nd,) array
            The data less those of the prior's mean; zero where they are missing.
        lost : array of int
            The sensors without a datum.
        """
        factor, comm, backend = self.factor, self.factor.comm, self.factor.comm.backend
        phase, panel = "assimilating a time step", self.factor.index.panel_of(self.step)
        with comm.agreement(phase), backend.active():
            wider = self._widened(len(lost)) if len(lost) else self

        def whiten(_: int) -> Any:
            with backend.active():
                return wider._whiten(values, lost)

        new = factor.lower.broadcast(panel, whiten, phase)
        with comm.agreement(phase), backend.active():
            if not factor.lower.owns(panel):
                wider.whitened[self.rows : self.rows + len(values)] = new
            logarithms = factor.log_diagonal[self.step]
            seen = np.delete(logarithms, lost) if len(lost) else logarithms
            return replace(
                wider,
                step=self.step + 1,
                observed=self.observed + len(values) - len(lost),
                log_determinant=self.log_determinant + float(seen.sum()),
            )

    def _widened(self, added: int) -> State:
        """Return the state with columns of zeros for more unknowns."""
        numpy, columns = self.factor.comm.backend.arrays.numpy, ((0, 0), (0, added))
        sums = {panel: numpy.pad(values, columns) for panel, values in self.sums.items()}
        return replace(self, whitened=numpy.pad(self.whitened, columns), sums=sums, substitutions={})

    def summed(self) -> State:
        """Return the state whose sums have the terms of all its steps. Local."""
        if self.terms == self.step or self.factor.forecast is None:
            return self
        backend, index, sums = self.factor.comm.backend, self.factor.index, {}
        rows = index.rows(range(self.terms, self.step))
        with backend.active():
            for panel, weights in self.factor.forecast.weights.panels.items():
                sums[panel] = self.sums[panel].copy()
                backend.arrays.add_product(sums[panel], weights[:, rows], self.whitened[rows])
        return replace(self, terms=self.step, sums=sums)

    def _whiten(self, values: Floats, lost: Indices) -> Any:
        """Compute and return the rows of (a, B) of the next step. The last columns are those of its missing data."""
        arrays, index = self.factor.comm.backend.arrays, self.factor.index
        first, width = self.rows, 1 + self.unknowns
        given = np.zeros((index.blocks, width))
        given[:, 0] = values
        found = self.whitened[first : first + index.blocks]
        if not len(lost):
            self._substitution(index.panel_of(self.step))(self.step, given)
            return found
        seen, row = np.delete(np.arange(index.blocks), lost), self.factor.lower.block_row(self.step)
        right = arrays.numpy.asarray(given)
        arrays.subtract_product(right, row[:, :first], self.whitened[:first])
        found[...] = 0.0
        triangle = row[:, first : first + index.blocks]
        found[lost, np.arange(width - len(lost), width)] = 1.0
        if seen.size:
            right = right[seen] - triangle[np.ix_(seen, lost)] @ found[lost]
            found[seen] = arrays.solve_triangular(triangle[np.ix_(seen, seen)], right)
        return found

    def _substitution(self, panel: int) -> Callable[[int, Floats], None]:
        """Return the forward substitution of a panel of this rank."""
        if panel not in self.substitutions:
            factor, first = self.factor, self.factor.index.panels[panel].start
            arrays = factor.lower.panels[panel], factor.inverses[panel], self.whitened
            self.substitutions[panel] = factor.comm.backend.substitution(*arrays, first)
        return self.substitutions[panel]

    def unknown(self) -> Unknowns:
        """Return the posterior of the unknowns."""
        backend, whitened = self.factor.comm.backend, self.whitened[: self.rows]
        with backend.active():
            products = backend.download(whitened.T @ whitened)
        if not self.unknowns:
            return Unknowns(np.empty(0), np.empty((0, 0)), float(products[0, 0]), 0.0)
        triangle = scipy.linalg.cholesky(products[1:, 1:], lower=True)
        half = scipy.linalg.solve_triangular(triangle, products[1:, 0], lower=True)
        mean = -scipy.linalg.solve_triangular(triangle, half, lower=True, trans=1)
        root = scipy.linalg.solve_triangular(triangle, np.eye(self.unknowns), lower=True, trans=1)
        log_determinant = 2.0 * float(np.log(np.diagonal(triangle)).sum())
        return Unknowns(mean, root, float(products[0, 0] - half @ half), log_determinant)

    # Files

    def description(self) -> dict[str, int]:
        """Return the plain values of a file."""
        return {"step": self.step, "observed": self.observed, "unknowns": self.unknowns}

    def arrays(self) -> Iterator[tuple[str, Floats]]:
        """Yield the arrays of a file by name, on the host of every rank. Collective."""
        download = self.factor.comm.backend.download
        yield "log_diagonal", self.factor.log_diagonal[: self.step]
        yield "log_determinant", np.array([self.log_determinant])
        yield "whitened", download(self.whitened[: self.rows])
        if (forecast := self.factor.forecast) is not None:
            for panel in range(len(forecast.index.panels)):
                part = forecast.weights.broadcast(panel, self.sums.__getitem__, "writing the state of a stream")
                yield f"sums.{panel}", download(part)

    @classmethod
    def read(cls, factor: Factor, archive: Archive, where: object) -> State:
        """Return the state of a file. Local.

        Raises
        ------
        ChecksumError
            The state belongs to another factor or forecast.
        """
        found, upload = archive.description, factor.comm.backend.upload
        diagonal = archive.read("log_diagonal")
        expected = factor.log_diagonal[: len(diagonal)]
        if diagonal.shape != expected.shape or not np.allclose(diagonal, expected, rtol=1e-6, atol=1e-6):
            raise ChecksumError(f"{where}: expected the state of a stream of this factor, found that of another one")
        names = [name for name in archive.shapes if name.startswith("sums.")]
        if len(names) != (0 if factor.forecast is None else len(factor.forecast.index.panels)):
            raise ChecksumError(f"{where}: expected the state of a stream with this forecast, found another one")
        empty = cls.empty(factor, int(found["unknowns"]))
        step = int(found["step"])
        upload(empty.whitened[: step * factor.index.blocks], archive.read("whitened"))
        for panel, sums in empty.sums.items():
            upload(sums, archive.read(f"sums.{panel}"))
        log_determinant = float(archive.read("log_determinant")[0])
        return cls(factor, step, int(found["observed"]), log_determinant, empty.whitened, step, empty.sums)
