"""Runs every kernel at small sizes, or one planted bug, for bench/sanitize.py under NVIDIA's compute-sanitizer.

Each array is a separate allocation, not a part of a pool. The tools therefore detect accesses past its end and reads of
uninitialised memory. Kernels with simple launchers are launched alone. The others run as parts of products, since a
product's plan chooses among SBGEMV's many kernels.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, product
from typing import Any

import numpy as np
from numba import float64

import numba_fftmatvec as fm
from numba_fftmatvec import kernels
from numba_fftmatvec.kernels import (
    CudaNest,
    Kernel,
    Target,
    elementwise,
    encoding,
    fft,
    formats,
    padding,
    pairs,
    reductions,
    substitution,
)
from numba_fftmatvec.kernels.formats import StoredArrays
from numba_fftmatvec.kernels.jit import array_type, cuda
from numba_fftmatvec.kernels.sbgemv import sbgemv_launcher
from numba_fftmatvec.kernels.sbgemv.cuda import cases, tensor_height
from numba_fftmatvec.kernels.sbgemv.problem import Problem

THREADS = 64
REALS = (np.float32, np.float64)
FORMAT_CODES = ("ddddd", "ddsdd", "ddidd", "ddhdd")
MIXED_CODES = ("sssss", *(f"d{fft}{stored}{ifft}d" for fft, stored, ifft in product("ds", "dsih", "ds")))
# (Nm, Nd, Nt): odd and even, tall and wide, sums that are split and sums that are not.
SIZES = ((5, 3, 7), (1, 1, 1), (2, 70, 40), (70, 2, 40), (33, 17, 65))


# The planted bugs


def _write_past_the_end_cuda(out):
    out[cuda.threadIdx.x] = 1.0


def _race_cuda(out):
    shared = cuda.shared.array(THREADS, float64)
    i = cuda.threadIdx.x
    shared[i] = float64(i)
    out[i] = shared[THREADS - 1 - i]  # another warp's value, without a barrier


def _divergent_barrier_cuda(out):
    i = cuda.threadIdx.x
    if i < 16:
        cuda.syncthreads()
    out[i] += 1.0
    if i >= 40:  # another barrier, at which the second warp waits for the first
        cuda.syncthreads()
    out[i] += 1.0


def _read_uninitialised_cuda(out, values):
    out[cuda.threadIdx.x] = values[cuda.threadIdx.x]


def bugs() -> dict[str, Kernel]:
    """Return the kernel with the bug that each tool must find."""
    vector = array_type(np.float64, 1)
    nests = {
        "memcheck": CudaNest(_write_past_the_end_cuda, (vector,)),
        "racecheck": CudaNest(_race_cuda, (vector,)),
        "synccheck": CudaNest(_divergent_barrier_cuda, (vector,)),
        "initcheck": CudaNest(_read_uninitialised_cuda, (vector, vector)),
    }
    return {tool: Kernel(tool, {"cuda": nest}) for tool, nest in nests.items()}


def plant(tool: str) -> None:
    """Launch a bug. The tools stop some bugs, which the driver then reports as a failed launch."""
    size = THREADS - 1 if tool == "memcheck" else THREADS
    arrays = [cuda.to_device(np.zeros(size))]
    if tool == "initcheck":
        arrays.append(cuda.device_array(size))
    try:
        bugs()[tool].compile("cuda")[1, THREADS](*arrays)
        cuda.synchronize()
    except Exception as error:
        print(f"the driver: {error}")


# Kernels that are launched alone


def random(shape: tuple[int, ...], dtype: Any) -> Any:
    values = np.random.default_rng(sum(shape)).standard_normal(shape)
    return cuda.to_device(values.astype(dtype))


def launch_vectors(target: Target, size: int = 257) -> None:
    out, *operands = (random((size,), np.float64) for _ in range(4))
    for name in elementwise.FILLS:
        elementwise.fill_launcher(target, name)(out, 3, 1.5)
    for name, (arity, _) in elementwise.MAPS.items():
        elementwise.map_launcher(target, name)(out, *operands[:arity], a=1.5, b=0.5)
    partials = cuda.device_array(2 * reductions.PARTIALS + 2)
    for name in reductions.TERMS:
        for runs in (1, 2):
            vectors = [operand[: size - size % runs] for operand in operands[:2]]
            reductions.reduce_launcher(target, name)(partials, *vectors, runs=runs)
        assert np.isfinite(partials.copy_to_host()).all(), name


def launch_substitution(target: Target) -> None:
    for size, before in ((1, 0), (5, 140), (40, 1)):
        count = (before + 1) * size
        panel, inverses = random((size, count), np.float64), random((1, size, size), np.float64)
        given = cuda.to_device(np.append(float(before), np.ones(size)))
        solutions, residual = random((count,), np.float64), cuda.device_array(size)
        arrived = cuda.to_device(np.zeros(1, np.int32))
        launch = substitution.substitution_launcher(target)
        launch(solutions, panel, inverses, given, residual, arrived, before)
        assert np.isfinite(solutions.copy_to_host()).all() and arrived.copy_to_host()[0] == 0


def launch_rows(target: Target) -> None:
    for source, rounding, destination in product(REALS, repeat=3):
        copy = padding.copy_launcher(target, source, rounding, destination)
        copy(random((5, 66), destination), random((5, 33), source))
        copy(random((5, 33), destination), random((5, 66), source))
        packed = np.complex64 if destination == np.float32 else np.complex128
        for launcher in (pairs.pack_launcher, pairs.unpack_launcher):
            launcher(target, source, rounding, packed)(random((3, 66), packed), random((5, 33), source), 0)


def launch_transforms(target: Target, rows: int = 3) -> None:
    """Launch the representatives of transforms in both directions."""
    for passes, real, packed, rounds in fft.CASES:
        forward = fft.REPRESENTATIVES[passes]
        values, pairs = random((rows, forward.length // 2), real), random((2, forward.length), packed)
        rounding = np.float32 if rounds else real
        for launcher, plan in ((fft.forward_launcher, forward), (fft.inverse_launcher, forward.turned())):
            table = cuda.to_device(plan.roots(plan is not forward).astype(packed))
            launcher(target, plan, real, rounding, packed)(pairs, values, table)
        assert np.isfinite(values.copy_to_host()).all(), (passes, real, packed)


def launch_encoders(target: Target, rows: int = 3, frequencies: int = 101) -> None:
    for format in formats.FORMATS:
        values, scales = (shape[1:] for shape in format.shapes(1, rows, frequencies))
        transforms = random((rows, 2 * formats.COMPLEX128.pitch(frequencies)), np.float64)
        # A row's tail is not written, but decoded.
        v, s = cuda.to_device(np.zeros(values, format.part)), cuda.device_array(scales, np.float64)
        encoding.encode_launcher(target, format, 0.5)(v, s, transforms)
        encoding.decode_launcher(target, format)(transforms, v, s)


def launch_sbgemv(target: Target, case: Any, chunks: int, rows: int = 11, cols: int = 21, length: int = 130) -> None:
    num_vecs = 13 if case.tile.pairs else 1
    sums = case.vector, case.result, case.accumulator
    problem = Problem(rows, cols, length, case.adjoint, case.format, *sums, num_vecs)
    values, scales = case.format.shapes(rows, cols, problem.frequencies)
    spectrum = StoredArrays(cuda.to_device(np.ones(values, case.format.part)), cuda.to_device(np.ones(scales)))
    vector, result = (
        random((problem.rows(blocks), length), dtype)
        for blocks, dtype in ((problem.reduced, case.vector), (problem.results, case.result))
    )
    launch = sbgemv_launcher(target, problem, cuda.device_array, case.tile, chunks)
    launch(result, spectrum, vector)
    assert np.isfinite(result.copy_to_host()).all(), case


# Products


def apply_products(comm: fm.Comm, shape: tuple[int, int, int], code: str, num_vecs: int = 1) -> None:
    """Apply F and F*, one vector at a time or several."""
    nm, nd, nt = shape
    config = fm.MatvecPrecisionConfig.from_code(code)
    with fm.Matrix(comm, nm, nd, nt, global_sizes=True, p_config=config) as matrix:
        matrix.init_mat_doubles()
        one = (matrix.matvec, matrix.transpose_matvec)
        products = one if num_vecs == 1 else (matrix.matmat, matrix.transpose_matmat)
        several = {} if num_vecs == 1 else {"num_vecs": num_vecs}
        x, y = (fm.Vector(comm, n, nt, s, True, **several) for n, s in ((nm, "col"), (nd, "row")))
        x.init_vec_doubles()
        for apply, operand, result in zip(products, (x, y), (y, x), strict=True):
            apply(operand, result)
            assert np.isfinite(result.gather()).all(), (shape, code, num_vecs)


def launches(comm: fm.Comm, quick: bool) -> Iterator[Callable[[], None]]:
    """Yield launches of every kernel, SBGEMV's with and without chunks; if `quick`, of double with chunks only."""
    target = comm.backend.target
    yield from (
        partial(launch, target)
        for launch in (launch_vectors, launch_substitution, launch_rows, launch_encoders, launch_transforms)
    )
    height = tensor_height()
    for label, case in cases().items():
        if getattr(case.tile, "height", 0) <= height and (not quick or label.endswith("_D")):
            yield from (partial(launch_sbgemv, target, case, chunks) for chunks in ((2,) if quick else (1, 2)))
    yield partial(apply_products, comm, SIZES[0], "ddddd")
    if quick:
        return
    for shape, code in [*product(SIZES, FORMAT_CODES), *((SIZES[-1], code) for code in MIXED_CODES)]:
        yield partial(apply_products, comm, shape, code)
    for num_vecs, code in [*product((2, 5, 16), FORMAT_CODES), (3, "sssss"), (3, "dssdd")]:
        yield partial(apply_products, comm, SIZES[-1], code, num_vecs)
    yield partial(apply_products, comm, SIZES[0], "ddddd", 3)


