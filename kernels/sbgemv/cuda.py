"""SBGEMV on CUDA: the launcher, the kernel that adds the sums of chunks, and the specialisations.

There are two loop nests: `gemv` for one right-hand side, `gemm` for several. A thread owns a few frequencies of a few
rows of the result and walks along the sum. Neighbouring threads own neighbouring frequencies, so both F and F* read the
spectrum once, by wide, coalesced loads. If the results are too few to fill the device, the sum is split into chunks,
and a second kernel adds their sums in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ..formats import COMPLEX64, FORMATS, Format, StoredArrays
from ..jit import (
    MAX_GRID_Y,
    THREADS,
    CudaNest,
    Free,
    Kernel,
    Target,
    cached_kernel,
    ceil_div,
    compute_capability,
    configure,
    cuda,
    pointer,
    pointer_type,
    resident_blocks,
    scalar_type,
)
from ..memory import load, store_two
from ..overlap import follow as follow_kernel
from ..overlap import overlaps
from ..tensor import HEIGHTS
from .gemm import gemm_nest
from .gemv import gemv_nest
from .mma import mma_nest
from .problem import Problem
from .tiles import (
    FEW_ROWS,
    MAX_GROUPS,
    MAX_PAIRS,
    TENSOR_TILES,
    TILES,
    TensorTile,
    Tile,
    choose_chunks,
    choose_tile,
    few_rows_tile,
)

OUT, ZERO = Free("OUT"), Free("ZERO")
load_two, store, follow = Free("load_two"), Free("store"), Free("follow")


def _add_cuda(result, parts, rows, length, result_pitch, chunks):
    follow()
    k = np.int64(cuda.blockIdx.x) * cuda.blockDim.x + cuda.threadIdx.x
    row = np.int64(cuda.blockIdx.y)
    if k >= length:
        return
    while row < rows:
        real = imag = ZERO
        for part in range(chunks):
            y = load_two(parts, 2 * ((part * rows + row) * length + k))
            real += y[0]
            imag += y[1]
        store(result, 2 * (row * result_pitch + k), OUT(real), OUT(imag))
        row += cuda.gridDim.y


def _real(dtype: Any) -> Any:
    return np.dtype(dtype).type(0).real.dtype


@cached_kernel
def sbgemv_kernel(
    format: Format, vector: Any, result: Any, accumulator: Any, adjoint: bool, tile: Tile | TensorTile
) -> Kernel:
    """Return the kernel for a format, complex dtypes, an operation and a tile."""
    real, out, values = (_real(dtype) for dtype in (accumulator, result, vector))
    bindings: dict[str, Any] = {
        "REAL": real.type,
        "OUT": out.type,
        "ZERO": real.type(0),
        "SIGN": real.type(-1 if adjoint else 1),
        "SCALED": format.is_fixed,
        "store": store_two(),
        "follow": follow_kernel(),
    }
    kinds = "".join(np.dtype(dtype).char for dtype in (vector, result, accumulator))
    pointers = [pointer_type(dtype) for dtype in (out, format.part, np.float64, values)]
    if isinstance(tile, TensorTile):
        nest = mma_nest(tile, format.part, values, pointers)
    else:
        bindings |= {"ROWS": tile.rows, "LANES": tile.threads, "LAYERS": tile.layers}
        nest = gemm_nest(tile, format.part, values, pointers) if tile.pairs else gemv_nest(tile, real, pointers)
    return Kernel(f"{'adjoint' if adjoint else 'forward'}_{format.name}_{kinds}", {"cuda": nest}, bindings)


@cached_kernel
def add_kernel(parts: Any, result: Any) -> Kernel:
    """Return the kernel that adds the sums of chunks."""
    real, out = _real(parts), _real(result)
    bindings = {
        "ZERO": real.type(0),
        "OUT": out.type,
        "load_two": load(2, constant=False),
        "store": store_two(),
        "follow": follow_kernel(),
    }
    signature = pointer_type(out), pointer_type(real), *[scalar_type(np.int64)] * 4
    nests = {"cuda": CudaNest(_add_cuda, signature)}
    return Kernel(f"{np.dtype(parts).char}{np.dtype(result).char}", nests, bindings)


def launcher(
    target: Target,
    problem: Problem,
    allocate: Callable[..., Any],
    tile: Tile | TensorTile | None = None,
    chunks: int | None = None,
) -> Callable[[Any, StoredArrays, Any], None]:
    """Compile and return the launcher; see `sbgemv_launcher`."""
    tile = tile or choose_tile(problem, tensor_height())
    vector, result, sums = (np.dtype(d) for d in (problem.vector, problem.result, problem.accumulator))
    on_tensor_cores = isinstance(tile, TensorTile)
    block = (tile.threads, 1 if on_tensor_cores else tile.layers)
    shared = tile.shared(problem.format.part, _real(vector)) if isinstance(tile, TensorTile) else 0
    split = sbgemv_kernel(problem.format, vector, sums, sums, problem.adjoint, tile)
    if chunks is None:
        chunks = choose_chunks(problem, tile, resident_blocks(split.compile(target.name), math.prod(block), shared))
    terms = problem.reduced if tile.pairs else ceil_div(problem.reduced, 2)
    step = tile.terms if isinstance(tile, TensorTile) else 1
    chunk = ceil_div(ceil_div(terms, chunks), step) * step
    chunks = ceil_div(terms, chunk)
    pairs = ceil_div(problem.num_vecs, 2)
    grid = tile.blocks(problem), chunks, tile.groups_of_pairs(problem)
    whole = sbgemv_kernel(problem.format, vector, result, sums, problem.adjoint, tile)
    multiplying = (split if chunks > 1 else whole).compile(target.name)
    early = overlaps(problem.nd, problem.nm, problem.frequencies)
    multiply = configure(multiplying, target.stream, grid, block, shared, early)
    scales = max(1, problem.format.scales(problem.frequencies))
    rows = problem.rows(problem.results)
    parts = allocate((chunks, rows, problem.length), sums) if chunks > 1 else None
    if chunks > 1:
        add_grid = ceil_div(problem.length, THREADS), min(rows, MAX_GRID_Y)
        adding = add_kernel(sums, result).compile(target.name)
        add = configure(adding, target.stream, add_grid, THREADS, 0, early)

    more = (pairs,) if tile.pairs else ()
    aligned = 2 * tile.piece(problem.format.part) if isinstance(tile, TensorTile) else 2

    def launch(out: Any, spectrum: StoredArrays, operand: Any) -> None:
        problem.check(out, spectrum, operand)
        if spectrum.values.shape[2] % aligned:
            width = spectrum.values.shape[2]
            raise ValueError(f"spectrum: expected runs of a multiple of {aligned} parts, found {width}")
        steps = [(problem.nm * run, run) for run in (spectrum.values.shape[2], scales)]
        (row_step, term_step), (row_scales, term_scales) = (s[::-1] if problem.adjoint else s for s in steps)
        sums_of, pitch = (out, out.shape[1]) if parts is None else (parts, problem.length)
        sizes = (problem.results, problem.reduced, problem.frequencies, problem.length)
        strides = (row_step, term_step, row_scales, term_scales, operand.shape[1], pitch)
        arrays = (sums_of, spectrum.values, spectrum.scales, operand)
        multiply((*map(_pointer, arrays), *map(np.int64, (*sizes, *strides, chunk, *more))))
        if parts is not None:
            add((_pointer(out), _pointer(parts), *map(np.int64, (rows, problem.length, out.shape[1], chunks))))

    return launch


def provider(problem: Problem) -> str:
    """Return the units that multiply several right-hand sides, to print; an empty text for one."""
    if problem.num_vecs == 1:
        return ""
    return (
        "on tensor cores" if isinstance(choose_tile(problem, tensor_height()), TensorTile) else "without tensor cores"
    )


def tensor_height() -> int:
    """Return the rows of the current device's instructions on tensor cores; 0 if SBGEMV does without them."""
    return HEIGHTS.get(compute_capability(), 0)


