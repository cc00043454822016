"""The command `fftmatvec check`."""

from __future__ import annotations

import json
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
    status, lines, (manifest, row) = check(matrix)
    assert (status, len(lines)) == (1, 3) and "vec_000001.h5: cannot read the file: No such file" in row
    assert "manifest, line 1: expected 'fftmatvec-manifest 1 3 4 5 0 0', found" in manifest
    assert manifest.endswith("'fftmatvec check --repair-manifest' writes it anew from the block rows")
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
    status, lines, (error,) = check(tmp_path / "x.h5")
    assert (status, lines) == (1, [])
    assert error.startswith(
        f"fftmatvec: error: {tmp_path / 'x.h5'}, vec[13]: expected finite values, found nan; restore"
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.h5"], "absent.h5: expected a file or a matrix directory, found none"),
        (["x.h5", "absent"], "absent: expected a file or a matrix directory, found none"),
        (["other"], "other: expected a matrix directory, with the file binary/meta_adj, found a directory"),
        (["--repair-manifest", "x.h5"], "x.h5: expected a matrix directory, which --repair-manifest repairs, found a"),
        (["--repair-manifest", "m", "absent"], "absent: expected a matrix directory, which --repair-manifest repairs"),
    ],
)
def test_paths_of_another_kind(
    check: Any, matrix: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(matrix.parent)
    (matrix.parent / "other" / "binary").mkdir(parents=True)
    write_vector(matrix.parent / "x.h5", F[0], "col")
    manifest_path(matrix, META).unlink()
    before = sorted(matrix.parent.rglob("*"))
    status, lines, (error,) = check(*arguments)
    assert (status, lines) == (2, []) and error.startswith(f"fftmatvec: error: {message}")
    assert sorted(matrix.parent.rglob("*")) == before


def test_metadata_that_are_damaged(check: Any, matrix: Path) -> None:
    (matrix / "binary" / "meta_adj").write_text("3\n4\n")
    status, lines, (error,) = check(matrix)
    assert (status, lines) == (1, []) and "line 3 (Nt): expected a positive integer" in error
    assert "write its nine lines" in error


@pytest.mark.parametrize("content", [None, "another\n", "stale"])
def test_a_manifest_is_repaired(check: Any, matrix: Path, content: str | None) -> None:
    manifest = manifest_path(matrix, META)
    right = manifest.read_bytes()
    manifest.unlink()
    if content == "stale":
        write_manifest(matrix, META, [bytes(32)] * 3)
        status, lines, errors = check(matrix)
        assert (status, len(errors)) == (1, 3)
        assert all("of the manifest" in error and "accept this one with" in error for error in errors)
    elif content is not None:
        manifest.write_text(content)
    status, lines, errors = check("--repair-manifest", matrix)
    assert (status, errors) == (0, [])
    assert lines[-1] == f"{manifest}: manifest written anew, with other digests of block rows 0, 1, 2"
    assert manifest.read_bytes() == right and check(matrix)[0] == 0
    before = manifest.stat().st_ino
    assert check("--repair-manifest", matrix)[1][-1] == f"{manifest}: manifest"
    assert manifest.stat().st_ino == before


def damage_values(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["vec"][7] += 1.0


def remove_digests(path: Path) -> None:
    with h5py.File(path, "a") as file:
        for name in ("sha256", "sha256_spans", "sha256_span"):
            del file["vec"].attrs[name]


def swap(path: Path) -> None:
    path.write_bytes(path.with_name("vec_000000.h5").read_bytes())


@pytest.mark.parametrize("damage", [damage_values, remove_digests, swap, Path.unlink])
@pytest.mark.parametrize("manifested", [False, True])
def test_no_repair_hides_a_damaged_row(check: Any, matrix: Path, damage: Any, manifested: bool) -> None:
    manifest = manifest_path(matrix, META)
    damage(META.block_row_path(matrix, 1))
    if not manifested:
        manifest.unlink()
    before = manifest.read_bytes() if manifested else None
    status, _, errors = check("--repair-manifest", matrix)
    assert status == 1
    assert "found 1 of 3 damaged or without digests; the manifest is unchanged; restore" in errors[-1]
    assert manifest.exists() == manifested and (not manifested or manifest.read_bytes() == before)
    assert check(matrix)[0] == (0 if not manifested and damage is remove_digests else 1)


def test_findings_as_json(check: Any, matrix: Path) -> None:
    status, lines, errors = check("--json", matrix)
    found = json.loads("\n".join(lines))
    assert (status, errors, found["intact"]) == (0, [], True)
    assert [finding["error"] for finding in found["findings"]] == [None] * 5
    digests = manifest_path(matrix, META).read_text().splitlines()[1:]
    assert [finding["digest"] for finding in found["findings"][2:]] == digests
    damage_values(META.block_row_path(matrix, 1))
    status, lines, errors = check("--json", matrix)
    found = json.loads("\n".join(lines))
    assert (status, errors, found["intact"]) == (1, [], False)
    assert [finding["error"] is None for finding in found["findings"]] == [True, True, True, False, True]
    assert "restore the file" in found["findings"][3]["advice"]


@pytest.mark.parametrize("arguments", [[], ["--fast"], ["x.h5", "-v"]])
def test_arguments(check: Any, arguments: list[str]) -> None:
    status, lines, (error,) = check(*arguments)
    assert (status, lines) == (2, []) and "expected " in error and ", found " in error


def test_help(check: Any) -> None:
    status, lines, errors = check("-h")
    assert (status, errors) == (0, []) and lines[
        0
    ] == "usage: fftmatvec check [-h] [--repair-manifest] [--json] PATH [PATH ...]"
