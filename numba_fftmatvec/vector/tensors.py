"""The memory of vectors as PyTorch tensors. This module imports PyTorch, so `interop` imports it on demand."""

from __future__ import annotations

from typing import Any

import torch

from ..backends import Backend
from ..errors import ArgumentError, ArgumentTypeError, ShapeError


def share(backend: Backend, array: Any, dtype: torch.dtype | None) -> torch.Tensor:
    """Return a vector's array as a tensor: its memory as float64, a copy in another dtype.

    Raises
    ------
    ArgumentTypeError
        `dtype` is not a floating torch.dtype.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ArgumentTypeError(f"to_torch: expected a floating torch.dtype, found {dtype!r}")
    return _memory(backend, array).to(dtype or torch.float64)


def assign(backend: Backend, array: Any, tensor: torch.Tensor) -> None:
    """Copy a tensor into a vector's array. See `VectorInterop.from_torch`."""
    check_tensor(tensor, array.size, tensor_device(backend), "from_torch")
    memory = _memory(backend, array)
    memory.copy_(tensor.detach().reshape(memory.shape))
    if backend.stream is not None:
        _stream(backend).wait_stream(torch.cuda.current_stream(backend.device))


def check_tensor(tensor: torch.Tensor | None, elements: int, device: torch.device, what: str) -> None:
    """Raise an error unless a tensor is dense, of a floating dtype, on the device, and of `elements` elements.

    Raises
    ------
    ArgumentTypeError
        `tensor` is not a tensor, is not dense, or has another dtype.
    ArgumentError
        The tensor is on another device.
    ShapeError
        The tensor has another number of elements.
    """
    if not isinstance(tensor, torch.Tensor):
        raise ArgumentTypeError(f"{what}: expected a torch.Tensor, found {type(tensor).__name__}")
    if not tensor.dtype.is_floating_point or tensor.layout != torch.strided:
        raise ArgumentTypeError(
            f"{what}: expected a dense tensor of a floating dtype, found {tensor.layout} of {tensor.dtype}"
        )
    if tensor.device != device:
        raise ArgumentError(f"{what}: expected a tensor on {device}, found one on {tensor.device}")
    if tensor.numel() != elements:
        raise ShapeError(f"{what}: expected {elements} elements, found shape {tuple(tensor.shape)}")


def tensor_device(backend: Backend) -> torch.device:
    """Return the PyTorch device of a backend."""
    return torch.device("cpu") if backend.device is None else torch.device("cuda", backend.device)


def _memory(backend: Backend, array: Any) -> torch.Tensor:
    """Return the array's memory as a tensor; PyTorch's current stream waits for the work queued on the array."""
    with backend.active():
        memory: torch.Tensor = torch.from_dlpack(array)
    return memory


def _stream(backend: Backend) -> Any:
    """Return the backend's stream as a PyTorch stream. The null stream cannot be wrapped; it is PyTorch's default."""
    if backend.stream.ptr == 0:
        return torch.cuda.default_stream(backend.device)
    return torch.cuda.ExternalStream(backend.stream.ptr, device=backend.device)
