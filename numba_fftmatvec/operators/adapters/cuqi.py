"""Operators as CUQIpy takes them."""

from __future__ import annotations

from typing import Any

import cuqi
import numpy as np

from ..interface import OperatorInterface
from .products import Products


def adapt(operator: OperatorInterface, *, domain_geometry: Any = None, range_geometry: Any = None) -> Any:
    """Return a `cuqi.model.LinearModel` between flat arrays in SOTI order, the same on all ranks.

    Parameters
    ----------
    operator : LinearOperator
        The operator.
    domain_geometry, range_geometry : cuqi.geometry.Geometry, optional
        The geometries of the parameters and of the data; by default those of the numbers of values.
    """
    products = Products(operator)
    rows, cols = operator.shape

    def forward(x: Any) -> Any:
        return products.whole(np.asarray(x))

    def adjoint(y: Any) -> Any:
        return products.whole(np.asarray(y), adjoint=True)

    return cuqi.model.LinearModel(
        forward,
        adjoint=adjoint,
        range_geometry=rows if range_geometry is None else range_geometry,
        domain_geometry=cols if domain_geometry is None else domain_geometry,
    )
