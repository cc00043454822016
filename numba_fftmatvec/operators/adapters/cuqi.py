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
        return product(x, model.domain_geometry, model.range_geometry)

    def adjoint(y: Any) -> Any:
        return product(y, model.range_geometry, model.domain_geometry, adjoint=True)

    def product(values: Any, source: Any, target: Any, *, adjoint: bool = False) -> Any:
        """Return a product of function values, whose shapes are those of the geometries."""
        given = np.asarray(values)
        if given.shape != source.fun_shape:
            return products.whole(given, adjoint=adjoint)
        return products.whole(given.reshape(-1), adjoint=adjoint).reshape(target.fun_shape)

    model = cuqi.model.LinearModel(
        forward,
        adjoint=adjoint,
        range_geometry=rows if range_geometry is None else range_geometry,
        domain_geometry=cols if domain_geometry is None else domain_geometry,
    )
    return model