def _pointer(array: Any) -> Any:
    return pointer(array, _real(array.dtype))


class Case(NamedTuple):
    """The arguments of `sbgemv_kernel`."""

    format: Format
    vector: Any
    result: Any
    accumulator: Any
    adjoint: bool
    tile: Tile | TensorTile


def cases() -> dict[str, Case]:
    """Return the cases of every loop nest, format and combination of dtypes, on a few tiles, by name."""
    double: Any = np.dtype(np.complex128)
    single: Any = np.dtype(np.complex64)
    dtypes: dict[str, tuple[Any, Any, Any]] = {
        "D": (double, double, double),
        "F": (single, single, double),
        "M": (double, single, double),
        "S": (single, single, single),
        "W": (single, double, single),
    }
    tiles = {
        "one": TILES,
        "layers": dict.fromkeys(FORMATS, Tile(2, 32, layers=4)),
        "few": {format: few_rows_tile(format, FEW_ROWS) for format in FORMATS},
        "several": dict.fromkeys(FORMATS, Tile(5, 32, layers=8, pairs=MAX_PAIRS, groups=MAX_GROUPS, stages=5)),
        "tensor": {format: TENSOR_TILES[format, 2] for format in FORMATS},
    }
    found = {}
    for format, adjoint, kind, (name, tile) in product(FORMATS, (False, True), dtypes, tiles.items()):
        if name == "tensor" and kind != ("F" if format == COMPLEX64 else "D"):
            continue
        if (kind in "SW") <= (format == COMPLEX64) and (kind == "D" or name in ("one", "several", "tensor")):
            label = f"sbgemv_{name}_{'adjoint' if adjoint else 'forward'}_{format.name}_{kind}"
            vector, result, sums = dtypes[kind]
            found[label] = Case(format, vector, result, sums, adjoint, tile[format])
    return found


def specialisations() -> dict[str, Kernel]:
    """Return kernels that this module can launch, by name: those of `cases`, and those that add chunks."""
    kernels = {label: sbgemv_kernel(*case) for label, case in cases().items()}
    for parts, result in product("DF", repeat=2):
        kernels[f"add_{parts}{result}"] = add_kernel(parts, result)
    return kernels
