"""Observed data in time-major order, checked, from vectors or arrays."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arguments import real_array
from ..comm import Comm
from ..errors import NonFiniteError, ShapeError
from ..layout import VectorLayout
from ..operators import LinearOperator
from ..vector import Vector
from ..vector.data import check_operand

Floats = npt.NDArray[np.float64]


def time_major(comm: Comm, layout: VectorLayout, data: Any) -> Floats:
    """Return data as one host array in time-major order, [t, d], on every rank. Collective.

    Parameters
    ----------
    comm : Comm
        The ranks.
    layout : VectorLayout
        The layout of one vector of data.
    data : Vector or array_like
        A vector in data space, or the global values of shape (Nd, Nt), the same on every rank.

    Raises
    ------
    ShapeError, SpaceError, ArgumentError, ArgumentTypeError, UninitializedError
        The data do not fit, are not real numbers, or have no values.
    NonFiniteError
        A value is NaN or infinite.
    """
    if isinstance(data, Vector):
        with comm.agreement("taking data"):
            check_operand(data, comm, layout, "data")
        values = data.gather()
    else:
        values = np.empty(0)
        with comm.agreement("taking data"):
            values = np.asarray(real_array(data, "data"), np.float64)
            if values.shape != layout.shape:
                transposed = "; transpose it: sensors come first" if values.shape == layout.shape[::-1] else ""
                raise ShapeError(f"data: expected shape {layout.shape}, found {values.shape}{transposed}")
        check_alike(comm, values, "data")
    with comm.agreement("taking data"):
        if not (finite := np.isfinite(values)).all():
            sensor, step = np.argwhere(~finite)[0]
            raise NonFiniteError(
                f"data: expected finite values, found {values[sensor, step]} of sensor {sensor} at step {step}; "
                "a stream accepts data with missing sensors"
            )
    return np.ascontiguousarray(values.T).reshape(-1)


def check_alike(comm: Comm, values: Floats, what: str) -> None:
    """Raise an AgreementError unless all ranks have the same values."""
    if comm.world_size > 1:
        with comm.agreement("comparing data", {what: hashlib.sha256(values.tobytes()).hexdigest()[:16]}):
            pass


def as_vector(comm: Comm, layout: VectorLayout, values: Any) -> Vector:
    """Return the vectors of time-major values, (Nt Nd,) or (Nt Nd, count), that every rank has. Collective.

    The values are an array of the backend's library.
    """
    count = 1 if values.ndim == 1 else values.shape[1]
    vector = Vector.from_layout(comm, replace(layout, num_vecs=count))
    blocks = layout.blocks
    with comm.agreement("making a vector of data"):
        if vector.array is not None:
            with comm.backend.active():
                by_step = values.reshape(layout.block_size, layout.num_blocks, count)
                mine = by_step[:, blocks.start : blocks.stop].transpose(2, 1, 0)
                vector.array[...] = mine.reshape(vector.array.shape)
        vector.init_vec()
    return vector


def product(operator: LinearOperator, x: Vector) -> Vector:
    """Return ``operator @ x`` in a new vector. Collective; memory is allocated before any rank starts the product.

    A product's messages have no time limit, so no rank may fail after another has started.
    """
    with operator.comm.agreement("allocating a vector"):
        y = Vector.from_layout(operator.comm, replace(operator.range, num_vecs=x.num_vecs))
    operator.apply(x, y)
    return y