def every_kernel() -> set[str]:
    """Return the names of all kernels of the library."""
    modules = [
        importlib.import_module(f"{kernels.__name__}.{found.name}") for found in pkgutil.iter_modules(kernels.__path__)
    ]
    found = [getattr(module, "specialisations", dict)() for module in modules]
    return {kernel.function("cuda").__name__ for every in found for kernel in every.values()}


def watch_compilations() -> set[str]:
    """Return a set that the names of kernels join when they are compiled, as launchers do with what they run."""
    ran: set[str] = set()
    compile_kernel = Kernel.compile

    def compile_and_note(kernel: Kernel, target: str) -> Any:
        ran.add(kernel.function(target).__name__)
        return compile_kernel(kernel, target)

    Kernel.compile = compile_and_note  # type: ignore[method-assign]
    return ran


def main() -> None:
    """Run the kernels, or a part of them, and print the kernels that ran and all kernels; or run a planted bug."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bug", choices=bugs())
    parser.add_argument("--quick", action="store_true", help="a few kernels instead of all")
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("INDEX", "PARTS"))
    options = parser.parse_args()
    if options.bug:
        plant(options.bug)
        return
    import cupy

    cupy.cuda.set_allocator(None)  # no pool: every array is a separate allocation
    ran = watch_compilations()
    index, parts = options.part
    for launch in islice(launches(fm.Comm(backend="cuda"), options.quick), index, None, parts):
        launch()
    print("ran:", *sorted(ran))
    print("known:", *sorted(every_kernel()))


if __name__ == "__main__":
    main()
