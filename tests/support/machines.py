"""The targets of kernel tests, and the transfer of arrays to them.

With NUMBA_ENABLE_CUDASIM=1 the CUDA kernels run in numba's simulator, on NumPy arrays; without it on the CPU and, with
the mark `gpu`, on a device. With FFTMATVEC_INTERPRET=1 the CPU's loop nests run in the Python interpreter.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numba_fftmatvec.kernels import Target, pocketfft, transforms
from numba_fftmatvec.kernels.formats import RUN, TILE, Format
from numba_fftmatvec.kernels.jit import CpuNest, clear, require_cuda
from numba_fftmatvec.kernels.lanes import Block
from numba_fftmatvec.kernels.sbgemv import cpu

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") == "1"
INTERPRETED = os.environ.get("FFTMATVEC_INTERPRET", "0") == "1"
CUDA_TARGETS = ["simulator"] if SIMULATED else [pytest.param("cuda", marks=pytest.mark.gpu)]
TARGETS = CUDA_TARGETS if SIMULATED else ["cpu", *CUDA_TARGETS]


class Machine:
    """A target, with the transfer of NumPy arrays to it and back."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.target = Target("cpu" if name == "cpu" else "cuda")

    def put(self, array: np.ndarray) -> Any:
        return array if self.name == "cpu" else require_cuda().to_device(array)

    def get(self, array: Any) -> np.ndarray:
        return array if self.name == "cpu" else array.copy_to_host()

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self.put(np.full(shape, np.nan, dtype))

    def run(self, launch: Callable[..., None], out: np.ndarray, *arguments: Any) -> np.ndarray:
        """Launch into a copy of `out` and return it."""
        result = self.put(out.copy())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "overflow", RuntimeWarning)  # hashes wrap; the simulator's scalars warn
            launch(result, *[self.put(a) if isinstance(a, np.ndarray) else a for a in arguments])
        return self.get(result)


def block_product(block: Block, format: Format, adjoint: bool, width: int) -> Callable[..., None]:
    """Return the Python function for the intrinsic of the same name."""
    rows, terms = (block.right, block.down) if adjoint else (block.down, block.right)

    def add(
        sums: Any, v: int, row: int, values: Any, scales: Any, d: int, tile: int, m: int, vectors: Any, term: int
    ) -> None:
        assert min(v, row, term) >= 0 and v + block.vecs <= len(sums) == len(vectors)
        assert row + rows <= sums.shape[2] and term + terms <= vectors.shape[2]
        for i, j in np.ndindex(rows, terms):
            place = (d + j, m + i) if adjoint else (d + i, m + j)
            scale = scales[place[0], tile * TILE // RUN, place[1]] if format.is_fixed else 1.0
            factor = (values[place[0], tile, place[1]] * np.float64(scale)).view(np.complex128)
            for each in range(v, v + block.vecs):
                value = vectors[each, tile, term + j].view(np.complex128)
                sums[each, tile, row + i] += ((factor.conj() if adjoint else factor) * value).view(np.float64)

    return add


def block_prefetch(down: int, right: int, itemsize: int) -> Callable[..., None]:
    """Return the Python function for the intrinsic of the same name, which checks the block."""

    def prefetch(values: Any, d: int, tile: int, m: int) -> None:
        assert 0 <= d <= len(values) - down and tile < values.shape[1] and m + right <= values.shape[2]

    return prefetch


def rows_transform(kind: str) -> Callable[..., None]:
    """Return the Python function for the intrinsic of the same name."""

    def transform(address: int, data: int, source: Any, width: int, destination: Any, result: int, rows: int) -> None:
        reals = (width, 2 * result) if kind == "rfft" else (2 * width, result)
        assert rows <= min(len(source), len(destination))
        assert reals[0] <= source.shape[1] and reals[1] <= destination.shape[1]
        pocketfft.run_loop(kind, pocketfft.Loop(address, data), source, width, destination, result, rows)

    return transform


def interpret(patch: pytest.MonkeyPatch) -> None:
    """Run the CPU's loop nests as Python functions: NumPy checks every index, and a tracer sees every line."""
    patch.setattr(CpuNest, "compile_formula", staticmethod(lambda formula, called: formula))
    patch.setattr(CpuNest, "compile", lambda nest, function: function)
    patch.setattr(cpu, "block_product", block_product)
    patch.setattr(cpu, "block_prefetch", block_prefetch)
    patch.setattr(transforms, "rows_transform", rows_transform)
    clear()


def run_kernel_tests(names: list[str], **environment: str) -> int:
    """Run files of kernel tests in another process, with environment variables; return the number that passed."""
    folder = Path(__file__).resolve().parents[1] / "kernels"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(folder / name) for name in names)]
    run = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None
    return int(passed.group(1))
