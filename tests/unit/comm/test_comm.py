"""The attributes and errors of a Comm of one rank; grids are tested with mpiexec."""

from __future__ import annotations

import pytest
from mpi4py import MPI

import numba_fftmatvec as fm


def test_one_rank_on_the_cpu() -> None:
    with fm.Comm(MPI.COMM_SELF, backend="cpu") as comm:
        assert (comm.get_world_rank(), comm.get_world_size()) == (0, 1)
        assert (comm.get_device(), comm.get_stream()) == (None, None)
        assert not comm.has_external_stream()
        comm.synchronize()
        comm.close()  # and once more at the end of the block
    with pytest.raises(fm.ClosedError, match="open Comm"):
        fm.Vector(comm, 1, 1, "col", global_sizes=True)


def test_the_environment_chooses_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_FFTMATVEC_BACKEND", "cpu")
    assert fm.Comm(MPI.COMM_SELF).backend.name == "cpu"
    monkeypatch.setenv("NUMBA_FFTMATVEC_BACKEND", "tpu")
    with pytest.raises(fm.ArgumentError, match="expected one of auto, cpu, cuda, found 'tpu'"):
        fm.Comm(MPI.COMM_SELF)
    assert fm.Comm(MPI.COMM_SELF, backend="cpu").backend.name == "cpu"  # the argument counts more


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backend": "tpu"}, fm.ArgumentError, "expected one of auto, cpu, cuda, found 'tpu'"),
        ({"collectives": "gloo"}, fm.ArgumentError, "expected one of auto, mpi, nccl, found 'gloo'"),
        ({"backend": "cpu", "collectives": "nccl"}, fm.BackendError, "expected a GPU of its own for each rank"),
        ({"backend": "cpu", "stream": object()}, fm.ArgumentError, "expected None with the backend 'cpu'"),
        ({"proc_rows": 0}, fm.ShapeError, "proc_rows: expected a positive integer, found 0"),
    ],
)
def test_bad_options(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fm.Comm(MPI.COMM_SELF, **options)  # type: ignore[arg-type]


def test_other_communicators_are_refused() -> None:
    with pytest.raises(fm.ArgumentTypeError, match=r"expected an mpi4py\.MPI\.Intracomm, found 3"):
        fm.Comm(3)  # type: ignore[arg-type]


@pytest.mark.gpu
def test_the_callers_stream() -> None:
    import cupy

    stream = cupy.cuda.Stream(non_blocking=True)
    with fm.Comm(MPI.COMM_SELF, backend="cuda", stream=stream) as comm:
        assert comm.has_external_stream()
        assert comm.get_stream() is stream
    with fm.Comm(MPI.COMM_SELF, backend="cuda") as comm:
        assert not comm.has_external_stream()


@pytest.mark.gpu
def test_each_comm_queues_its_vectors_work_on_its_own_stream() -> None:
    """While one Comm's stream is busy the other's arithmetic and reductions go on."""
    import cupy

    wait = cupy.RawKernel(
        'extern "C" __global__ void wait() { for (int i = 0; i < 500; i++) __nanosleep(1000000); }', "wait"
    )
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    comms = [fm.Comm(MPI.COMM_SELF, backend="cuda", stream=stream) for stream in streams]
    first, second = (fm.Vector(comm, 3, 4, "col", global_sizes=True) for comm in comms)
    for vector in (first, second):
        vector.init_vec_ones()
        vector.scale(2.0)
        assert vector.norm(1) == 24.0
    with streams[0]:
        wait((1,), (1,), ())
    second.scale(3.0)
    assert second.norm(1) == 72.0
    assert not streams[0].done
    streams[0].synchronize()
    for comm in comms:
        comm.close()


def test_axes_have_the_names_of_the_spaces() -> None:
    with fm.Comm(MPI.COMM_SELF, backend="cpu") as comm:
        assert [comm.axis(space).space for space in ("col", "row")] == ["col", "row"]
        for name in ("diagonal", None, ["col"]):
            with pytest.raises(fm.SpaceError, match="expected 'row' or 'col', found"):
                comm.axis(name)  # type: ignore[arg-type]
