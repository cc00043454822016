"""Precisions of the five stages of a product."""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .errors import PrecisionError
from .kernels.formats import COMPLEX64, COMPLEX128, FIXED16, FIXED32, Format


class Precision(enum.Enum):
    """Precision of one stage; the value is its letter in a precision code.

    ``DOUBLE`` and ``SINGLE`` are the IEEE formats. ``FIXED32`` and ``FIXED16`` are block fixed-point formats of the
    stored spectrum, for the stage sbgemv alone. A real or imaginary part has 32 or 16 bits, and a few neighbouring
    frequencies of a block share a scale (see `kernels.formats`).
    """

    DOUBLE = "d"
    SINGLE = "s"
    FIXED32 = "i"
    FIXED16 = "h"

    @property
    def real(self) -> np.dtype[Any]:
        """The real dtype of a floating-point precision; a fixed-point format raises a PrecisionError."""
        return self._dtype({"d": "float64", "s": "float32"})

    @property
    def complex(self) -> np.dtype[Any]:
        """The complex dtype of a floating-point precision; a fixed-point format raises a PrecisionError."""
        return self._dtype({"d": "complex128", "s": "complex64"})

    def _dtype(self, names: dict[str, str]) -> np.dtype[Any]:
        if self.is_fixed:
            raise PrecisionError(f"dtype of a precision: expected DOUBLE or SINGLE, found {self.name}")
        return np.dtype(names[self.value])

    @property
    def format(self) -> Format:
        """The format of a spectrum that is stored in this precision."""
        return {"d": COMPLEX128, "s": COMPLEX64, "i": FIXED32, "h": FIXED16}[self.value]

    @property
    def is_fixed(self) -> bool:
        """Whether this is a fixed-point format of the stored spectrum."""
        return self in (Precision.FIXED32, Precision.FIXED16)

    @property
    def unit_roundoff(self) -> float:
        """Largest error of a rounded value, relative to it; in fixed point, to the largest value of the same scale.

        Half a step of a part is at most 2^-32 or 2^-16 of the largest part. The error of both parts together is less
        than twice that.
        """
        return {"d": 2.0**-53, "s": 2.0**-24, "i": 2.0**-31, "h": 2.0**-15}[self.value]


@dataclass
class MatvecPrecisionConfig:
    """Precision of each stage of the FFT-based product.

    Fields are assignable and checked on assignment. A Matrix copies its config, so a later assignment does not affect
    the matrix.

    Parameters
    ----------
    broadcast_and_pad : Precision
        Precision to which a vector is rounded before it is sent to the other ranks and padded.
    fft : Precision
        Precision of the forward transforms.
    sbgemv : Precision
        Precision of the stored spectrum, which the products of the frequencies read. Only this stage has fixed-point
        formats.
    ifft : Precision
        Precision of the inverse transforms.
    unpad_and_reduce : Precision
        Precision to which the ranks' partial results are rounded before they are summed.

    Examples
    --------
    >>> config = MatvecPrecisionConfig()
    >>> config.fft = Precision.SINGLE
    >>> config.code
    'dsddd'
    >>> MatvecPrecisionConfig.from_code("dssdd").sbgemv
    <Precision.SINGLE: 's'>
    """

    broadcast_and_pad: Precision = Precision.DOUBLE
    fft: Precision = Precision.DOUBLE
    sbgemv: Precision = Precision.DOUBLE
    ifft: Precision = Precision.DOUBLE
    unpad_and_reduce: Precision = Precision.DOUBLE

    def __setattr__(self, name: str, value: object) -> None:
        """Assign the precision of a stage; raise a PrecisionError unless the stage exists and offers the precision."""
        names = [field.name for field in fields(self)]
        if name not in names:
            raise PrecisionError(f"precision config: expected one of the stages {', '.join(names)}, found {name!r}")
        if not isinstance(value, Precision):
            raise PrecisionError(f"precision of {name}: expected a Precision, found {value!r}")
        if value.is_fixed and name != "sbgemv":
            raise PrecisionError(
                f"precision of {name}: expected DOUBLE or SINGLE, found {value.name}, a format of sbgemv"
            )
        super().__setattr__(name, value)

    @classmethod
    def from_code(cls, code: str) -> MatvecPrecisionConfig:
        """Return the config of a five-letter code such as ``"dssdd"``, upper or lower case, in the fields' order.

        Raises
        ------
        PrecisionError
            The code does not have five letters, or a letter is not a precision that its stage offers.
        """
        stages = fields(cls)
        if not isinstance(code, str) or len(code) != len(stages):
            raise PrecisionError(f"precision code: expected {len(stages)} letters, found {code!r}")
        letters = {precision.value: precision for precision in Precision}
        unknown = [letter for letter in code if letter.lower() not in letters]
        if unknown:
            raise PrecisionError(
                f"precision code {code!r}: expected letters of {', '.join(letters)}, found {unknown[0]!r}"
            )
        return cls(*(letters[letter.lower()] for letter in code))

    @property
    def code(self) -> str:
        """The five letters, in the fields' order."""
        return "".join(getattr(self, field.name).value for field in fields(self))

    @property
    def unit_roundoff(self) -> float:
        """Unit roundoff of the least precise stage."""
        stages: list[Precision] = [getattr(self, field.name) for field in fields(self)]
        return max(stage.unit_roundoff for stage in stages)
