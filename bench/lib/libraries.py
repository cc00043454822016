"""The libraries that `peers` compares with ours: each with its ways to write the product on its own arrays."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Product = Callable[[Any, Any], Any]


class Variant(NamedTuple):
    """One way to use a peer: the layouts of its spectrum and its vectors, and the product of the two."""

    name: str
    layout: str  # "[k][out][in]" or "[k][in][out]"
    order: str  # "[block, t]": vectors are (num_vecs, block, t); "[t, block]": (t, block, num_vecs)
    product: Product
    most_vecs: int = 16


@dataclass(frozen=True)
class Library:
    """An array library: its transforms, its batched product, and the conversions from and to CuPy."""

    fft: Any
    permute: Callable[[Any, tuple[int, ...]], Any]
    contiguous: Callable[[Any], Any]
    matmul: Product
    adopt: Callable[[Any], Any]
    to_cupy: Callable[[Any], Any]
    wait: Callable[[Any], None]

    def block_first(self, spectrum: Any, x: Any) -> Any:
        """Return the product with vectors (num_vecs, block, t)."""
        nt = x.shape[-1]
        x_hat = self.contiguous(self.permute(self.fft.rfft(x, 2 * nt, -1), (2, 1, 0)))
        y_hat = self.contiguous(self.permute(self.matmul(spectrum, x_hat), (2, 1, 0)))
        return self.fft.irfft(y_hat, 2 * nt, -1)[..., :nt]

    def time_first(self, spectrum: Any, x: Any) -> Any:
        """Return the product with vectors (t, block, num_vecs)."""
        nt = x.shape[0]
        x_hat = self.fft.rfft(x, 2 * nt, 0)
        return self.fft.irfft(self.matmul(spectrum, self.contiguous(x_hat)), 2 * nt, 0)[:nt]

    def variants(self, name: str) -> list[Variant]:
        """Return the library's products with either order of the vectors."""
        orders = {"[block, t]": self.block_first, "[t, block]": self.time_first}
        return [Variant(f"{name}, {order}", "[k][out][in]", order, product) for order, product in orders.items()]


Peer = tuple[Library, list[Variant]]


def cupy_library(matmul: Product) -> Library:
    """Return CuPy with a given batched product."""
    import cupy

    return Library(
        fft=cupy.fft,
        permute=cupy.transpose,
        contiguous=cupy.ascontiguousarray,
        matmul=matmul,
        adopt=lambda array: array,
        to_cupy=lambda array: array,
        wait=lambda result: cupy.cuda.Device().synchronize(),
    )


def cupy_peer() -> Peer:
    """Return CuPy with its own matmul: rfft, matmul, irfft."""
    import cupy

    library = cupy_library(cupy.matmul)
    return library, library.variants("CuPy")


class Cublas:
    """The strided-batched products of the cuBLAS that CuPy has loaded, on CuPy's current stream."""

    NORMAL, TRANSPOSED = 0, 1

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        self._handle = ctypes.c_void_p(cupy.cuda.device.get_cublas_handle())
        loaded = re.search(r"\S+/libcublas\.so\S*", Path("/proc/self/maps").read_text())
        if loaded is None:
            raise ImportError("expected libcublas.so among the libraries that CuPy has loaded, found none")
        self._library = ctypes.CDLL(loaded[0])

    def _call(self, routine: str, dtype: Any, *arguments: Any) -> None:
        """Call a routine with integers, host scalars and (array, leading dimension or increment, stride) triples."""
        flat: list[Any] = []
        for argument in arguments:
            if isinstance(argument, tuple):
                array, step, stride = argument
                flat += [ctypes.c_void_p(array.data.ptr), ctypes.c_int(step), ctypes.c_longlong(stride)]
            elif isinstance(argument, np.ndarray):
                flat.append(ctypes.c_void_p(argument.ctypes.data))
            else:
                flat.append(ctypes.c_int(argument))
        function = f"cublas{'Z' if dtype == np.complex128 else 'C'}{routine}StridedBatched"
        stream = ctypes.c_void_p(self._cupy.cuda.get_current_stream().ptr)
        status = self._library.cublasSetStream_v2(self._handle, stream)
        status = status or getattr(self._library, function)(self._handle, *flat)
        if status:
            raise RuntimeError(f"{function}: expected status 0, found {status}")

    def gemm(self, spectrum: Any, x: Any) -> Any:
        """Return (k, out, num_vecs) of (k, out, in) and (k, in, num_vecs); to cuBLAS all of them are transposed."""
        batch, outs, ins = spectrum.shape
        count = x.shape[2]
        y = self._cupy.empty((batch, outs, count), x.dtype)
        alpha, beta = np.ones(1, x.dtype), np.zeros(1, x.dtype)
        sizes = self.NORMAL, self.NORMAL, count, outs, ins
        operands = (x, count, ins * count), (spectrum, ins, outs * ins), beta, (y, count, outs * count)
        self._call("gemm", x.dtype, *sizes, alpha, *operands, batch)
        return y

    def gemv(self, spectrum: Any, x: Any, *, out_first: bool) -> Any:
        """Return (k, out, 1) of (k, in, 1) and a spectrum (k, out, in), transposed to cuBLAS, or else (k, in, out)."""
        batch, rows, leading = spectrum.shape
        ins, outs = (leading, rows) if out_first else (rows, leading)
        y = self._cupy.empty((batch, outs, 1), x.dtype)
        alpha, beta = np.ones(1, x.dtype), np.zeros(1, x.dtype)
        sizes = self.TRANSPOSED if out_first else self.NORMAL, leading, rows
        operands = (spectrum, leading, rows * leading), (x, 1, ins), beta, (y, 1, outs)
        self._call("gemv", x.dtype, *sizes, alpha, *operands, batch)
        return y


