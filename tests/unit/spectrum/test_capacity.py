"""Memory of a matrix: refused sizes, counted bytes, and the memory that a rank may use."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import numba_fftmatvec as fm
from numba_fftmatvec.backends.cores import Place
from numba_fftmatvec.backends.cpu.memory import available_bytes
from numba_fftmatvec.spectrum import capacity
from support.harness import run_ranks
from support.spectra import BACKENDS, CODES, ND, NM, NT, STORED, F, G, check_product, matrix_of

# Refused sizes


def free_bytes_for(matrix: Any, code: str, fraction: float = 1.0) -> int:
    """Return what the set-up needs, and a part of the spectrum in a format."""
    layout = matrix.layout
    setup = len(capacity.column_pieces(layout)[0]) * capacity.column_bytes(layout)
    return setup + int(fraction * STORED[code].nbytes(layout.nd, layout.nm, layout.frequencies))


def test_a_matrix_that_cannot_fit_is_refused(comm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes before any allocation and lists the alternatives that fit."""
    matrix = fm.Matrix(comm, NM, ND, NT, global_sizes=True)
    free = free_bytes_for(matrix, "ddidd")
    monkeypatch.setattr(comm.backend, "free_bytes", lambda: free)
    monkeypatch.setattr("numba_fftmatvec.matrix.values.Spectrum", None)
    with pytest.raises(fm.CapacityError) as caught:
        matrix.init_mat_ones()
    message = str(caught.value)
    assert isinstance(caught.value, MemoryError)
    assert f"at most the {free} bytes" in message
    assert f"a need of {free_bytes_for(matrix, 'ddddd')}" in message
    assert "as DOUBLE" in message
    for name, code in (("SINGLE", "ddsdd"), ("FIXED32", "ddidd"), ("FIXED16", "ddhdd")):
        assert f"{name} ({free_bytes_for(matrix, code)} bytes)" in message
    assert "DOUBLE (" not in message
    assert "at least 2 ranks" in message


@pytest.mark.parametrize(
    ("free", "fits"), [(("ddddd", 1.0), True), (("ddddd", 0.999), False), (("ddhdd", 0.01), False), (None, True)]
)
def test_the_bound_is_what_is_needed(
    comm: Any, monkeypatch: pytest.MonkeyPatch, free: tuple[str, float] | None, fits: bool
) -> None:
    matrix = fm.Matrix(comm, NM, ND, NT, global_sizes=True)
    available = None if free is None else free_bytes_for(matrix, *free)
    monkeypatch.setattr(comm.backend, "free_bytes", lambda: available)
    if fits:
        matrix.init_mat_ones()
    else:
        with pytest.raises(fm.CapacityError, match="alternatives that fit"):
            matrix.init_mat_ones()
    assert matrix.is_initialized() == fits


def test_nothing_may_fit(comm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comm.backend, "free_bytes", lambda: 7)
    with pytest.raises(fm.CapacityError, match="alternatives that fit: none"):
        matrix_of(comm)


