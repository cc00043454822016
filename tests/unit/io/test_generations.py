"""Generations of a matrix directory: the old matrix or the new one, and the files that remain."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numba_fftmatvec.errors import FileError
from numba_fftmatvec.io import (
    MatrixMeta,
    Replacement,
    block_row_writer,
    manifest_path,
    read_block_row,
    read_meta,
    write_block_row,
    write_manifest,
    write_meta,
)
from numba_fftmatvec.io.owner import owner

META = MatrixMeta(3, 4, 5)


def save(directory: Path, value: float, meta: MatrixMeta = META, rows: int | None = None) -> Replacement:
    """Write a matrix of equal values as `Matrix.save` does, or only its first rows and not its metadata."""
    new = Replacement.begin(directory, meta)
    digests = []
    for row in range(meta.Nd if rows is None else rows):
        with block_row_writer(directory, new.meta, row, new.like(row)) as writer:
            writer.write(range(meta.Nm), np.full((meta.Nm, meta.Nt), value))
        digests.append(writer.digest)
    if rows is None:
        write_manifest(directory, new.meta, digests, new.like(0))
        write_meta(directory, new.meta)
        new.end()
    return new


def value_of(directory: Path) -> float:
    """Return the one value of a matrix in a directory."""
    meta = read_meta(directory)
    out = np.empty((meta.Nd, meta.Nm, meta.Nt))
    for row in range(meta.Nd):
        read_block_row(directory, meta, row, range(meta.Nm), out[row])
    assert len(set(out.reshape(-1))) == 1
    return float(out.flat[0])


def names(directory: Path) -> set[str]:
    return {str(path.relative_to(directory / "binary")) for path in directory.rglob("*") if path.is_file()}


def names_of(meta: MatrixMeta) -> set[str]:
    return {"meta_adj", f"{meta.prefix}manifest", *(f"{meta.prefix}{row:06d}.h5" for row in range(meta.Nd))}


def test_a_directory_has_the_files_of_one_matrix(tmp_path: Path) -> None:
    for value, meta in ((1.0, META), (2.0, MatrixMeta(5, 4, 5)), (3.0, MatrixMeta(1, 2, 3, checksum=4))):
        new = save(tmp_path, value, meta)
        assert value_of(tmp_path) == value
        assert names(tmp_path) == names_of(new.meta)
        assert new.meta.prefix.startswith(f"vec_{owner()}-")
        assert read_meta(tmp_path) == new.meta


@pytest.mark.parametrize("prefix", ["vec_", "adj/vec_"])
def test_a_matrix_of_another_program_is_replaced(tmp_path: Path, prefix: str) -> None:
    meta = MatrixMeta(3, 4, 5, prefix)
    for row in range(3):
        write_block_row(tmp_path, meta, row, np.full((4, 5), 1.0))
    write_meta(tmp_path, meta)
    (tmp_path / "binary" / "notes.txt").touch()
    assert names(tmp_path) == names_of(meta) - {f"{prefix}manifest"} | {"notes.txt"}
    new = save(tmp_path, 2.0)
    assert value_of(tmp_path) == 2.0
    assert names(tmp_path) == names_of(new.meta) | {"notes.txt"}


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_an_unfinished_matrix_leaves_the_old_one(tmp_path: Path, rows: int) -> None:
    old = save(tmp_path, 1.0)
    new = save(tmp_path, 2.0, rows=rows)
    assert value_of(tmp_path) == 1.0
    new.abandon()
    assert value_of(tmp_path) == 1.0
    assert names(tmp_path) == names_of(old.meta)


def test_a_finished_matrix_is_not_abandoned(tmp_path: Path) -> None:
    """An interrupt may come after the metadata were replaced."""
    save(tmp_path, 1.0)
    new = save(tmp_path, 2.0)
    new.abandon()
    assert value_of(tmp_path) == 2.0
    assert names(tmp_path) == names_of(new.meta)


def test_metadata_that_cannot_be_read_name_no_matrix_to_remove(tmp_path: Path) -> None:
    new = save(tmp_path, 1.0)
    (tmp_path / "binary" / "meta_adj").write_text("?\n")
    new.abandon()
    assert names(tmp_path) == names_of(new.meta)
    newer = save(tmp_path, 2.0)
    assert value_of(tmp_path) == 2.0
    assert names(tmp_path) == names_of(new.meta) | names_of(newer.meta)


SAVE = """
import os, sys
import numpy as np
from numba_fftmatvec.io import *
directory, rows = sys.argv[1], int(sys.argv[2])
new = Replacement.begin(directory, MatrixMeta(3, 4, 5))
digests = []
for row in range(min(rows, 3)):
    with block_row_writer(directory, new.meta, row, new.like(row)) as writer:
        writer.write(range(4), np.full((4, 5), 7.0))
        if row + 1 == rows:
            os._exit(9)
    digests.append(writer.digest)