def cublas_peer() -> Peer:
    """Return CuPy's transforms with cuBLAS's strided-batched GEMV, on either layout, and GEMM."""
    blas = Cublas()
    gemm, *gemvs = map(
        cupy_library, (blas.gemm, partial(blas.gemv, out_first=True), partial(blas.gemv, out_first=False))
    )
    variants = [Variant("cuBLAS GEMM, [k][out][in]", "[k][out][in]", "[block, t]", gemm.block_first)]
    for layout, library in zip(("[k][out][in]", "[k][in][out]"), gemvs, strict=True):
        variants.append(Variant(f"cuBLAS GEMV, {layout}", layout, "[block, t]", library.block_first, 1))
    return gemm, variants


def torch_peer() -> Peer:
    """Return PyTorch: rfft, bmm, irfft."""
    import cupy
    import torch

    library = Library(
        fft=torch.fft,
        permute=torch.permute,
        contiguous=lambda array: array.contiguous(),
        matmul=torch.bmm,
        adopt=torch.from_dlpack,
        to_cupy=lambda array: cupy.from_dlpack(array.contiguous()),
        wait=lambda result: torch.cuda.synchronize(),
    )
    return library, library.variants("PyTorch")


def jax_peer() -> Peer:
    """Return JAX: rfft, matmul and irfft, compiled together."""
    import cupy
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")

    def adopt(array: Any) -> Any:
        try:
            return jnp.from_dlpack(array)
        except Exception as error:  # JAX rejects some layouts and devices, but takes all host arrays
            print(f"JAX took {array.shape} through the host: {error}", file=sys.stderr)
            return jnp.asarray(cupy.asnumpy(array))

    library = Library(
        fft=jnp.fft,
        permute=jnp.transpose,
        contiguous=lambda array: array,
        matmul=jnp.matmul,
        adopt=adopt,
        to_cupy=lambda array: cupy.asarray(np.asarray(array)),
        wait=lambda result: result.block_until_ready(),
    )
    variants = [variant._replace(product=jax.jit(variant.product)) for variant in library.variants("JAX")]
    return library, variants


def pylops_peer() -> Peer:
    """Return PyLops' multi-dimensional convolution by matmul, on CuPy's arrays.

    The convolution has twice the time steps, so that it is causal. F* has its own spectrum here and is not computed as
    the adjoint of F, which PyLops can do too.
    """
    import cupy
    from pylops.waveeqprocessing import MDC

    operators: dict[tuple[int, int], tuple[Any, Any]] = {}

    def product(spectrum: Any, x: Any) -> Any:
        nt, blocks, num_vecs = x.shape
        key = spectrum.data.ptr, num_vecs
        if key not in operators:
            operators.clear()
            options = {"twosided": False, "usematmul": True, "saveGt": False, "prescaled": True}
            operators[key] = spectrum, MDC(spectrum, 2 * nt, num_vecs, **options)
        padded = cupy.zeros((2 * nt, blocks, num_vecs), x.dtype)
        padded[:nt] = x
        return (operators[key][1] @ padded.ravel()).reshape(2 * nt, -1, num_vecs)[:nt]

    return cupy_library(cupy.matmul), [Variant("PyLops, [t, block]", "[k][out][in]", "[t, block]", product)]


PEERS: dict[str, Callable[[], Peer]] = {
    "CuPy": cupy_peer,
    "cuBLAS": cublas_peer,
    "PyTorch": torch_peer,
    "JAX": jax_peer,
    "PyLops": pylops_peer,
}
