"""Writing vectors to HDF5 files: round trips, and the old file where a write fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from numba_fftmatvec.errors import ArgumentError, ArgumentTypeError, FileError, FileFormatError, ShapeError
from numba_fftmatvec.io import read_vector, vector_writer
from support.hdf5 import ATTRIBUTES, BLOCKS, ROW_ATTRIBUTES, STEPS, VALUES, attributes_of, get, layout_of, put


@pytest.mark.parametrize(
    ("space", "qoi", "checksum", "attributes"),
    [
        ("col", False, 0, ATTRIBUTES),
        ("col", False, 5, ATTRIBUTES | {"checksum": 5}),
        ("row", False, 0, ROW_ATTRIBUTES),
        ("row", True, 2**63 - 1, ROW_ATTRIBUTES | {"qoi": 1, "checksum": 2**63 - 1}),
    ],
)
def test_vector_round_trip(tmp_path: Path, space: str, qoi: bool, checksum: int, attributes: dict[str, int]) -> None:
    path, values = tmp_path / "v.h5", np.random.default_rng(1).standard_normal((BLOCKS, STEPS))
    layout, marks = layout_of(space), {"checksum": checksum, "qoi": qoi}
    with vector_writer(path, layout, **marks) as writer:
        writer.write(range(4, 6), values[4:])
        writer.write(range(0, 4), np.asfortranarray(values[:4]))
    np.testing.assert_array_equal(get(path, layout, **marks), values)
    assert attributes_of(path) == attributes
    with h5py.File(path) as file:
        assert list(file) == ["vec"]
        assert file["vec"].dtype == np.dtype("f8")
        np.testing.assert_array_equal(file["vec"][:], values.reshape(-1))
    assert list(tmp_path.iterdir()) == [path]


def test_several_vectors_round_trip(tmp_path: Path) -> None:
    """The vectors are stored one after another; a reader takes its blocks of each."""
    path, values = tmp_path / "v.h5", np.random.default_rng(2).standard_normal((3, BLOCKS, STEPS))
    with vector_writer(path, layout_of(num_vecs=3)) as writer:
        writer.write(range(4, 6), values[:, 4:])
        writer.write(range(0, 4), np.ascontiguousarray(values[:, :4]))
    assert attributes_of(path) == ATTRIBUTES | {"num_vecs": 3}
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["vec"][:], values.reshape(-1))
    for blocks in (range(0, 6), range(0, 1), range(2, 5), range(3, 3)):
        out = np.full((3, len(blocks), STEPS), np.nan)
        read_vector(path, layout_of(num_vecs=3, blocks=blocks), out)
        np.testing.assert_array_equal(out, values[:, blocks.start : blocks.stop])


def test_non_finite_values_of_several_vectors(tmp_path: Path) -> None:
    values = np.tile(VALUES, 3)
    values[2 * 30 + 13] = np.inf
    path = put(tmp_path / "x.h5", ATTRIBUTES | {"num_vecs": 3}, data=values)
    out = np.empty((3, 3, STEPS))
    with pytest.raises(FileFormatError, match=r"vec\[73\] \(vector 2, block 2, step 3\): .* found inf"):
        read_vector(path, layout_of(num_vecs=3, blocks=range(1, 4)), out)
    read_vector(path, layout_of(num_vecs=3, blocks=range(1, 4)), out, allow_nonfinite=True)
    np.testing.assert_array_equal(out, values.reshape(3, BLOCKS, STEPS)[:, 1:4])


def test_blocks_of_one_vector_are_not_those_of_several(tmp_path: Path) -> None:
    says = r"expected shape \(3, 6, 5\), found \(6, 5\)"
    with pytest.raises(ShapeError, match=says), vector_writer(tmp_path / "v.h5", layout_of(num_vecs=3)) as writer:
        writer.write(range(6), VALUES.reshape(BLOCKS, STEPS))
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_has_the_users_usual_permissions(tmp_path: Path) -> None:
    write(tmp_path / "v.h5")
    (tmp_path / "plain").touch()
    assert (tmp_path / "v.h5").stat().st_mode == (tmp_path / "plain").stat().st_mode


def write(path: Path, value: float = 1.0, blocks: int = BLOCKS) -> None:
    """Write a vector of equal values, or only its first `blocks` blocks."""
    with vector_writer(path, layout_of()) as writer:
        writer.write(range(blocks), np.full((blocks, STEPS), value))


def unchanged(path: Path, value: float = 1.0) -> bool:
    """Return whether the folder contains the old file and nothing else."""
    return list(path.parent.iterdir()) == [path] and bool((get(path) == value).all())


def test_blocks_that_were_not_written(tmp_path: Path) -> None:
    path = tmp_path / "v.h5"
    write(path)
    with pytest.raises(ShapeError, match="expected values of all 6 blocks, found 4: block 4 was not written") as caught:
        write(path, 2.0, blocks=4)
    assert str(path) in str(caught.value)
    assert unchanged(path)


@pytest.mark.parametrize("error", [ValueError("mine"), OSError(5, "mine"), KeyboardInterrupt()])
def test_an_exception_leaves_the_old_file_and_stays_itself(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "v.h5"
    write(path)

    def interrupted() -> None:
        with vector_writer(path, layout_of()) as writer:
            writer.write(range(3), np.full((3, STEPS), 2.0))
            raise error

    with pytest.raises(type(error)) as caught:
        interrupted()
    assert caught.value is error
    assert unchanged(path)


def test_an_exception_without_an_old_file_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), vector_writer(tmp_path / "v.h5", layout_of()):
        raise RuntimeError("mine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    path = tmp_path / "v.h5"
    write(path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(FileError, match="cannot replace the file: No space left on device") as caught:
        write(path, 2.0)
    assert str(path) in str(caught.value)
    assert unchanged(path)


CRASH = """
import os, sys
import numpy as np
from numba_fftmatvec.io import vector_writer
from numba_fftmatvec.layout import Space, VectorLayout
where, path = sys.argv[1:]
if where != "write":
    setattr(os, where, lambda *_: os._exit(7))
