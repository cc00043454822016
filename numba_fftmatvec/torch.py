"""PyTorch: differentiable products, as functions and as a module.

F is linear: the gradient of a function of ``F x`` with respect to x is F* applied to its gradient with respect to
``F x``. Backward is again a differentiable product, so second derivatives work.

The transforms of `torch.func` apply: ``grad``, ``vjp``, ``jvp``, ``vmap``, ``jacrev``, ``jacfwd``, ``hessian`` and
their compositions. A ``vmap`` becomes one product with several right-hand sides. On several ranks four rules hold:

- Every rank applies the same transforms, and passes a tensor to the transformed function. Ranks that hold no data pass
  a tensor without elements. ``torch.autograd.grad`` and forward-mode differentiation have the same rule.
- A rank's result is its summand of the global result, as each rank's loss is. A loss and its gradient, ``vjp`` and
  ``jvp`` are then right on every grid.
- ``jacrev`` takes its basis from the function's result. It is right where each rank returns summands of the same
  losses.
- ``jacrev(matvec)`` takes its basis from this rank's part of the result, and ``jacfwd`` and ``hessian`` from this
  rank's part of x. They are right on one rank only. On several ranks ``vmap`` over ``vjp`` or ``jvp`` takes each rank's
  part of a global basis.

`torch.compile` does not trace a product: the compiled function is interrupted there, and ``fullgraph=True`` raises
PyTorch's error. Tracers that record tensors' operations, such as ``make_fx`` and `torch.jit.trace`, are refused.

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

import copy
import math
import sys
from collections.abc import Callable
from typing import Any, NoReturn, Self

import numpy as np
import numpy.typing as npt
import torch

from .comm import Comm
from .comm.watchdog import named_ranks
from .errors import ArgumentError, ArgumentTypeError, ShapeError
from .matrix import Matrix
from .products import BY_FLAGS, Product
from .vector import Vector
from .vector.tensors import check_untraced, is_carried, leading_dimensions, tensor_device, transforms_active

_INLINE = 3  # leading dimensions that fit in the record of an agreement


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
        This rank's part of one or several ``"col"`` vectors, on the Comm's device. Of shape (..., num_blocks,
        block_size): all leading dimensions are multiplied in one product, as by `Matrix.matmat`. Of any other shape
        with num_blocks x block_size elements: one vector. Ranks that hold no data pass None, which counts as float64,
        or a tensor without elements; the leading dimensions are those of the other ranks.
        The product is computed in the matrix's precisions from and to float64. The result has the dtype of x, which may
        be any floating dtype.
    use_aux_mat : bool
        Multiply with the auxiliary matrix G instead.

    Returns
    -------
    torch.Tensor
        This rank's part of the ``"row"`` vectors, (..., num_blocks, block_size) with the leading dimensions of x;
        num_blocks is 0 off its grid. Ready on PyTorch's current stream.

    Raises
    ------
    ArgumentTypeError, ArgumentError, ShapeError
        x is not a tensor of a floating dtype, is on another device, or has another shape; leading dimensions differ
        between ranks; a transform, or forward mode, applies to the tensors of some ranks only; a tracer is active.
    UninitializedError
        The matrix has no values.
    """
    return _multiply(F, x, BY_FLAGS[False, False, bool(use_aux_mat)])


def transpose_matvec(F: Matrix, y: torch.Tensor | None, *, use_aux_mat: bool = False) -> torch.Tensor:
    """Return ``F* y`` as a differentiable function of y. As `matvec`, with the spaces exchanged."""
    return _multiply(F, y, BY_FLAGS[True, False, bool(use_aux_mat)])


