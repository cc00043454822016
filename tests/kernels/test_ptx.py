"""Every specialisation compiled to PTX, which needs numba-cuda with its toolkit (extra `ptx`) but no GPU."""

from __future__ import annotations

import os
import re
from functools import cache

import numpy as np
import pytest

from numba_fftmatvec.kernels import (
    CudaNest,
    Kernel,
    elementwise,
    encoding,
    fft,
    memory,
    padding,
    pairs,
    reductions,
    sbgemv,
    substitution,
)
from numba_fftmatvec.kernels.jit import Free, cuda, pointer_type, scalar_type
from numba_fftmatvec.kernels.sbgemv.cuda import cases
from support.machines import SIMULATED

CAPABILITIES = [(8, 0), (9, 0), (10, 0)]
SPECIALISATIONS: dict[str, Kernel] = {}


@cache
def why_not() -> str:
    """Return the reason why PTX cannot be compiled here; an empty text if it can."""
    if SIMULATED:
        return "the simulator compiles nothing"
    try:
        elementwise.specialisations()["fill_constant"].ptx((9, 0))
    except Exception as error:  # numba's error without NVVM has no fixed type
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


@cache
def specialisations() -> dict[str, Kernel]:
    modules = (elementwise, encoding, fft, padding, pairs, reductions, sbgemv, substitution)
    return {name: kernel for module in modules for name, kernel in module.specialisations().items()}


def narrow_arithmetic(ptx: str) -> list[str]:
    """Return the 32-bit sums, products and shifts of a kernel, which would wrap beyond 2^31 elements.

    A 64-bit division of operands that fit into 32 bits is done in 32 bits, and its remainder by a product. Its operands
    may be shifted in 32 bits, after a test that the 64-bit ones fit. Indices within a block are small.
    """
    divided = set(re.findall(r"%r\d+", " ".join(re.findall(r"\sdiv\.u32\s+%r\d+, (.*);", ptx))))
    found, small = [], set(re.findall(r"mov\.u32\s+(%r\d+), %tid\.", ptx))
    arithmetic, others = r"(?:add|sub|mul\.lo|mad\.lo|shl)\.[sub]32", r"(?:shr|and)\.[ub]32|cvt\.u(?:64\.u32|32\.u64)"
    for step, _, result, operands in re.findall(rf"\s(?:({arithmetic})|({others}))\s+(%rd?\d+), (.*);", ptx):
        if set(re.findall(r"%rd?\d+", operands)) <= small:
            small.add(result)
        elif step and not (step.startswith("shl") and result in divided):
            found.append(step)
    for _ in re.findall(r"\sdiv\.u32\s", ptx):
        for step in ("mul.lo.s32", "sub.s32"):
            if step in found:
                found.remove(step)
    return found


def widened(ptx: str) -> set[str]:
    """Return the 32-bit sums, products and shifts of a kernel that become 64-bit numbers, but for remainders."""
    steps = re.findall(r"\s(?:add|sub|mul\.lo|mad\.lo|shl)\.[sub]32\s+(%r\d+), (.*);", ptx)
    quotients = set(re.findall(r"\sdiv\.u32\s+(%r\d+),", ptx))
    products = {result for result, operands in steps if quotients & set(re.findall(r"%r\d+", operands))}
    remainders = {result for result, operands in steps if products & set(re.findall(r"%r\d+", operands))}
    wide = r"(?:cvt\.[us]64\.[us]32|m(?:ul|ad)\.wide\.[us]32)\s+%rd\d+, (%r\d+)"
    return ({result for result, _ in steps} & set(re.findall(wide, ptx))) - remainders


def of_blocks(ptx: str) -> list[str]:
    """Return the instructions that compute with a block's number in 32 bits."""
    small, found = set(re.findall(r"mov\.u32\s+(%r\d+), %ctaid\.", ptx)), []
    for step, result, operands in re.findall(r"\s(\w+(?:\.\w+)*\.[subf]32)\s+(%r\d+), (.*);", ptx):
        if small & set(re.findall(r"%r\d+", operands)):
            small.add(result)
            found.append(step)
    return found


