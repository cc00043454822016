"""Operators with one domain below each other."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ArgumentTypeError, ShapeError
from ..layout import Space, VectorLayout, global_blocks
from ..vector import Vector
from .accuracy import Accuracy
from .base import CompositeOperator, LinearOperator, known
from .checks import check_layout, check_part, sizes
from .moves import BlockMoves
from .temporaries import Temporaries


class VerticalStack(CompositeOperator):
    """Operators with one domain below each other: the blocks of ``A x`` are those of ``A_1 x``, then of ``A_2 x``, ...

    The range is in data space and has the blocks of all parts, in the order of the parts and whatever the process grid.
    A part's own range may be in either space, so that ``[F, 0.1 * Identity(comm, F.domain)]`` is a stack. Blocks whose
    owner in the stack is not that in the part travel between ranks, in one exchange for each product. Making a stack
    is collective.

    Parameters
    ----------
    operators : sequence of LinearOperator
        The parts, with one domain and ranges of one block size.

    Raises
    ------
    ShapeError, SpaceError, ArgumentError, ArgumentTypeError
        The parts do not fit together, or there is none.
    GridError
        The stack has fewer blocks than the process grid has rows.

    Examples
    --------
    >>> import numba_fftmatvec as fft
    >>> comm = fft.Comm(backend="cpu")
    >>> one = fft.Identity(comm, comm.axis("col").layout(1, 2))
    >>> fft.VerticalStack([one, 3 * one]).todense()
    array([[1., 0.],
           [0., 1.],
           [3., 0.],
           [0., 3.]])
    """

    def __init__(self, operators: Sequence[LinearOperator]) -> None:
        parts = tuple(operators) if isinstance(operators, Sequence) else ()
        if not parts or not isinstance(parts[0], LinearOperator):
            found = type(parts[0] if parts else operators).__name__
            raise ArgumentTypeError(f"stack: expected a sequence of operators, found {found}")
        self.comm = comm = parts[0].comm
        with comm.agreement("stacking operators", sizes(parts)):
            for part in parts:
                check_part(part, comm, "stack")
                check_layout(part.domain, parts[0].domain, "domain of a part of the stack")
                if part.range.block_size != parts[0].range.block_size:
                    raise ShapeError(
                        f"range of a part of the stack: expected blocks of {parts[0].range.block_size}, "
                        f"found blocks of {part.range.block_size}"
                    )
            axis = comm.axis(Space.ROW)
            total = sum(part.range.num_blocks for part in parts)
            global_blocks(total, axis.parts, global_sizes=True, what="blocks of the stack")
            self._range = axis.layout(total, parts[0].range.block_size)
            self._moves = BlockMoves(comm, [part.range for part in parts], self._range)
        self.operators = self._parts = parts
        self._temporaries = Temporaries(comm)

    @property
    def domain(self) -> VectorLayout:
        """Layout of one operand, that of each part."""
        return self._parts[0].domain

    @property
    def range(self) -> VectorLayout:
        """Layout of one result: the blocks of all parts, in data space."""
        return self._range

    def accuracy(self) -> Accuracy | None:
        """Return the bounds of the stack; None if those of a part are unknown. Collective."""
        found = known(part.accuracy() for part in self._parts)
        return Accuracy.of_stack(found) if found else None

    def compute(self, x: Vector, y: Vector) -> None:
        """Apply each part, and move the results into place."""
        results = self._results(x.num_vecs)
        for part, result in zip(self._parts, results, strict=True):
            part.apply(x, result)
        self._moves.join(results, y)

    def compute_adjoint(self, y: Vector, x: Vector) -> None:
        """Move the values to the parts, and add the products of the adjoint parts."""
        results = self._results(y.num_vecs)
        self._moves.split(y, results)
        for i, (part, result) in enumerate(zip(self._parts, results, strict=True)):
            if i == 0:
                part.apply_adjoint(result, x)
                continue
            product = self._temporaries.get(len(self._parts), self.domain, y.num_vecs)
            part.apply_adjoint(result, product)
            x.axpy(1.0, product)

    def _results(self, num_vecs: int) -> list[Vector]:
        """Return a temporary vector for the result of each part."""
        return [self._temporaries.get(i, part.range, num_vecs) for i, part in enumerate(self._parts)]

    def __repr__(self) -> str:
        """Return the class and the parts."""
        return f"VerticalStack([{', '.join(map(repr, self._parts))}])"
