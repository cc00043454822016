"""Bounds of an operator's gain and of its rounding error, which follow from those of its parts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple


class Accuracy(NamedTuple):
    """Bounds of a product and of its error, relative to the norm of the operand.

    For every x, ``|A x| <= gain |x|`` and ``|computed A x - A x| <= error |x|``, in the 2-norm. The gain ignores
    cancellation: it bounds each sum by the sum of its terms' norms. The bounds of A hold for A* too.

    Parameters
    ----------
    gain : float
        Bound of the norm of A.
    error : float
        Bound of the rounding error, to first order in the unit roundoff.

    Examples
    --------
    >>> rotation = Accuracy(1.0, 2.0**-53)
    >>> rotation.after(rotation.scaled(-3.0, 0.0)) == Accuracy(3.0, 6 * 2.0**-53 + 3 * 2.0**-106)
    True
    """

    gain: float
    error: float

    def scaled(self, factor: float, unit_roundoff: float = 2.0**-53) -> Accuracy:
        """Return the bounds of ``factor A``, which rounds each value once more."""
        gain = abs(factor) * self.gain
        return Accuracy(gain, abs(factor) * self.error + unit_roundoff * gain)

    def after(self, first: Accuracy) -> Accuracy:
        """Return the bounds of ``A B``, where `first` has those of B."""
        return Accuracy(self.gain * first.gain, self.gain * first.error + self.error * (first.gain + first.error))

    @staticmethod
    def of_sum(terms: Iterable[Accuracy], unit_roundoff: float = 2.0**-53) -> Accuracy:
        """Return the bounds of a sum, whose n terms are added by n - 1 rounded additions."""
        parts = tuple(terms)
        gain = math.fsum(part.gain for part in parts)
        return Accuracy(gain, math.fsum(part.error for part in parts) + unit_roundoff * (len(parts) - 1) * gain)

    @staticmethod
    def of_stack(parts: Iterable[Accuracy], unit_roundoff: float = 2.0**-53) -> Accuracy:
        """Return the bounds of operators below each other. The adjoint adds their n results by n - 1 additions."""
        found = tuple(parts)
        gain, error = (math.hypot(*values) for values in zip(*found, strict=True))
        return Accuracy(gain, error + unit_roundoff * (len(found) - 1) * gain)
