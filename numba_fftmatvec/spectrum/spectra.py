"""The stored spectra of one matrix: the primary one, F, and the auxiliary one, G."""

from __future__ import annotations

from collections.abc import Iterator

from ..products import Product
from .spectrum import Spectrum


class Spectra:
    """The spectra that a matrix uses, by the names of a product's factors: ``"F"`` and ``"G"``.

    Several matrices may share a spectrum. Each of them is an owner of it until the spectrum is removed or replaced.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, Spectrum] = {}

    def __getitem__(self, name: str) -> Spectrum:
        """Return the spectrum of a name."""
        return self._by_name[name]

    def __contains__(self, name: str) -> bool:
        """Return whether the matrix has a spectrum of a name."""
        return name in self._by_name

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the present spectra."""
        return iter(self._by_name)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored spectra."""
        return sum(spectrum.nbytes for spectrum in self._by_name.values())

    def missing(self, product: Product) -> bool:
        """Return whether a product needs a spectrum that the matrix does not have."""
        return not product.matrices <= self._by_name.keys()

    def exclusive(self, name: str) -> Spectrum | None:
        """Return the spectrum of a name if it has no other owner, so that it may be overwritten; None otherwise."""
        spectrum = self._by_name.get(name)
        return spectrum if spectrum is not None and set(spectrum.owners) == {self} else None

    def replace(self, name: str, spectrum: Spectrum) -> None:
        """Set the spectrum of a name, in place of the present one if any."""
        self.remove(name)
        spectrum.owners.add(self)
        self._by_name[name] = spectrum

    def remove(self, *names: str) -> dict[str, Spectrum]:
        """Remove the spectra of these names; return those that were present."""
        removed = {name: self._by_name.pop(name) for name in names if name in self._by_name}
        for spectrum in removed.values():
            spectrum.owners.discard(self)
        return removed
