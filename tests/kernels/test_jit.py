"""The specialisation of kernels: free names, their values, and the distinct names of specialisations."""

from __future__ import annotations

import errno
import os
import runpy
import types
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from numba import float64, int64, prange
from numba.core import caching

from numba_fftmatvec.kernels import elementwise, encoding, fft, jit, padding, pairs, reductions, sbgemv, substitution
from numba_fftmatvec.kernels.free import constants, free_names, identity, specialise
from numba_fftmatvec.kernels.jit import Called, CpuNest, Free, Kernel, Target, array_type
from support.machines import INTERPRETED, SIMULATED

formula, FACTOR, zeros = Free("formula"), Free("FACTOR"), Free("zeros")
SIGNATURE = array_type(np.float64, 1), float64


def _fill(out, value):
    for i in prange(out.shape[0]):
        out[i] = formula(value)


def _multiply(value):
    return FACTOR * value


def _negate(value):
    return -value


CONSTANT = 1.0


def _scaled(value):
    return CONSTANT * value


def _nested(out, value):
    def inner():
        return FACTOR

    out[:] = inner() + np.zeros(1) + value


def kernel(*, called: bool = False, **bindings) -> Kernel:
    inner = bindings.pop("formula", _multiply)
    return Kernel(
        "test", {"cpu": CpuNest(_fill, SIGNATURE)}, {"formula": Called(inner) if called else inner, **bindings}
    )


def filled(kernel: Kernel) -> list[float]:
    out = np.zeros(3)
    kernel.launcher(Target("cpu"))(out, 2.0)
    return out.tolist()


@pytest.mark.parametrize("called", [False, True])
def test_formulas_are_bound_to_loop_nests_and_constants_to_formulas(called) -> None:
    assert filled(kernel(FACTOR=1.5, called=called)) == [3.0] * 3
    assert filled(kernel(formula=_negate, called=called)) == [-2.0] * 3


def test_free_names_are_globals_that_are_read_in_nested_functions_too() -> None:
    assert free_names(_nested) == {"FACTOR"}  # and not `zeros`, which is an attribute here


@pytest.mark.parametrize("nest", [_multiply, _nested])
def test_an_unbound_name_is_refused(nest) -> None:
    with pytest.raises(NameError, match=f"{nest.__name__}: expected a binding of the free name 'FACTOR', found none"):
        specialise(nest, "test", {}, lambda formula, called: formula)


def test_a_name_that_only_a_formula_leaves_free_is_refused_too() -> None:
    with pytest.raises(NameError, match="_multiply: expected a binding of the free name 'FACTOR', found none"):
        kernel().function("cpu")


def test_a_binding_that_nothing_uses_is_refused() -> None:
    with pytest.raises(NameError, match="_fill: expected bindings of free names only, found FACTOR, zeros"):
        kernel(formula=_negate, FACTOR=1.0, zeros=2).function("cpu")


def test_names_tell_specialisations_apart() -> None:
    """Numba's disk cache distinguishes specialisations by their names only."""
    kernels = [
        kernel(FACTOR=1.5),
        kernel(FACTOR=2.5),
        kernel(FACTOR=np.float32(1.5)),
        kernel(FACTOR=1.5, called=True),
        kernel(formula=_negate),
        Kernel("test", {"cpu": CpuNest(_fill, (SIGNATURE[0], int64))}, {"formula": _negate}),
    ]
    assert len({each.function("cpu").__name__ for each in kernels}) == len(kernels)
    assert kernel(FACTOR=1.5).function("cpu").__name__ == kernels[0].function("cpu").__name__


def test_names_have_no_addresses() -> None:
    """Each process has other addresses, so it would not find the files of another."""
    assert identity(SimpleNamespace()) == ("SimpleNamespace", None)
    assert identity(None) is None


INTRINSIC = """
from numba.extending import intrinsic
from numba import types

@intrinsic
def add(context, x):
    return types.float64(x), lambda context, builder, signature, arguments: builder.{}(arguments[0], arguments[0])
"""