if rows >= 4:
    write_manifest(directory, new.meta, digests)
if rows >= 5:
    write_meta(directory, new.meta)
os._exit(9)
"""


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 3, 4, 5])
def test_the_next_save_removes_what_an_ended_one_left(
    tmp_path: Path, rows: int, old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`rows` are the steps before the end: after 5 of them, only the files of the old matrix were left to remove."""
    monkeypatch.setattr("numba_fftmatvec.io.owner._PAUSE", 0)
    before = names_of(save(tmp_path, 1.0).meta) - {"meta_adj"} if old else set()
    ended = subprocess.run([sys.executable, "-c", SAVE, str(tmp_path), str(rows)], check=False, timeout=120)
    assert ended.returncode == 9
    if rows == 5:
        assert value_of(tmp_path) == 7.0
    elif old:
        assert value_of(tmp_path) == 1.0
    else:
        with pytest.raises(FileError, match="meta_adj"):
            read_meta(tmp_path)
    new = save(tmp_path, 2.0)
    assert value_of(tmp_path) == 2.0
    # This process wrote the old matrix, and it has not ended.
    assert names(tmp_path) == names_of(new.meta) | (before if rows == 5 else set())


def test_the_generation_of_another_system_or_of_a_live_process_stays(tmp_path: Path) -> None:
    save(tmp_path, 1.0)
    kept = {f"vec_0a0b0c0d-1-1-01234567_{row:06d}.h5" for row in range(2)} | {f"vec_{owner()}-01234567_manifest"}
    for name in kept:
        (tmp_path / "binary" / name).touch()
    new = save(tmp_path, 2.0)
    assert names(tmp_path) == names_of(new.meta) | kept


def test_permissions_are_kept(tmp_path: Path) -> None:
    old = save(tmp_path, 1.0)
    for name in names(tmp_path):
        (tmp_path / "binary" / name).chmod(0o640)
    new = save(tmp_path, 2.0, MatrixMeta(4, 4, 5))
    for name in names_of(new.meta):
        assert stat.S_IMODE((tmp_path / "binary" / name).stat().st_mode) == 0o640
    assert old.meta != new.meta
    new.meta.block_row_path(tmp_path, 1).chmod(0o444)
    with pytest.raises(FileError, match="expected one that may be written") as caught:
        save(tmp_path, 3.0)
    assert caught.value.errno == errno.EACCES
    assert value_of(tmp_path) == 2.0


def test_a_disk_that_fails_at_any_step_leaves_one_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1.0)
    replace, calls = os.replace, 0

    def failing(at: int) -> Any:
        def function(*arguments: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            replace(*arguments)

        return function

    for at in range(1, 6):
        calls = 0
        with monkeypatch.context() as context:
            context.setattr(os, "replace", failing(at))
            with pytest.raises(FileError, match="No space left") as caught:
                save(tmp_path, 2.0)
        assert caught.value.errno == errno.ENOSPC
        assert value_of(tmp_path) == 1.0
    save(tmp_path, 2.0)
    assert value_of(tmp_path) == 2.0


def test_the_manifest_is_found_by_the_prefix(tmp_path: Path) -> None:
    new = save(tmp_path, 1.0)
    assert manifest_path(tmp_path, new.meta) == tmp_path / "binary" / f"{new.meta.prefix}manifest"
