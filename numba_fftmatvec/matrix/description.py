"""The description of a matrix: sizes, kind and precision, as properties and as pyFFTMatvec's getters."""

from __future__ import annotations

import math
from dataclasses import replace

from ..comm.exclusive import exclusive
from ..errors import ClosedError
from ..io import FilePath
from ..layout import MatrixLayout, Space, VectorLayout
from ..operators import Accuracy, LinearOperator
from ..precision import MatvecPrecisionConfig
from ..spectrum import Spectra

Path_ = FilePath


class MatrixDescription(LinearOperator):
    """The description of a `Matrix`, which sets the attributes; the base class of its other parts."""

    _layout: MatrixLayout
    _config: MatvecPrecisionConfig
    _is_p2q: bool
    _checksum: int
    _spectra: Spectra
    _closed: bool

    def check_open(self) -> None:
        """Raise a ClosedError if this matrix or its Comm is closed."""
        if self._closed:
            raise ClosedError("matrix: expected an open one, found one that was closed")
        self.comm.check_open()

    @property
    def domain(self) -> VectorLayout:
        """Layout of one operand of F: (Nm, Nt) in parameter space."""
        return self._layout.vector(Space.COL)

    @property
    def range(self) -> VectorLayout:
        """Layout of one result of F: (Nd, Nt) in data space."""
        return self._layout.vector(Space.ROW)

    @property
    def unit_roundoff(self) -> float:
        """Unit roundoff of the least precise stage of the products."""
        return self._config.unit_roundoff

    @exclusive
    def accuracy(self) -> Accuracy | None:
        """Return bounds of the gain and the rounding error of F; None without values. Collective.

        The gain is the norm of the (Nd, Nm) matrix of the blocks' gains, by the sum of their squares. The gain of a
        block is the largest magnitude of its transform of length L = 2 Nt, up to a factor of sqrt(2). The error is
        ``2 u (1 + log2 L)`` times the gain: u log2 L for each of two transforms, and u for each of the roundings of the
        stored spectrum and of its products.
        """
        with self.comm.agreement("bounding the errors of a matrix") as agreed:
            self.check_open()
            present = "F" in self._spectra
            agreed.share([self._spectra["F"].squared_gain() if present else 0.0])
        if not present:
            return None
        gain = math.sqrt(math.fsum(agreed.stacked[:, 0]))
        return Accuracy(gain, 2 * self.unit_roundoff * (1 + math.log2(self._layout.padded_size)) * gain)

    @property
    def layout(self) -> MatrixLayout:
        """Sizes of the matrix and of this rank's share."""
        return self._layout

    @property
    def num_cols(self) -> int:
        """Number of this rank's block columns."""
        return self._layout.nm

    @property
    def num_rows(self) -> int:
        """Number of this rank's block rows."""
        return self._layout.nd

    @property
    def glob_num_cols(self) -> int:
        """Global number of block columns, Nm."""
        return self._layout.Nm

    @property
    def glob_num_rows(self) -> int:
        """Global number of block rows, Nd."""
        return self._layout.Nd

    @property
    def block_size(self) -> int:
        """Number of time steps of a block, Nt."""
        return self._layout.Nt

    @property
    def padded_size(self) -> int:
        """Length of the transforms, 2 Nt."""
        return self._layout.padded_size

    @property
    def checksum(self) -> int:
        """Checksum of the directory that the matrix was read from, 0 for none."""
        return self._checksum

    @property
    def precision_config(self) -> MatvecPrecisionConfig:
        """A copy of the precision config."""
        return replace(self._config)

    def is_p2q_mat(self) -> bool:
        """Return whether the matrix maps to quantities of interest."""
        return self._is_p2q

    def get_num_cols(self) -> int:
        """Return this rank's number of block columns."""
        return self.num_cols

    def get_num_rows(self) -> int:
        """Return this rank's number of block rows."""
        return self.num_rows

    def get_glob_num_cols(self) -> int:
        """Return Nm."""
        return self.glob_num_cols

    def get_glob_num_rows(self) -> int:
        """Return Nd."""
        return self.glob_num_rows

    def get_block_size(self) -> int:
        """Return Nt."""
        return self.block_size

    def get_padded_size(self) -> int:
        """Return 2 Nt."""
        return self.padded_size

    def get_checksum(self) -> int:
        """Return the checksum of the directory that the matrix was read from, 0 for none."""
        return self.checksum

    def get_precision_config(self) -> MatvecPrecisionConfig:
        """Return a copy of the precision config."""
        return self.precision_config
