"""The stored spectra of a matrix: their computation from the first block column, and the way back."""

from .spectra import Spectra
from .spectrum import Spectrum

__all__ = ["Spectra", "Spectrum"]
