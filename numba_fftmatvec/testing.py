"""Checks against exact answers, and the deterministic values that matrices and vectors are filled with."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .arithmetic import check_operand
from .comm import Comm
from .errors import ArgumentTypeError, VerificationError
from .matrix import Matrix
from .precision import MatvecConfig, MatvecPrecisionConfig
from .vector import Vector


def generate_double(index: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the values that `init_mat_doubles` and `init_vec_doubles` give to elements of the given global indices.

    The low 52 bits of splitmix64's finaliser (Steele, Lea, Flood, OOPSLA 2014) are the mantissa of a double in [1, 2);
    bit 24 is set, so that no float32 represents it.

    Parameters
    ----------
    index : array_like of int
        Global indices, not negative.

    Examples
    --------
    >>> generate_double([0, 1])
    array([1.        , 1.13039881])
    """
    z = np.atleast_1d(np.asarray(index)).astype(np.uint64)
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    bits = (z & np.uint64(2**52 - 1)) | np.uint64(1 << 24) | np.uint64(0x3FF << 52)
    return bits.view(np.float64).reshape(np.shape(index))


def exact_ones_product(num_rows: int, num_cols: int, block_size: int, product: MatvecConfig) -> npt.NDArray[np.float64]:
    """Return any block of the product of a matrix of ones with a vector of ones: (Nt,) values, equal for all blocks.

    With 1 at every place F x sums Nm (t + 1) values at step t, and F* y sums Nd (Nt - t); the full products apply both.
    """
    up = np.arange(1.0, block_size + 1)
    down = up[::-1]
    sums = {
        (False, False): num_cols * up,
        (True, False): num_rows * down,
        (False, True): num_rows * num_cols * np.cumsum(up[::-1])[::-1],
        (True, True): num_rows * num_cols * np.cumsum(down),
    }
    return sums[product.transpose, product.full]


def ones_tolerance(
    num_rows: int, num_cols: int, block_size: int, product: MatvecConfig, config: MatvecPrecisionConfig
) -> float:
    """Return the relative error in the 2-norm that a product of ones with ones may have.

    One pass has ``||err||_2 <= 2 u (1 + log2 2Nt) S``, where S sums over blocks the largest magnitude of a block's
    spectrum times the 2-norm of the operand's block. A block of ones has at most Nt at every frequency, so each output
    block of F x has ``S_r <= Nm Nt sqrt(Nt)``; a second pass carries the first one's error on and adds its own.
    """
    unit = 2 * config.unit_roundoff * (1 + math.log2(2 * block_size))
    exact = exact_ones_product(num_rows, num_cols, block_size, product)
    inner, outer = (num_rows, num_cols) if product.transpose else (num_cols, num_rows)
    gain = inner * block_size  # of the first pass, from a block's norm to a block's norm
    bound = gain * math.sqrt(block_size)
    if product.full:
        bound *= 2 * outer * block_size
    return unit * bound / float(np.linalg.norm(exact))


class Tester:
    """Verification of products."""

    @staticmethod
    def check_ones_matvec(comm: Comm, mat: Matrix, out: Vector, conj: bool = False, full: bool = False) -> float:
        """Check the product of a matrix of ones with a vector of ones against the exact answer. Collective.

        Parameters
        ----------
        comm : Comm
            The process grid.
        mat : Matrix
            After `init_mat_ones`.
        out : Vector
            What the product wrote.
        conj : bool
            Whether it was the transpose product.
        full : bool
            Whether it was the full one.

        Returns
        -------
        float
            The relative error in the 2-norm, the same on every rank.

        Raises
        ------
        VerificationError
            The error is larger than the precision and the size allow (see `ones_tolerance`).
        """
        if not isinstance(mat, Matrix):
            raise ArgumentTypeError(f"check_ones_matvec: expected a Matrix, found {type(mat).__name__}")
        product = MatvecConfig(bool(conj), bool(full))
        nd, nm, nt = mat.get_glob_num_rows(), mat.get_glob_num_cols(), mat.get_block_size()
        blocks = nm if product.output_space == "col" else nd
        check_operand(out, comm, product.output_space, (blocks, nt), "check_ones_matvec")
        exact = exact_ones_product(nd, nm, nt, product)
        mine = out.to_numpy()
        square = 0.0 if mine is None else float(np.sum((mine - exact) ** 2))
        difference = math.sqrt(math.fsum(comm.global_comm.allgather(square)))
        error = difference / (math.sqrt(blocks) * float(np.linalg.norm(exact)))
        bound = ones_tolerance(nd, nm, nt, product, mat.get_precision_config())
        if not error <= bound:
            raise VerificationError(
                f"{product.name} 1: expected a relative error of at most {bound:.3e}, found {error:.3e}"
            )
        return error