@pytest.fixture(autouse=True)
def _ptx() -> None:
    if why_not():
        stop = pytest.fail if os.environ.get("FFTMATVEC_REQUIRE_PTX", "0") == "1" else pytest.skip
        stop(f"needs the extra 'ptx': {why_not()}")


@pytest.mark.ptx
@pytest.mark.parametrize("capability", CAPABILITIES, ids=lambda cc: f"sm_{cc[0]}{cc[1]}")
def test_every_specialisation_compiles(capability) -> None:
    """All kernels are compiled for one capability. For the others SBGEMV is compiled in double only, to save time."""
    for name, kernel in specialisations().items():
        if capability != (9, 0) and name.startswith("sbgemv") and ("_tensor_" in name or not name.endswith("_D")):
            continue
        if capability != (9, 0) and "_pass_" in name and "3_pass_d" not in name:
            continue
        ptx = kernel.ptx(capability)
        assert f".target sm_{capability[0]}{capability[1]}" in ptx, name
        assert ".entry" in ptx, name
        assert ".local" not in ptx, f"{name} keeps something in local memory"
        # The power function takes exponents apart; its loop is that of the other maps.
        # On tensor cores the places of copies in shared memory have 32 bits, in transforms those within a pair.
        arithmetic = widened if "_tensor_" in name else of_blocks if "_pass_" in name else narrow_arithmetic
        narrow = arithmetic(ptx)
        assert name == "map_power" or not narrow, f"{name} may compute an index of 32 bits"


@pytest.mark.ptx
@pytest.mark.parametrize("name", ["sbgemv_one_forward_complex128_D", "add_DD", "forward_3_pass_dD"])
def test_kernels_of_products_wait_before_they_load(name) -> None:
    """A kernel must not read its predecessor's results as constants. Older devices have no instruction to wait."""
    ptx = specialisations()[name].ptx((9, 0))
    first, second = (ptx.index(f"griddepcontrol.{step};") for step in ("launch_dependents", "wait"))
    assert first < second < ptx.index("ld.global")
    assert name != "add_DD" or "ld.global.nc" not in ptx
    assert "griddepcontrol" not in specialisations()[name].ptx((8, 0))


@pytest.mark.ptx
def test_an_index_of_32_bits_is_found() -> None:
    def nest(out, width):
        out[np.int32(cuda.blockIdx.x * width + cuda.threadIdx.x)] = 1.0

    signature = pointer_type(np.float64), scalar_type(np.int64)
    ptx = Kernel("narrow", {"cuda": CudaNest(nest, signature)}).ptx((9, 0))
    assert narrow_arithmetic(ptx) and widened(ptx) and of_blocks(ptx)


@pytest.mark.ptx
def test_single_kernels_have_no_double_arithmetic() -> None:
    single = [name for name in specialisations() if name.endswith(("_complex64_S", "add_FF", "_ff", "_pass_fF"))]
    assert len(single) == 4 + 2 + 2
    for name in single:
        assert ".f64" not in specialisations()[name].ptx((9, 0)), name


@pytest.mark.ptx
def test_double_kernels_have_double_arithmetic() -> None:
    for name in ("sbgemv_one_forward_complex128_D", "sbgemv_several_adjoint_complex64_M", "reduce_product_sum"):
        assert ".f64" in specialisations()[name].ptx((9, 0)), name


@pytest.mark.ptx
def test_spectra_are_read_16_bytes_at_a_time() -> None:
    """One load of 16 bytes replaces the two of 8 or four of 4 that numba emits by default."""
    for stored, load in {
        "complex128": "v2.f64",
        "complex64": "v4.f32",
        "fixed32": "v4.u32",
        "fixed16": "v4.u16",
    }.items():
        for operation in ("forward", "adjoint"):
            ptx = specialisations()[f"sbgemv_one_{operation}_{stored}_D"].ptx((9, 0))
            assert f"ld.global.nc.{load}" in ptx, stored
            assert "fma.rn.f64" in ptx


