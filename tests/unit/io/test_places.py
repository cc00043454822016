"""Files in unusual places: permissions, long and undecodable names, file systems without locks, unfinished files."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from numba_fftmatvec.errors import ArgumentTypeError, FileError
from numba_fftmatvec.io import MatrixMeta, read_block_row, read_meta, read_vector, vector_writer, write_block_row
from numba_fftmatvec.io import write_meta as put_meta
from numba_fftmatvec.io.owner import has_ended, owner, remove_temporaries
from support.hdf5 import BLOCKS, STEPS, get, layout_of


@pytest.fixture(autouse=True)
def search_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search for unfinished files in every write, however short it is."""
    monkeypatch.setattr("numba_fftmatvec.io.owner._PAUSE", 0)


def write(path: Path | bytes, value: float = 1.0) -> None:
    with vector_writer(path, layout_of()) as writer:
        writer.write(range(BLOCKS), np.full((BLOCKS, STEPS), value))


# Permissions


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o666, 0o200])
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_new_version_keeps_the_permissions(tmp_path: Path, mode: int, mask: int) -> None:
    path = tmp_path / "v.h5"
    write(path)
    path.chmod(mode)
    old = os.umask(mask)
    try:
        write(path, 2.0)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    path.chmod(0o600)
    assert (get(path) == 2.0).all()


def test_a_temporary_file_is_never_more_open_than_its_target(tmp_path: Path) -> None:
    path = tmp_path / "v.h5"
    write(path)
    path.chmod(0o600)
    with vector_writer(path, layout_of()) as writer:
        modes = [stat.S_IMODE(entry.stat().st_mode) for entry in tmp_path.iterdir()]
        writer.write(range(BLOCKS), np.ones((BLOCKS, STEPS)))
    assert modes == [0o600, 0o600]


@pytest.mark.parametrize("mode", [0o444, 0o400, 0o555])
def test_a_read_only_file_is_not_replaced(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "v.h5"
    write(path)
    path.chmod(mode)
    with pytest.raises(FileError, match="expected one that may be written, found -r") as caught:
        write(path, 2.0)
    assert caught.value.errno == errno.EACCES
    assert str(path) in str(caught.value)
    assert (get(path) == 1.0).all()
    assert list(tmp_path.iterdir()) == [path]


def test_metadata_keep_their_permissions(tmp_path: Path) -> None:
    put_meta(tmp_path, MatrixMeta(1, 2, 3))
    path = tmp_path / "binary" / "meta_adj"
    path.chmod(0o600)
    put_meta(tmp_path, MatrixMeta(4, 5, 6))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o444)
    with pytest.raises(FileError, match="expected one that may be written"):
        put_meta(tmp_path, MatrixMeta(7, 8, 9))
    assert read_meta(tmp_path) == MatrixMeta(4, 5, 6)


# Names


@pytest.mark.parametrize("name", ["v" * 255, "ü" * 127, "v\n.h5", "v'\"*?[]{}\\ .h5", ".h5"])
def test_names(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path)
    write(path, 2.0)
    assert (get(path) == 2.0).all()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", [b"v.h5", "ü.h5".encode(), b"\xff\xfe.h5"])
def test_bytes(tmp_path: Path, name: bytes) -> None:
    """A name in bytes need not be decodable."""
    path = os.fsencode(tmp_path) + b"/" + name
    write(path)
    out = np.empty((BLOCKS, STEPS))
    read_vector(path, layout_of(), out)
    assert (out == 1.0).all()
    assert os.listdir(os.fsencode(tmp_path)) == [name]


def test_a_matrix_by_bytes(tmp_path: Path) -> None:
    directory, meta, blocks = os.fsencode(tmp_path) + b"/m\xff", MatrixMeta(2, 2, 3), np.arange(12.0).reshape(2, 2, 3)
    for row in range(2):
        write_block_row(directory, meta, row, blocks[row])
    put_meta(directory, meta)
    assert read_meta(directory) == meta
    out = np.empty((2, 3))
    for row in range(2):
        read_block_row(directory, meta, row, range(2), out)
        np.testing.assert_array_equal(out, blocks[row])