def test_names_follow_the_source_of_intrinsics(tmp_path: Path) -> None:
    """An intrinsic is in another module than the loop nest, whose file alone numba's disk cache compares."""
    names = []
    for number, instruction in enumerate(("fadd", "fmul", "fadd")):
        file = tmp_path / f"intrinsic{number}.py"
        file.write_text(INTRINSIC.format(instruction))
        module = runpy.run_path(str(file))
        names.append(kernel(formula=module["add"]).function("cpu").__name__)
    assert names[0] == names[2] != names[1]


def test_names_follow_the_source_of_what_intrinsics_use(tmp_path: Path) -> None:
    """Butterflies are functions of another module than the passes that consist of them."""
    names = []
    for instruction in ("fadd", "fmul"):
        used = tmp_path / instruction / "used.py"
        used.parent.mkdir()
        used.write_text(f"def emit(builder, x):\n    return builder.{instruction}(x, x)\n")
        file = used.parent / "intrinsic.py"
        file.write_text(INTRINSIC.format("fadd"))
        intrinsic = runpy.run_path(str(file), {"emit": runpy.run_path(str(used))["emit"]})["add"]
        names.append(kernel(formula=intrinsic).function("cpu").__name__)
    assert names[0] != names[1]


@pytest.mark.parametrize("called", [False, True])
def test_names_follow_the_constants_of_other_modules(called: bool) -> None:
    """A loop nest or a formula may read a constant of a third module, which the compiler copies."""

    def name(value: float) -> str:
        formula = types.FunctionType(_scaled.__code__, {**_scaled.__globals__, "CONSTANT": value}, "_scaled")
        return kernel(formula=Called(formula) if called else formula).function("cpu").__name__

    assert name(1.0) == name(1.0) != name(2.0)
    assert constants(_scaled) == [("CONSTANT", 1.0)]
    assert constants(_fill) == []


def test_limits_of_a_launch() -> None:
    """Reductions halve the threads of a block; CUDA's grids have up to 65,535 blocks along y."""
    assert jit.THREADS.bit_count() == 1
    assert jit.MAX_GRID_Y == 65535
    assert all(threads % 32 == 0 < elements for threads, elements in elementwise.MAP_SHAPES.values())
    assert Target("cuda").stream == 0  # the default stream


@pytest.fixture
def without_warning():
    jit._warn_without_cache.cache_clear()
    yield
    jit._warn_without_cache.cache_clear()


