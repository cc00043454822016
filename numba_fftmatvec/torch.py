"""PyTorch: differentiable products, as functions and as a module.

F is linear: the gradient of a function of ``F x`` with respect to x is F* applied to its gradient with respect to
``F x``. Backward is a product of its own, so that second derivatives work as well.

Examples
--------
>>> import torch
>>> import numba_fftmatvec as pyFFTMatvec
>>> from numba_fftmatvec.torch import matvec
>>> comm = pyFFTMatvec.Comm(backend="cpu")
>>> F = pyFFTMatvec.Matrix(comm, cols=2, rows=1, block_size=3, global_sizes=True)
>>> F.init_mat_ones()
>>> x = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
>>> y = matvec(F, x)
>>> loss = (y**2).sum() / 2
>>> loss.backward()
>>> x.grad.round()  # F* F x
tensor([[12., 10.,  6.],
        [12., 10.,  6.]], dtype=torch.float64)
"""

from __future__ import annotations

from typing import Any

import torch

from .errors import ArgumentTypeError
from .matrix import Matrix
from .products import BY_FLAGS, Product
from .vector import Vector
from .vector.tensors import check_tensor, tensor_device


def matvec(F: Matrix, x: torch.Tensor | None, *, use_aux_mat: bool = False) -> torch.Tensor:
    """Return ``F x`` as a differentiable function of x. Collective, and so is its backward.

    Every rank calls this function. For gradients every rank also calls ``backward``, in the same order, on a loss that
    depends on the returned tensor. Ranks that hold no result get a tensor without elements, so that each has a graph:
    ``loss = (y**2).sum(); loss.backward()`` is right on every rank, and a rank's loss is its part of the global loss.
    If x requires gradients on one rank, the result requires them on all ranks.

    Parameters
    ----------
    F : Matrix
        An initialised matrix; it must be open, and its values unchanged, until after ``backward``.
    x : torch.Tensor
        This rank's part of a ``"col"`` vector, (num_blocks, block_size) or any shape with the same number of elements,
        on the Comm's device. Ranks that hold no data pass None, which counts as float64, or a tensor without elements.
        The product is computed in the matrix's precisions from and to float64. The result has the dtype of x, which may
        be any floating dtype.
    use_aux_mat : bool
        Multiply with the auxiliary matrix G instead.

    Returns
    -------
    torch.Tensor
        This rank's part of the ``"row"`` vector, (num_blocks, block_size); (0, block_size) off its grid. Ready on
        PyTorch's current stream.

    Raises
    ------
    ArgumentTypeError, ArgumentError, ShapeError
        x is not a tensor of a floating dtype, is on another device, or has another number of elements.
    UninitializedError
        The matrix has no values.
    """
    return _multiply(F, x, BY_FLAGS[False, False, bool(use_aux_mat)])


def transpose_matvec(F: Matrix, y: torch.Tensor | None, *, use_aux_mat: bool = False) -> torch.Tensor:
    """Return ``F* y`` as a differentiable function of y. As `matvec`, with the spaces exchanged."""
    return _multiply(F, y, BY_FLAGS[True, False, bool(use_aux_mat)])


class LinearMap(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    """F, or its adjoint, as a module without parameters: for a forward model in a network or a loss.

    Parameters
    ----------
    F : Matrix
        An initialised matrix.
    transpose : bool
        Whether the map is F*.
    use_aux_mat : bool
        Whether it is G, or G*, instead.

    Examples
    --------
    >>> import numba_fftmatvec as pyFFTMatvec
    >>> comm = pyFFTMatvec.Comm(backend="cpu")
    >>> F = pyFFTMatvec.Matrix(comm, cols=2, rows=1, block_size=3, global_sizes=True)
    >>> F.init_mat_ones()
    >>> model = LinearMap(F)
    >>> model(torch.ones(2, 3)).round()
    tensor([[2., 4., 6.]])
    >>> model.adjoint()
    LinearMap(F*, (1, 3) -> (2, 3))
    """

    def __init__(self, F: Matrix, *, transpose: bool = False, use_aux_mat: bool = False) -> None:
        super().__init__()
        self.F = F
        self.transpose = bool(transpose)
        self.use_aux_mat = bool(use_aux_mat)

    @property
    def product(self) -> Product:
        """The product that the flags choose."""
        return BY_FLAGS[self.transpose, False, self.use_aux_mat]

    def forward(self, x: torch.Tensor | None) -> torch.Tensor:
        """Return the product with this rank's part of a vector. Collective; see `matvec`."""
        return _multiply(self.F, x, self.product)

    def adjoint(self) -> LinearMap:
        """Return the adjoint map, of the same matrix."""
        return LinearMap(self.F, transpose=not self.transpose, use_aux_mat=self.use_aux_mat)

    def extra_repr(self) -> str:
        """Return the map's name and global shapes."""
        product, vector = self.product, self.F.layout.vector
        return f"{product.name}, {vector(product.input_space).shape} -> {vector(product.output_space).shape}"


class _Product(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
    """A product whose backward is the adjoint one.

    The anchor has no elements. It requires gradients where any rank's operand does, so that backward, which is
    collective, runs on every rank.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, anchor: torch.Tensor, F: Matrix, product: Product) -> torch.Tensor:
        ctx.adjoint = F, product.adjoint
        spaces = product.input_space, product.output_space
        operand, result = (Vector.from_layout(F.comm, F.layout.vector(space)) for space in spaces)
        # The operand is a copy. Vectors of this library have addresses that recur, so graphs can be replayed; and no
        # later write to the tensor changes a product that is still queued.
        operand.from_torch(x)
        F.apply_product(product, operand, result)
        y = result.to_torch()
        return (x.new_empty(0, F.block_size) if y is None else y).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return _multiply(ctx.adjoint[0], gradient, ctx.adjoint[1]), None, None, None


def _multiply(F: Matrix, x: torch.Tensor | None, product: Product) -> torch.Tensor:
    if not isinstance(F, Matrix):
        raise ArgumentTypeError(f"product: expected a Matrix, found {type(F).__name__}")
    comm = F.comm
    comm.check_open()
    owner = comm.axis(product.input_space).owns
    layout, device = F.layout.vector(product.input_space), tensor_device(comm.backend)
    shape = layout.rows if owner else 0, layout.block_size
    with comm.agreement("taking the tensors of a product", {"product": product.name}) as agreed:
        if x is None and not owner:
            x = torch.empty(shape, dtype=torch.float64, device=device)
        check_tensor(x, shape[0] * shape[1], device, "operand")
        assert x is not None
        agreed.share([torch.is_grad_enabled() and x.requires_grad])
    needed = bool(agreed.stacked.any())
    anchor = torch.empty(0, dtype=x.dtype, device=device, requires_grad=needed)
    y: torch.Tensor = _Product.apply(x.reshape(shape), anchor, F, product)
    return y
