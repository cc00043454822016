"""The memory of vectors as PyTorch tensors. This module imports PyTorch, so `interop` imports it on demand."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import get_innermost_proxy_mode

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
    check_tensor(tensor, tensor_device(backend), "from_torch")
    if inside_transform(tensor):
        raise ArgumentTypeError(
            "from_torch: expected a tensor outside of the transforms of torch.func, found one inside a transform; "
            "numba_fftmatvec.torch has products that can be transformed"
        )
    if tensor.numel() != array.size:
        raise ShapeError(f"from_torch: expected {array.size} elements, found shape {tuple(tensor.shape)}")
    memory = _memory(backend, array)
    memory.copy_(tensor.detach().reshape(memory.shape))
    if backend.stream is not None:
        _stream(backend).wait_stream(torch.cuda.current_stream(backend.device))


def check_tensor(tensor: object, device: torch.device, what: str) -> None:
    """Raise an error unless an object is a dense tensor of a floating dtype on the device.

    Raises
    ------
    ArgumentTypeError
        `tensor` is not a tensor, is not dense, has another dtype, or is one that `torch.autograd` batches.
    ArgumentError
        The tensor is on another device.
    """
    if not isinstance(tensor, torch.Tensor):
        raise ArgumentTypeError(f"{what}: expected a torch.Tensor, found {type(tensor).__name__}")
    if torch._C._functorch.is_legacy_batchedtensor(tensor):
        raise ArgumentTypeError(
            f"{what}: expected a batch by torch.func.vmap, jacrev or jacfwd, found one by torch.autograd "
            "(is_grads_batched or vectorize)"
        )
    if not tensor.dtype.is_floating_point or tensor.layout != torch.strided:
        raise ArgumentTypeError(
            f"{what}: expected a dense tensor of a floating dtype, found {tensor.layout} of {tensor.dtype}"
        )
    if tensor.device != device:
        raise ArgumentError(f"{what}: expected a tensor on {device}, found one on {tensor.device}")


def leading_dimensions(
    tensor: torch.Tensor | None, shape: tuple[int, ...], device: torch.device, what: str
) -> tuple[int, ...]:
    """Return the leading dimensions of a tensor of vectors, () for one vector of another shape.

    Parameters
    ----------
    tensor : torch.Tensor
        Of shape (..., num_blocks, block_size), or of another shape with the elements of one vector.
    shape : tuple of int
        This rank's (num_blocks, block_size).
    device : torch.device
        The expected device.
    what : str
        The tensor's name, for messages.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        As for `check_tensor`.
    ShapeError
        The tensor has another shape.
    """
    check_tensor(tensor, device, what)
    assert tensor is not None
    if tuple(tensor.shape[-2:]) == shape:
        return tuple(tensor.shape[:-2])
    if tensor.numel() != math.prod(shape):
        raise ShapeError(
            f"{what}: expected shape (..., {shape[0]}, {shape[1]}), or another one of {math.prod(shape)} elements, "
            f"found shape {tuple(tensor.shape)}"
        )
    return ()


def transforms_active() -> bool:
    """Return whether this code runs inside a transform of `torch.func`."""
    return bool(torch._C._are_functorch_transforms_active())


def inside_transform(tensor: torch.Tensor) -> bool:
    """Return whether a transform of `torch.func` tracks a tensor; its memory is then not accessible."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def is_carried(tensor: torch.Tensor) -> bool:
    """Return whether `torch.func.vmap` batches a tensor at the present level, or it has a tangent of forward mode."""
    if torch._C._functorch.is_batchedtensor(tensor):
        return True
    try:
        return forward_ad.unpack_dual(tensor).tangent is not None
    except RuntimeError:  # the tensor is batched at a lower level, where vmap's own product checks it
        return False


def check_untraced(what: str) -> None:
    """Raise an ArgumentError if a tracer is active: it would record the values of a product as constants."""
    active = {"torch.jit.trace": torch.jit.is_tracing(), "make_fx": get_innermost_proxy_mode() is not None}
    if any(active.values()):
        found = " and ".join(tracer for tracer in active if active[tracer])
        raise ArgumentError(
            f"{what}: expected a call outside of tracers, which cannot record a product, found an active {found}; "
            "make_fx is also part of torch.func.linearize and torch.export"
        )


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