@pytest.mark.skipif(INTERPRETED, reason="the interpreter has no cache")
@pytest.mark.usefixtures("without_warning")
@pytest.mark.parametrize("place", ["nowhere", "a full disk"])
def test_kernels_compile_where_no_folder_can_hold_the_disk_cache(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def fail(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if place == "nowhere":
        monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    else:
        monkeypatch.setattr(caching.IndexDataCacheFile, "save", fail)
        monkeypatch.setattr(caching.IndexDataCacheFile, "load", lambda *arguments: None)
    with pytest.warns(UserWarning, match="found none.*NUMBA_CACHE_DIR names such a folder") as found:
        results = [filled(kernel(FACTOR=factor)) for factor in (3.25, 3.5)]
    assert results == [[6.5] * 3, [7.0] * 3]
    assert len(found) == 1


def test_an_error_of_the_compiler_is_no_error_of_the_disk_cache() -> None:
    calls = []

    def compiled(cache):
        calls.append(cache)
        raise RuntimeError("expected a compiler, found none")

    with pytest.raises(RuntimeError, match="expected a compiler"):
        jit._cached_on_disk(compiled)
    assert calls == [True]


@pytest.mark.skipif(not SIMULATED, reason="CUDA's intrinsics need numba-cuda, or the simulator")
def test_every_specialisation_binds_its_free_names() -> None:
    kernels = [
        kernel
        for module in (elementwise, encoding, fft, padding, pairs, reductions, sbgemv, substitution)
        for kernel in module.specialisations().values()
    ]
    for kernel in kernels:
        for target, nest in kernel.nests.items():
            kernel.function(target)
            assert len(nest.signature) == nest.template.__code__.co_argcount, kernel.name
    assert len({kernel.function("cuda").__name__ for kernel in kernels}) > 100


def test_a_missing_cuda_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "cuda", None)
    monkeypatch.setattr(jit, "_CUDA_ERROR", "ImportError: no libraries", raising=False)
    with pytest.raises(RuntimeError, match="expected an importable numba.cuda, found ImportError: no libraries"):
        jit.require_cuda()


@pytest.mark.skipif(SIMULATED, reason="the simulator has no registers")
@pytest.mark.parametrize(
    ("registers", "threads", "blocks"),
    [
        (16, 256, 8),
        (40, 64, 25),
        (41, 64, 21),
        (255, 256, 1),
        (32, 33, 32),
        (168, 96, 4),
        (200, 512, 1),
        (32, 1024, 2),
        (128, 33, 8),
    ],
)
def test_resident_blocks(monkeypatch: pytest.MonkeyPatch, registers: int, threads: int, blocks: int) -> None:
    """An H100 multiprocessor has 65536 registers, dealt by eight to each thread of a warp, for 2048 threads.

    Of its 228 KiB of shared memory the system takes one for each block.
    """
    device = SimpleNamespace(
        MAX_REGISTERS_PER_MULTIPROCESSOR=65536,
        MAX_THREADS_PER_MULTIPROCESSOR=2048,
        MAX_BLOCKS_PER_MULTIPROCESSOR=32,
        MAX_SHARED_MEMORY_PER_MULTIPROCESSOR=228 << 10,
        MULTIPROCESSOR_COUNT=132,
    )
    monkeypatch.setattr(jit, "cuda", SimpleNamespace(get_current_device=lambda: device))
    kernel = SimpleNamespace(overloads={"signature": SimpleNamespace(regs_per_thread=registers)})
    assert jit.resident_blocks(kernel, threads) == 132 * blocks
    for held in range(1, blocks + 1):
        assert jit.resident_blocks(kernel, threads, (228 << 10) // held - 1024) == 132 * held
        assert jit.resident_blocks(kernel, threads, (228 << 10) // held - 1023) == 132 * (held - 1 or 1)


@pytest.mark.skipif(SIMULATED, reason="the simulator launches in another way")
def test_compiled_kernels_are_launched_directly() -> None:
    launches = []

    class Compiled:
        overloads: ClassVar = {"signature": SimpleNamespace(launch=lambda *arguments: launches.append(arguments))}

        def __getitem__(self, shape: tuple[object, ...]) -> SimpleNamespace:
            blocks, threads, stream, _ = shape
            assert all(type(n) is int for n in blocks)
            return SimpleNamespace(griddim=(*blocks, 1, 1)[:3], blockdim=(threads, 1, 1), stream=stream)

    jit.configure(Compiled(), "stream", (np.int64(3), 2), 64)((1.0, 2.0))
    assert launches == [((1.0, 2.0), (3, 2, 1), (64, 1, 1), "stream", 0)]


def test_arrays_of_another_rank_or_size_are_refused() -> None:
    values = np.zeros((2, 3))
    jit.check(values, np.float64, (2, None), "values")
    for shape in ((2,), (2, 3, None), (3, 3), (None, 2)):
        with pytest.raises(ValueError, match=r"values: expected shape .*, found \(2, 3\)") as error:
            jit.check(values, np.float64, shape, "values")
        assert f"expected shape {tuple(n or 'any' for n in shape)}," in str(error.value)
    with pytest.raises(TypeError, match="values: expected dtype float32, found float64"):
        jit.check(values, np.float32, (2, 3), "values")


@pytest.mark.parametrize(("a", "b", "quotient"), [(0, 4, 0), (1, 4, 1), (4, 4, 1), (5, 4, 2), (8, 4, 2), (9, 4, 3)])
def test_division_rounds_up(a: int, b: int, quotient: int) -> None:
    assert jit.ceil_div(a, b) == quotient
