"""The command `fftmatvec check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from numba_fftmatvec import cli
from numba_fftmatvec.io import MatrixMeta, block_row_writer, manifest_path, vector_writer, write_manifest, write_meta
from support.files import write_matrix, write_vector
from support.hdf5 import layout_of

F = np.random.default_rng(1).standard_normal((3, 4, 5))
META = MatrixMeta(3, 4, 5)


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs the command, and returns its status, its lines and those of its errors."""

    def run(*paths: Path | str) -> tuple[int, list[str], list[str]]:
        status = cli.main(["check", *map(str, paths)])
        output = capsys.readouterr()
        return status, output.out.splitlines(), output.err.splitlines()

    return run


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    digests = []
    for row in range(3):
        with block_row_writer(tmp_path / "m", META, row) as writer:
            writer.write(range(4), F[row])
        digests.append(writer.digest)
    write_manifest(tmp_path / "m", META, digests)
    write_meta(tmp_path / "m", META)
    return tmp_path / "m"


def test_a_matrix_with_digests(check: Any, matrix: Path) -> None:
    rows = [f"{META.block_row_path(matrix, row)}: verified by digests" for row in range(3)]
    sizes = f"{matrix}/binary/meta_adj: 3 block rows of 4 blocks of 5"
    assert check(matrix) == (0, [sizes, f"{matrix}/binary/vec_manifest: manifest", *rows], [])


def test_every_damaged_row_is_named(check: Any, matrix: Path) -> None:
    for row in (0, 2):
        path = META.block_row_path(matrix, row)
        with h5py.File(path, "a") as file:
            file["vec"][7] += 1.0
    status, lines, errors = check(matrix)
    assert status == 1
    assert lines[2:] == [f"{META.block_row_path(matrix, 1)}: verified by digests"]
    assert len(errors) == 2
    for row, error in zip((0, 2), errors, strict=True):
        assert error.startswith(f"fftmatvec: error: {META.block_row_path(matrix, row)}, vec[0:20]: expected values of")


def test_a_row_that_is_missing_and_a_manifest_of_another_size(check: Any, matrix: Path) -> None:
    META.block_row_path(matrix, 1).unlink()
    status, lines, (error,) = check(matrix)
    assert (status, len(lines)) == (1, 4) and "vec_000001.h5: cannot read the file: No such file" in error
    write_manifest(matrix, MatrixMeta(4, 4, 5), [bytes(32)] * 4)
    status, lines, errors = check(matrix)
    assert (status, len(lines), len(errors)) == (1, 2, 3)
    assert manifest_path(matrix, META).exists()


def test_files_without_digests(check: Any, tmp_path: Path) -> None:
    write_matrix(tmp_path / "m", F)
    write_vector(tmp_path / "x.h5", F[0], "col")
    status, lines, errors = check(tmp_path / "m", tmp_path / "x.h5")
    assert (status, errors) == (0, [])
    assert lines[1].endswith("row_manifest: no manifest: block rows of other matrices are not noticed")
    assert [line.endswith(": format and values checked: no digests") for line in lines] == [False, False] + [True] * 4
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file["vec"][13] = np.nan
    assert check(tmp_path / "x.h5") == (
        1,
        [],
        [f"fftmatvec: error: {tmp_path / 'x.h5'}, vec[13]: expected finite values, found nan"],
    )


@pytest.mark.parametrize(("space", "qoi", "num_vecs"), [("col", False, 1), ("row", False, 4), ("row", True, 1)])
def test_vectors(check: Any, tmp_path: Path, space: str, qoi: bool, num_vecs: int) -> None:
    path, layout = tmp_path / "x.h5", layout_of(space, num_vecs=num_vecs)
    with vector_writer(path, layout, qoi=qoi, checksum=3) as writer:
        writer.write(range(6), np.ones(layout.shape))
    assert check(path) == (0, [f"{path}: verified by digests"], [])
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        content[file["vec"].id.get_offset() + 9] ^= 4
    path.write_bytes(content)
    status, lines, (error,) = check(path)
    assert (status, lines) == (1, []) and f"{path}, vec[0:{30 * num_vecs}]: expected values of the SHA-256" in error


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"reindex": 1}, "expected the attributes n_param, param_steps or n_obs, obs_steps, found only 'reindex'"),
        ({"reindex": 1, "n_param": 0, "param_steps": 5}, "attributes: number of blocks: expected a positive integer"),
        ({"reindex": 1, "n_param": 6, "param_steps": 6}, "vec: expected shape (36,) (6 blocks of 6), found (30,)"),
    ],
)
def test_vectors_of_another_format(check: Any, tmp_path: Path, attributes: dict[str, int], message: str) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("vec", data=np.ones(30)).attrs.update(attributes)
    status, lines, (error,) = check(tmp_path / "x.h5")
    assert (status, lines) == (1, []) and message in error


def test_paths_that_are_no_files(check: Any, tmp_path: Path) -> None:
    status, lines, errors = check(tmp_path, tmp_path / "absent.h5")
    assert (status, lines, len(errors)) == (1, [], 2)
    assert "binary/meta_adj: cannot read the file" in errors[0] and "absent.h5: cannot read the file" in errors[1]


@pytest.mark.parametrize("arguments", [[], ["--fast"], ["x.h5", "-v"]])
def test_arguments(check: Any, arguments: list[str]) -> None:
    status, lines, (error,) = check(*arguments)
    assert (status, lines) == (2, []) and "expected " in error and ", found " in error


def test_help(check: Any) -> None:
    status, lines, errors = check("-h")
    assert (status, errors) == (0, []) and lines[0] == "usage: fftmatvec check [-h] PATH [PATH ...]"
