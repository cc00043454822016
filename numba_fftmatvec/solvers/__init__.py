"""Iterative solvers on Vectors of any process grid, for any `LinearOperator`."""

from .base import Control, Outcome, Solution, State
from .block_cg import block_cg
from .cg import cg
from .cgls import cgls
from .lanczos import EigenSolution, lanczos
from .lsqr import lsqr
from .randomised import SvdSolution, randomised_eigenvalues, randomised_svd
from .refine import refine

__all__ = [
    "Control",
    "EigenSolution",
    "Outcome",
    "Solution",
    "State",
    "SvdSolution",
    "block_cg",
    "cg",
    "cgls",
    "lanczos",
    "lsqr",
    "randomised_eigenvalues",
    "randomised_svd",
    "refine",
]
