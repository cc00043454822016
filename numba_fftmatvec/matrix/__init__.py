"""Block lower-triangular Toeplitz matrices: their values, their products and their files."""

from .matrix import Matrix

__all__ = ["Matrix"]