class LinearMap(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    """F, or its adjoint, as a module without parameters: for a forward model in a network or a loss.

    ``copy.deepcopy`` copies the module and shares the matrix. The ``state_dict`` is empty. A module cannot be pickled
    and so not saved whole by ``torch.save``, since its matrix belongs to a Comm.

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

    def __copy__(self) -> Self:
        """Return a module with the same attributes."""
        copied = self.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a module that shares the matrix, and has copies of the other attributes."""
        copied = self.__new__(type(self))
        memo[id(self)], memo[id(self.F)] = copied, self.F
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def __reduce__(self) -> NoReturn:
        """Raise an ArgumentTypeError, since the matrix belongs to a Comm."""
        raise ArgumentTypeError(
            "pickle: expected its state_dict, or the matrix in a file (Matrix.save), found a LinearMap"
        )

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
    def forward(x: torch.Tensor, anchor: torch.Tensor, F: Matrix, product: Product, is_mapped: bool) -> torch.Tensor:
        return _untraced(_compute, F, x, product, is_mapped)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        *_, ctx.F, ctx.product, _ = inputs

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return _multiply(ctx.F, gradient, ctx.product.adjoint), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor, *others: None) -> torch.Tensor:
        return _multiply(ctx.F, tangent, ctx.product)

    @staticmethod
    def vmap(
        info: Any, dims: tuple[int | None, ...], x: torch.Tensor, anchor: Any, F: Matrix, product: Product, _: bool
    ) -> tuple[torch.Tensor, int]:
        # The level below has another anchor: what requires gradients there is not seen from above.
        return _multiply(F, x.movedim(dims[0] or 0, 0), product, info.batch_size), 0


def _multiply(F: Matrix, x: torch.Tensor | None, product: Product, mapped: int | None = None) -> torch.Tensor:
    """Return a product; `mapped` is the length of the leading dimension that `torch.func.vmap` adds."""
    return _untraced(_differentiable, F, x, product, mapped)


def _untraced(function: Callable[..., torch.Tensor], *arguments: Any) -> torch.Tensor:
    """Call a function that `torch.compile` must not trace, since it would trace the whole library."""
    if "torch._dynamo" in sys.modules:  # as a decorator it would import the compiler, which takes as long as PyTorch
        function = torch.compiler.disable(function)
    return function(*arguments)


def _compute(F: Matrix, x: torch.Tensor, product: Product, is_mapped: bool) -> torch.Tensor:
    """Return a product with (num_blocks, block_size) or (num_vecs, num_blocks, block_size) plain values."""
    count = math.prod(x.shape[:-2])
    # Only here have all transforms become numbers of vectors, so the ranks compare these here.
    with F.comm.agreement(f"product {product.name} of tensors", {"num_vecs": count}) as agreed:
        agreed.share([is_mapped and F.comm.world_size > 1 and _is_basis(x)])
        spaces = product.input_space, product.output_space
        operand, result = (Vector.from_layout(F.comm, F.layout.vector(space, count)) for space in spaces)
        # The operand is a copy. Vectors of this library have addresses that recur, so graphs can be replayed; and no
        # later write to the tensor changes a product that is still queued.
        operand.from_torch(x)
    if len(ranks := np.flatnonzero(agreed.stacked)) > 1:
        raise ArgumentError(
            f"{product.name}: expected vmap over a basis of the global vector, found one over bases of the parts of "
            f"{named_ranks(ranks.tolist())}, as by jacrev, jacfwd and hessian; these are right on one rank only"
        )
    F.apply_product(product, operand, result)
    y = result.to_torch()
    return (x.new_empty(result.layout.shape_of(0)) if y is None else y).to(x.dtype)


def _is_basis(x: torch.Tensor) -> bool:
    """Return whether several vectors are multiples of all unit vectors, in their order."""
    if x.ndim < 3 or len(x) != x[0].numel():
        return False
    rows = x.reshape(len(x), -1)
    diagonal = rows.diagonal()
    return torch.equal(rows, diagonal.diag()) and bool((diagonal != 0).all())


