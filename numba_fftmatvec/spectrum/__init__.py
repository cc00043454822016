"""The stored spectrum: from the first block column to it and back."""

from .spectra import Spectra
from .spectrum import Spectrum

__all__ = ["Spectra", "Spectrum"]
