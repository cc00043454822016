"""Arrays of other libraries as arrays of a backend, through DLPack."""

from __future__ import annotations

from typing import Any

from ..arguments import check_unmasked, real_array
from ..errors import ArgumentError, ArgumentTypeError
from .base import Backend

# The kinds of memory that each backend can read, as DLPack numbers them: kDLCPU; kDLCUDA and kDLCUDAManaged.
_DEVICE_KINDS = {"cpu": {1}, "cuda": {2, 13}}


def imported(backend: Backend, source: Any, what: str) -> Any:
    """Return an array of the backend's library that shares the memory of `source`, ready on the backend's stream.

    Parameters
    ----------
    backend : Backend
        The backend whose device has the memory.
    source : object with ``__dlpack__`` and ``__dlpack_device__``
        An array of real numbers.
    what : str
        The name of `source` in messages.

    Raises
    ------
    ArgumentTypeError
        Not such an object, one that cannot be exported, or one without real numbers.
    ArgumentError
        The memory is on another device.
    """
    if not hasattr(source, "__dlpack__") or not hasattr(source, "__dlpack_device__"):
        raise ArgumentTypeError(
            f"{what}: expected an object with __dlpack__ and __dlpack_device__, found {type(source).__name__}"
        )
    check_unmasked(source, what)
    kind, index = source.__dlpack_device__()
    if kind not in _DEVICE_KINDS[backend.name] or (backend.device is not None and index != backend.device):
        here = "the host" if backend.device is None else f"GPU {backend.device}"
        raise ArgumentError(f"{what}: expected memory of {here}, found DLPack device ({kind:d}, {index})")
    try:
        values = backend.from_dlpack(source)
    except (BufferError, RuntimeError, TypeError) as error:
        raise ArgumentTypeError(f"{what}: expected an array that can be exported, found: {error}") from error
    if values.dtype.kind not in "buif":
        raise ArgumentTypeError(f"{what}: expected real numbers, found dtype {values.dtype}")
    return values


def on_device(source: Any) -> bool:
    """Return whether an object is an array in the memory of a GPU."""
    return hasattr(source, "__dlpack_device__") and source.__dlpack_device__()[0] in _DEVICE_KINDS["cuda"]


def real_values(backend: Backend, source: Any, what: str) -> Any:
    """Return real numbers as an array: of the backend's library if they are on a GPU, else of NumPy.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        As by `imported` and `real_array`.
    """
    return imported(backend, source, what) if on_device(source) else real_array(source, what)
