"""Standard normal values that depend on a seed and the global index alone, so that they are the same on every grid."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..arguments import natural_int
from .vector import Vector

_DRAWS_OF_A_BLOCK = 4  # 64-bit numbers that Philox makes for each value of its counter
_DRAWS_OF_A_VALUE = 2


def fill_normal(x: Vector, seed: int) -> None:
    """Set every value to a standard normal number, by the transform of Box and Muller of Philox's numbers. Local.

    Parameters
    ----------
    x : Vector
        The vector, or several vectors, which get different values.
    seed : int
        Not negative, and the same on every rank.

    Examples
    --------
    >>> import numba_fftmatvec as fft
    >>> from numba_fftmatvec.vector import fill_normal
    >>> comm = fft.Comm(backend="cpu")
    >>> x = fft.Vector(comm, 100, 100, "col", global_sizes=True)
    >>> fill_normal(x, seed=1)
    >>> abs(x.norm() ** 2 / 10_000 - 1) < 0.05
    True
    """
    seed = natural_int(seed, "seed")
    x.check_open()
    x.drop_values()
    if x.on_grid():
        with x.comm.lock, x.comm.backend.calling_thread:
            layout = x.layout
            first, count = layout.blocks.start * layout.block_size, len(layout.blocks) * layout.block_size
            values = np.stack([_normal(seed, vector, first, count) for vector in range(layout.num_vecs)])
            x.comm.backend.upload(x.array, values.reshape(layout.local_shape))
    x.init_vec()


def _normal(seed: int, stream: int, first: int, count: int) -> npt.NDArray[np.float64]:
    """Return the values ``first .. first + count - 1`` of a stream."""
    block, ahead = divmod(_DRAWS_OF_A_VALUE * first, _DRAWS_OF_A_BLOCK)
    generator = np.random.Generator(np.random.Philox(key=seed, counter=[block, 0, stream, 0]))
    uniform = generator.random(ahead + _DRAWS_OF_A_VALUE * count)[ahead:].reshape(count, _DRAWS_OF_A_VALUE)
    radius = np.sqrt(-2.0 * np.log1p(-uniform[:, 0]))
    return radius * np.cos(2.0 * np.pi * uniform[:, 1])
