"""The package's build description against the source tree, the wheel check, and the README's paths."""

from __future__ import annotations

import importlib.util
import os
import re
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import pytest

import numba_fftmatvec as fft

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def check_wheel() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_wheel", ROOT / ".ci" / "check_wheel.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_package_is_listed() -> None:
    package, kernels = (
        {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in ROOT.glob(f"{folder}/**/__init__.py")}
        for folder in ("numba_fftmatvec", "kernels")
    )
    found = package | {f"numba_fftmatvec.{name}" for name in kernels}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


def test_kernels_is_a_relative_link_to_one_folder() -> None:
    assert os.readlink(ROOT / "numba_fftmatvec" / "kernels") == "../kernels"


def test_nothing_imports_a_top_level_kernels() -> None:
    folders = ("numba_fftmatvec", "kernels", "tests", "bench")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert len(sources) > 20
    banned = re.compile(r"^\s*(import kernels|from kernels)\b", re.MULTILINE)
    assert [str(path) for path in sources if banned.search(path.read_text())] == []


def write_wheel(path: Path, names: set[str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return path


def test_wheel_with_every_file_passes(check_wheel: ModuleType, tmp_path: Path) -> None:
    names = check_wheel.expected_files(ROOT)
    assert {"numba_fftmatvec/kernels/sbgemv/cuda.py", "numba_fftmatvec/py.typed", "numba_fftmatvec/io/hdf5.py"} <= names
    metadata = {"numba_fftmatvec-0.1.0.dist-info/METADATA"}
    assert check_wheel.differences(write_wheel(tmp_path / "all.whl", names | metadata), ROOT) == []


@pytest.mark.parametrize("lost", ["numba_fftmatvec/py.typed", "numba_fftmatvec/kernels/__init__.py"])
def test_wheel_that_lacks_a_file_fails(check_wheel: ModuleType, tmp_path: Path, lost: str) -> None:
    wheel = write_wheel(tmp_path / "less.whl", check_wheel.expected_files(ROOT) - {lost})
    assert check_wheel.differences(wheel, ROOT) == [f"missing: {lost}"]
    assert check_wheel.main([str(wheel), str(ROOT)]) == 1


@pytest.mark.parametrize("extra", ["kernels/__init__.py", "tests/conftest.py", "numba_fftmatvec/notes.txt"])
def test_wheel_with_a_foreign_file_fails(check_wheel: ModuleType, tmp_path: Path, extra: str) -> None:
    wheel = write_wheel(tmp_path / "more.whl", check_wheel.expected_files(ROOT) | {extra})
    assert check_wheel.differences(wheel, ROOT) == [f"unexpected: {extra}"]


def test_one_release_is_named() -> None:
    """The fallback of the version, the citation and the newest heading of the changelog agree."""
    release = PROJECT["tool"]["setuptools_scm"]["fallback_version"].removesuffix(".dev0")
    assert "version" in PROJECT["project"]["dynamic"]
    assert f"\nversion: {release}\n" in (ROOT / "CITATION.cff").read_text()
    newest = re.search(r"^## (?:Unreleased: )?(\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest and newest[1] == release


def test_the_version_is_that_of_the_installed_package() -> None:
    try:
        expected = version("numba-fftmatvec")
    except PackageNotFoundError:
        expected = "0+unknown"
    assert fft.__version__ == expected


def test_the_architecture_page_names_what_exists() -> None:
    """Its tables name folders and modules of the library, and modules of kernels."""
    page = (ROOT / "docs" / "concepts" / "architecture.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    paths = {path for row in rows for path in re.findall(r"`([\w/]+(?:\.py|/))`", row)}
    assert len(paths) > 50
    places = [ROOT / folder for folder in ("", "numba_fftmatvec", "kernels")]
    assert [path for path in sorted(paths) if not any((place / path).exists() for place in places)] == []


def test_readme_names_what_exists() -> None:
    paths = re.findall(r"^\| `([^`]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(paths) > 5
    assert [path for path in paths if not (ROOT / path).exists()] == []
