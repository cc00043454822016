"""The stored spectra of one matrix: the primary one, F, and the auxiliary one, G."""

from __future__ import annotations

from collections.abc import Iterator

from ..products import Product
from .spectrum import Spectrum


class Spectra:
    """The spectra that a matrix uses, by the names of a product's factors: ``"F"`` and ``"G"``.

    Several matrices may share a spectrum. Each counts as one of its owners until it has another one in its place.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, Spectrum] = {}

    def __getitem__(self, name: str) -> Spectrum:
        """Return the spectrum of a name."""
        return self._by_name[name]

    def __contains__(self, name: str) -> bool:
        """Return whether there is a spectrum of a name."""
        return name in self._by_name

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the spectra that there are."""
        return iter(self._by_name)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored spectra."""
        return sum(spectrum.nbytes for spectrum in self._by_name.values())

    def missing(self, product: Product) -> bool:
        """Return whether a product needs a spectrum that is not there."""
        return not product.matrices <= self._by_name.keys()

    def exclusive(self, name: str) -> Spectrum | None:
        """Return the spectrum of a name if there is one and nobody else owns it, so that it may be overwritten."""
        spectrum = self._by_name.get(name)
        return spectrum if spectrum is not None and set(spectrum.owners) == {self} else None

    def replace(self, name: str, spectrum: Spectrum) -> None:
        """Use a spectrum from now on."""
        self.remove(name)
        spectrum.owners.add(self)
        self._by_name[name] = spectrum

    def remove(self, *names: str) -> dict[str, Spectrum]:
        """Stop using the spectra of these names; return those that there were."""
        removed = {name: self._by_name.pop(name) for name in names if name in self._by_name}
        for spectrum in removed.values():
            spectrum.owners.discard(self)
        return removed