with vector_writer(path, VectorLayout(Space.COL, 6, 5, 1, range(6))) as writer:
    writer.write(range(6), np.full((6, 5), 2.0))
    if where == "write":
        os._exit(7)
"""


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_killed_writer_leaves_the_old_file(tmp_path: Path, where: str) -> None:
    path = tmp_path / "v.h5"
    write(path)
    old = path.read_bytes()
    status = subprocess.run([sys.executable, "-c", CRASH, where, str(path)], timeout=120, check=False)
    assert status.returncode == 7
    assert path.read_bytes() == old
    left = [entry.name for entry in tmp_path.iterdir() if entry != path]
    assert len(left) == 1
    assert re.fullmatch(r"\.fftmatvec\.[0-9a-f]{8}-\d+-\d+\.[0-9a-f]{8}\.tmp", left[0])
    write(path, 3.0)  # it removes the left-over file
    assert unchanged(path, 3.0)


def test_the_new_file_is_on_disk_before_it_takes_the_old_ones_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, steps, fsync, replace = tmp_path / "v.h5", [], os.fsync, os.replace

    def spy_fsync(descriptor: int) -> None:
        steps.append(("fsync", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def spy_replace(source: Path, target: Path) -> None:
        steps.append(("replace", os.stat(source).st_ino))
        assert (get(Path(source)) == 1.0).all()
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    write(path)
    file, directory = path.stat().st_ino, tmp_path.stat().st_ino
    assert steps == [("fsync", file), ("replace", file), ("fsync", directory)]


def test_where_a_vector_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "nowhere" / "v.h5", tmp_path / "loop" / "v.h5", tmp_path / ("v" * 256)):
        with pytest.raises(FileError) as caught:
            write(path)
        assert str(path) in str(caught.value)
    with pytest.raises(FileError, match="expected a regular file, found a directory"):
        write(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="expected a regular file, found a special file"):
        write(tmp_path / "pipe")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["loop", "pipe"]


def test_a_link_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    write(tmp_path / "real.h5")
    (tmp_path / "v.h5").symlink_to("real.h5")
    write(tmp_path / "v.h5", 2.0)
    assert not (tmp_path / "v.h5").is_symlink()
    assert (get(tmp_path / "real.h5") == 1.0).all()
    assert (get(tmp_path / "v.h5") == 2.0).all()


@pytest.mark.parametrize(
    ("blocks", "values", "error"),
    [
        (range(0, 2), np.zeros((3, STEPS)), ShapeError),
        (range(5, 7), np.zeros((2, STEPS)), ArgumentError),
        (range(0, 2), np.zeros((2, STEPS), "f4"), ArgumentTypeError),
    ],
)
def test_bad_values_to_write(tmp_path: Path, blocks: range, values: np.ndarray, error: type[Exception]) -> None:
    path = tmp_path / "v.h5"
    with pytest.raises(error, match="expected") as caught, vector_writer(path, layout_of()) as writer:
        writer.write(blocks, values)
    assert type(caught.value) is error
    assert str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []
