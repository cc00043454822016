"""Checks against exact answers, and the deterministic values that matrices and vectors are filled with."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .comm import Comm
from .errors import ArgumentTypeError, VerificationError
from .layout import MatrixLayout
from .matrix import Matrix
from .precision import MatvecPrecisionConfig
from .products import MatvecConfig, Product
from .vector import Vector
from .vector.data import check_operand


def generate_double(index: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the values that `init_mat_doubles` and `init_vec_doubles` assign to elements of given global indices.

    An element of a vector has its index in the (blocks, Nt) array. The element (d, m, t) of a matrix has the index
    ``(d * Nm + m) * 2 * Nt + t``: its place in rows that are padded to 2 Nt, as in pyFFTMatvec.

    The low 52 bits of splitmix64's finaliser (Steele, Lea, Flood, OOPSLA 2014) are the mantissa of a double in [1, 2).
    Bit 24 is set, so no float32 represents the value.

    Parameters
    ----------
    index : array_like of int
        Non-negative global indices.

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


def exact_ones_product(layout: MatrixLayout, product: Product) -> npt.NDArray[np.float64]:
    """Return one block of the product of matrices of ones with a vector of ones: (Nt,) values, equal for all blocks.

    A matrix F of ones sums the values of Nm blocks up to each step, and F* those of Nd blocks from each step on.
    """
    values = np.ones(layout.Nt)
    for factor in product.factors:
        sums = np.cumsum(values[::-1])[::-1] if factor.is_adjoint else np.cumsum(values)
        values = sums * layout.vector(factor.input_space).num_blocks
    return values


def ones_tolerance(layout: MatrixLayout, product: Product, config: MatvecPrecisionConfig) -> float:
    """Return the relative error in the 2-norm that a product of ones with ones may have.

    One factor has ``||err||_2 <= 2 u (1 + log2 2Nt) S``, where S is a sum over blocks: the largest magnitude of a
    block's spectrum times the 2-norm of the operand's block. The spectrum of a block of ones is at most Nt at every
    frequency, so each output block of F x has ``S_r <= Nm Nt sqrt(Nt)``. A second factor propagates the error of the
    first one and adds another error.
    """
    unit = 2 * config.unit_roundoff * (1 + math.log2(layout.padded_size))
    gains = [layout.vector(factor.input_space).num_blocks * layout.Nt for factor in product.factors]
    bound = len(gains) * math.prod(gains) * math.sqrt(layout.Nt)
    return unit * bound / float(np.linalg.norm(exact_ones_product(layout, product)))


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
            The matrix, filled by `init_mat_ones`.
        out : Vector
            The result of the product.
        conj : bool
            Whether the product was the transpose one.
        full : bool
            Whether the product was the full one.

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
        product = MatvecConfig(bool(conj), bool(full)).product
        layout = mat.layout
        result = layout.vector(product.output_space)
        with comm.agreement("check_ones_matvec", {"product": product.name}) as agreed:
            check_operand(out, comm, result, "check_ones_matvec")
            exact = exact_ones_product(layout, product)
            mine = out.to_numpy()
            agreed.share([0.0 if mine is None else float(np.sum((mine - exact) ** 2))])
        difference = math.sqrt(math.fsum(agreed.stacked[:, 0]))
        error = difference / (math.sqrt(result.num_blocks) * float(np.linalg.norm(exact)))
        bound = ones_tolerance(layout, product, mat.precision_config)
        with comm.agreement("comparing the product of ones"):
            if not error <= bound:
                raise VerificationError(
                    f"{product.name} 1: expected a relative error of at most {bound:.3e}, found {error:.3e}"
                )
        return error