@pytest.mark.ptx
@pytest.mark.parametrize(
    ("operation", "stored", "kind"),
    [
        ("forward", "complex128", "D"),
        ("adjoint", "complex64", "F"),
        ("forward", "fixed16", "D"),
    ],
)
def test_tensor_cores_multiply(operation, stored, kind) -> None:
    """The main loop has no multiply-add; copies of the spectrum have 16 bytes and bypass the first-level cache."""
    ptx = specialisations()[f"sbgemv_tensor_{operation}_{stored}_{kind}"].ptx((9, 0))
    assert "mma.sync.aligned.m16n8k8.row.col.f64.f64.f64.f64" in ptx
    assert "fma.rn.f64" not in ptx
    threads = cases()[f"sbgemv_tensor_{operation}_{stored}_{kind}"].tile.threads
    assert ".extern .shared .align 16" in ptx and f".maxntid {threads}, 1, 1" in ptx
    assert re.search(r"cp\.async\.cg\.shared\.global\.L2::128B \[%r\d+\], \[%rd\d+\], 16,", ptx)


REAL = Free("REAL")
load_four, load_shared, store = Free("load_four"), Free("load_shared"), Free("store")
copy, commit, wait_for = Free("copy"), Free("commit"), Free("wait_for")


def _accesses(out, source, count):
    shared = cuda.shared.array(64, REAL)
    copy(shared, 2, source, 6, count > 0)
    commit()
    wait_for()
    a, b = load_shared(shared, 4)
    store(out, 8, b, a)
    c = load_four(source, 12)
    store(out, 16, c[1], c[0])
    store(out, 20, c[3], c[2])


@pytest.mark.ptx
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_wide_accesses(dtype) -> None:
    """Each access has its address, its width and its values in their order; copies end before they are read."""
    size = np.dtype(dtype).itemsize
    bindings = {
        "REAL": dtype,
        "load_four": memory.load(4),
        "load_shared": memory.load_shared(2),
        "store": memory.store_two(),
        "copy": memory.copy_async(2),
        "commit": memory.commit(),
        "wait_for": memory.wait_for(3),
    }
    signature = pointer_type(dtype), pointer_type(dtype), scalar_type(np.int64)
    ptx = Kernel("accesses", {"cuda": CudaNest(_accesses, signature)}, bindings).ptx((9, 0))
    assert re.search(rf"\.shared \.align 16 \.b8 _cudapy_smem_\d+\[{64 * size}\];", ptx)
    (source,) = re.findall(rf"add\.s64\s+(%rd\d+), %rd\d+, {6 * size};", ptx)
    (to,) = re.findall(rf"add\.s64\s+(%rd\d+), %rd\d+, {2 * size};", ptx)
    (wanted,) = re.findall(rf"selp\.b32\s+(%r\d+), {2 * size}, 0, %p\d+;", ptx)
    assert f"cvta.to.shared.u64 wide, {to};" in ptx
    assert f"cp.async.ca.shared.global [to], [{source}], {2 * size}, {wanted};" in ptx
    accesses = [line for line in ptx.splitlines() if re.search(r"cp\.async|(ld|st)\.(shared|global)", line)]
    found = [re.search(r"(cp\.async\.\w+|[ls][dt]\.[\w.]+)[^+]*(?:\+(\d+)\])?", line).groups() for line in accesses]
    real = f"f{8 * size}"
    wide = [("ld.global.nc.v4.f32", 48)] if size == 4 else [("ld.global.nc.v2.f64", 96), ("ld.global.nc.v2.f64", 112)]
    assert [(name, int(at or 0)) for name, at in found] == [
        ("cp.async.ca", 0),
        ("cp.async.commit_group", 0),
        ("cp.async.wait_group", 0),
        (f"ld.shared.v2.{real}", 4 * size),
        (f"st.global.v2.{real}", 8 * size),
        *wide,
        (f"st.global.v2.{real}", 16 * size),
        (f"st.global.v2.{real}", 20 * size),
    ]
    assert "cp.async.wait_group 3;" in ptx
    loaded, stored = (
        re.findall(r"%fd?\d+", "".join(line for line in accesses if f"\t{kind}." in line)) for kind in ("ld", "st")
    )
    assert stored == [loaded[i] for i in (1, 0, 3, 2, 5, 4)]