def test_present_values_stay_where_new_ones_do_not_fit(comm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = matrix_of(comm)
    monkeypatch.setattr(comm.backend, "free_bytes", lambda: free_bytes_for(matrix, "ddddd", 0.5))
    with pytest.raises(fm.CapacityError):
        matrix.init_mat_from_array(G, aux_mat=True)
    assert not matrix.has_aux_mat()
    check_product(matrix, F)
    matrix.init_mat_from_array(G)  # in place: the set-up alone needs memory
    check_product(matrix, G)
    monkeypatch.setattr(comm.backend, "free_bytes", lambda: 7)
    with pytest.raises(fm.CapacityError):
        matrix.init_mat_from_array(F)
    check_product(matrix, G)


@pytest.mark.parametrize("code", CODES)
def test_a_petabyte_is_refused_at_once(comm: Any, code: str) -> None:
    """This test uses the machine's real memory."""
    matrix = fm.Matrix(comm, 10**6, 10**4, 62_500, global_sizes=True, p_config=fm.MatvecPrecisionConfig.from_code(code))
    for fill in (matrix.init_mat_ones, matrix.init_mat_doubles):
        with pytest.raises(fm.CapacityError, match="ranks with as much memory each"):
            fill()
    assert not matrix.is_initialized()


def refusals(case: tuple[str, tuple[int, int]]) -> list[tuple[str, str, bool]]:
    """Return each error's type and message and whether the matrix has values, on one rank of a grid."""
    backend, grid = case
    with fm.Comm(MPI.COMM_WORLD, *grid, backend=backend, collectives="mpi") as comm:
        matrix = fm.Matrix(comm, NM, ND, NT, global_sizes=True, p_config=fm.MatvecPrecisionConfig.from_code("ddhdd"))
        values = F.copy()
        values[ND - 1, NM - 1, 0] = np.nan  # of the last rank only
        found = []

        def attempt(blocks: Any) -> None:
            try:
                matrix.init_mat_from_array(blocks)
            except fm.FFTMatvecError as error:
                found.append((type(error).__name__, str(error), matrix.is_initialized()))

        matrix.init_mat_ones()
        if comm.world_rank == comm.world_size - 1:
            comm.backend.free_bytes = lambda: 7
        attempt(F)
        comm.backend.free_bytes = lambda: None
        attempt(values)
        matrix.init_mat_from_array(F)
    return found


@pytest.mark.mpi
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_rank_raises_what_one_meets(backend: str) -> None:
    first, *others = run_ranks(4, "unit.spectrum.test_capacity:refusals", (backend, (2, 2)), timeout=240)
    assert others == [first] * 3
    (capacity, _, kept), (nonfinite, message, left) = first
    assert (capacity, kept) == ("CapacityError", True)
    assert (nonfinite, left) == ("NonFiniteError", False)
    assert f"block (row {ND - 1}, column {NM - 1})" in message


# Counted bytes


@pytest.mark.parametrize("code", CODES)
def test_memory_usage(comm: Any, code: str) -> None:
    matrix = fm.Matrix(comm, NM, ND, NT, global_sizes=True, p_config=fm.MatvecPrecisionConfig.from_code(code))
    assert (matrix.memory_usage().spectra, matrix.memory_usage().workspace) == (0, 0)
    matrix.init_mat_from_array(F)
    usage = matrix.memory_usage()
    stored = STORED[code]
    run = 2 * stored.pitch(NT + 1) * stored.part.itemsize + (8 if stored.is_fixed else 0)
    assert usage.spectra == matrix.nbytes == ND * NM * run
    # At least the padded columns and rows, as pairs or one by one.
    assert usage.workspace >= 8 * 2 * NT * (NM + ND)
    assert usage.plans == comm.backend.plan_bytes() >= 0
    assert usage.total == usage.spectra + usage.workspace + usage.plans
    matrix.init_mat_from_array(G, aux_mat=True)
    assert matrix.memory_usage().spectra == 2 * usage.spectra
    assert matrix.memory_usage().workspace >= usage.workspace
    matrix.close()
    with pytest.raises(fm.ClosedError):
        matrix.memory_usage()


@pytest.mark.gpu
def test_peak_memory_of_a_gpu() -> None:
    """The memory of set-up and products stays within a tenth of the stored bytes."""
    nd, nm, nt = 60, 2000, 1000
    with fm.Comm(MPI.COMM_SELF, backend="cuda") as comm:
        comm.backend.trim()
        before = comm.backend.peak_bytes()
        blocks = np.random.default_rng(0).standard_normal((nm, nt))
        matrix = fm.Matrix(comm, nm, nd, nt, global_sizes=True)
        matrix.init_mat_from_array(lambda d: blocks)
        x, y = matrix.get_vec("input"), matrix.get_vec("output")
        x.init_vec_ones()
        matrix.matvec(x, y)
        assert np.linalg.norm(y.gather()[:, -1] - blocks.sum()) <= 1e-12 * abs(blocks).sum()
        stored = matrix.nbytes + 8 * nt * (nm + nd)
        assert comm.backend.peak_bytes() - before <= 1.1 * stored
        assert comm.backend.peak_bytes() - before >= matrix.memory_usage().spectra


@pytest.mark.gpu
def test_plans_are_shared() -> None:
    """Matrices of one size and precision share plans, which are freed with the last matrix."""
    with fm.Comm(MPI.COMM_SELF, backend="cuda") as comm:
        one = matrix_of(comm)
        lane = comm.backend.queue(recorded=True).lane(0)
        plans = set(map(id, lane.plans.values()))
        other = matrix_of(comm, G)
        assert plans and set(map(id, lane.plans.values())) == plans
        one.close()
        check_product(other, G)
        other.close()
        gc.collect()
        assert not lane.plans


@pytest.mark.gpu
def test_free_bytes_of_a_gpu() -> None:
    with fm.Comm(MPI.COMM_SELF, backend="cuda") as comm:
        comm.backend.trim()
        free = comm.backend.free_bytes()
        held = comm.backend.zeros((1 << 27,), np.uint8)
        assert free - comm.backend.free_bytes() >= 1 << 26  # others may use the GPU too
        del held
        assert comm.backend.free_bytes() >= free - (1 << 26)  # the pool's unused blocks count


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal:  2000 kB\nMemAvailable:   1000 kB\n"}
V2 = {"proc/self/cgroup": "0::/job/step\n"}
V1 = {"proc/self/cgroup": "5:cpu,memory:/job\n2:pids:/\n0::/\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        (MEMINFO, 1024_000),
        (MEMINFO | {"proc/self/cgroup": "0::/\n"}, 1024_000),
        (MEMINFO | V2 | {"sys/fs/cgroup/job/step/memory.max": "max\n"}, 1024_000),
        (
            MEMINFO
            | V2
            | {"sys/fs/cgroup/job/step/memory.max": "5000\n", "sys/fs/cgroup/job/step/memory.current": "4000\n"},
            1000,
        ),
        (  # the group above is the tighter one, and some of its usage is files that the system drops on demand
            MEMINFO
            | V2
            | {
                "sys/fs/cgroup/job/step/memory.max": "5000\n",
                "sys/fs/cgroup/job/step/memory.current": "4000\n",
                "sys/fs/cgroup/job/memory.max": "9000\n",
                "sys/fs/cgroup/job/memory.current": "8900\n",
                "sys/fs/cgroup/job/memory.stat": "anon 8500\ninactive_file 400\n",
            },
            500,
        ),
        (
            V1
            | {
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "700\n",
                "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "900\n",
            },
            0,
        ),
    ],
)
def test_available_bytes(tmp_path: Path, files: dict[str, str], expected: int | None) -> None:
    assert available_bytes(write_tree(tmp_path, files)) == expected


def test_ranks_of_a_node_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba_fftmatvec.backends.cpu import backend as cpu

    for available, expected in ((1001, 250), (None, None)):
        monkeypatch.setattr(cpu, "available_bytes", lambda available=available: available)
        place = Place.of([frozenset(range(4))] * 4, 0)
        assert cpu.CpuBackend(place).free_bytes() == expected
