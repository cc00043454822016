"""Memory of a device and of the host after many products, and after many Comms."""

from __future__ import annotations

import gc
import resource
from pathlib import Path

import pytest
from mpi4py import MPI

import numba_fftmatvec as fm

pytestmark = pytest.mark.gpu

SIZES = (100, 10, 100)  # Nm, Nd, Nt


def device_bytes() -> int:
    """Return the device memory that is in use, by all programs."""
    import cupy

    cupy.get_default_memory_pool().free_all_blocks()
    free, total = cupy.cuda.runtime.memGetInfo()
    return int(total - free)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_products() -> None:
    with fm.Comm(MPI.COMM_SELF, backend="cuda") as comm, fm.Matrix(comm, *SIZES, global_sizes=True) as F:
        F.init_mat_doubles()
        x, y = F.get_vec("input"), F.get_vec("output")
        x.init_vec_doubles()

        def run(count: int) -> tuple[int, int]:
            for _ in range(count):
                F.matvec(x, y)
                F.transpose_matvec(y, x)
                x.scale(1e-3)
            comm.synchronize()
            gc.collect()
            return device_bytes(), resident_bytes()

        device, host = run(1000)
        after_device, after_host = run(50_000)
    assert after_device == device
    assert after_host - host < 1 << 20


def test_comms() -> None:
    def cycle() -> None:
        with fm.Comm(MPI.COMM_SELF, backend="cuda") as comm, fm.Matrix(comm, *SIZES, global_sizes=True) as F:
            F.init_mat_doubles()
            x = F.get_vec("input")
            x.init_vec_doubles()
            for _ in range(3):  # eager, recorded, replayed
                y = F @ x
        y.close()

    def cycles(count: int) -> int:
        for _ in range(count):
            cycle()
        gc.collect()
        return device_bytes()

    before = cycles(20)
    assert cycles(1000) == before
