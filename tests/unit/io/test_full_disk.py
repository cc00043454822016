"""Writing where the disk is full, or fails in another way: a named error, the old file, and no temporary file."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numba_fftmatvec.errors import FileError
from numba_fftmatvec.io import MatrixMeta, read_meta, read_vector, vector_writer, write_meta
from numba_fftmatvec.layout import Space, VectorLayout

# From one value to more than any buffer of HDF5 or of Python holds.
SIZES = (1, 500, 8192, 200_000)

# The program limits the size of files, or has a small disk, and writes larger and larger vectors over an older one.
PROGRAM = """
import errno, os, resource, sys
import numpy as np
from numba_fftmatvec.errors import FileError
from numba_fftmatvec.io import read_vector, vector_writer
from numba_fftmatvec.layout import Space, VectorLayout

def write(path, value, size):
    layout = VectorLayout(Space.COL, 1, size, 1, range(1))
    with vector_writer(path, layout) as writer:
        writer.write(range(1), np.full((1, size), value))

folder, kind, *sizes = sys.argv[1:]
path, old = folder + "/v.h5", VectorLayout(Space.COL, 1, 3, 1, range(1))
write(path, 1.0, 3)
failures = 0
for size in map(int, sizes):
    whole = 8 * size + 4096
    for limit in sorted({0, 1, 95, 96, 500, 1500, 2048, 2047 + 8 * size, whole // 2, 8 * size - 1, whole - 4096}):
        if kind == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            write(path, 2.0, size)
        except FileError as error:
            assert error.errno == {"limit": errno.EFBIG, "disk": errno.ENOSPC}[kind], error
            assert path in str(error)
            failures += 1
            out = np.empty((1, 3))
            read_vector(path, old, out)
            assert (out == 1.0).all()
        else:
            out = np.empty((1, size))
            read_vector(path, VectorLayout(Space.COL, 1, size, 1, range(1)), out)
            assert (out == 2.0).all()
            write(path, 1.0, 3)
        assert os.listdir(folder) == ["v.h5"], os.listdir(folder)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(failures)
"""


def test_a_limit_of_the_file_size(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), "limit", *map(str, SIZES)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, finished.stderr
    assert int(finished.stdout) >= 7 * len(SIZES)


def test_a_full_disk(tmp_path: Path) -> None:
    """A file system of 64 KiB in memory, where the user may mount one."""
    mount = "mount -t tmpfs -o size=64k none"
    shell = f'{mount} "$0" && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", shell, str(tmp_path), sys.executable, "-c", PROGRAM, str(tmp_path), "disk"]
    try:
        subprocess.run(["unshare", "-m", "sh", "-c", f'{mount} "$0"', str(tmp_path)], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a file system: {error}")
    finished = subprocess.run([*command, *map(str, SIZES)], capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, finished.stderr
    assert int(finished.stdout) >= 22  # every write of the two larger vectors


# Failures of single calls


def layout_of(size: int) -> VectorLayout:
    return VectorLayout(Space.COL, 2, size, 1, range(2))


def write(path: Path, value: float, size: int = 5) -> None:
    with vector_writer(path, layout_of(size)) as writer:
        for block in range(2):
            writer.write(range(block, block + 1), np.full((1, size), value))


def holds(path: Path, value: float, size: int = 5) -> bool:
    """Return whether a vector has equal values, and its folder has nothing else."""
    out = np.empty((2, size))
    read_vector(path, layout_of(size), out)
    return bool((out == value).all()) and list(path.parent.iterdir()) == [path]


@contextmanager
def failing(patch: pytest.MonkeyPatch, name: str, at: int, number: int) -> Iterator[Callable[[], bool]]:
    """Make one call of a function of `os` fail with an errno; yield a function that says whether it did."""
    original, calls = getattr(os, name), 0

    def function(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if name == "close":
            original(*args)  # Linux frees the descriptor even if close fails
        if calls == at:
            raise OSError(number, os.strerror(number))
        return None if name == "close" else original(*args, **kwargs)

    with patch.context() as context:
        context.setattr(os, name, function)
        yield lambda: calls >= at


# The calls that force the directory to disk, when the new file is in its place.
AFTER_THE_RENAME = {"open": 4, "fsync": 2, "close": 4}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("name", ["open", "ftruncate", "pwrite", "close", "fsync", "replace"])
def test_every_call_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    path, reached = tmp_path / "v.h5", 0
    write(path, 1.0)
    for at in range(1, 100):
        error = None
        with failing(monkeypatch, name, at, number) as failed:
            try:
                write(path, 2.0)
            except FileError as caught:
                error = caught
        if not failed():
            break
        reached += 1
        assert error is not None
        assert error.errno == number
        assert str(path) in str(error)
        assert os.strerror(number) in str(error)
        assert holds(path, 2.0 if at == AFTER_THE_RENAME.get(name) else 1.0)
        write(path, 1.0)
    assert reached >= 1 and holds(path, 2.0)


def test_writes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operating system may write a part of the bytes, and read a part of them."""
    pwrite, preadv = os.pwrite, os.preadv
    with monkeypatch.context() as context:
        context.setattr(os, "pwrite", lambda descriptor, data, offset: pwrite(descriptor, data[:7], offset))
        write(tmp_path / "v.h5", 2.0)
        context.setattr(os, "preadv", lambda descriptor, data, offset: preadv(descriptor, [data[0][:7]], offset))
        assert holds(tmp_path / "v.h5", 2.0)
    assert holds(tmp_path / "v.h5", 2.0)


def test_metadata_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meta = MatrixMeta(3, 4, 5)
    write_meta(tmp_path, meta)
    with failing(monkeypatch, "fsync", 1, errno.ENOSPC), pytest.raises(FileError, match="meta_adj") as caught:
        write_meta(tmp_path, MatrixMeta(6, 7, 8))
    assert caught.value.errno == errno.ENOSPC
    assert read_meta(tmp_path) == meta
    assert [path.name for path in (tmp_path / "binary").iterdir()] == ["meta_adj"]


def test_a_device_is_not_replaced() -> None:
    with pytest.raises(FileError, match="/dev/full: expected a regular file, found a special file"):
        write(Path("/dev/full"), 1.0)
