"""The package and mpi4py can be imported in either order, and the package alone starts no MPI."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.harness import clean_environment, mpiexec

IMPORTS = ("import numba_fftmatvec as pyFFTMatvec", "from mpi4py import MPI")
PRODUCT = """
comm = pyFFTMatvec.Comm(MPI.COMM_WORLD, proc_rows=1, proc_cols=1, backend="cpu")
F = pyFFTMatvec.Matrix(comm, cols=3, rows=2, block_size=4, global_sizes=True)
F.init_mat_ones()
x, y = F.get_vec("input"), F.get_vec("output")
x.init_vec_ones()
F.matvec(x, y)
print(y.gather()[0].round(12).tolist())
"""


@pytest.mark.parametrize("imports", [IMPORTS, IMPORTS[::-1]], ids=["package first", "mpi4py first"])
def test_import_order(imports: tuple[str, str]) -> None:
    script = "\n".join([*imports, PRODUCT])
    done = subprocess.run(
        [sys.executable, "-c", script], env=clean_environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[3.0, 6.0, 9.0, 12.0]"


def test_a_child_of_an_mpi_program_imports_the_package() -> None:
    child = "import sys, numba_fftmatvec, numba_fftmatvec.cli; sys.exit('mpi4py.MPI' in sys.modules)"
    script = f"""
import subprocess, sys
import numba_fftmatvec as fm
comm = fm.Comm(backend="cpu")
print(subprocess.run([sys.executable, "-c", {child!r}]).returncode)
"""
    command = [mpiexec(), "-n", "2", sys.executable, "-c", script]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "".join(done.stdout.split()) == "00"  # the ranks' lines may share one
