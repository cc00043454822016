"""Vector arithmetic: elementwise operations on each rank's share, and changes of block size."""

from __future__ import annotations

import numbers
from dataclasses import replace
from typing import Any, Self

from ..arguments import positive_int
from ..backends.base import DOUBLE
from ..comm.exclusive import exclusive
from ..errors import ArgumentTypeError, ShapeError
from ..kernels.elementwise import map_launcher
from ..kernels.padding import copy_launcher
from .data import VectorData, check_operand


class VectorArithmetic(VectorData):
    """The arithmetic of a `Vector`."""

    # Elementwise arithmetic. Every rank checks the operands; only ranks on the vector's grid compute.

    @exclusive
    def _map(self, name: str, *others: Any, out: Any, a: float = 0.0, b: float = 0.0) -> Self:
        """Apply a map to this vector and others. If `out` is None, the result is a new vector."""
        self.check_initialized(name)
        for other in others:
            check_operand(other, self.comm, self.layout, name)
            other.check_initialized(name)
        result = self.from_layout(self.comm, self.layout) if out is None else out
        result.drop_values()
        if self._memory is not None:
            views = [vector._flat for vector in (result, self, *others)]
            self.comm.backend.launcher(map_launcher, name)(*views, a=a, b=b)
        result._initialized = True
        return result

    @exclusive
    def copy(self) -> Self:
        """Return a new vector with the same values."""
        result = self.from_layout(self.comm, self.layout)
        self.copy_to(result)
        return result

    def __copy__(self) -> Self:
        """Return a new vector with the same values, or without values if this one has none."""
        self.check_open()
        return self.copy() if self.is_initialized() else self.from_layout(self.comm, self.layout)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a new vector with the same values; it belongs to the same Comm."""
        return self.__copy__()

    def scale(self, alpha: float) -> None:
        """Set ``x = alpha x``."""
        self._map("scale", out=self, a=_scalar(alpha))

    def wscale(self, alpha: float) -> Self:
        """Return ``alpha x`` in a new vector."""
        return self._map("scale", out=None, a=_scalar(alpha))

    def axpy(self, alpha: float, y: Self) -> None:
        """Set ``x = x + alpha y``, in one pass."""
        self._map("axpy", y, out=self, a=_scalar(alpha))

    def waxpy(self, alpha: float, y: Self) -> Self:
        """Return ``x + alpha y`` in a new vector, in one pass."""
        return self._map("axpy", y, out=None, a=_scalar(alpha))

    def axpby(self, alpha: float, beta: float, y: Self) -> None:
        """Set ``x = alpha x + beta y``, in one pass."""
        self._map("axpby", y, out=self, a=_scalar(alpha), b=_scalar(beta))

    def waxpby(self, alpha: float, beta: float, y: Self) -> Self:
        """Return ``alpha x + beta y`` in a new vector, in one pass."""
        return self._map("axpby", y, out=None, a=_scalar(alpha), b=_scalar(beta))

    def elementwise_multiply(self, y: Self) -> Self:
        """Return the products ``x_i y_i`` in a new vector."""
        return self._map("multiply", y, out=None)

    def elementwise_multiply_inplace(self, y: Self) -> None:
        """Set ``x_i = x_i y_i``."""
        self._map("multiply", y, out=self)

    def elementwise_divide(self, y: Self) -> Self:
        """Return the quotients ``x_i / y_i`` in a new vector."""
        return self._map("divide", y, out=None)

    def elementwise_divide_inplace(self, y: Self) -> None:
        """Set ``x_i = x_i / y_i``."""
        self._map("divide", y, out=self)

    def elementwise_inverse(self) -> Self:
        """Return the reciprocals ``1 / x_i`` in a new vector."""
        return self._map("divide_scalar", out=None, a=1.0)

    def elementwise_inverse_inplace(self) -> None:
        """Set ``x_i = 1 / x_i``."""
        self._map("divide_scalar", out=self, a=1.0)

    def elementwise_multiply_add(self, y: Self, z: Self) -> Self:
        """Return ``x_i y_i + z_i`` in a new vector, in one pass."""
        return self._map("multiply_add", y, z, out=None)

    def elementwise_multiply_add_inplace(self, y: Self, z: Self) -> None:
        """Set ``x_i = x_i y_i + z_i``, in one pass."""
        self._map("multiply_add", y, z, out=self)

    def pow(self, exponent: float) -> Self:
        """Return the powers ``x_i ** exponent`` in a new vector; NaN if x_i < 0 and the exponent is not an integer."""
        return self._map("power", out=None, a=_scalar(exponent))

    def pow_inplace(self, exponent: float) -> None:
        """Set ``x_i = x_i ** exponent``."""
        self._map("power", out=self, a=_scalar(exponent))

    def add_scalar(self, alpha: float) -> Self:
        """Return ``x_i + alpha`` in a new vector."""
        return self._map("add_scalar", out=None, a=_scalar(alpha))

    def add_scalar_inplace(self, alpha: float) -> None:
        """Set ``x_i = x_i + alpha``."""
        self._map("add_scalar", out=self, a=_scalar(alpha))

    # Operators. They return NotImplemented for an operand that is neither a vector nor a real number.

    def _operate(self, names: tuple[str, str], other: object, out: Self | None, *, negate: bool = False) -> Any:
        """Apply the first map to a real number or the second one to a vector. An empty name stands for no map."""
        with_scalar, with_vector = names
        if isinstance(other, numbers.Real):
            return self._map(with_scalar, out=out, a=-float(other) if negate else float(other))
        if isinstance(other, VectorData) and with_vector:
            return self._map(with_vector, other, out=out)
        return NotImplemented

    def __neg__(self) -> Self:
        """Return ``-x``."""
        return self.wscale(-1.0)

    def __pos__(self) -> Self:
        """Return a copy."""
        return self.copy()

    def __abs__(self) -> Self:
        """Return the magnitudes."""
        return self._map("magnitude", out=None)

    def __add__(self, other: Self | float) -> Self:
        """Return ``x + other``."""
        return self._operate(("add_scalar", "add"), other, None)  # type: ignore[no-any-return]

    __radd__ = __add__

    def __iadd__(self, other: Self | float) -> Self:
        """Add in place."""
        return self._operate(("add_scalar", "add"), other, self)  # type: ignore[no-any-return]

    def __sub__(self, other: Self | float) -> Self:
        """Return ``x - other``."""
        return self._operate(("add_scalar", "subtract"), other, None, negate=True)  # type: ignore[no-any-return]

    def __rsub__(self, other: float) -> Self:
        """Return ``other - x``."""
        return self._operate(("subtract_from_scalar", ""), other, None)  # type: ignore[no-any-return]

    def __isub__(self, other: Self | float) -> Self:
        """Subtract in place."""
        return self._operate(("add_scalar", "subtract"), other, self, negate=True)  # type: ignore[no-any-return]

    def __mul__(self, other: Self | float) -> Self:
        """Return ``x * other``, element by element."""
        return self._operate(("scale", "multiply"), other, None)  # type: ignore[no-any-return]

    __rmul__ = __mul__

    def __imul__(self, other: Self | float) -> Self:
        """Multiply in place."""
        return self._operate(("scale", "multiply"), other, self)  # type: ignore[no-any-return]

    def __truediv__(self, other: Self | float) -> Self:
        """Return ``x / other``, element by element."""
        return self._operate(("divide_by_scalar", "divide"), other, None)  # type: ignore[no-any-return]

    def __rtruediv__(self, other: float) -> Self:
        """Return ``other / x``, element by element."""
        return self._operate(("divide_scalar", ""), other, None)  # type: ignore[no-any-return]

    def __itruediv__(self, other: Self | float) -> Self:
        """Divide in place."""
        return self._operate(("divide_by_scalar", "divide"), other, self)  # type: ignore[no-any-return]

    def __pow__(self, exponent: float) -> Self:
        """Return ``x ** exponent``, element by element."""
        return self._operate(("power", ""), exponent, None)  # type: ignore[no-any-return]

    def __ipow__(self, exponent: float) -> Self:
        """Raise to a power in place."""
        return self._operate(("power", ""), exponent, self)  # type: ignore[no-any-return]

    # Sizes

    def extend(self, target: int | Self) -> Self:
        """Return the vector with longer blocks; zeros follow the values of each block.

        Parameters
        ----------
        target : int or Vector
            The new block size, at least the present one; or a vector of that block size to write to. The vector must
            have the same Comm, space and numbers of blocks and vectors; the call initialises it.

        Returns
        -------
        Vector
            A new vector, or `target`.

        Raises
        ------
        ShapeError, SpaceError, ArgumentError, UninitializedError
            The new block size is smaller, `target` does not fit, or this vector has no values.
        """
        return self._resized(target, "extend", longer=True, shorter=False)

    def shrink(self, target: int | Self) -> Self:
        """Return the vector with shorter blocks, which lose their last values; see `extend`."""
        return self._resized(target, "shrink", longer=False, shorter=True)

    def resize(self, target: int | Self) -> Self:
        """Return the vector with longer or shorter blocks, as `extend` and `shrink` do."""
        return self._resized(target, "resize", longer=True, shorter=True)

    @exclusive
    def _resized(self, target: int | Self, what: str, *, longer: bool, shorter: bool) -> Self:
        self.check_initialized(what)
        if isinstance(target, VectorData):
            check_operand(target, self.comm, replace(self.layout, block_size=target.block_size), what)
            size = target.block_size
        else:
            size = positive_int(target, f"{what}: block size")
        if not ((longer and size >= self.block_size) or (shorter and size <= self.block_size)):
            bound = f"at {'least' if longer else 'most'} {self.block_size}"
            raise ShapeError(f"{what}: expected a block size of {bound}, found {size}")
        if isinstance(target, VectorData):
            result = target
        else:
            result = self.from_layout(self.comm, replace(self.layout, block_size=size))
        if result is self:
            return self
        if size > self.block_size and result.on_grid():
            result.init_vec_zeros()
        self._copy_blocks(result)
        return result

    @exclusive
    def copy_to(self, other: VectorArithmetic) -> None:
        """Copy the values to another vector of the same space, sizes and Comm, and mark it as initialised.

        Raises
        ------
        ShapeError, SpaceError, ArgumentError, UninitializedError
            The vectors do not fit together, or this one has no values.
        """
        self.check_like(other, "copy_to")
        self._copy_blocks(other)

    def _copy_blocks(self, other: VectorArithmetic) -> None:
        """Copy the first values of each block, as many as both vectors have, and mark the other one as initialised."""
        other.drop_values()
        if self.buffer is not None and other.buffer is not None:
            copy = self.comm.backend.launcher(copy_launcher, DOUBLE, DOUBLE, DOUBLE)
            copy(other.buffer.view, self.buffer.view)
        other.init_vec()


def _scalar(value: object) -> float:
    if not isinstance(value, numbers.Real):
        raise ArgumentTypeError(f"scalar: expected a real number, found {type(value).__name__}")
    return float(value)
