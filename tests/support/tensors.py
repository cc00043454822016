"""Tensors and differentiable products for the tests with PyTorch, which skip without it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from support import reference
from support.tasks import operands

try:
    import torch

    from numba_fftmatvec import torch as bridge
except ImportError:  # the tests must be collected, so that they skip with a reason or fail
    if os.environ.get("FFTMATVEC_REQUIRE_TORCH", "0") not in ("", "0"):
        raise
    torch = bridge = None

SHAPE = (5, 7, 4)
Nd, Nm, Nt = SHAPE
F, G, X = operands(SHAPE)
BACKENDS = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
PRODUCTS = {
    "F": ("matvec", False),
    "F*": ("transpose_matvec", False),
    "G": ("matvec", True),
    "G*": ("transpose_matvec", True),
}
NEEDS_TORCH = [
    pytest.mark.torch,
    pytest.mark.skipif(torch is None, reason="PyTorch is not installed (extra `torch`)"),
]


def device(comm: Any) -> Any:
    return torch.device("cpu") if comm.backend.name == "cpu" else torch.device("cuda", comm.device)


def tensor(comm: Any, values: Any, dtype: Any = None, requires_grad: bool = False) -> Any:
    return torch.tensor(values, dtype=dtype or torch.float64, device=device(comm), requires_grad=requires_grad)


def host(values: Any) -> Any:
    return values.detach().cpu().numpy()


def apply(matrix: Any, name: str, operand: Any) -> Any:
    """Return one of the differentiable products."""
    method, aux = PRODUCTS[name]
    return getattr(bridge, method)(matrix, operand, use_aux_mat=aux)


def source(name: str) -> Any:
    return X[reference.PRODUCTS[name].source]


def check(found: Any, name: str, operand: Any, roundoff: float = 2.0**-53) -> None:
    """Assert that a product of a global operand is right."""
    error = np.linalg.norm(host(found) - reference.product(name, F, G, operand))
    assert error <= reference.error_bound(name, F, G, operand, roundoff)
