"""Causal filters in time."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arguments import real_array
from ..comm import Comm
from ..errors import ArgumentTypeError, NonFiniteError, ShapeError
from ..layout import VectorLayout
from ..vector import Vector
from .accuracy import Accuracy
from .base import CheckedOperator
from .diagonal import checked_layout

# Bytes of the padded rows that are transformed at a time.
PIECE_BYTES = {"cpu": 1 << 20, "cuda": 1 << 25}


class CausalFilter(CheckedOperator):
    """The causal convolution of each block with an impulse response h: ``y[b, t] = sum_{s <= t} h[t - s] x[b, s]``.

    The adjoint is the anticausal filter ``x[b, s] = sum_{t >= s} h[t - s] y[b, t]``. Blocks are whole on a rank, so a
    product needs no messages. It is a product of transforms of length 2 Nt in double precision. A recursion is given by
    its impulse response: ``phi ** numpy.arange(Nt)`` for AR(1), ones for a running sum. Making a filter is collective.

    Parameters
    ----------
    comm : Comm
        The process grid.
    layout : VectorLayout
        The layout of operands and results, in either space.
    impulse_response : array_like
        h: real values of shape (Nt,) for all blocks, or (blocks, Nt) for each block of the global vector. Every rank
        gives the same values.

    Raises
    ------
    ShapeError, ArgumentTypeError, NonFiniteError
        The impulse response has another shape, is not real, or has a NaN or an infinity.
    AgreementError
        The ranks have different impulse responses.

    Examples
    --------
    >>> import numba_fftmatvec as fft
    >>> comm = fft.Comm(backend="cpu")
    >>> fft.CausalFilter(comm, comm.axis("col").layout(1, 3), [1.0, 0.5, 0.25]).todense().round(12) + 0.0
    array([[1.  , 0.  , 0.  ],
           [0.5 , 1.  , 0.  ],
           [0.25, 0.5 , 1.  ]])
    """

    def __init__(self, comm: Comm, layout: VectorLayout, impulse_response: npt.ArrayLike) -> None:
        if not isinstance(comm, Comm):
            raise ArgumentTypeError(f"comm: expected a Comm, found {type(comm).__name__}")
        phase = "creating a causal filter"
        with comm.agreement(phase):
            self.comm = comm
            self._layout = layout = checked_layout(comm, layout)
            response = _response(impulse_response, layout)
        with comm.agreement(phase, {**layout.description, "impulse response": _digest(response)}):
            transfer = np.fft.rfft(response, 2 * layout.block_size, axis=-1)
            self._gain = float(np.abs(transfer).max())
            if len(transfer) > 1:
                transfer = transfer[layout.blocks.start : layout.blocks.stop]
            self._transfer = self._upload(transfer)

    def _upload(self, transfer: npt.NDArray[np.complex128]) -> Any:
        """Return the transfer function in the backend's memory; None on ranks off the grid."""
        if not self.comm.axis(self._layout.space).owns:
            return None
        buffer = self.comm.backend.empty(transfer.shape, np.complex128)
        self.comm.backend.upload(buffer.array, transfer)
        return buffer.array

    @property
    def domain(self) -> VectorLayout:
        """Layout of one operand."""
        return self._layout

    @property
    def range(self) -> VectorLayout:
        """Layout of one result."""
        return self._layout

    def accuracy(self) -> Accuracy:
        """Return the bounds of a product by three transforms of length L = 2 Nt, of which one is that of h.

        The gain is the largest magnitude of the transfer function. The error is ``3 u (1 + log2 L)`` times the gain:
        each transform of length L has a relative error of at most about u log2 L in the 2-norm.
        """
        stages = 1 + np.log2(2 * self._layout.block_size)
        return Accuracy(self._gain, float(3 * self.unit_roundoff * stages * self._gain))

    def compute(self, x: Vector, y: Vector) -> None:
        """Filter each block of each vector."""
        self._filter(x, y, adjoint=False)

    def compute_adjoint(self, y: Vector, x: Vector) -> None:
        """Filter each block of each vector backwards in time."""
        self._filter(y, x, adjoint=True)

    def _filter(self, source: Vector, target: Vector, *, adjoint: bool) -> None:
        if source.array is not None:
            with self.comm.backend.active():
                self._filter_blocks(source, target, adjoint)
        target.init_vec()

    def _filter_blocks(self, source: Vector, target: Vector, adjoint: bool) -> None:
        """Filter this rank's blocks, in pieces that bound the memory of their transforms."""
        Nt, backend = self._layout.block_size, self.comm.backend
        fft, options, transfer = backend.arrays.fft, backend.arrays.fft_options, self._transfer
        shape = source.num_vecs, source.num_blocks, Nt
        values, results = source.array.reshape(shape), target.array.reshape(shape)
        step = max(1, PIECE_BYTES[backend.name] // (2 * Nt * values.itemsize))
        for first in range(0, source.num_blocks, step):
            piece = slice(first, first + step)
            factors = transfer if len(transfer) == 1 else transfer[piece]
            factors = factors.conj() if adjoint else factors
            for vector in range(source.num_vecs):
                spectrum = fft.rfft(values[vector, piece], 2 * Nt, axis=-1, **options)
                spectrum *= factors
                results[vector, piece] = fft.irfft(spectrum, 2 * Nt, axis=-1, **options)[:, :Nt]

    def __repr__(self) -> str:
        """Return the class and the sizes."""
        return f"CausalFilter({self._layout.space.value!r}, {self._layout})"


def _response(values: npt.ArrayLike, layout: VectorLayout) -> npt.NDArray[np.float64]:
    """Return the impulse response as a (1, Nt) or (blocks, Nt) array."""
    found = real_array(values, "impulse response")
    shapes = (layout.block_size,), (layout.num_blocks, layout.block_size)
    if found.shape not in shapes:
        raise ShapeError(f"impulse response: expected shape {shapes[0]} or {shapes[1]}, found {found.shape}")
    response = np.atleast_2d(found.astype(np.float64))
    if not np.isfinite(response).all():
        raise NonFiniteError("impulse response: expected finite numbers, found NaN or infinity")
    return response


def _digest(values: npt.NDArray[np.float64]) -> str:
    return hashlib.blake2b(values.tobytes(), digest_size=8).hexdigest()
