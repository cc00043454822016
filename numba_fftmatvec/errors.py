"""The exceptions of the package: one hierarchy, each also a built-in kind.

Every message says what was expected and what was found. In collective calls (constructors, initialisation, files) an
error on one rank is raised on all of them, as the same type with the failing rank's message: see `Comm.agreement`.
"""

from __future__ import annotations


class FFTMatvecError(Exception):
    """Base of every error that this package raises on purpose."""


class ArgumentError(FFTMatvecError, ValueError):
    """An argument has a value outside its domain."""


class ArgumentTypeError(FFTMatvecError, TypeError):
    """An argument is of a kind that the call cannot take."""


class ShapeError(ArgumentError):
    """Sizes, shapes or element counts of operands do not fit together."""


class GridError(ArgumentError):
    """The process grid does not fit the communicator, or the blocks do not fit the grid."""


class PrecisionError(ArgumentError):
    """A precision code or stage precision is unknown, or the stage does not offer it."""


class NonFiniteError(ArgumentError):
    """A value is NaN or infinite where the format that it is stored in has neither."""


class SpaceError(ArgumentError):
    """A vector lives in the other space: `row` where `col` belongs, or the reverse."""


class VectorIndexError(ArgumentError, IndexError):
    """There is no vector of that index among the `num_vecs`."""


class UninitializedError(FFTMatvecError, RuntimeError):
    """An operand is read before it was initialised."""


class ClosedError(FFTMatvecError, RuntimeError):
    """An object is used after its Comm was closed."""


class BackendError(FFTMatvecError, RuntimeError):
    """The backend or the collectives asked for cannot work on this machine."""


class CapacityError(FFTMatvecError, MemoryError):
    """What is asked for needs more memory than there is."""


class RemoteError(FFTMatvecError, RuntimeError):
    """Another rank failed with an exception that cannot be rebuilt here."""


class VerificationError(FFTMatvecError, AssertionError):
    """A computed result is further from the exact one than its error bound allows."""


class FileError(FFTMatvecError, OSError):
    """A file or directory is missing or cannot be read or written."""


class FileFormatError(FFTMatvecError, ValueError):
    """A file's content breaks the format: a field, a shape, a dtype, a value."""


class ChecksumError(FileFormatError):
    """A checksum is absent where one is required, or differs from the one expected."""