@pytest.mark.parametrize("path", [None, 3, 2.5, ["v.h5"]])
def test_paths_of_another_type(path: object) -> None:
    with pytest.raises(ArgumentTypeError, match="path: expected a str, bytes or path-like object, found "):
        write(path)  # type: ignore[arg-type]


# Locks


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EAGAIN, errno.ENOSYS, errno.EINVAL])
def test_file_systems_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    write(tmp_path / "v.h5")
    assert (get(tmp_path / "v.h5") == 1.0).all()
    write(tmp_path / "v.h5", 2.0)
    assert (get(tmp_path / "v.h5") == 2.0).all()


NO_LOCKS = """
#include <errno.h>
int flock(int descriptor, int operation) { errno = NUMBER; return -1; }
"""
ROUND_TRIP = """
import sys
import numpy as np
from numba_fftmatvec.io import read_vector, vector_writer
from numba_fftmatvec.layout import Space, VectorLayout
layout, out = VectorLayout(Space.COL, 2, 3, 1, range(2)), np.empty((2, 3))
for value in (1.0, 2.0):
    with vector_writer(sys.argv[1], layout) as writer:
        writer.write(range(2), np.full((2, 3), value))
    read_vector(sys.argv[1], layout, out)
    assert (out == value).all()
"""


@pytest.mark.parametrize("number", [37, 95, 11])
def test_a_system_without_locks(tmp_path: Path, number: int) -> None:
    """The C library's flock fails, also for HDF5."""
    source, library = tmp_path / "flock.c", tmp_path / "flock.so"
    source.write_text(NO_LOCKS)
    try:
        subprocess.run(["cc", "-shared", "-fPIC", f"-DNUMBER={number}", "-o", library, source], check=True)
    except OSError as error:
        pytest.skip(f"no C compiler: {error}")
    environment = os.environ | {"LD_PRELOAD": str(library)}
    subprocess.run([sys.executable, "-c", ROUND_TRIP, str(tmp_path / "v.h5")], env=environment, check=True, timeout=120)


# Unfinished files


@pytest.fixture
def ended() -> str:
    """The owner of files that a process of this system left, which has ended."""
    code = "from numba_fftmatvec.io.owner import owner; print(owner())"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return finished.stdout.strip()


def test_who_has_ended(ended: str) -> None:
    system, process, start = owner().split("-")
    assert not has_ended(owner())
    assert has_ended(ended)
    assert has_ended(f"{system}-{process}-{int(start) - 1}")  # an earlier process of the same number
    assert not has_ended(f"{'0' * 8}-{ended.partition('-')[2]}")  # of another system
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as child:
        begun = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
        assert not has_ended(f"{system}-{child.pid}-{begun}")


def test_the_next_write_removes_the_files_of_ended_processes(tmp_path: Path, ended: str) -> None:
    other = "0a0b0c0d" + ended[8:]
    kept = [f".fftmatvec.{owner()}.01234567.tmp", f".fftmatvec.{other}.01234567.tmp", ".v.h5.99.01234567.tmp", "x.tmp"]
    for name in (*kept, f".fftmatvec.{ended}.01234567.tmp", f".fftmatvec.{ended}.89abcdef.tmp"):
        (tmp_path / name).touch()
    write(tmp_path / "v.h5")
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "v.h5"])


def test_searches_take_a_small_part_of_the_time(tmp_path: Path, ended: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of many files is not searched in every write."""
    left = tmp_path / f".fftmatvec.{ended}.01234567.tmp"
    monkeypatch.setattr("numba_fftmatvec.io.owner._PAUSE", 10**9)
    monkeypatch.setattr("numba_fftmatvec.io.owner._next_search", 0.0)
    remove_temporaries(tmp_path)
    left.touch()
    remove_temporaries(tmp_path)
    assert left.exists()
    monkeypatch.setattr("numba_fftmatvec.io.owner._next_search", 0.0)
    remove_temporaries(tmp_path)
    assert not left.exists()
