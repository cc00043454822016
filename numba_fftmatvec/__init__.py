"""FFT-based products with block-triangular Toeplitz matrices on a grid of GPUs or CPUs.

A script written for pyFFTMatvec runs with ``import numba_fftmatvec as pyFFTMatvec``.
"""

from importlib.metadata import PackageNotFoundError, version

from .comm import Comm, best_grid
from .errors import (
    AgreementError,
    ArgumentError,
    ArgumentTypeError,
    BackendError,
    CapacityError,
    ChecksumError,
    ClosedError,
    CollectiveTimeout,
    ConvergenceError,
    FFTMatvecError,
    FileError,
    FileFormatError,
    ForkedError,
    GridError,
    NonFiniteError,
    NotPositiveDefiniteError,
    NotSelfAdjointError,
    PrecisionError,
    RemoteError,
    ShapeError,
    SpaceError,
    UninitializedError,
    VectorIndexError,
    VerificationError,
)
from .matrix import Matrix
from .operators import (
    Accuracy,
    AdjointOperator,
    CausalFilter,
    Diagonal,
    Identity,
    LinearOperator,
    VerticalStack,
    dot_test,
)
from .plan import PHASES, PhaseTimer
from .precision import MatvecPrecisionConfig, Precision
from .products import MatvecConfig
from .testing import Tester, generate_double
from .tuning import Candidate, TuningResult, tune
from .vector import Vector

try:
    __version__ = version("numba-fftmatvec")
except PackageNotFoundError:  # a checkout on PYTHONPATH that was never installed
    __version__ = "0+unknown"

__all__ = [
    "PHASES",
    "Accuracy",
    "AdjointOperator",
    "AgreementError",
    "ArgumentError",
    "ArgumentTypeError",
    "BackendError",
    "Candidate",
    "CapacityError",
    "CausalFilter",
    "ChecksumError",
    "ClosedError",
    "CollectiveTimeout",
    "Comm",
    "ConvergenceError",
    "Diagonal",
    "FFTMatvecError",
    "FileError",
    "FileFormatError",
    "ForkedError",
    "GridError",
    "Identity",
    "LinearOperator",
    "Matrix",
    "MatvecConfig",
    "MatvecPrecisionConfig",
    "NonFiniteError",
    "NotPositiveDefiniteError",
    "NotSelfAdjointError",
    "PhaseTimer",
    "Precision",
    "PrecisionError",
    "RemoteError",
    "ShapeError",
    "SpaceError",
    "Tester",
    "TuningResult",
    "UninitializedError",
    "Vector",
    "VectorIndexError",
    "VerificationError",
    "VerticalStack",
    "best_grid",
    "dot_test",
    "generate_double",
    "tune",
]
