"""Files that a Comm reads and writes are hashed by the threads of that Comm, not by all cores of the process."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import numba_fftmatvec as fm
from numba_fftmatvec import inversion, solvers
from numba_fftmatvec.io import check_path, digests, vector_writer
from support.hdf5 import layout_of


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pretend to have eight cores; hash a few values by threads; return the numbers of threads of all files."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(digests, "_THREADED", 1)
    found: list[int] = []
    enter = digests._Hashing.__enter__

    def recording(self: digests._Hashing) -> object:
        found.append(self._threads)
        return enter(self)

    monkeypatch.setattr(digests._Hashing, "__enter__", recording)
    return found


def files_of_vectors(comm: fm.Comm, folder: Path) -> None:
    x = fm.Vector(comm, 6, 5, "col")
    x.init_vec_doubles()
    x.save(folder / "x.h5")
    x.init_vec_from_file(folder / "x.h5")


def files_of_matrices(comm: fm.Comm, folder: Path) -> None:
    F = fm.Matrix(comm, 6, 3, 5, global_sizes=True)
    F.init_mat_doubles()
    F.save(folder / "F")
    F.init_mat_from_file(folder / "F")


def files_of_inversions(comm: fm.Comm, folder: Path) -> None:
    F = fm.Matrix.from_array(comm, np.random.default_rng(0).standard_normal((2, 4, 3)))
    inverse = inversion.RealTimeInversion(F, inversion.WhitePrior(4, 1.0), inversion.WhiteNoise(0.1))
    inverse.factorise()
    inverse.save(folder / "factor.h5")
    inverse.load(folder / "factor.h5")
    stream = inverse.stream()
    stream.assimilate(np.ones(2))
    stream.save(folder / "stream.h5")
    inverse.resume(folder / "stream.h5")


def files_of_solvers(comm: fm.Comm, folder: Path) -> None:
    F = fm.Matrix.from_array(comm, np.random.default_rng(0).standard_normal((2, 4, 3)))
    b = F.get_vec("output")
    b.init_vec_doubles()
    with suppress(fm.ConvergenceError):
        solvers.lsqr(F, b, max_iterations=1, restart_file=folder / "restart.h5")
    with suppress(fm.ConvergenceError):
        solvers.lsqr(F, b, max_iterations=2, restart_file=folder / "restart.h5", resume=True)


@pytest.mark.parametrize("use", [files_of_vectors, files_of_matrices, files_of_inversions, files_of_solvers])
def test_files_take_the_threads_of_their_comm(
    use: Callable[[fm.Comm, Path], None], pools: list[int], tmp_path: Path
) -> None:
    with fm.Comm(backend="cpu", threads=1) as comm:
        use(comm, tmp_path)
    assert len(pools) >= 2 and set(pools) == {1}


def test_without_a_comm_files_take_the_cores_of_the_process(pools: list[int], tmp_path: Path) -> None:
    layout = layout_of()
    with vector_writer(tmp_path / "x.h5", layout) as writer:
        writer.write(range(layout.num_blocks), np.ones(layout.shape))
    assert all(finding.error is None for finding in check_path(tmp_path / "x.h5"))
    assert pools == [8, 8]
