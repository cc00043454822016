"""The exceptions of the package, in one hierarchy; each is also a built-in exception.

Every message has an expected and a found value. In collective calls (constructors, initialisation, files) an error on
one rank is raised on all ranks, with the same type and the failing rank's message; see `Comm.agreement`.
"""

from __future__ import annotations

from typing import Any


class FFTMatvecError(Exception):
    """Base of every error that this package raises on purpose."""


def named_error(error: BaseException, phase: str) -> BaseException:
    """Return a library's memory error as a CapacityError that names the phase; any other error as it is."""
    if not isinstance(error, MemoryError) or isinstance(error, FFTMatvecError):
        return error
    found = str(error) or "no memory left"
    named = CapacityError(f"{phase}: expected enough memory, found: {found}")
    named.__cause__ = error
    return named


class ArgumentError(FFTMatvecError, ValueError):
    """An argument has a value outside its domain."""


class ArgumentTypeError(FFTMatvecError, TypeError):
    """An argument has a type that the call does not accept."""


class ShapeError(ArgumentError):
    """Sizes, shapes or element counts of operands do not fit together."""


class GridError(ArgumentError):
    """The process grid does not fit the communicator, or the blocks do not fit the grid."""


class PrecisionError(ArgumentError):
    """A precision code or stage precision is unknown, or the stage does not offer it."""


class NonFiniteError(ArgumentError):
    """A value is NaN or infinite where its storage format or a solver requires a finite one."""


class SpaceError(ArgumentError):
    """A vector is in the wrong space: `row` instead of `col`, or the reverse."""


class VectorIndexError(ArgumentError, IndexError):
    """The index of a vector is not in 0 .. num_vecs - 1."""


class ConvergenceError(FFTMatvecError, RuntimeError):
    """A solver stopped before it reached its tolerance.

    Attributes
    ----------
    solution : object
        The result so far, of the type that the solver returns. It is None if the error was raised on another rank only.
    """

    solution: Any = None


class UninitializedError(FFTMatvecError, RuntimeError):
    """An operand is read before it is initialised."""


class ClosedError(FFTMatvecError, RuntimeError):
    """An object is used after it or its Comm was closed."""


class ForkedError(FFTMatvecError, RuntimeError):
    """A Comm is used in a child process that was forked from its own; MPI, threads and devices do not work there."""


class BackendError(FFTMatvecError, RuntimeError):
    """The requested backend or collectives cannot work on this machine."""


class CapacityError(FFTMatvecError, MemoryError):
    """A request needs more memory than is available."""


class AgreementError(ArgumentError):
    """The ranks are in different calls, or in one call with different arguments."""


class CollectiveTimeout(FFTMatvecError, TimeoutError):
    """A rank did not arrive at a message within the time limit of its Comm."""


class RemoteError(FFTMatvecError, RuntimeError):
    """Another rank failed with an exception that cannot be rebuilt here."""


class NotSelfAdjointError(ArgumentError):
    """An operator that must be self-adjoint is not."""


class NotPositiveDefiniteError(ArgumentError):
    """A matrix that must be symmetric and positive definite is not.

    Attributes
    ----------
    row : int or None
        The first row at which a Cholesky factorisation fails, if it is known.
    """

    row: int | None = None

    @classmethod
    def at_row(cls, row: int) -> NotPositiveDefiniteError:
        """Return the error of a factorisation that fails at a row."""
        error = cls(
            f"Cholesky factorisation: expected a positive definite matrix, found a pivot at row {row} that is not"
        )
        error.row = row
        return error

    def named(self, what: str) -> NotPositiveDefiniteError:
        """Return the error with a name for the matrix instead of the name of the factorisation."""
        error = NotPositiveDefiniteError(f"{what}: {str(self).partition(': ')[2]}")
        error.row = self.row
        return error


class VerificationError(FFTMatvecError, AssertionError):
    """A computed result is further from the exact one than its error bound allows."""


class FileError(FFTMatvecError, OSError):
    """A file or directory is missing or cannot be read or written."""


class FileFormatError(FFTMatvecError, ValueError):
    """A file is malformed: a field, a shape, a dtype or a value violates the format."""


class ChecksumError(FileFormatError):
    """A required checksum is absent, or a checksum differs from the expected one."""