def _differentiable(F: Matrix, x: torch.Tensor | None, product: Product, mapped: int | None) -> torch.Tensor:
    """Agree on the operands of all ranks, and return the product as a function that PyTorch differentiates."""
    if not isinstance(F, Matrix):
        raise ArgumentTypeError(f"product: expected a Matrix, found {type(F).__name__}")
    comm = F.comm
    comm.check_open()
    owner = comm.axis(product.input_space).owns
    layout, device = F.layout.vector(product.input_space), tensor_device(comm.backend)
    shape = layout.shape_of(len(layout.blocks) if owner else 0)
    arguments = {"product": product.name, "vmap": mapped, "transforms": transforms_active()}
    with comm.agreement("taking the tensors of a product", arguments) as agreed:
        check_untraced(product.name)
        if x is None and not owner:
            x = torch.empty(shape, dtype=torch.float64, device=device)
        leading = leading_dimensions(x, shape, device, "operand")
        assert x is not None
        mine = leading if owner else None
        agreed.share([*_state(x), *_described(mine, _INLINE)])
    needed = _agreed_state(agreed.stacked[:, :2])
    leading = _agreed_leading(comm, mine, agreed.stacked[:, 2:])
    anchor = torch.empty(0, dtype=x.dtype, device=device, requires_grad=needed)
    count = math.prod(leading)
    output = F.layout.vector(product.output_space)
    result_shape = *leading, *output.shape_of(len(output.blocks) if comm.axis(product.output_space).owns else 0)
    if count == 0:
        return x.reshape(result_shape)
    y: torch.Tensor = _Product.apply(
        x.reshape(*(() if count == 1 else (count,)), *shape), anchor, F, product, mapped is not None
    )
    return y.reshape(result_shape)


def _state(x: torch.Tensor) -> tuple[bool, bool]:
    """Return whether x requires gradients, and whether a transform or forward mode carries it."""
    return torch.is_grad_enabled() and x.requires_grad, is_carried(x)


def _agreed_state(states: npt.NDArray[np.float64]) -> bool:
    """Return whether the anchors require gradients, by all ranks' states; the same on all ranks."""
    active = transforms_active()
    where = "a transform of torch.func" if active else "forward-mode differentiation"
    # Outside of transforms backward starts at the anchors too. Transforms start at the function's arguments only.
    checked = {"requires gradients": states[:, 0] * active, "has a batch or a tangent": states[:, 1]}
    for what, state in checked.items():
        ranks = {bool(value): np.flatnonzero(state == value).tolist() for value in (0, 1)}
        if ranks[True] and ranks[False]:
            raise ArgumentError(
                f"operand: expected {where} to take a tensor on every rank, without elements on ranks that hold no "
                f"data; found that the operand {what} on {named_ranks(ranks[True])}, but not on "
                f"{named_ranks(ranks[False])}"
            )
    return bool(states[:, 0].any()) and not active


def _described(leading: tuple[int, ...] | None, width: int) -> list[int]:
    """Return the number of leading dimensions, -1 for a rank without data, and the first `width` of them."""
    sizes = () if leading is None else leading
    return [-1 if leading is None else len(sizes), *sizes[:width], *[0] * (width - len(sizes))]


def _agreed_leading(comm: Comm, mine: tuple[int, ...] | None, described: npt.NDArray[np.float64]) -> tuple[int, ...]:
    """Return the leading dimensions of all ranks' operands, from all ranks' descriptions."""
    longest = int(described[:, 0].max())
    if longest > _INLINE:
        with comm.agreement("comparing the leading dimensions of tensors") as agreed:
            agreed.share(_described(mine, longest))
        described = agreed.stacked
    found = {rank: tuple(map(int, row[1 : 1 + int(row[0])])) for rank, row in enumerate(described) if row[0] >= 0}
    if len(set(found.values())) > 1:
        each = ", ".join(f"{sizes} on rank {rank}" for rank, sizes in found.items())
        raise ShapeError(f"operand: expected the same leading dimensions on every rank, found {each}")
    return next(iter(found.values()))
